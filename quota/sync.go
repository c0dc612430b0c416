package quota

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// flight is a call on its way.
type flight struct {
	account *account
	call    call
	order   int64         // account.calls of the call
	done    chan struct{} // closed when it landed
	err     error         // valid after done
}

// The reasons why a call came to nothing.
var (
	errNoRecord = errors.New("there is no record of the customer's period in Redis yet")
	errEpoch    = errors.New("Redis lost its data; the limits are being rebuilt")
	errStale    = errors.New("an earlier call was answered late")
	errLost     = errors.New("this replica was declared lost")
)

// launch builds the next call of a, whose lock is held and which has no call under way.
func (l *Leases) launch(a *account, surrender bool) *flight {
	a.dirty = false
	f := &flight{account: a, call: a.build(l.epoch.Load(), l.journal.Life(), l.open.Load(), surrender), done: make(chan struct{})}
	f.order = a.calls
	a.flight = f
	return f
}

// fly makes one call by itself.
func (l *Leases) fly(f *flight) {
	ctx, cancel := context.WithTimeout(context.Background(), l.opts.Timeout)
	defer cancel()
	values, err := l.sync.Run(ctx, l.guarded, f.keys(), f.call.args(l.journal.Replica(), l.base.Load())...).Slice()
	l.land(f, values, err)
}

func (f *flight) keys() []string {
	return []string{contract.QuotaKey(f.account.key.customer, f.account.key.period)}
}

// flyAll makes many calls in as few trips as there are Redis servers.
func (l *Leases) flyAll(flights []*flight) {
	ctx, cancel := context.WithTimeout(context.Background(), l.opts.Timeout)
	defer cancel()
	calls := make([]*redis.Cmd, len(flights))
	// Its own error is that of its first failed call.
	_, _ = l.guarded.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, f := range flights {
			calls[i] = l.sync.EvalSha(ctx, p, f.keys(), f.call.args(l.journal.Replica(), l.base.Load())...)
		}
		return nil
	})
	for i, f := range flights {
		values, err := calls[i].Slice()
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			l.fly(f)
			continue
		}
		l.land(f, values, err)
	}
}

// land makes the answer to a call effective.
func (l *Leases) land(f *flight, values []any, err error) {
	var r reply
	if err == nil {
		l.outage.worked()
		r, err = parseReply(values)
	} else {
		l.outage.failed(time.Now())
	}
	a := f.account
	a.mu.Lock()
	if f.call.epoch != l.epoch.Load() && err == nil {
		err = errEpoch
	}
	if err == nil {
		err = l.accept(a, f, r)
	}
	if err != nil {
		f.err = fmt.Errorf("lease tokens: %w", err)
		a.dirty = true // whether Redis heard it or not
	}
	a.flight = nil
	a.mu.Unlock()
	close(f.done)
	l.waiters.wake(a.key.customer)
	if errors.Is(err, errNoRecord) {
		l.report(a.key)
	}
}

// accept applies an answer of the epoch that still holds. a's lock is held.
func (l *Leases) accept(a *account, f *flight, r reply) error {
	switch r.status {
	case syncOK:
		if r.lease < a.held+a.unsettled-f.call.sum {
			l.opts.Logger.Error("BUG: Redis granted a smaller lease than is in use", "customer", a.key.customer, "lease", r.lease, "held", a.held, "unsettled", a.unsettled)
		}
		a.apply(&f.call, r)
		a.declared = f.call.epoch
		return nil
	case syncMissing:
		return errNoRecord
	case syncEpoch:
		return errEpoch
	case syncLost:
		l.loseAll()
		return errLost
	case syncStale:
		// Of an earlier life with the same number, or this very call, sent twice.
		if same := r.number >> 32; same == callNumber(l.journal.Life(), 0)>>32 {
			a.calls = max(a.calls, r.number&(1<<32-1))
		}
		return errStale
	default:
		return fmt.Errorf("the script answered %d", r.status)
	}
}

// report tells the control plane of a record that is missing.
func (l *Leases) report(k accountKey) {
	ctx, cancel := context.WithTimeout(context.Background(), l.opts.Timeout)
	defer cancel()
	if err := l.client.SAdd(ctx, contract.QuotaMissingKey, k.customer+" "+k.period).Err(); err != nil {
		l.opts.Logger.Warn("cannot report that a quota record is missing", "customer", k.customer, "error", err)
	}
}

// maxFlights is how many accounts are called at once.
const maxFlights = 256

// tick calls for all accounts that have something to settle, and now and then returns what
// nobody uses.
func (l *Leases) tick(ctx context.Context) {
	t := time.NewTicker(l.opts.SettleEvery)
	defer t.Stop()
	var swept time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-l.kick:
		}
		if l.epoch.Load() <= 0 || l.lost.Load() {
			continue
		}
		now := l.now()
		sweep := now-swept > l.opts.ReturnAfter/2
		if sweep {
			swept = now
			l.sweep(now)
		}
		l.callDirty()
	}
}

func (l *Leases) tickNow() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// callDirty calls once for every account that wants it, and waits for the answers.
func (l *Leases) callDirty() {
	var flights []*flight
	fly := func() {
		if len(flights) > 0 {
			l.flyAll(flights)
			flights = flights[:0]
		}
	}
	l.each(func(a *account) {
		if a.dirty && a.flight == nil {
			surrender := len(a.waiting) == 0 && l.now()-a.usedAt > l.opts.ReturnAfter
			flights = append(flights, l.launch(a, surrender))
		}
	})
	for len(flights) > maxFlights {
		l.flyAll(flights[:maxFlights])
		flights = flights[maxFlights:]
	}
	fly()
}

// sweep marks accounts that hold tokens idle for long, and forgets those that hold nothing.
func (l *Leases) sweep(now time.Duration) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for k, a := range s.by {
			a.mu.Lock()
			silent := now - a.usedAt
			if a.idle() > 0 && silent > l.opts.ReturnAfter {
				a.dirty = true
			}
			if a.empty() && silent > l.opts.ForgetAfter {
				a.gone = true
				delete(s.by, k)
			}
			a.mu.Unlock()
		}
		s.mu.Unlock()
	}
}

// returnAll gives back every lease. Nothing is reserved any more.
func (l *Leases) returnAll(ctx context.Context) error {
	for {
		left := int64(0)
		l.each(func(a *account) {
			if a.lease > 0 {
				left += a.lease
				a.dirty, a.usedAt = true, -l.opts.ReturnAfter-1
			}
		})
		if left == 0 || l.epoch.Load() <= 0 {
			return nil
		}
		l.tickNow()
		if !pause(ctx, 5*time.Millisecond) {
			return fmt.Errorf("return leases: %d tokens are not returned: %w", left, ctx.Err())
		}
	}
}
