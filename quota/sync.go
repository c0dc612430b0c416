package quota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
)

// flight is a call on its way.
type flight struct {
	account *account
	record  string // its key
	server  *server
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
	errReplaced = errors.New("a later life of this replica's journal makes calls")
	errClosed   = errors.New("closed")
)

// launch builds the next call of a, whose lock is held and which has no call under way.
func (l *Leases) launch(a *account, surrender bool) *flight {
	// Under a's lock the base belongs to the epoch: rebase locks every account in between.
	epoch, base := l.epoch.Load(), l.base.Load()
	surrender = surrender || a.recalled && len(a.waiting) == 0
	now := l.now()
	a.dirty, a.urgent, a.recalled = false, false, false
	a.plan(now, l.grace())
	record := contract.QuotaKey(a.key.customer, a.key.period)
	f := &flight{account: a, record: record, server: l.servers.of(l.client, record), done: make(chan struct{})}
	f.call = a.build(epoch, l.journal.Life(), l.open.Load(), surrender)
	f.call.base = base
	if now < a.shyUntil {
		f.call.spare = 0
	}
	f.order = a.calls
	a.flight = f
	return f
}

// fly makes one call by itself.
func (l *Leases) fly(f *flight) {
	ctx, cancel := l.timed(f.call.epoch)
	defer cancel()
	faultpoint.At("lease.call.before")
	values, err := l.sync.Run(ctx, l.guarded, []string{f.record}, f.call.args(l.journal.Replica())...).Slice()
	faultpoint.At("lease.call.after")
	f.server.was(err == nil)
	l.land(f, values, err)
}

// timed returns the context of a call: it outlives whoever waits for the answer.
func (l *Leases) timed(epoch int64) (context.Context, context.CancelFunc) {
	return context.WithTimeout(inEpoch(context.Background(), epoch), l.opts.Timeout)
}

// flyAll makes many calls of one epoch, to one server as far as is known, in one trip. It
// reports whether any was answered.
func (l *Leases) flyAll(epoch int64, flights []*flight) bool {
	ctx, cancel := l.timed(epoch)
	defer cancel()
	records, args := make([]string, len(flights)), make([][]any, len(flights))
	for i, f := range flights {
		records[i], args[i] = f.record, f.call.args(l.journal.Replica())
	}
	faultpoint.At("lease.settle.before")
	calls := runAll(ctx, l.guarded, l.sync, records, args)
	faultpoint.At("lease.settle.after")
	answered := slices.ContainsFunc(calls, func(c *redis.Cmd) bool { return c.Err() == nil })
	flights[0].server.was(answered)
	for i, f := range flights {
		values, err := calls[i].Slice()
		l.land(f, values, err)
	}
	return answered
}

// land makes the answer to a call effective.
func (l *Leases) land(f *flight, values []any, err error) {
	var r reply
	if err == nil {
		r, err = parseReply(values)
	}
	a, now := f.account, l.now()
	a.mu.Lock()
	if err == nil && f.call.epoch != l.epoch.Load() {
		err = errEpoch
	}
	if err == nil {
		err = l.accept(a, f, r, now)
	}
	if err != nil {
		f.err = fmt.Errorf("lease tokens: %w", err)
		// Redis may have heard it, and lease what nobody knows of here; not in an older epoch.
		a.mark(a.dirty || f.call.epoch == l.epoch.Load() || a.lease > 0 || len(a.pending) > 0)
	}
	if errors.Is(err, errNoRecord) {
		a.mark(a.lease > 0 || len(a.pending) > 0)
		a.retryAt = now + missingRetry
		if l.missing.add(a.key) {
			l.tickNow()
		}
		if a.declared == f.call.epoch && l.open.Swap(false) {
			// It was there. Nothing grows until the epoch is known to hold.
			l.opts.Logger.Error("a quota record has vanished", "customer", a.key.customer, "period", a.key.period)
			l.look()
		}
	}
	a.flight = nil
	more := a.idle() > 0
	a.mu.Unlock()
	close(f.done)
	if more {
		l.waiters.wake(a.key.customer)
	}
}

