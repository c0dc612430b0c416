package upstream

import (
	"sync"
	"sync/atomic"
	"time"
)

// breaker keeps requests away from an endpoint that fails. Closed: requests pass,
// consecutive failures are counted. Open: none pass until a time. Half-open: one
// probe passes and decides. Times are durations since the pool's start.
type breaker struct {
	threshold int32
	open      time.Duration

	failures atomic.Int32
	until    atomic.Int64 // not 0: open until then, half-open after it

	mu      sync.Mutex // guards the transitions below, never held on the closed path
	probing bool
}

// state says whether a request may pass, and if not when to ask again. probe means
// that it may pass only after winning tryProbe.
func (b *breaker) state(now time.Duration) (ok, probe bool, at time.Duration) {
	u := time.Duration(b.until.Load())
	switch {
	case u == 0:
		return true, false, 0
	case now < u:
		return false, false, u
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.probing {
		return false, false, now
	}
	return true, true, 0
}

// keepsAway reports whether requests do not pass now, or one of them is a probe. Half-open with nobody asking
// is neither: how the endpoint is then is not known.
func (b *breaker) keepsAway(now time.Duration) bool {
	u := time.Duration(b.until.Load())
	if u == 0 || now < u {
		return u != 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.probing
}

// tryProbe claims the one probe of the half-open state.
func (b *breaker) tryProbe(now time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u := time.Duration(b.until.Load()); u == 0 || now < u || b.probing {
		return false
	}
	b.probing = true
	return true
}

// outcome of a request as the breaker sees it.
type outcome uint8

const (
	neutral outcome = iota // says nothing about the endpoint
	success
	failure
)

// report counts an outcome. changed is true when the breaker opened (also again) or closed.
func (b *breaker) report(now time.Duration, o outcome, probe bool) (changed, open bool) {
	if !probe {
		switch {
		case o == success && b.failures.Load() != 0 && b.until.Load() == 0:
			b.failures.Store(0)
		case o == failure && b.failures.Add(1) >= b.threshold:
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.until.Load() == 0 {
				b.until.Store(int64(max(1, now+b.open)))
				return true, true
			}
		}
		return false, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	switch o {
	case success:
		b.failures.Store(0)
		b.until.Store(0)
		return true, false
	case failure:
		b.until.Store(int64(max(1, now+b.open)))
		return true, true
	}
	return false, false
}
