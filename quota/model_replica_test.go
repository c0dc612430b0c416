package quota

import (
	"errors"
	"fmt"
)

// What a replica does, as steps of the model. The arithmetic is the account's own.

// load returns r's account as the real one. It is valid until the next load.
func (m *model) load(r *replicaState) *account {
	a := &m.account
	*a = account{
		lease: int64(r.lease), held: int64(r.held()), unsettled: int64(r.unsettled()), pending: m.pending[:0], waiting: m.waiting[:0],
		version: int64(r.limit), grantLimit: m.limitOf(r.grant), grantVersion: int64(r.grant), calls: int64(r.calls), declared: int64(r.declared),
	}
	for seq := r.settled; seq < r.read; seq++ {
		a.pending = append(a.pending, spend{int64(seq) + 1, int64(r.used[seq])})
	}
	return a
}

// wait puts a reservation on the list of a.
func (m *model) wait(a *account, tokens int8) {
	m.waits[0] = wait{tokens: int64(tokens)}
	a.waiting = append(a.waiting, &m.waits[0])
}

// store takes over what changed in a.
func (r *replicaState) store(a *account) error {
	r.lease = int8(a.lease)
	r.settled = r.read - int8(len(a.pending))
	r.limit = int8(a.version)
	if a.held != int64(r.held()) || a.unsettled != int64(r.unsettled()) || a.idle() < 0 {
		return fmt.Errorf("account is out of balance: lease %d, held %d, unsettled %d, pending %v", a.lease, a.held, a.unsettled, a.pending)
	}
	return nil
}

// limitOf returns the limit of a version.
func (m *model) limitOf(version int8) int64 { return int64(m.limits[version]) }

// real returns c as the real one. It is valid until the next real.
func (m *model) real(r *replicaState, c *modelCall) *call {
	out := &m.call
	*out = call{
		epoch: int64(c.epoch), number: int64(c.number), floor: int64(c.floor), least: int64(c.least), need: int64(c.need), spare: int64(c.spare),
		limit: m.limitOf(c.version), version: int64(c.version), base: int64(c.base), batch: m.batch[:0],
	}
	for seq := c.from; seq < c.to; seq++ {
		out.batch = append(out.batch, spend{int64(seq) + 1, int64(r.used[seq])})
		out.sum += int64(r.used[seq])
	}
	return out
}

// usable reports whether r may give out what it leases.
func (r *replicaState) usable() bool { return r.up && r.confirmed && !r.lost }

func (m *model) take(s *state, r *replicaState, tokens int8) error {
	if r.redis.shut || r.status == replicaLost && s.opened > r.epoch {
		return errors.New("a replica gives out tokens that were taken from it")
	}
	a := m.load(r)
	if !a.take(int64(tokens), 0) {
		return errors.New("take refused what is idle")
	}
	r.addOpen(tokens, 1)
	return r.store(a)
}

func (r *replicaState) addOpen(tokens, n int8) {
	if tokens == 1 {
		r.open1 += n
	} else {
		r.open2 += n
	}
}

// complete makes an open request of tokens an event.
func (r *replicaState) complete(tokens, used int8) {
	r.addOpen(tokens, -1)
	r.used[r.last], r.reserved[r.last] = used, tokens
	r.last++
}

// readOn takes events from the journal.
func (m *model) readOn(r *replicaState) error {
	a := m.load(r)
	for seq := r.read; seq < r.last; seq++ {
		a.spend(int64(seq)+1, int64(r.reserved[seq]), int64(r.used[seq]))
		r.reserved[seq] = 0
	}
	r.read = r.last
	return r.store(a)
}

// launch makes a call and sends it, if there is a connection that may be used.
func (m *model) launch(s *state, r *replicaState, waiting, spare int8, surrender bool) error {
	a := m.load(r)
	if waiting > 0 {
		m.wait(a, waiting)
	}
	before := a.lease
	a.spare = int64(spare) // whatever history led to it
	c := a.build(int64(r.epoch), 0, r.open || m.flaw == flawGrowAlways, surrender)
	if m.flaw == flawShrinkLate {
		a.lease = before
	}
	r.calls = int8(a.calls)
	r.dirty = true // until there is an answer
	trusted := s.redis.nodes.record == s.starts.record && s.redis.number > 0 && (s.redis.number == r.epoch || m.flaw == flawGuardAnyEpoch)
	r.conn = r.conn || trusted || m.flaw == flawNoGuard
	if r.conn {
		r.call = modelCall{
			state: callSent, epoch: r.epoch, number: int8(c.number), base: r.base, floor: int8(c.floor), least: int8(c.least), need: int8(c.need),
			spare: int8(c.spare), version: int8(c.version), from: r.settled, to: r.settled + int8(len(c.batch)),
		}
	}
	return r.store(a)
}

