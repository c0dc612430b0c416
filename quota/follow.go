package quota

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
)

// States of an epoch.
const (
	stateBuilding  = "building"  // records are being made
	stateDeclaring = "declaring" // replicas tell what they lease
	stateOpen      = "open"      // leases may grow
)

// What stands in place of a base on the register.
const (
	memberLost   = "lost" // it was declared lost
	memberComing = "-"    // it gets a base once the records of the epoch are made
)

// States in a beat.
const (
	beatLive    = "live"
	beatRetired = "retired"
)

// nextField, with the name of a replica, is the field of a life that waits to show itself.
const nextField = "next:"

// waitScript says that a life waits, and answers 1, if an earlier one has retired and that
// was not dealt with yet.
//
//	KEYS[1] QuotaBeatsKey
//	ARGV: replica, life, how often it has said so
const waitScript = `
local life = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^%d+|(%d+)|.*|retired$')
if life and life ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 'next:' .. ARGV[1], ARGV[2] .. '|' .. ARGV[3])
  return 1
end
redis.call('HDEL', KEYS[1], 'next:' .. ARGV[1])
return 0
`

// follow shows that this replica lives and keeps up with the epoch, until ctx ends.
func (l *Leases) follow(ctx context.Context) {
	t := time.NewTicker(l.opts.FollowEvery)
	defer t.Stop()
	failed := false
	for {
		err := l.followOnce(ctx)
		if err != nil && ctx.Err() == nil && !failed {
			l.opts.Logger.Warn("the quota's epoch cannot be followed; will retry", "error", err)
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-l.nudge:
		}
	}
}

// look has the epoch read soon.
func (l *Leases) look() {
	select {
	case l.nudge <- struct{}{}:
	default:
	}
}

// followOnce beats, and reads where the epoch is. It confirms the leases only if this
// replica is on the register of an epoch that is not older than its own: if Redis lost
// its data or went back, they run out with the grace.
func (l *Leases) followOnce(ctx context.Context) error {
	asked := l.now() // hearing counts from before the question: the answer may be that old
	timed, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel()
	me := l.journal.Replica()
	l.beating.Lock() // no beat of a life may follow that of its end
	defer l.beating.Unlock()
	if err := l.mayBeat(timed); err != nil {
		return unavailable("read beat", ctx, err)
	}
	var fields *redis.SliceCmd
	_, err := l.client.Pipelined(timed, func(p redis.Pipeliner) error {
		if l.beaten && !l.retiring {
			p.HSet(timed, contract.QuotaBeatsKey, me, l.beat(l.epoch.Load(), beatLive))
		}
		fields = p.HMGet(timed, contract.QuotaEpochKey, "epoch", "state", "m:"+me, "grace")
		return nil
	})
	if err != nil {
		return unavailable("read epoch", ctx, err)
	}
	text := func(i int) string { s, _ := fields.Val()[i].(string); return s }
	member, state := text(2), text(1)
	allowed, _ := strconv.ParseInt(text(3), 10, 64) // 0 while it is not said
	confirm := func() {
		if allowed > 0 {
			l.obeyed.Store(allowed * int64(time.Millisecond))
		}
		l.confirmed.Store(max(int64(asked), 1))
	}
	epoch, _ := strconv.ParseInt(text(0), 10, 64) // 0 if there is none
	if member == memberLost {
		l.loseAll()
		return nil
	}
	if !l.beaten {
		return nil
	}
	mine := l.epoch.Load()
	if epoch != mine {
		l.open.Store(false)
	}
	if member == "" || epoch < max(mine, 1) {
		return nil
	}
	if member == memberComing {
		if state == stateBuilding && mine > 0 {
			// The epoch will not be opened before this replica has declared what it leases.
			confirm()
		}
		return nil
	}
	base, err := strconv.ParseInt(member, 10, 64)
	if err != nil {
		return fmt.Errorf("read epoch: register has %q: %w", member, err)
	}
	if epoch > mine && state != stateBuilding {
		if err := l.enter(ctx, epoch, base, state); err != nil {
			return err
		}
	}
	if state == stateOpen && l.epoch.Load() == epoch {
		l.open.Store(true)
	}
	confirm() // last: who is ready can serve
	return nil
}

