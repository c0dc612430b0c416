package quota

import "fmt"

// check looks for what must never be.
func (m *model) check(s *state) error {
	var leased, excess, settled, bound int8
	for i := range m.replicas {
		r := &s.r[i]
		leased += max(r.redis.lease, 0)
		if r.redis.excess {
			excess += r.redis.lease
		}
		for seq := range r.last {
			settled += r.used[seq] * int8(r.redis.counted>>seq&1)
		}
		if r.status == replicaLost {
			continue // what it used is not known
		}
		all := r.sum(0, r.last)
		bound += all + r.inFlight()
		if r.up && !r.retiring {
			bound += r.idle()
		}
		if r.status == replicaLive && r.redis.beat == beatGone && r.redis.beatLife == r.life && !m.believed(r) {
			return fmt.Errorf("r%d has retired, no later life has begun, and it is not believed", i)
		}
	}
	if s.redis.leased != leased {
		return fmt.Errorf("the record says that %d tokens are leased, its parts say %d", s.redis.leased, leased)
	}
	if s.redis.epoch != 0 && s.redis.settled != settled {
		return fmt.Errorf("the record says that %d tokens are settled, its events used %d", s.redis.settled, settled)
	}
	if bound > s.limit {
		return fmt.Errorf("%d tokens are used, in flight or idle, the limit is %d", bound, s.limit)
	}
	if s.redis.epoch != s.epoch || s.stale || s.redis.number != s.epoch && s.opened != s.epoch || !m.reached(s) {
		return nil // no lease grows by it
	}
	if s.redis.settled+leased-excess > s.limit && s.opened == s.epoch {
		return fmt.Errorf("%d tokens are settled and %d leased, the limit is %d", s.redis.settled, leased, s.limit)
	}
	for i := range m.replicas {
		if r := &s.r[i]; r.status != replicaLost {
			if err := m.checkReplica(s, r); err != nil {
				return fmt.Errorf("r%d: %w", i, err)
			}
		}
	}
	return nil
}

// reached reports whether some replica may have a connection to Redis.
func (m *model) reached(s *state) bool {
	for i := range m.replicas {
		if s.r[i].conn {
			return true
		}
	}
	return s.redis.nodes.record == s.starts.record
}

// checkReplica compares a replica with the record of the newest epoch.
func (m *model) checkReplica(s *state, r *replicaState) error {
	if left := upTo(r.forgotten) &^ r.redis.counted; left != 0 {
		return fmt.Errorf("events %b are forgotten, and not in the record", left)
	}
	if upTo(r.forgotten)&^r.rows != 0 {
		return fmt.Errorf("events up to %d are forgotten, Postgres has %b", r.forgotten, r.rows)
	}
	if r.up && r.declared == s.epoch && r.epoch == s.epoch {
		lease := r.lease
		for seq := r.settled; seq < r.read; seq++ {
			lease -= r.used[seq] * int8(r.redis.counted>>seq&1)
		}
		if max(r.redis.lease, 0) < lease {
			return fmt.Errorf("it counts on %d tokens, the record leases it %d", lease, r.redis.lease)
		}
	}
	if s.opened != s.epoch {
		return nil
	}
	// Whatever happens next: events are counted, and what they used is kept for them.
	kept := r.inFlight()
	mark := r.redis.mark
	if mark == never {
		mark = r.redis.member
	}
	for seq := range r.last {
		if r.redis.counted>>seq&1 != 0 {
			continue
		}
		kept += r.used[seq]
		if seq < mark || r.up && seq < r.settled {
			return fmt.Errorf("event %d will not be counted", seq+1)
		}
	}
	if max(r.redis.lease, 0) < kept {
		return fmt.Errorf("it needs %d tokens for what is in flight or not settled, the record leases it %d", kept, r.redis.lease)
	}
	return nil
}

// settle lets everything come to rest, from any state, and checks that it does: every
// event is counted once, nothing is leased, and what is left can be had.
func (m *model) settle(from *state) (path []action, err error) {
	s := *from
	err = m.settleWith(&s, func(a action) error {
		path = append(path, a)
		if err := m.do(&s, a); err != nil {
			return err
		}
		return m.check(&s)
	})
	if err == nil {
		err = m.checkServed(&s)
	}
	return path, err
}

// settleWith changes s with do until everything is at rest.
func (m *model) settleWith(s *state, do func(action) error) error {
	for range 20 {
		if m.checkRest(s) == nil {
			return nil
		}
		for i := range m.replicas {
			if err := m.settleReplica(s, i, do); err != nil {
				return err
			}
		}
		for s.makers[1].step == makerIdle && (!m.sound(s) || s.keeper.step != keeperIdle) {
			k := doKeep
			if s.keeper.step == keeperIdle {
				k = doNumber
			}
			if err := do(action{kind: k}); err != nil {
				return err
			}
		}
		for i := range s.makers {
			for s.makers[i].step != makerIdle {
				if err := do(action{kind: doMake, a: int8(i)}); err != nil {
					return err
				}
			}
		}
		if m.restorable(s) {
			if err := do(action{kind: doRestore}); err != nil {
				return err
			}
		}
		if s.redis.epoch != 0 && s.version > s.redis.version {
			if err := do(action{kind: doSetLimit}); err != nil {
				return err
			}
		}
		if m.openable(s) {
			if err := do(action{kind: doOpen}); err != nil {
				return err
			}
		}
	}
	return m.checkRest(s)
}

