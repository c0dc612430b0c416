package quota

import "math/bits"

// What the control plane does, as steps of the model. The rules that whoever drives a Keeper
// has to keep are here:
//
//   - An epoch gets a new number in Postgres, then Begin, then the bases are read, of all
//     replicas, and kept in Postgres. A keeper that died or failed on the way, or whose
//     command was not answered, begins with a new number.
//   - That a record is made is noted before. One that is noted for the epoch and missing was
//     lost: a new epoch.
//   - Who makes a record outside of the beginning of an epoch makes it sealed, and opens it when
//     the epoch is found to hold after that.
//   - A replica joins with its base of the epoch, not with what was acknowledged since.
//   - Redis' servers are trusted that were there before the epoch began.
//   - A replica retires when Postgres has all of its events, and the records as well, since it
//     has settled all and returned all in this epoch, or in an earlier one and this one's were
//     made with all of its events. The server that says so must be trusted
//     in that very step: an old copy could say so as well.
//   - A life is noted in Postgres before it can lease: before it joins, and before an epoch is
//     opened in which it has declared. What says that an earlier one has retired is not
//     believed from then on. None is noted that has not begun: the last one is always believed.
//   - An epoch whose member is lost before it has declared is followed by another one.
//   - What a lost replica leases is given out again only when it cannot serve any more: the
//     grace after it could last read that it is registered.

// Steps of the keeper. It is at the step that it does next.
const (
	keeperIdle = iota
	keeperBegin
	keeperBases
	keeperPut
	keeperMembers
	keeperOpen // only as a late command
)

// sound reports whether the keeper sees no reason for a new epoch.
func (m *model) sound(s *state) bool {
	for i := range m.replicas {
		if s.redis.phase == epochDeclaring && (m.lostEarly(&s.r[i]) || m.retiredBefore(s, &s.r[i])) {
			return false
		}
	}
	return s.redis.number == s.epoch && s.redis.nodes == s.starts && s.redis.phase >= epochDeclaring &&
		(s.redis.epoch == s.epoch || s.made != s.epoch)
}

// leaderIdle reports whether the keeper has nothing under way.
func (m *model) leaderIdle(s *state) bool {
	return s.keeper.step == keeperIdle && s.makers[1].step == makerIdle
}

// number takes a new number. What the keeper knows of Redis' start is from before.
func (m *model) number(s *state) {
	if m.flaw == flawResume && s.redis.number == s.epoch && s.redis.phase == epochBuilding {
		s.keeper = keeperState{keeperBases, s.starts}
		return
	}
	s.epoch++
	s.keeper = keeperState{keeperBegin, s.starts}
	if m.flaw == flawBasesEarly {
		m.bases(s)
	}
}

func (m *model) bases(s *state) {
	for i := range m.replicas {
		s.r[i].pgBase = s.r[i].acked()
		if m.flaw == flawBaseHighest {
			s.r[i].pgBase = int8(bits.Len8(s.r[i].rows))
		}
	}
	s.based = s.epoch
}

// command is what the keeper's next step sends to Redis.
func (m *model) command(s *state) lateKeeper {
	c := lateKeeper{step: s.keeper.step, epoch: s.epoch, nodes: s.keeper.nodes, version: s.version, settled: m.sumOfBases(s)}
	for i := range m.replicas {
		r := &s.r[i]
		r.lateBase, r.lateMember = r.pgBase, r.toCome()
	}
	return c
}

// toCome is what an epoch says of r that begins.
func (r *replicaState) toCome() int8 {
	switch r.status {
	case replicaLive:
		return memberToCome
	case replicaLost:
		return memberGone
	}
	return memberNone
}

// told reports whether r, which is lost, may still be told by the beginning of an epoch
// that it is not: a command that is late is void long before a grace is over.
func (m *model) told(s *state, r *replicaState) bool {
	return s.late.step == keeperBegin && r.lateMember == memberToCome
}