// mayBeat finds out, once, whether this life may show itself: not while the retirement of
// an earlier one is still to be noted. Otherwise an older copy of Redis' data could tell of
// that retirement when this life has leases, and the control plane knew of none. Meanwhile it
// says again and again that it waits: the control plane cannot know whether the earlier life has
// ended, or is only silent and will retire once more. l.beating is held.
func (l *Leases) mayBeat(ctx context.Context) error {
	if l.beaten || l.retiring {
		return nil
	}
	waits, err := l.wait.Run(ctx, l.client, []string{contract.QuotaBeatsKey}, l.journal.Replica(), l.journal.Life(), l.waited+1).Int()
	if err != nil {
		return err
	}
	if waits == 1 {
		l.waited++
		return nil
	}
	l.beaten = true
	return nil
}

// giveUp reports whether this life still waits to show itself; then it never does. It has no
// lease, and is on no register. The earlier life has returned what it leased before it retired;
// if what tells of that is an older copy of Redis' data, what is leased stays so, as after a crash.
func (l *Leases) giveUp() bool {
	l.beating.Lock()
	defer l.beating.Unlock()
	if l.beaten || l.waited == 0 {
		return false
	}
	l.retiring = true
	return true
}

// waitNoMore takes back that this life waits, once nothing follows the epoch any more. It may
// fail: one that does not say so again and again is not believed.
func (l *Leases) waitNoMore() {
	l.beating.Lock()
	defer l.beating.Unlock()
	if l.beaten || l.waited == 0 {
		return
	}
	timed, cancel := context.WithTimeout(context.Background(), l.opts.Timeout)
	defer cancel()
	_ = l.client.HDel(timed, contract.QuotaBeatsKey, nextField+l.journal.Replica()).Err()
}

// beat is what the control plane reads of this replica.
func (l *Leases) beat(epoch int64, state string) string {
	return fmt.Sprintf("%d|%d|%d|%d|%s", time.Now().UnixMilli(), l.journal.Life(), l.journal.Last(), epoch, state)
}

// enter begins a newer epoch: everything that the rebuilt records lack is settled anew,
// and every lease declared. Reservations go on from what is leased.
func (l *Leases) enter(ctx context.Context, epoch, base int64, state string) error {
	l.reading.Lock()
	err := l.rebase(epoch, base)
	l.reading.Unlock()
	if err != nil {
		return fmt.Errorf("begin epoch %d: %w", epoch, err)
	}
	l.opts.Logger.Info("a new epoch of the quota begins", "epoch", epoch, "state", state, "settled_up_to", base)
	l.done.Go(func() { l.declare(ctx, epoch) }) // the caller is among them, so nobody has waited yet
	return nil
}

// declare settles and tells what is leased, account by account, and then says so.
func (l *Leases) declare(ctx context.Context, epoch int64) {
	for l.epoch.Load() == epoch && !l.lost.Load() {
		left, wait := 0, 10*time.Millisecond
		l.each(func(a *account) {
			if a.declared == epoch {
				return
			}
			a.mark(a.dirty || a.lease > 0 || len(a.pending) > 0)
			// Without either it is dirty after a call that may still come, and lease what was
			// released since.
			if a.dirty || a.flight != nil && a.flight.call.epoch == epoch {
				left++
			}
		})
		if left == 0 {
			timed, cancel := context.WithTimeout(ctx, l.opts.Timeout)
			faultpoint.At("lease.declare.before")
			// Not if it comes so late that the epoch is another one, in which this may have been said.
			done, err := l.setFields.Run(timed, l.client, []string{contract.QuotaEpochKey}, epoch, "d:"+l.journal.Replica(), epoch).Int()
			faultpoint.At("lease.declare.after")
			cancel()
			if err == nil && done == 1 {
				return
			}
			wait = l.opts.FollowEvery // Redis is silent, or at another epoch, of which this hears
		}
		l.tickNow()
		if !pause(ctx, wait) {
			return
		}
	}
}

