package quota

import "fmt"

// flaw is something that the protocol could do wrong: each has to be found.
type flaw int8

const (
	flawNone flaw = iota
	flawNoCallNumbers
	flawNumbersStartAgain // with each life of the journal
	flawNoMark
	flawFreeWithoutFloor
	flawGrowAlways // also while replicas declare
	flawShrinkLate // the lease is made smaller in memory only when Redis answers
	flawOldAnswer  // an answer of an older epoch counts
	flawNoGuard
	flawForgetUnsettled
	flawForgetInAnyEpoch
	flawAckedLate // the ledger's number is read after the epoch
	flawBasesEarly
	flawResume // a keeper goes on with an epoch whose records are half made
	flawAllRows
	flawBaseHighest // instead of the end of what has no gaps
	flawOpenEarly
	flawRemake   // a lost record is made again in its epoch
	flawNoteLate // that a record was made is noted after it was
	flawNoSeal   // records are made within an epoch as at its beginning
	flawSealWhenOpen
	flawPutTwice
	flawFreeEarly
	flawOpenWithoutLost // of which a call may come
	flawRetireUnacked
	flawRetireAcked
	flawRetireAnywhere // also on a server with old data
	flawOldLife        // of a life before others
	flawNoteNext       // a life is noted that may never begin
	flawGuardAnyEpoch
	flawDeclareEarly
	flawCloseDirty
	flaws
)

func (f flaw) String() string {
	return [...]string{
		"none", "call numbers are ignored", "call numbers start again with each life", "settlements count without the mark",
		"what a replica keeps is not taken from what is free", "leases grow while others declare", "what is returned is given out until Redis answers",
		"an answer of an older epoch counts", "connections are not checked", "journal forgets what is not settled",
		"journal forgets whatever the epoch is", "the ledger's number is read after the epoch", "bases are read before the epoch begins",
		"a half made epoch is resumed", "records contain events above the base",
		"a base is the highest number", "an epoch is opened before all have declared",
		"a lost record is made again", "a record is noted when it is made", "records are not sealed", "records are sealed in open epochs only",
		"making a record is repeated later", "a lost replica's lease is freed while it serves",
		"an epoch is opened without a lost replica that has entered it",
		"a replica retires before Postgres has its events", "a replica retires from an epoch that it has not entered",
		"a replica retires by an old beat", "a replica retires by the beat of an earlier life", "a life is noted before it has begun",
		"connections are checked for any epoch", "a replica declares while a call of its is under way",
		"a replica retires while a call of its is under way",
	}[f]
}

// action is one step. The meaning of a and b depends on the kind.
type action struct {
	kind    kind
	r, a, b int8
}

type kind uint8

const (
	doTake kind = iota
	doRelease
	doComplete
	doRead
	doLaunch
	doDeliver
	doAnswer
	doAbandon
	doLate
	doCrash
	doRestart
	doHear
	doFollow
	doDeclare
	doForget
	doShip
	doGrant
	doExpire
	doSay
	doClose
	doLose
	doShut
	doFree
	doRetire
	doJoin

	doNumber // from here on, not of one replica
	doKeep
	doDelay
	doLateKeeper
	doKeeperCrash
	doOpen
	doMake
	doRestore
	doChangeLimit
	doSetLimit
	doFlush
	doDropRecord
	doDropEpoch
	doSnapshot
	doRestartRedis
	kinds
)

func (a action) String() string {
	name := [...]string{
		"reserve", "release", "complete", "read", "call", "deliver", "answer", "abandon call", "deliver late call", "crash", "restart", "hear",
		"follow", "declare", "forget", "ship", "learn limit", "expire", "say that it retires", "close", "declare lost", "shut", "free", "retire", "join",
		"new epoch number", "keeper's next step", "keeper's next step, late", "deliver late step", "keeper dies", "open", "maker's next step", "restore record",
		"change limit", "set limit", "Redis loses all", "Redis loses the record", "Redis loses the epoch", "Redis is copied", "Redis restarts",
	}[a.kind]
	switch {
	case a.kind == doLaunch:
		return fmt.Sprintf("r%d: call, %d wait, spare %d, surrender %v", a.r, a.a, a.b>>1, a.b&1 != 0)
	case a.kind == doComplete:
		return fmt.Sprintf("r%d: complete %d, used %d", a.r, a.a, a.b)
	case a.kind < doNumber:
		return fmt.Sprintf("r%d: %s %d", a.r, name, a.a)
	default:
		return fmt.Sprintf("%s %d", name, a.a)
	}
}

