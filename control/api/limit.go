package api

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is how many requests are let through: PerSecond on average, Burst at once.
type Rate struct {
	PerSecond float64
	Burst     int
}

// limiter keeps a Rate per key, in bounded memory. Keys that were not seen for a while are
// forgotten, half of them at a time, and with them what they have used; a Rate must refill
// in less time than it takes strangers to bring that many new ones.
type limiter struct {
	rate Rate
	half int // keys per generation

	mu       sync.Mutex
	now, old map[string]*rate.Limiter
}

func newLimiter(r Rate, keys int) *limiter {
	return &limiter{rate: r, half: max(keys/2, 1), now: map[string]*rate.Limiter{}}
}

func (l *limiter) of(key string) *rate.Limiter {
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

// take lets one request through, or says after how long to come again. A request that is
// refused costs nothing.
func (l *limiter) take(key string, at time.Time) (wait time.Duration, ok bool) {
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

// forget gives a key all of its burst again.
func (l *limiter) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.now, key)
	delete(l.old, key)
}

// len is how many keys are known.
func (l *limiter) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.now) + len(l.old)
}

func tooMany(wait time.Duration, what string) error {
	return &failure{kind: kindTooMany(), detail: what, retryAfter: max(wait, time.Second)}
}

// subnet is what an address is limited by: of IPv6 the /64, since who has one address has
// all of it.
func subnet(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr().String()
		}
	}
	return a.String()
}