// retireWait is how long a replica that has returned everything waits for the control plane
// to take it off the register. If Redis lost its data before that, epochs would wait for it.
const retireWait = 2 * time.Second

// leave settles and returns everything, and has this replica taken off the register, so that
// nothing waits for it.
func (l *Leases) leave(ctx context.Context) error {
	for {
		epoch := l.epoch.Load()
		if err := l.Flush(ctx); err != nil {
			return err
		}
		if err := l.returnAll(ctx); err != nil {
			return err
		}
		if l.epoch.Load() != epoch || epoch < 0 {
			// What was settled and returned was that of an older epoch.
			if !pause(ctx, 5*time.Millisecond) {
				return ctx.Err()
			}
			continue
		}
		err := l.retire(ctx, epoch)
		if err == nil || l.epoch.Load() == epoch {
			return err
		}
	}
}

// retire tells the control plane that nothing of an epoch is left here, and waits a while
// for its answer. It fails with errEpoch once another epoch has been entered.
func (l *Leases) retire(ctx context.Context, epoch int64) error {
	l.beating.Lock()
	l.retiring = true
	beaten := l.beaten
	l.beating.Unlock()
	if !beaten {
		return nil // there is nothing to take back
	}
	me := l.journal.Replica()
	tell := func() error {
		timed, cancel := context.WithTimeout(ctx, l.opts.Timeout)
		defer cancel()
		if epoch == 0 {
			// It never had a lease.
			return l.client.HDel(timed, contract.QuotaBeatsKey, me).Err()
		}
		return l.client.HSet(timed, contract.QuotaBeatsKey, me, l.beat(epoch, beatRetired)).Err()
	}
	if err := tell(); err != nil || epoch == 0 {
		return unavailable("retire", ctx, err)
	}
	told := l.now()
	for end := told + retireWait; l.now() < end && pause(ctx, 5*time.Millisecond); {
		switch {
		case l.epoch.Load() != epoch:
			return errEpoch
		case l.lost.Load():
			return fmt.Errorf("retire: %w", ErrLost)
		}
		switch there, off := l.register(ctx); {
		case there == epoch && off:
			return nil
		case there > epoch:
			// It is entered as soon as its records are made, and all is settled and returned
			// in it; if this replica is not on its register, the end was heard before.
			if off {
				return nil
			}
			end = l.now() + retireWait
		}
		if l.now()-told > l.opts.FollowEvery {
			told = l.now()
			_ = tell() // a beat that was late may have replaced it
		}
	}
	l.opts.Logger.Warn("nobody has taken this replica off the quota's register; it has retired, and waits for the control plane", "epoch", epoch)
	return nil
}

// register reads which epoch there is, 0 if that is not known, and whether this replica is
// off its register for sure: not while that is still to be written.
func (l *Leases) register(ctx context.Context) (epoch int64, off bool) {
	timed, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel()
	fields, err := l.client.HMGet(timed, contract.QuotaEpochKey, "epoch", "state", "m:"+l.journal.Replica()).Result()
	if err != nil {
		return 0, false
	}
	text, _ := fields[0].(string)
	epoch, _ = strconv.ParseInt(text, 10, 64) // 0 if there is none
	return epoch, fields[1] != stateBuilding && fields[2] == nil
}

// loseAll ends all service: what this replica leased was given to others.
func (l *Leases) loseAll() {
	if !l.lost.Swap(true) {
		l.opts.Logger.Error("ALERT: this replica was declared lost; it serves nothing until it is started with a new journal")
	}
}