// accept applies an answer of the epoch that still holds. a's lock is held.
func (l *Leases) accept(a *account, f *flight, r reply, now time.Duration) error {
	switch r.status {
	case syncOK:
		a.apply(&f.call, r)
		if a.idle() < 0 {
			l.opts.Logger.Error("BUG: Redis granted a smaller lease than is in use", "customer", a.key.customer, "lease", r.lease, "held", a.held, "unsettled", a.unsettled)
		}
		a.answeredAt = max(now, 1)
		a.declared = f.call.epoch
		if a.current() && l.usable(now) {
			a.serve(now)
		}
		return nil
	case syncMissing:
		return errNoRecord
	case syncEpoch:
		return errEpoch
	case syncLost:
		l.loseAll()
		return ErrLost
	case syncStale:
		// This very call, sent twice by the client, or one of an account that was forgotten.
		switch mine := callNumber(l.journal.Life(), 0) >> 32; {
		case r.number>>32 > mine:
			return errReplaced
		case r.number>>32 == mine:
			a.calls = max(a.calls, r.number&(1<<32-1))
		}
		return errStale
	default:
		return fmt.Errorf("the script answered %d", r.status)
	}
}

// missingRetry is how long after it was missed a record is looked for again at a tick.
const missingRetry = 200 * time.Millisecond

// missing are records that were not found, and not reported yet. The zero value is ready.
type missing struct {
	mu   sync.Mutex
	keys map[accountKey]struct{}
}

// add reports whether k is new.
func (m *missing) add(k accountKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys == nil {
		m.keys = map[accountKey]struct{}{}
	}
	_, known := m.keys[k]
	m.keys[k] = struct{}{}
	return !known
}

func (m *missing) take() map[accountKey]struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := m.keys
	m.keys = nil
	return keys
}

// report tells the control plane of records that are missing. What it cannot tell, the next
// call for the account finds again.
func (l *Leases) report(ctx context.Context) {
	keys := l.missing.take()
	if len(keys) == 0 {
		return
	}
	names := make([]any, 0, len(keys))
	for k := range keys {
		names = append(names, k.customer+" "+k.period)
	}
	timed, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel()
	if err := l.client.SAdd(timed, contract.QuotaMissingKey, names...).Err(); err != nil && ctx.Err() == nil {
		l.opts.Logger.Warn("cannot report that quota records are missing", "records", len(names), "error", err)
	}
}

// maxFlights is how many accounts are called at once.
const maxFlights = 256

// tick calls for the accounts whose turn it is or that hurry, and now and then returns what
// nobody uses.
func (l *Leases) tick(ctx context.Context) {
	t := time.NewTicker(l.opts.SettleEvery)
	defer t.Stop()
	var swept time.Duration
	var turn bool
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			turn = true
		case <-l.kick:
			turn = false
		}
		if l.lost.Load() {
			continue
		}
		if now := l.now(); now-swept > l.opts.ReturnAfter/2 {
			swept = now
			l.sweep(now)
		}
		l.callDirty(turn)
		l.report(ctx)
	}
}

func (l *Leases) tickNow() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// due reports whether a tick should call for a, whose lock is held.
func (a *account) due(now time.Duration) bool {
	return a.urgent && a.flight == nil && now >= a.retryAt && !a.gone
}

// dues returns the accounts that a tick should call for. At a turn, which is at each tick that
// nobody asked for, those come in that wait for theirs.
func (l *Leases) dues(now time.Duration, turn bool) []*account {
	soon, come := l.dirty.take(turn)
	for _, a := range come {
		a.mu.Lock()
		a.ringed = false
		if a.dirty {
			a.mark(true)
		}
		a.mu.Unlock()
	}
	if len(come) > 0 {
		more, _ := l.dirty.take(false)
		soon = append(soon, more...)
	}
	var due []*account
	still := soon[:0]
	for _, a := range soon {
		a.mu.Lock()
		if a.due(now) {
			due = append(due, a)
		}
		// Until it is called, or if it is not yet due, the next tick looks again.
		a.soon = a.urgent && !a.gone
		if a.soon {
			still = append(still, a)
		}
		a.mu.Unlock()
	}
	l.dirty.hurry(still...)
	return due
}