// deliver lets Redis execute a call.
func (m *model) deliver(s *state, r *replicaState, c *modelCall) (reply, error) {
	h := recordHead{int64(s.redis.epoch), m.limitOf(s.redis.version), int64(s.redis.version), int64(s.redis.settled), int64(s.redis.leased)}
	p := recordPart{int64(r.redis.lease), int64(r.redis.call), int64(r.redis.mark), r.redis.shut}
	mark, full := r.redis.mark, h.settled+h.leased
	out := modelSync(&h, &p, m.real(r, c), m.flaw)
	if out.status != syncOK {
		return out, nil
	}
	if mark == never {
		mark = c.base
	}
	if m.flaw == flawNoMark {
		mark = 0
	}
	for seq := max(c.from, mark); seq < c.to; seq++ {
		if r.redis.counted>>seq&1 != 0 {
			return out, fmt.Errorf("event %d is counted twice", seq+1)
		}
		r.redis.counted |= 1 << seq
	}
	if int8(h.version) > s.redis.version {
		s.relimit(h.limit, full)
	}
	// A call from before the epoch was opened, of a process that died: the next life had
	// nothing to declare and the record never heard of it, so it cannot know.
	r.redis.excess = c.orphan && r.redis.call == 0 && c.floor > 0
	s.redis.version, s.redis.settled, s.redis.leased = int8(h.version), int8(h.settled), int8(h.leased)
	r.redis.lease, r.redis.call, r.redis.mark = int8(p.lease), int8(p.call), int8(p.mark)
	return out, nil
}

// relimit takes note of what may be used from now on, as the record learns of a limit when
// full tokens are settled or leased.
func (s *state) relimit(limit, full int64) {
	if s.opened != s.redis.epoch || s.stale {
		full = int64(s.limit) // the record does not know all that is leased yet
	}
	s.limit = int8(max(limit, full))
}

// answer makes the answer to r's call effective.
func (m *model) answer(r *replicaState) error {
	c := r.call
	r.call = modelCall{}
	switch {
	case c.epoch != r.epoch && m.flaw != flawOldAnswer:
		return nil
	case c.status == syncLost:
		r.lost = true
		return nil
	case c.status == syncMissing && r.declared == c.epoch:
		r.open = false // until the epoch is known to hold
		return nil
	case c.status == syncStale:
		r.calls = max(r.calls, c.mark) // which is the number of the newest, here
		return nil
	case c.status != syncOK:
		return nil
	}
	a := m.load(r)
	limit := m.limitOf(c.limit)
	a.apply(m.real(r, &c), reply{
		lease: int64(c.lease), mark: int64(c.mark), limit: limit, version: int64(c.limit), settled: limit - int64(c.lease) - int64(c.free),
	})
	r.declared, r.dirty = c.epoch, a.dirty
	return r.store(a)
}

// abandon lets r wait for its call no longer. It may still come to Redis.
func (r *replicaState) abandon(slots int8) {
	if r.call.state == callSent {
		for i := range slots {
			if r.late[i].state == callNone {
				r.late[i] = r.call
				break
			}
		}
	}
	r.call = modelCall{}
}

// crash ends a process; its journal stays.
func (r *replicaState) crash(slots int8) {
	r.abandon(slots)
	for i := range r.late {
		r.late[i].orphan = r.late[i].state != callNone
	}
	*r = replicaState{
		calls: r.calls, late: r.late, last: r.last, forgotten: r.forgotten, used: r.used, open1: r.open1, open2: r.open2,
		rows: r.rows, status: r.status, pgBase: r.pgBase, member: r.member, retired: r.retired, lateBase: r.lateBase, lateMember: r.lateMember, life: r.life, pgLife: r.pgLife, redis: r.redis, snap: r.snap,
	}
}

// retire says that r has.
func (r *replicaState) retire() {
	r.redis.beat, r.redis.beatLast, r.redis.beatEpoch, r.redis.beatLife = beatGone, r.last, r.epoch, r.life
	r.retiring = true
}