// settleReplica lets one replica do what is due.
func (m *model) settleReplica(s *state, i int8, do func(action) error) (err error) {
	r := &s.r[i]
	add := func(ok bool, k kind, a, b int8) {
		if ok && err == nil {
			err = do(action{k, i, a, b})
		}
	}
	for seq := range r.last {
		add(r.rows>>seq&1 == 0, doShip, seq, 0)
	}
	if m.retiring {
		add(m.retirable(s, r), doRetire, 0, 0)
		add(m.disbelieved(s, r), doRetire, 1, 0)
		idle := m.leaderIdle(s) && s.redis.number == s.epoch && s.redis.phase >= epochDeclaring
		add(idle && r.redis.beat == beatHere && r.redis.member == memberNone, doJoin, 0, 0)
		if r.retired && (r.status != replicaLive || m.believed(r)) {
			return err // else it is started again, since an epoch waits for it
		}
	}
	add(!r.up && r.status != replicaLost, doRestart, 0, 0)
	if !r.up || r.lost || r.status == replicaLost {
		if m.losable && m.leaderIdle(s) && s.redis.number == s.epoch {
			add(r.up && r.confirmed, doExpire, 0, 0)
			add(r.redis.member >= 0, doShut, 0, 0)
			add(r.redis.member == memberGone && s.redis.epoch == s.epoch && !r.redis.shut, doFree, 0, 0)
		}
		return err
	}
	add(!r.heard, doHear, 0, 0)
	add(r.heard, doFollow, 0, 0)
	for err == nil && r.open1 > 0 {
		add(true, doComplete, 1, 1)
	}
	for err == nil && r.open2 > 0 {
		add(true, doRelease, 2, 0)
	}
	add(r.read < r.last, doRead, 0, 0)
	add(r.call.state == callSent, doDeliver, 0, 0)
	add(r.call.state == callAnswered, doAnswer, 0, 0)
	if r.epoch > 0 {
		for range 2 { // the second is asked for by others, who want what this one lacks
			add(true, doLaunch, 0, 1)
			add(r.call.state == callSent, doDeliver, 0, 0)
			add(r.call.state == callAnswered, doAnswer, 0, 0)
		}
		add(r.epoch == s.redis.number && !r.redis.declared && s.redis.phase == epochDeclaring && !r.dirty, doDeclare, 0, 0)
	}
	if r.retiring && err == nil {
		switch {
		case m.closable(r) && r.epoch == s.epoch:
			add(true, doClose, 0, 0)
		case r.status == replicaUnknown: // nothing waits for it, whatever it leases
			add(true, doCrash, 0, 0)
		}
	}
	return err
}

// checkRest checks a state in which nothing is left to do.
func (m *model) checkRest(s *state) error {
	var used int8
	for i := range m.replicas {
		r := &s.r[i]
		if r.status == replicaLost {
			if r.redis.lease > 0 {
				return fmt.Errorf("at rest, lost r%d leases %d tokens", i, r.redis.lease)
			}
			for seq := range r.last {
				used += r.used[seq] * int8(r.redis.counted>>seq&1)
			}
			continue
		}
		used += r.sum(0, r.last)
		if r.up && (!r.open || !r.usable() || r.epoch != s.epoch) {
			return fmt.Errorf("at rest, r%d does not serve in epoch %d", i, s.epoch)
		}
		if r.rows != upTo(r.last) || r.redis.counted != upTo(r.last) || r.redis.lease > 0 {
			return fmt.Errorf("at rest, r%d has %d events, Postgres %b, the record %b, and leases %d", i, r.last, r.rows, r.redis.counted, r.redis.lease)
		}
	}
	switch {
	case s.redis.phase != epochOpen || s.redis.epoch != s.epoch || s.stale || s.redis.nodes != s.starts:
		return fmt.Errorf("epoch %d does not open", s.epoch)
	case s.redis.version != s.version:
		return fmt.Errorf("the record has version %d of the limit, not %d", s.redis.version, s.version)
	case s.redis.leased != 0:
		return fmt.Errorf("at rest, %d tokens are leased", s.redis.leased)
	case s.redis.settled != used:
		return fmt.Errorf("at rest, %d tokens are settled, %d were used", s.redis.settled, used)
	}
	return nil
}

// checkServed checks that a request is served which takes all that is left of the limit.
func (m *model) checkServed(s *state) error {
	r := &s.r[m.replicas-1]
	left := m.limitOf(s.redis.version) - int64(s.redis.settled)
	if !r.usable() || left <= 0 {
		return nil
	}
	if err := m.launch(s, r, int8(left), 0, true); err != nil {
		return err
	}
	if _, err := m.deliver(s, r, &r.call); err != nil {
		return err
	}
	if !r.open || int64(r.redis.lease) < left {
		return fmt.Errorf("at rest, a request of %d tokens is not served", left)
	}
	return nil
}