// callDirty calls once for every account that wants it. It does not wait for the answers: a
// server that is silent must not hold up what others are told.
func (l *Leases) callDirty(turn bool) {
	dirty := map[*server][]*account{}
	for _, a := range l.dues(l.now(), turn) {
		s := l.serverOf(a)
		dirty[s] = append(dirty[s], a)
	}
	for s, accounts := range dirty {
		if s.busy.Swap(true) {
			s.more.Store(true)
			continue
		}
		l.done.Go(func() { // the caller is among them, so nobody has waited yet
			l.callServer(s, accounts)
			s.busy.Store(false)
			if s.more.Swap(false) {
				l.tickNow()
			}
		})
	}
}

// callServer calls for accounts whose records one server has, and waits for the answers.
func (l *Leases) callServer(s *server, accounts []*account) {
	for some := range slices.Chunk(accounts, maxFlights) {
		epoch, now := l.epoch.Load(), l.now()
		if epoch <= 0 {
			return
		}
		flights := make([]*flight, 0, len(some))
		for _, a := range some {
			a.mu.Lock()
			if a.due(now) {
				flights = append(flights, l.launch(a, len(a.waiting) == 0 && now-a.usedAt > l.opts.ReturnAfter && l.returning(s, now)))
			}
			a.mu.Unlock()
		}
		if len(flights) > 0 && !l.flyAll(epoch, flights) {
			return // the others would only wait for the same timeout, and stay dirty
		}
	}
}

// answering reports whether Redis has answered lately, and leases. While it does not, what
// is idle is not returned: it is all that customers can be served from.
func (l *Leases) answering(now time.Duration) bool {
	return now-time.Duration(l.confirmed.Load()) < 4*l.opts.FollowEvery && l.open.Load() || l.hurry.Load()
}

// returning is answering for what one server has to be told.
func (l *Leases) returning(s *server, now time.Duration) bool {
	return l.answering(now) && (!s.failing() || l.hurry.Load())
}

// sweep marks accounts that hold tokens idle for long, and forgets those that hold nothing.
func (l *Leases) sweep(now time.Duration) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for k, a := range s.by {
			a.mu.Lock()
			silent := now - a.usedAt
			if a.idle() > 0 && silent > l.opts.ReturnAfter && l.answering(now) {
				a.mark(true)
			}
			if a.empty() && silent > l.opts.ForgetAfter {
				a.gone = true
				// Numbers must go on where they were if it comes back. Nobody else stores it.
				l.callsGone.Store(max(l.callsGone.Load(), a.calls))
				delete(s.by, k)
			}
			a.mu.Unlock()
		}
		s.mu.Unlock()
	}
}

// returnAll gives back every lease, also those of earlier lives. Nothing is reserved any more.
func (l *Leases) returnAll(ctx context.Context) error {
	l.hurry.Store(true)
	for !l.lost.Load() {
		left, calls := int64(0), 0
		l.each(func(a *account) {
			if a.lease > 0 || a.dirty || a.flight != nil {
				left += a.lease
				calls++
				a.mark(true)
				a.retryAt, a.usedAt = 0, -l.opts.ReturnAfter-1
			}
		})
		if calls == 0 && (l.swept.Load() || l.giveUp()) {
			return nil
		}
		l.tickNow()
		if !pause(ctx, 5*time.Millisecond) {
			return fmt.Errorf("return leases: %d tokens of %d accounts are not returned: %w", left, calls, ctx.Err())
		}
	}
	return fmt.Errorf("return leases: %w", ErrLost)
}