// sumOfBases is what Postgres has settled, without the events above the bases.
func (m *model) sumOfBases(s *state) (n int8) {
	for i := range m.replicas {
		r := &s.r[i]
		for seq := range r.last {
			n += r.used[seq] * int8(m.contained(r, r.pgBase)>>seq&1)
		}
	}
	return n
}

// contained are the events that a record contains which is made with base.
func (m *model) contained(r *replicaState, base int8) uint8 {
	if m.flaw == flawAllRows {
		return r.rows
	}
	return r.rows & upTo(base)
}

// keep does the keeper's next step.
func (m *model) keep(s *state) {
	switch s.keeper.step {
	case keeperBases:
		if m.flaw != flawBasesEarly {
			m.bases(s)
		}
		s.keeper.step = keeperPut
		return
	case keeperPut:
		s.mark()
		if s.redis.number != s.epoch {
			s.keeper = keeperState{}
			return
		}
	}
	c := m.command(s)
	m.execute(s, &c)
	if m.flaw == flawPutTwice && s.keeper.step == keeperPut && s.late.step == 0 {
		s.late = c
	} else if s.late.step == 0 {
		m.forgetLate(s)
	}
	if s.keeper.step == keeperMembers {
		s.keeper = keeperState{}
	} else {
		s.keeper.step++
	}
}

// mark notes that the record is part of the epoch's beginning, unless somebody else has
// noted it for the epoch.
func (s *state) mark() {
	if s.marked < s.epoch {
		s.marked, s.made = s.epoch, s.epoch
	}
}

// delay lets the keeper's next command be late; the keeper does not wait.
func (m *model) delay(s *state) {
	if s.keeper.step == keeperPut {
		s.mark()
	}
	s.late = m.command(s)
	s.keeper = keeperState{}
}

// forgetLate forgets what a late command knew.
func (m *model) forgetLate(s *state) {
	s.late = lateKeeper{}
	for i := range m.replicas {
		s.r[i].lateBase, s.r[i].lateMember = 0, 0
	}
}

// execute lets Redis execute a command of the keeper.
func (m *model) execute(s *state, c *lateKeeper) {
	switch c.step {
	case keeperBegin:
		s.redis.number, s.redis.phase, s.redis.nodes = c.epoch, epochBuilding, c.nodes
		for i := range m.replicas {
			s.r[i].redis.member, s.r[i].redis.declared = s.r[i].lateMember, false
		}
	case keeperPut:
		m.put(s, c.epoch, c.version, c.settled, false, func(r *replicaState) int8 { return r.lateBase })
	case keeperMembers:
		if s.redis.number != c.epoch {
			return
		}
		s.redis.phase = epochDeclaring
		for i := range m.replicas {
			r := &s.r[i]
			r.member = r.status == replicaLive
			switch r.status {
			case replicaLive:
				r.redis.member = r.lateBase
			case replicaLost:
				r.redis.member = memberGone
			}
		}
	case keeperOpen:
		if s.redis.number == c.epoch {
			m.openEpoch(s)
		}
	}
}

// put is Keeper.Put of the record with the given bases.
func (m *model) put(s *state, epoch, version, settled int8, sealed bool, base func(*replicaState) int8) {
	h := recordHead{int64(s.redis.epoch), m.limitOf(s.redis.version), int64(s.redis.version), int64(s.redis.settled), int64(s.redis.leased)}
	before := h.version
	made := modelPut(&h, int64(epoch), m.limitOf(version), int64(version), int64(settled), sealed)
	if made < 0 {
		return
	}
	if made == 1 {
		for i := range m.replicas {
			r := &s.r[i]
			r.redis.lease, r.redis.call, r.redis.mark, r.redis.shut, r.redis.excess = never, 0, never, false, false
			r.redis.counted = m.contained(r, base(r))
		}
		s.stale = false
	}
	s.redis.epoch, s.redis.settled, s.redis.leased = int8(h.epoch), int8(h.settled), int8(h.leased)
	s.redis.version = int8(h.version)
	switch {
	case made == 1: // what the replicas lease is not known here yet: a lower limit counts once it is
		s.limit = max(s.limit, int8(h.limit))
	case h.version > before:
		s.relimit(h.limit, h.settled+h.leased)
	}
}