// model is a configuration: what may happen, and how often.
type model struct {
	name     string
	replicas int8
	limits   []int8 // by version; the first one holds at first
	events   int8   // and requests, of each replica
	sizes    []int8 // of requests
	used     [3][]int8
	spares   []int8
	late     int8 // late calls of a replica
	timeouts int8 // calls that nobody waits for
	crashes  int8
	epochs   int8 // the newest
	losses   int8 // of data, the copy included
	drop     bool // the record and the epoch are on different servers, and may be lost alone
	copies   bool // Redis may be started again, also with old data

	keeperCrashes int8 // late commands included
	lateKeeper    bool
	spurious      bool // epochs begin without reason
	missing       bool // there is no record at first
	noteLate      bool // as flawNoteLate; no flaw where records are not lost alone
	lazy          bool // events are read some time after they are there
	slow          bool // what was heard is acted on later
	grants        bool // replicas hear of limits
	forgets       bool
	losable       bool // the first replica may be declared lost
	retiring      bool
	silent        bool // a replica may live for a while after it has said that it retires

	flaw  flaw
	first []action // these are taken first of all

	account account
	pending [modelEvents + 1]spend
	waiting [2]*wait
	waits   [1]wait
	batch   [modelEvents + 1]spend
	call    call
}

// initial is the state from which all begins: an open epoch, and what m.first makes of it.
func (m *model) initial() *state {
	s := m.beginning()
	for _, a := range m.first {
		if err := m.do(s, a); err != nil {
			panic(fmt.Sprintf("BUG: %v: %v", a, err))
		}
	}
	return s
}

func (m *model) beginning() *state {
	s := &state{}
	s.epoch, s.opened, s.based, s.marked, s.made = 1, 1, 1, 1, 1
	s.limit = m.limits[0]
	s.redis = redisState{epoch: 1, number: 1, phase: epochOpen}
	if m.missing {
		s.redis.epoch, s.marked, s.made = 0, 0, 0
	}
	for i := range m.replicas {
		r := &s.r[i]
		r.status = replicaLive
		r.redis.lease, r.redis.mark = never, never
		r.redis.declared, r.member = true, true
		r.up, r.confirmed, r.open, r.conn = true, true, true, true
		r.epoch, r.declared = 1, 0
		if m.retiring {
			r.redis.beat, r.redis.beatLife, r.life, r.pgLife, r.beaten = beatHere, 1, 1, 1, true
		}
	}
	return s
}

// actions appends what may happen in s.
func (m *model) actions(s *state, out []action) []action {
	for i := range m.replicas {
		out = m.replicaActions(s, i, out)
	}
	add := func(ok bool, k kind, a int8) {
		if ok {
			out = append(out, action{kind: k, a: a})
		}
	}
	add(m.leaderIdle(s) && s.epoch < m.epochs && (m.spurious || !m.sound(s)), doNumber, 0)
	add(s.keeper.step != keeperIdle, doKeep, s.keeper.step)
	crash := s.keeperCrashes < m.keeperCrashes
	add(crash && m.lateKeeper && s.late.step == 0 && s.keeper.step != keeperIdle && s.keeper.step != keeperBases &&
		(s.keeper.step == keeperBegin || s.redis.number == s.epoch), doDelay, s.keeper.step)
	add(s.late.step != 0, doLateKeeper, s.late.step)
	add(crash && s.keeper.step != keeperIdle, doKeeperCrash, 0)
	add(m.openable(s), doOpen, 0)
	add(s.makers[0].step != makerIdle || m.missing && s.based == s.epoch && s.marked < s.epoch, doMake, 0)
	add(s.makers[1].step != makerIdle, doMake, 1)
	add(crash && s.makers[0].step != makerIdle, doKeeperCrash, 1)
	add(crash && s.makers[1].step != makerIdle, doKeeperCrash, 2)
	add(m.restorable(s), doRestore, 0)
	add(int(s.version)+1 < len(m.limits), doChangeLimit, 0)
	add(s.redis.epoch != 0 && s.version > s.redis.version, doSetLimit, 0)
	lose := s.losses < m.losses
	add(lose && (s.redis.epoch != 0 || s.redis.number != 0), doFlush, 0)
	add(lose && m.drop && s.redis.epoch != 0, doDropRecord, 0)
	add(lose && m.drop && s.redis.number != 0, doDropEpoch, 0)
	add(lose && m.copies && !s.snapped, doSnapshot, 0)
	for _, which := range []int8{startBoth, startRecord, startEpoch} {
		if which == startBoth || m.drop {
			add(lose && m.copies, doRestartRedis, which<<1)
			add(lose && s.snapped, doRestartRedis, which<<1|1)
		}
	}
	return out
}

