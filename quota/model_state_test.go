package quota

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

// The state that the model explores: Redis, Postgres, the keeper, and each replica with its
// journal, its account and its calls on their way. One customer, one period. It is flat and
// small, so that millions can be compared. Numbers are small; limits are named by version.

const (
	modelReplicas = 3 // at most
	modelEvents   = 3 // of one replica, at most
	modelLate     = 2 // calls of one replica that nobody waits for any more, at most
)

// States of modelCall.
const (
	callNone     = iota
	callSent     // not at Redis yet
	callAnswered // its answer is on the way back
)

// modelCall is a call on its way, or its answer.
type modelCall struct {
	state                      int8
	epoch, number, base        int8
	floor, least, need, spare  int8
	version                    int8
	from, to                   int8 // it settles the events above from up to to
	status, lease, mark, limit int8 // the answer; limit by version
	free                       int8 // by the answer, what nobody leases; less than 0 when the limit was lowered
	orphan                     bool // its process died
}

// States of an epoch, as numbers.
const (
	epochNone = iota
	epochBuilding
	epochDeclaring
	epochOpen
)

// Members of the register in Redis, when they are not bases.
const (
	memberNone   = -1
	memberGone   = -2 // declared lost
	memberToCome = -3 // it gets its base later
)

// inRedis is what Redis has of one replica.
type inRedis struct {
	lease, call, mark int8
	shut              bool
	counted           uint8 // not in Redis: the events that settled contains
	member            int8  // base, memberNone or memberGone
	declared          bool
	beat              int8 // beatNone …
	beatLast          int8 // with beatGone: number of the last event
	beatEpoch         int8 // with beatGone: epoch in which all was settled and returned
	beatLife          int8 // of the journal
	next              int8 // life that waits until the retirement of an earlier one was dealt with
	excess            bool // not in Redis: lease may be more than the replica knows of, see deliver
}

// Beats, as numbers.
const (
	beatNone = iota
	beatHere
	beatGone
)

// starts says which start it is of the server with the record, and of the one with the
// epoch, which may be the same.
type starts struct{ record, epoch int8 }

// redisState is the rest of what Redis has.
type redisState struct {
	epoch, version, settled, leased int8   // the record; limit by version, epoch less than 0 while sealed
	number, phase                   int8   // the epoch's key
	nodes                           starts // that the epoch trusts
}

// Registered states of a replica in Postgres.
const (
	replicaUnknown = iota
	replicaLive
	replicaLost
)

// replicaState is one replica, and what others have of it. Replicas are alike, so all
// that belongs to one stays together.
type replicaState struct {
	up, confirmed, lost, open, conn bool
	dirty                           bool // to be called without anybody waiting
	epoch, base                     int8
	lease                           int8
	settled                         int8 // events up to here are settled as far as is known, or forgotten
	read                            int8 // events up to here were taken from the journal
	limit, grant                    int8 // versions: of the last answer, of the newest grant
	declared                        int8
	life                            int8 // of the journal, the last one when down; counted only where replicas retire
	beaten                          bool // this life has given a sign of itself
	retiring                        bool // it has said that it retires, and gives none any more
	calls                           int8 // number of the last call
	call                            modelCall
	late                            [modelLate]modelCall

	last, forgotten int8
	used, reserved  [modelEvents]int8 // of events; reserved is 0 once read
	open1, open2    int8              // open requests of 1 and 2 tokens

	forgetting                          int8 // steps of forgetting: see forget
	forgetAcked, forgetEpoch, forgetTo  int8
	heard                               bool // an answer to follow is on its way
	heardEpoch, heardPhase, heardMember int8

	rows    uint8 // in Postgres
	status  int8  // in Postgres
	pgBase  int8  // in Postgres, of its epoch
	member  bool  // in Postgres: it may enter the epoch
	pgLife  int8  // in Postgres: the newest life that was noted
	retired bool  // its process ended in order

	lateBase   int8 // of the keeper's late command
	lateMember int8 // likewise, as a member that begins

	redis, snap inRedis
}

// keeperState is the control plane's memory.
type keeperState struct {
	step  int8   // 0 nothing under way; see keeper
	nodes starts // that it saw
}

// makerState is who makes the record within an epoch: another process of the control plane,
// or the keeper.
type makerState struct {
	step   int8 // 0 nothing under way; see make
	epoch  int8
	sealed bool
}