// Steps of who makes a missing record: Ensure and Put. It is at the step that it does next.
const (
	makerIdle = iota
	makerExpect
	makerPut
	makerExpectAgain
	makerOpen
	makerNote
)

// make does a maker's next step of making the record in an epoch that has begun.
func (m *model) make(s *state, maker int8) {
	k := &s.makers[maker]
	holds := s.redis.number == k.epoch
	switch k.step {
	case makerIdle:
		s.marked = s.epoch
		m.note(s)
		*k = makerState{step: makerExpect, epoch: s.epoch}
	case makerExpect:
		k.step, k.sealed = makerPut, m.flaw != flawNoSeal && (m.flaw != flawSealWhenOpen || s.redis.phase == epochOpen)
		if !holds {
			*k = makerState{}
		}
	case makerPut:
		// The bases of the epoch are still those: a newer one voids what is put.
		if s.based == k.epoch {
			m.put(s, k.epoch, s.version, m.sumOfBases(s), k.sealed, func(r *replicaState) int8 { return r.pgBase })
		}
		k.step = makerNote
		if k.sealed {
			k.step = makerExpectAgain
		}
	case makerExpectAgain:
		k.step = makerOpen
		if !holds {
			*k = makerState{}
		}
	case makerOpen:
		h := recordHead{epoch: int64(s.redis.epoch)}
		k.step = makerNote
		if modelOpen(&h, int64(k.epoch)) == 0 {
			*k = makerState{}
		}
		s.redis.epoch = int8(h.epoch)
	case makerNote:
		if s.marked == k.epoch {
			s.made = k.epoch
		}
		*k = makerState{}
	}
}

// note notes that the record is made, before it is.
func (m *model) note(s *state) {
	if !m.noteLate && m.flaw != flawNoteLate {
		s.made = s.epoch
	}
}

// restorable reports whether the keeper finds that the record is missing and not lost, or
// there and not noted.
func (m *model) restorable(s *state) bool {
	if !m.leaderIdle(s) || s.redis.number != s.epoch || s.redis.phase < epochDeclaring {
		return false
	}
	return s.made != s.epoch || s.redis.epoch != s.epoch && m.flaw == flawRemake
}

// restore begins to make the record if it is missing.
func (m *model) restore(s *state) {
	if s.redis.epoch == s.epoch {
		s.made = s.epoch
		return
	}
	s.marked = s.epoch
	m.note(s)
	s.makers[1] = makerState{step: makerExpect, epoch: s.epoch}
}

// lostEarly reports whether r was lost before it declared: it could still call in this epoch.
func (m *model) lostEarly(r *replicaState) bool {
	return r.status == replicaLost && r.member && !r.redis.declared && m.flaw != flawOpenWithoutLost
}

// openable reports whether the keeper finds that leases may grow again.
func (m *model) openable(s *state) bool {
	if !m.leaderIdle(s) || s.redis.number != s.epoch || s.redis.phase != epochDeclaring {
		return false
	}
	for i := range m.replicas {
		r := &s.r[i]
		switch {
		case r.redis.member >= 0 && !r.redis.declared && m.flaw != flawOpenEarly:
			return false
		case r.status == replicaLost && (r.usable() || m.told(s, r)) && m.flaw != flawFreeEarly, m.lostEarly(r):
			return false
		}
	}
	return true // as it looked a moment ago: a server may have been started since
}

func (m *model) openEpoch(s *state) {
	s.redis.phase = epochOpen
	s.opened = max(s.opened, s.epoch)
	if s.redis.epoch == s.epoch && !s.stale && s.redis.nodes.record == s.starts.record {
		s.relimit(m.limitOf(s.redis.version), int64(s.redis.settled+s.redis.leased))
	}
}

