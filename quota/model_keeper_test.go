package quota

// What the control plane does, and what happens to Redis, as steps of the model. The rules
// that whoever drives a Keeper has to keep are here:
//
//   - An epoch gets a new number in Postgres, then Begin, then the bases are read, of all
//     replicas, and kept in Postgres. A keeper that died or failed on the way, or whose
//     command was not answered, begins with a new number.
//   - That a record is made is noted before. One that is noted for the epoch and missing was
//     lost: a new epoch.
//   - A replica joins with its base of the epoch, not with what was acknowledged since.
//   - Redis' servers are trusted from when the records are made, and only those that were there
//     before the epoch began.
//   - A replica retires when Postgres has all of its events, and they are in the records: in
//     this epoch it has settled all, or its base is the last one. Otherwise a new epoch has to
//     begin first. What its earlier lives lease is freed then.
//   - What a lost replica leases is given out again only when it cannot serve any more: the
//     grace after it could last read that it is registered.

// nodeNone is no start of Redis.
const nodeNone = -1

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
		r := &s.r[i]
		if m.retiring && r.redis.beat == beatGone && r.status == replicaLive && r.acked() >= r.redis.beatLast && r.redis.beatEpoch != s.epoch && r.pgBase < r.redis.beatLast {
			return false // it cannot be retired from this epoch
		}
	}
	return s.redis.number == s.epoch && s.redis.node == s.start && s.redis.phase >= epochDeclaring &&
		(s.redis.epoch == s.epoch || s.made != s.epoch)
}

// number takes a new number. What the keeper knows of Redis' start is from before.
func (m *model) number(s *state) {
	if m.flaw == flawResume && s.redis.number == s.epoch && s.redis.phase == epochBuilding {
		s.keeper = keeperState{keeperBases, s.start}
		return
	}
	s.epoch++
	s.keeper = keeperState{keeperBegin, s.start}
	if m.flaw == flawBasesEarly {
		m.bases(s)
	}
}

func (m *model) bases(s *state) {
	for i := range m.replicas {
		s.r[i].pgBase = s.r[i].acked()
	}
}