func (m *model) replicaActions(s *state, i int8, out []action) []action {
	r := &s.r[i]
	add := func(ok bool, k kind, a, b int8) {
		if ok {
			out = append(out, action{k, i, a, b})
		}
	}
	for seq := range r.last {
		add(r.rows>>seq&1 == 0 && m.epochs > 1, doShip, seq, 0)
	}
	for j := range r.late {
		add(r.late[j].state != callNone, doLate, int8(j), 0)
	}
	keeper := m.leaderIdle(s) && s.redis.number == s.epoch
	if m.losable {
		add(i == 0 && r.status == replicaLive && r.inFlight() == 0 && r.last == 0, doLose, 0, 0)
		add(keeper && r.status == replicaLost && r.redis.member >= 0, doShut, 0, 0)
		add(keeper && r.redis.member == memberGone && s.redis.epoch == s.epoch && !r.redis.shut && (!r.usable() && !m.told(s, r) || m.flaw == flawFreeEarly), doFree, 0, 0)
		add(r.up && r.confirmed && r.status == replicaLost, doExpire, 0, 0)
	}
	if m.retiring {
		add(m.retirable(s, r), doRetire, 0, 0)
		add(m.disbelieved(s, r), doRetire, 1, 0)
		add(keeper && r.redis.beat == beatHere && r.redis.member == memberNone && s.redis.phase >= epochDeclaring, doJoin, 0, 0)
		add(m.silent && m.closable(r) && !r.retiring, doSay, 0, 0)
		add(m.closable(r), doClose, 0, 0)
	}
	if !r.up {
		m.restarts(r, 1, r.open1, r.open2, 0, func(used int8) { add(true, doRestart, used, 0) })
		return out
	}
	for _, n := range m.sizes {
		add(r.usable() && !r.retiring && r.last+r.open1+r.open2 < m.events && r.idle() >= n && r.limit >= r.grant, doTake, n, 0)
		if n == 1 && r.open1 > 0 || n == 2 && r.open2 > 0 {
			add(true, doRelease, n, 0)
			for _, used := range m.used[n] {
				add(true, doComplete, n, used)
			}
		}
	}
	add(m.lazy && r.read < r.last, doRead, 0, 0)
	if r.call.state == callNone && r.epoch > 0 && !r.lost {
		for _, spare := range m.spares {
			add(r.dirty || r.settled < r.read || r.idle() > 0, doLaunch, 0, spare<<1)
			for _, n := range m.sizes {
				if r.usable() && !r.retiring && (r.open || m.flaw == flawGrowAlways) && (r.idle() < n || r.limit < r.grant) {
					add(true, doLaunch, n, spare<<1)
					add(r.idle() > 0, doLaunch, n, spare<<1|1)
				}
			}
		}
		add(r.dirty || r.idle() > 0, doLaunch, 0, 1)
	}
	add(r.call.state == callSent, doDeliver, 0, 0)
	add(r.call.state == callAnswered, doAnswer, 0, 0)
	add(r.call.state != callNone && s.timeouts < m.timeouts, doAbandon, 0, 0)
	add(s.crashes < m.crashes, doCrash, 0, 0)
	if m.epochs > 1 || m.crashes > 0 || m.retiring || m.losable {
		news := r.epoch != s.redis.number || r.open != (s.redis.phase == epochOpen) || r.redis.member == memberGone && !r.lost ||
			!r.confirmed && r.redis.member >= 0 || m.retiring && !r.retiring && (r.redis.beat != beatHere || r.redis.beatLife != r.life)
		add(!r.heard && news, doHear, 0, 0)
		add(r.heard, doFollow, 0, 0)
		add(r.epoch > 0 && r.epoch == s.redis.number && !r.redis.declared && s.redis.phase == epochDeclaring &&
			(r.declared >= r.epoch || r.lease == 0 && r.settled == r.read && (!r.dirty || m.flaw == flawDeclareEarly)), doDeclare, 0, 0)
	}
	add(m.forgets && r.epoch > 0 && (r.forgetting > 0 || r.acked() > r.forgotten || m.flaw == flawAckedLate && r.settled > r.forgotten), doForget, r.forgetting, 0)
	add(m.grants && s.version > r.grant, doGrant, 0, 0)
	return out
}

// closable reports whether nothing of r is left in its epoch.
func (m *model) closable(r *replicaState) bool {
	return r.up && r.inFlight() == 0 && r.settled == r.last && r.lease == 0 && r.call.state == callNone && r.epoch > 0 && (!r.dirty || m.flaw == flawCloseDirty)
}