// setLimit is limitScript.
func (m *model) setLimit(s *state) {
	h := recordHead{epoch: int64(s.redis.epoch), limit: m.limitOf(s.redis.version), version: int64(s.redis.version)}
	modelLimit(&h, m.limitOf(s.version), int64(s.version))
	if int8(h.version) > s.redis.version {
		s.redis.version = int8(h.version)
		s.relimit(h.limit, int64(s.redis.settled)+int64(s.redis.leased))
	}
}

// free is Keeper.Release of a lost replica.
func (m *model) free(s *state, r *replicaState) {
	h := recordHead{epoch: int64(s.redis.epoch), leased: int64(s.redis.leased)}
	p := recordPart{lease: int64(r.redis.lease)}
	modelLose(&h, &p)
	s.redis.leased, r.redis.lease, r.redis.shut = int8(h.leased), int8(p.lease), p.lost
}

// retire takes a replica that ended in order off the register.
func (m *model) retire(s *state, r *replicaState) {
	r.status = replicaUnknown
	r.redis.member, r.redis.declared, r.pgLife = memberNone, false, 0
	r.forgetBeat()
}

func (r *replicaState) forgetBeat() {
	r.redis.beat, r.redis.beatLast, r.redis.beatEpoch, r.redis.beatLife, r.redis.next = beatNone, 0, 0, 0, 0
}

// note notes the life of r that gives signs of itself.
func (r *replicaState) note() { r.pgLife = max(r.pgLife, r.redis.beatLife) }

// believed reports whether the keeper believes that r, on the register, has retired.
func (m *model) believed(r *replicaState) bool {
	return r.status == replicaLive && r.redis.beat == beatGone && (r.pgLife <= r.redis.beatLife || m.flaw == flawRetireAnywhere || m.flaw == flawOldLife)
}

// retiredBefore reports whether r has retired from an earlier epoch with events that this one
// lacks and Postgres has: the next one has them.
func (m *model) retiredBefore(s *state, r *replicaState) bool {
	// One that is silent may be taken for dead.
	return m.believed(r) && (!r.beaten || r.retiring) && !r.redis.declared && r.redis.beatEpoch < s.epoch && r.acked() >= r.redis.beatLast && r.pgBase < r.redis.beatLast
}

// outlived reports whether r has entered the epoch since it retired, with events that it lacks,
// and its next life waits: that is noted, and has to retire itself.
func (m *model) outlived(s *state, r *replicaState) bool {
	return m.believed(r) && (r.redis.next > r.redis.beatLife || m.flaw == flawNoteNext) && r.redis.declared && r.redis.beatEpoch < s.epoch &&
		r.acked() >= r.redis.beatLast && r.pgBase < r.redis.beatLast
}

// disbelieve removes a beat that tells of a retirement.
func (m *model) disbelieve(s *state, r *replicaState) {
	if m.outlived(s, r) {
		r.pgLife = max(r.redis.next, r.redis.beatLife+1)
	}
	r.forgetBeat()
}

// disbelieved reports whether the keeper has to remove a beat that tells of a retirement.
func (m *model) disbelieved(s *state, r *replicaState) bool {
	return m.leaderIdle(s) && s.redis.number == s.epoch && s.redis.phase >= epochDeclaring && r.redis.beat == beatGone &&
		(r.status == replicaUnknown || r.status == replicaLive && !m.believed(r) || m.outlived(s, r))
}

// retirable reports whether r has retired and nothing of it is missing: neither in the record,
// nor when it is made again.
func (m *model) retirable(s *state, r *replicaState) bool {
	return m.leaderIdle(s) && s.redis.number == s.epoch && s.redis.phase >= epochDeclaring && m.believed(r) &&
		(r.acked() >= r.redis.beatLast || m.flaw == flawRetireUnacked) &&
		(s.redis.nodes.epoch == s.starts.epoch || m.flaw == flawRetireAnywhere) &&
		(r.redis.beatEpoch == s.epoch || r.pgBase >= r.redis.beatLast || m.flaw == flawRetireAcked)
}

// join registers a replica, in Postgres first.
func (m *model) join(s *state, r *replicaState) {
	r.status, r.redis.member = replicaLive, r.pgBase
	r.note()
}
