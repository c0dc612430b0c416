package quota

// What happens to Redis, as steps of the model.

// flush is the loss of all data of a Redis that goes on.
func (m *model) flush(s *state) {
	m.dropRecord(s)
	m.dropEpoch(s)
}

// dropRecord loses the record only: as if it was on another server of a cluster.
func (m *model) dropRecord(s *state) {
	s.redis.record(redisState{})
	s.stale = false
	for i := range m.replicas {
		r := &s.r[i].redis
		r.record(inRedis{lease: never, mark: never})
	}
}

// dropEpoch loses the rest only.
func (m *model) dropEpoch(s *state) {
	s.redis.rest(redisState{})
	for i := range m.replicas {
		s.r[i].redis.rest(inRedis{member: memberNone})
	}
}

// record takes over from what belongs to the record, and rest what does not.
func (s *redisState) record(from redisState) {
	s.epoch, s.version, s.settled, s.leased = from.epoch, from.version, from.settled, from.leased
}

func (s *redisState) rest(from redisState) {
	s.number, s.phase, s.nodes = from.number, from.phase, from.nodes
}

func (r *inRedis) record(from inRedis) {
	r.lease, r.call, r.mark, r.shut, r.counted, r.excess = from.lease, from.call, from.mark, from.shut, from.counted, from.excess
}

func (r *inRedis) rest(from inRedis) {
	r.member, r.declared = from.member, from.declared
	r.beat, r.beatLast, r.beatEpoch, r.beatLife, r.next = from.beat, from.beatLast, from.beatEpoch, from.beatLife, from.next
}

// snapshot keeps a copy of what Redis has.
func (m *model) snapshot(s *state) {
	s.snap, s.snapped = s.redis, true
	for i := range m.replicas {
		s.r[i].snap = s.r[i].redis
	}
}

// Which servers start again: one with everything, or one of two.
const (
	startBoth = iota
	startRecord
	startEpoch
)

// restartRedis ends a server's process, and with it all connections; the next has older
// data, or none.
func (m *model) restartRedis(s *state, which int8, old bool) {
	if which != startEpoch {
		s.starts.record++
		m.dropRecord(s)
		for i := range m.replicas {
			r := &s.r[i]
			r.conn, r.call, r.late = false, modelCall{}, [modelLate]modelCall{}
			if old {
				r.redis.record(r.snap)
			}
		}
		if old {
			s.redis.record(s.snap)
			s.stale = true
		}
		m.forgetLate(s)
	}
	if which != startRecord {
		s.starts.epoch++
		m.dropEpoch(s)
		if old {
			s.redis.rest(s.snap)
			for i := range m.replicas {
				s.r[i].redis.rest(s.r[i].snap)
			}
		}
	}
}