// restarts names all that the open requests may have used.
func (m *model) restarts(r *replicaState, digit, open1, open2, used int8, add func(int8)) {
	switch {
	case open1 > 0:
		for _, u := range m.used[1] {
			m.restarts(r, digit*3, open1-1, open2, used+digit*u, add)
		}
	case open2 > 0:
		for _, u := range m.used[2] {
			m.restarts(r, digit*3, open1, open2-1, used+digit*u, add)
		}
	default:
		add(used)
	}
}

// do takes one step. An error is a violation.
func (m *model) do(s *state, a action) error {
	err := m.step(s, &s.r[a.r], a)
	if err == nil && !m.lazy && a.kind == doComplete {
		err = m.readOn(&s.r[a.r])
	}
	if err == nil && !m.slow && a.kind == doHear {
		err = m.follow(&s.r[a.r])
	}
	switch a.kind {
	case doTake, doRelease, doComplete, doRead, doShip, doForget, doFollow, doDeclare, doGrant, doExpire:
	case doHear, doLaunch, doDeliver, doAnswer, doAbandon, doLate, doCrash, doRestart:
		s.tidy(m, &s.r[a.r])
	default:
		for i := range m.replicas {
			s.tidy(m, &s.r[i])
		}
	}
	return err
}

func (m *model) step(s *state, r *replicaState, a action) error {
	switch a.kind {
	case doTake:
		return m.take(s, r, a.a)
	case doRelease:
		r.addOpen(a.a, -1)
	case doComplete:
		r.complete(a.a, a.b)
	case doRead:
		return m.readOn(r)
	case doLaunch:
		return m.launch(s, r, a.a, a.b>>1, a.b&1 != 0)
	case doDeliver:
		out, err := m.deliver(s, r, &r.call)
		r.call.state = callAnswered
		r.call.status, r.call.lease, r.call.mark, r.call.limit = int8(out.status), int8(out.lease), int8(out.mark), int8(out.version)
		r.call.free = int8(out.limit - out.settled - out.others - out.lease)
		if out.status == syncStale {
			r.call.mark = int8(out.number)
		}
		return err
	case doAnswer:
		return m.answer(r)
	case doAbandon:
		s.timeouts++
		r.abandon(m.late)
	case doLate:
		c := r.late[a.a]
		r.late[a.a] = modelCall{}
		_, err := m.deliver(s, r, &c)
		return err
	case doCrash:
		s.crashes++
		r.crash(m.late)
	case doRestart:
		return m.restart(r, a.a)
	case doHear:
		m.hear(s, r)
	case doFollow:
		return m.follow(r)
	case doDeclare:
		r.redis.declared = true
	case doForget:
		m.forget(s, r)
	case doShip:
		r.rows |= 1 << a.a
	case doGrant:
		r.grant = s.version
	case doExpire:
		r.confirmed = false
	case doSay:
		r.retire()
	case doClose:
		r.retire()
		r.crash(m.late)
		r.retired = true
	case doLose:
		r.status = replicaLost
	case doShut:
		r.redis.member = memberGone
	case doFree:
		m.free(s, r)
	case doRetire:
		if a.a == 1 {
			m.disbelieve(s, r)
		} else {
			m.retire(s, r)
		}
	case doJoin:
		m.join(s, r)
	default:
		m.stepOthers(s, a)
	}
	return nil
}

func (m *model) stepOthers(s *state, a action) {
	switch a.kind {
	case doNumber:
		m.number(s)
	case doKeep:
		m.keep(s)
	case doDelay:
		s.keeperCrashes++
		m.delay(s)
	case doLateKeeper:
		c := s.late
		m.execute(s, &c)
		m.forgetLate(s)
	case doKeeperCrash:
		s.keeperCrashes++
		if a.a > 0 {
			s.makers[a.a-1] = makerState{}
		} else {
			s.keeper = keeperState{}
		}
	case doOpen:
		for i := range m.replicas {
			if r := &s.r[i]; r.status != replicaUnknown {
				r.note()
			}
		}
		m.openEpoch(s)
	case doMake:
		m.make(s, a.a)
	case doRestore:
		m.restore(s)
	case doChangeLimit:
		s.version++
	case doSetLimit:
		m.setLimit(s)
	case doFlush:
		s.losses++
		m.flush(s)
	case doDropRecord:
		s.losses++
		m.dropRecord(s)
	case doDropEpoch:
		s.losses++
		m.dropEpoch(s)
	case doSnapshot:
		m.snapshot(s)
	case doRestartRedis:
		s.losses++
		m.restartRedis(s, a.a>>1, a.a&1 != 0)
	}
}
