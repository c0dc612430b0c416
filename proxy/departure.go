package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

// departures bounds the calls to one upstream that go on without their client (policy
// drain). It is safe for concurrent use.
type departures struct {
	patience time.Duration // with one call
	limit    int64         // calls at a time
	running  atomic.Int64
}

// departuresOf returns the bounds of the upstreams that have the policy drain, by name.
func departuresOf(upstreams []upstream.Config) map[string]*departures {
	out := map[string]*departures{}
	for i := range upstreams {
		if u := &upstreams[i]; u.OnClientGone == upstream.ClientGoneDrain {
			out[u.Name] = &departures{patience: u.DrainTime.Std(), limit: int64(u.MaxDrains)}
		}
	}
	return out
}

func (d *departures) enter() bool {
	if d.running.Add(1) > d.limit {
		d.running.Add(-1)
		return false
	}
	return true
}

// departure is what becomes of a call when its client leaves: it is cut, or, once the
// upstream has been asked and if that has the policy drain, read to its own end for the
// exact count. Its methods may be called from any goroutine.
type departure struct {
	going atomic.Bool // the client has left and the call goes on

	mu     sync.Mutex
	left   bool
	bounds *departures // nil: cut
	timer  *time.Timer // cuts a call that goes on for too long
}

// mayGoOn lets the call go on without its client from now on. It reports false when the
// client has left before.
func (c *call) mayGoOn(d *departures) bool {
	p := &c.departure
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.left {
		p.bounds = d
	}
	return !p.left
}

// clientLeft says that the client has left, and reports whether the call goes on.
func (c *call) clientLeft() bool {
	p := &c.departure
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.left {
		p.left = true
		if p.bounds != nil && p.bounds.enter() {
			p.going.Store(true)
			p.timer = time.AfterFunc(p.bounds.patience, func() { c.cancel.Cancel(errClientGone) })
		}
	}
	if !p.going.Load() {
		c.cancel.Cancel(errClientGone)
		return false
	}
	return true
}

// departed is the end of it. Nobody calls clientLeft after it.
func (c *call) departed() {
	p := &c.departure
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
		p.bounds.running.Add(-1)
	}
}