// lateKeeper is a command of the keeper that nobody waits for any more.
type lateKeeper struct {
	step, epoch, version, settled int8
	nodes                         starts
}

type state struct {
	world
	r [modelReplicas]replicaState
}

// world is all that belongs to no replica.
type world struct {
	redis, snap redisState
	snapped     bool
	starts      starts // which are these
	epoch       int8   // in Postgres
	based       int8   // in Postgres: the newest epoch whose bases are set
	marked      int8   // in Postgres: the newest epoch in which the record was to be made
	made        int8   // in Postgres: the newest epoch in which it is known to have been there
	version     int8   // in Postgres: of the limit
	keeper      keeperState
	makers      [2]makerState // of another process, of the keeper
	late        lateKeeper

	// Not part of the system.
	stale  bool // the record is a copy from before a loss
	opened int8 // the newest epoch that was opened
	limit  int8 // what may be used: max(limit, what was used and held when it was lowered)

	timeouts, crashes, losses, keeperCrashes int8 // so far
}

// idle is what a replica may give out.
func (r *replicaState) idle() int8 { return r.lease - r.held() - r.unsettled() }

// held is reserved: by open requests, and by events that were not read yet.
func (r *replicaState) held() int8 {
	held := r.inFlight()
	for seq := r.read; seq < r.last; seq++ {
		held += r.reserved[seq]
	}
	return held
}

func (r *replicaState) inFlight() int8 { return r.open1 + 2*r.open2 }

// unsettled was used and read, and is not known to be settled.
func (r *replicaState) unsettled() int8 { return r.sum(r.settled, r.read) }

// sum is what the events above from up to to used.
func (r *replicaState) sum(from, to int8) (n int8) {
	for seq := from; seq < to; seq++ {
		n += r.used[seq]
	}
	return n
}

// acked is the highest n such that all events up to n are in Postgres.
func (r *replicaState) acked() (n int8) {
	for r.rows>>n&1 != 0 {
		n++
	}
	return n
}

// upTo is the set of the events up to n.
func upTo(n int8) uint8 { return 1<<n - 1 }

// renumber replaces the numbers of a replica's calls by their ranks: only their order matters.
func (r *replicaState) renumber() {
	numbers := [...]*int8{&r.redis.call, &r.snap.call, &r.calls, &r.call.number, &r.late[0].number, &r.late[1].number}
	var there uint64
	for _, n := range numbers {
		there |= 1 << *n
	}
	there &^= 1 // 0 is no number
	for _, n := range numbers {
		*n = int8(bits.OnesCount64(there & (2<<*n - 1)))
	}
}

// renumberLives does so for lives.
func (r *replicaState) renumberLives() {
	lives := [...]*int8{&r.life, &r.redis.beatLife, &r.snap.beatLife, &r.redis.next, &r.snap.next, &r.pgLife}
	var there uint64
	for _, n := range lives {
		there |= 1 << *n
	}
	there &^= 1 // 0 is none
	for _, n := range lives {
		*n = int8(bits.OnesCount64(there & (2<<*n - 1)))
	}
}

// tidy removes what cannot matter any more, so that equal futures look equal.
func (s *state) tidy(m *model, r *replicaState) {
	for j := range r.late {
		l := &r.late[j]
		// Redis refuses it whenever it comes. Only a flaw can bring back a record of its
		// epoch that has not heard of a newer call.
		if l.state != callNone && m.flaw == flawNone && (s.redis.epoch > l.epoch || s.redis.epoch == l.epoch && r.redis.call >= l.number) {
			*l = modelCall{}
		}
	}
	if less(&r.late[1], &r.late[0]) {
		r.late[0], r.late[1] = r.late[1], r.late[0]
	}
	if m.flaw != flawNumbersStartAgain { // which depends on more than their order
		r.renumber()
	}
	r.renumberLives()
}

func less(a, b *modelCall) bool { return a.number > b.number } // used ones first

// hash is equal for states that differ in the names of replicas only.
func (s *state) hash(seed maphash.Seed, replicas int8) uint64 {
	var parts [modelReplicas + 1]uint64
	for i := range replicas {
		parts[i] = maphash.Comparable(seed, s.r[i])
	}
	slices.Sort(parts[:replicas])
	parts[modelReplicas] = maphash.Comparable(seed, s.world)
	return maphash.Comparable(seed, parts)
}