// restart begins another life. Requests that were open become events; used says of each
// what it used, as digits to the base 3.
func (m *model) restart(r *replicaState, used int8) error {
	for ; r.open1 > 0; used /= 3 {
		r.complete(1, used%3)
	}
	for ; r.open2 > 0; used /= 3 {
		r.complete(2, used%3)
	}
	r.up, r.retired = true, false
	if m.retiring {
		r.life++
	}
	r.dirty = true // once at least: an earlier life may lease more
	r.reserved = [modelEvents]int8{}
	if m.flaw == flawNumbersStartAgain {
		r.calls = 0
	}
	r.settled, r.read = r.forgotten, r.last
	a := m.load(r)
	a.pending, a.unsettled = a.pending[:0], 0
	for seq := r.settled; seq < r.read; seq++ {
		a.recovered(int64(seq)+1, int64(r.used[seq]))
	}
	return r.store(a)
}

// hear is the first half of followOnce: Redis answers.
func (m *model) hear(s *state, r *replicaState) {
	if m.retiring && !r.beaten && !r.retiring {
		r.beaten = r.redis.beat != beatGone || r.redis.beatLife == r.life
		r.redis.next = 0
		if !r.beaten {
			r.redis.next = r.life
		}
	}
	if m.retiring && !r.beaten && r.redis.member != memberGone {
		return // the retirement of an earlier life is still to be noted
	}
	r.heard, r.heardEpoch, r.heardPhase, r.heardMember = true, s.redis.number, s.redis.phase, r.redis.member
	if r.beaten && !r.retiring {
		r.redis.beat, r.redis.beatLife = beatHere, r.life
	}
}

// follow is the second half.
func (m *model) follow(r *replicaState) error {
	if !r.heard {
		return nil
	}
	epoch, phase, member := r.heardEpoch, r.heardPhase, r.heardMember
	r.heard, r.heardEpoch, r.heardPhase, r.heardMember = false, 0, 0, 0
	if member == memberGone {
		r.lost = true
		return nil
	}
	if epoch != r.epoch {
		r.open = false
	}
	if member == memberNone || epoch < max(r.epoch, 1) {
		return nil
	}
	if member == memberToCome {
		r.confirmed = r.confirmed || phase == epochBuilding && r.epoch > 0
		return nil
	}
	r.confirmed = true
	if epoch > r.epoch && phase != epochBuilding {
		if err := m.enter(r, epoch, member); err != nil {
			return err
		}
	}
	if phase == epochOpen && r.epoch == epoch {
		r.open = true
	}
	return nil
}

// enter is rebase.
func (m *model) enter(r *replicaState, epoch, base int8) error {
	if err := m.readOn(r); err != nil {
		return err
	}
	if r.epoch > 0 && base < r.forgotten {
		return fmt.Errorf("epoch %d lacks events after %d, but those up to %d are forgotten", epoch, base, r.forgotten)
	}
	a := m.load(r)
	a.forgetSpends()
	a.pending = m.pending[:0]
	r.settled = max(base, r.forgotten)
	for seq := r.settled; seq < r.read; seq++ {
		a.recovered(int64(seq)+1, int64(r.used[seq]))
	}
	r.dirty = a.dirty || r.epoch == 0 // then an earlier life may lease more
	r.epoch, r.base = epoch, base
	return r.store(a)
}

// forget is what lets the journal forget, in three steps: the ledger's number and then the
// epoch in Redis are read; the epoch and the account are looked at; events are forgotten.
func (m *model) forget(s *state, r *replicaState) {
	switch r.forgetting {
	case 0:
		r.forgetting, r.forgetAcked, r.forgetEpoch = 1, r.acked(), s.redis.number
		if m.flaw == flawAckedLate {
			r.forgetAcked = 0
		}
	case 1:
		acked, epoch := r.forgetAcked, r.forgetEpoch
		r.forgetting, r.forgetAcked, r.forgetEpoch = 0, 0, 0
		if m.flaw == flawAckedLate {
			acked = r.acked()
		}
		if epoch != r.epoch && m.flaw != flawForgetInAnyEpoch {
			return
		}
		to := min(acked, r.settled)
		if m.flaw == flawForgetUnsettled {
			to = acked
		}
		if to <= r.forgotten {
			return
		}
		if m.slow {
			r.forgetting, r.forgetTo = 2, to
			return
		}
		r.forgetUpTo(to)
	case 2:
		r.forgetUpTo(r.forgetTo)
		r.forgetting, r.forgetTo = 0, 0
	}
}

func (r *replicaState) forgetUpTo(to int8) { r.forgotten = max(r.forgotten, to) }
