package chat

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is how many are let through: PerSecond on average, Burst at once.
type Rate struct {
	PerSecond float64
	Burst     int
}

// keys is how many addresses a limiter remembers in each of its two generations: those that were not seen
// for the longest are forgotten together.
const keys = 20_000

// limiter keeps a Rate per address.
type limiter struct {
	rate Rate

	mu       sync.Mutex
	now, old map[string]*rate.Limiter
}

func newLimiter(r Rate) *limiter { return &limiter{rate: r, now: make(map[string]*rate.Limiter)} }

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
	if len(l.now) >= keys {
		l.old, l.now = l.now, make(map[string]*rate.Limiter)
	}
	l.now[key] = b
	return b
}

// take lets one through, or says after how long to come again.
func (l *limiter) take(key string, at time.Time) (wait time.Duration, ok bool) {
	r := l.of(key).ReserveN(at, 1)
	if !r.OK() {
		return time.Minute, false
	}
	if wait = r.DelayFrom(at); wait > 0 {
		r.CancelAt(at)
		return wait, false
	}
	return 0, true
}

// subnet is what an address is limited by: of IPv6 the /64, since who has one address has all of it.
func subnet(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr().String()
		}
	}
	return a.String()
}
