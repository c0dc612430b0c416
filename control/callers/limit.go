package callers

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is how many requests are let through: PerSecond on average, Burst at once.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Limiter keeps a Rate per key, in bounded memory. Keys that were not seen for a while are
// forgotten, half of them at a time, and with them what they have used; a Rate must refill
// in less time than it takes strangers to bring that many new ones. It is safe for concurrent use.
type Limiter struct {
	rate Rate
	half int // keys per generation

	mu       sync.Mutex
	now, old map[string]*rate.Limiter
}

// NewLimiter returns a Limiter that remembers so many keys.
func NewLimiter(r Rate, keys int) *Limiter {
	return &Limiter{rate: r, half: max(keys/2, 1), now: make(map[string]*rate.Limiter)}
}

func (l *Limiter) of(key string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.now[key]; ok {
		return b
	}
	b, ok := l.old[key]
	if !ok {
		b = rate.NewLimiter(rate.Limit(l.rate.PerSecond), l.rate.Burst)
	}
	if len(l.now) >= l.half {
		l.old, l.now = l.now, make(map[string]*rate.Limiter, l.half)
	}
	l.now[key] = b
	return b
}

// Take lets one request through, or says after how long to come again. A request that is
// refused costs nothing.
func (l *Limiter) Take(key string, at time.Time) (wait time.Duration, ok bool) {
	r := l.of(key).ReserveN(at, 1)
	if !r.OK() { // a burst of 0
		return time.Minute, false
	}
	if wait = r.DelayFrom(at); wait > 0 {
		r.CancelAt(at)
		return wait, false
	}
	return 0, true
}

// Forget gives a key all of its burst again.
func (l *Limiter) Forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.now, key)
	delete(l.old, key)
}

// Len is how many keys are remembered.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.now) + len(l.old)
}