// command is what the keeper's next step sends to Redis.
func (m *model) command(s *state) lateKeeper {
	c := lateKeeper{step: s.keeper.step, epoch: s.epoch, node: s.keeper.node, version: s.version}
	for i := range m.replicas {
		r := &s.r[i]
		c.settled += r.sum(0, r.pgBase)
		if m.flaw == flawAllRows {
			c.settled -= r.sum(0, r.pgBase)
			for seq := range r.last {
				c.settled += r.used[seq] * int8(r.rows>>seq&1)
			}
		}
		r.lateBase = r.pgBase
	}
	return c
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
		s.made = s.epoch
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

// delay lets the keeper's next command be late; the keeper does not wait.
func (m *model) delay(s *state) {
	if s.keeper.step == keeperPut {
		s.made = s.epoch
	}
	s.late = m.command(s)
	s.keeper = keeperState{}
}

// forgetLate forgets what a late command knew.
func (m *model) forgetLate(s *state) {
	s.late = lateKeeper{}
	for i := range m.replicas {
		s.r[i].lateBase = 0
	}
}

// execute lets Redis execute a command of the keeper.
func (m *model) execute(s *state, c *lateKeeper) {
	switch c.step {
	case keeperBegin:
		s.redis.number, s.redis.phase, s.redis.node = c.epoch, epochBuilding, nodeNone
		if m.flaw == flawTrustEarly {
			s.redis.node = c.node
		}
		for i := range m.replicas {
			s.r[i].redis.member, s.r[i].redis.declared = memberNone, false
		}
	case keeperPut:
		m.put(s, c.epoch, c.version, c.settled, func(r *replicaState) int8 { return r.lateBase })
	case keeperMembers:
		if s.redis.number != c.epoch {
			return
		}
		s.redis.phase, s.redis.node = epochDeclaring, c.node
		for i := range m.replicas {
			r := &s.r[i]
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
func (m *model) put(s *state, epoch, version, settled int8, base func(*replicaState) int8) {
	h := recordHead{int64(s.redis.epoch), m.limitOf(s.redis.version), int64(s.redis.version), int64(s.redis.settled), int64(s.redis.leased)}
	before := h.version
	made := modelPut(&h, int64(epoch), m.limitOf(version), int64(version), int64(settled))
	if made < 0 {
		return
	}
	if made == 1 {
		for i := range m.replicas {
			r := &s.r[i]
			r.redis.lease, r.redis.call, r.redis.mark, r.redis.shut, r.redis.excess = 0, 0, -1, false, false
			r.redis.counted = upTo(base(r))
			if m.flaw == flawAllRows {
				r.redis.counted = r.rows
			}
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

// putMissing makes the record within the epoch.
func (m *model) putMissing(s *state) {
	s.made = s.epoch
	var settled int8
	for i := range m.replicas {
		settled += s.r[i].sum(0, s.r[i].pgBase)
	}
	m.put(s, s.epoch, s.version, settled, func(r *replicaState) int8 { return r.pgBase })
}

// openable reports whether the keeper finds that leases may grow again.
func (m *model) openable(s *state) bool {
	if s.keeper.step != keeperIdle || s.redis.number != s.epoch || s.redis.phase != epochDeclaring {
		return false
	}
	for i := range m.replicas {
		r := &s.r[i]
		switch {
		case r.redis.member >= 0 && !r.redis.declared && m.flaw != flawOpenEarly:
			return false
		case r.status == replicaLost && r.usable() && m.flaw != flawFreeEarly:
			return false
		}
	}
	return true
}

func (m *model) openEpoch(s *state) {
	s.redis.phase = epochOpen
	s.opened = max(s.opened, s.epoch)
	if s.redis.epoch == s.epoch && !s.stale && s.redis.node == s.start {
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
	r.redis.member, r.redis.declared, r.redis.beat, r.redis.beatLast, r.redis.beatEpoch = memberNone, false, beatNone, 0, 0
	if m.flaw != flawRetireLeasing {
		s.redis.leased -= r.redis.lease
		r.redis.lease, r.redis.excess = 0, false
	}
}

// retirable reports whether r has retired and nothing of it is missing: neither in the record,
// nor when it is made again.
func (m *model) retirable(s *state, r *replicaState) bool {
	return s.keeper.step == keeperIdle && s.redis.number == s.epoch && s.redis.phase >= epochDeclaring && r.status == replicaLive && r.redis.beat == beatGone &&
		(r.acked() >= r.redis.beatLast || m.flaw == flawRetireUnacked) &&
		(r.pgBase >= r.redis.beatLast || r.redis.beatEpoch == s.epoch || m.flaw == flawRetireAcked)
}

// join registers a replica, in Postgres first.
func (m *model) join(s *state, r *replicaState) {
	r.status, r.redis.member = replicaLive, r.pgBase
	if m.flaw == flawJoinAcked {
		r.redis.member = r.acked()
	}
}

// flush is the loss of all data of a Redis that goes on.
func (m *model) flush(s *state) {
	s.redis = redisState{}
	s.stale = false
	for i := range m.replicas {
		s.r[i].redis = inRedis{mark: -1, member: memberNone}
	}
}

// dropRecord loses the record only: as if it was on another server of a cluster.
func (m *model) dropRecord(s *state) {
	s.redis.epoch, s.redis.version, s.redis.settled, s.redis.leased = 0, 0, 0, 0
	s.stale = false
	for i := range m.replicas {
		r := &s.r[i].redis
		r.lease, r.call, r.mark, r.shut, r.excess, r.counted = 0, 0, -1, false, false, 0
	}
}

// snapshot keeps a copy of what Redis has.
func (m *model) snapshot(s *state) {
	s.snap, s.snapped = s.redis, true
	for i := range m.replicas {
		s.r[i].snap = s.r[i].redis
	}
}

// restart ends Redis' process, and with it all connections; the next has older data.
func (m *model) restartRedis(s *state, old bool) {
	m.flush(s)
	if old {
		s.redis, s.stale = s.snap, true
		for i := range m.replicas {
			s.r[i].redis = s.r[i].snap
		}
	}
	s.start++
	for i := range m.replicas {
		r := &s.r[i]
		r.conn, r.call, r.late = false, modelCall{}, [modelLate]modelCall{}
	}
	m.forgetLate(s)
}
