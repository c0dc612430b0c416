package telegram

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/andreabadesso/openclaw-cloud/control/callers"
)

// keptPeople is how many people are remembered in each of two generations: those who have not written for
// the longest are forgotten together.
const keptPeople = 20_000

// people limits what each of those who write may send: each message costs work, and may cost tokens.
type people struct {
	rate callers.Rate

	mu       sync.Mutex
	now, old map[int64]*writer
}

// writer is somebody who writes.
type writer struct {
	limit *rate.Limiter
	told  bool // that it is too fast, since it was not
}

func newPeople(r callers.Rate) *people { return &people{rate: r, now: make(map[int64]*writer)} }

// mayWrite lets one message of somebody through. first says that it is the first one that is not.
func (p *people) mayWrite(id int64, at time.Time) (ok, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, known := p.now[id]
	if !known {
		if w, known = p.old[id]; !known {
			w = &writer{limit: rate.NewLimiter(rate.Limit(p.rate.PerSecond), p.rate.Burst)}
		}
		if len(p.now) >= keptPeople {
			p.old, p.now = p.now, make(map[int64]*writer)
		}
		p.now[id] = w
	}
	ok = w.limit.AllowN(at, 1)
	first = !ok && !w.told
	w.told = !ok
	return ok, first
}
