package quota

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// TryReserve answers from what is leased: Granted, or Unknown.
func (l *Leases) TryReserve(acct Account, tokens int64) Answer {
	now := l.now()
	if !l.usable(now) {
		return Answer{}
	}
	a := l.find(accountKey{acct.Customer, acct.Period.ID})
	if a == nil {
		return Answer{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	tokens = max(tokens, 0)
	if a.gone || !a.current() || acct.LimitVersion > a.version || !a.give(tokens, now) {
		return Answer{}
	}
	return a.answer(Granted, tokens)
}

// recheck is how long what an answer of Redis left free counts, for those who need more.
const recheck = 5 * time.Millisecond

// Reserve asks Redis for what is missing, and for news if nothing is to be reserved.
// Reservations that come meanwhile share the call.
func (l *Leases) Reserve(ctx context.Context, acct Account, tokens int64) (Answer, error) {
	if err := ctx.Err(); err != nil {
		return Answer{}, fmt.Errorf("reserve tokens: %w", err)
	}
	a := l.lock(accountKey{acct.Customer, acct.Period.ID})
	a.learn(acct.Limit, acct.LimitVersion)
	w := &wait{tokens: max(tokens, 0), since: a.calls}
	a.waiting = append(a.waiting, w)
	out, err := l.await(ctx, a, w)
	a.unwait(w)
	recall := false
	switch {
	case err != nil:
		if w.granted {
			a.release(w.tokens)
		}
		err = fmt.Errorf("reserve tokens: %w", err)
	case out.Verdict == Held:
		// Those who have tokens to spare do not hear it more often than they can act on it.
		if now := l.now(); a.others > 0 && now-a.recallAt > recallPause {
			a.recallAt = now
			recall = true
		}
	}
	a.mu.Unlock()
	if recall {
		l.spawn(func() { l.recall(a.key) })
	}
	return out, err
}

// await answers a reservation that is on the list of a, whose lock is held before and after.
func (l *Leases) await(ctx context.Context, a *account, w *wait) (Answer, error) {
	var failed error
	asked := w.tokens > 0 // otherwise it is news that is wanted
	for stale := 0; ; {
		now := l.now()
		if !l.usable(now) {
			return Answer{}, errors.Join(ErrUnavailable, l.Ready())
		}
		if w.granted || asked && a.current() && a.give(w.tokens, now) {
			return a.answer(Granted, w.tokens), nil
		}
		if failed != nil {
			return Answer{}, failed
		}
		// Who comes just after an answer that left too little would get the same one.
		if a.answeredAt != 0 && now-a.answeredAt < recheck && a.current() && !a.exceeds(w.tokens) && w.tokens-a.idle() > a.free() {
			return a.answer(Held, w.tokens), nil
		}
		f, launched := a.flight, false
		if f == nil {
			if !l.open.Load() || l.epoch.Load() <= 0 || !l.serverOf(a).allow(time.Now()) {
				return Answer{}, fmt.Errorf("%w: Redis failed a moment ago, or lost its data", ErrUnavailable)
			}
			// What is idle is kept at first, so that others are served meanwhile.
			f, launched = l.launch(a, a.impatient() || !a.current()), true
		}
		a.mu.Unlock()
		if launched {
			l.send(f)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			a.mu.Lock()
			return Answer{}, ctx.Err()
		}
		a.mu.Lock()
		asked = true
		switch {
		case w.granted:
		case errors.Is(f.err, errStale) && stale < 2:
			stale++ // the next call is newer
		case f.err != nil:
			failed = fmt.Errorf("%w: %w", ErrUnavailable, f.err)
		case f.order > w.since && a.exceeds(w.tokens):
			return a.answer(Exceeds, w.tokens), nil
		case f.call.surrender && w.asked != 0 && f.order >= w.asked:
			return a.answer(Held, w.tokens), nil
		}
	}
}

// Release frees a hold of which nothing was used.
func (l *Leases) Release(h Hold) {
	if h.IsZero() {
		return
	}
	a := l.lock(accountKey{h.Customer, h.PeriodID})
	a.release(h.Tokens)
	a.usedAt = l.now()
	a.mu.Unlock()
	l.waiters.wake(h.Customer)
}
