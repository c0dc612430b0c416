package upstream

import (
	"time"
)

// Result is what a request showed about its upstream and key.
type Result struct {
	// Failed counts against the endpoint's breaker: it could not be reached, did not
	// answer in time, cut an answer or answered 5xx.
	Failed bool
	// Cooldown sets the key aside for this long, as after a 429 with Retry-After; two
	// minutes at most unless KeyRefused is set, for it is the upstream that names it.
	Cooldown time.Duration
	// KeyRefused sets the key aside because the upstream does not accept it
	// (401, 402, 403); for a minute when Cooldown is 0.
	KeyRefused bool
}

// Target is one key of one upstream, picked for one request. It belongs to one
// goroutine at a time and is invalid after Release.
type Target struct {
	pool    *Pool
	key     *keyState
	served  string
	probe   bool // it is the one request that a half-open breaker let pass
	gotHead bool
	local   bool // the last failure never left this process
}

// Config returns the upstream's configuration, which must not be changed.
func (t *Target) Config() *Config { return &t.key.ep.cfg }

// KeyName returns the name of the key, for logs and metrics.
func (t *Target) KeyName() string { return t.key.name }

// Served returns the upstream's id of the model that was asked for.
func (t *Target) Served() string { return t.served }

// Release gives the target back, exactly once, after the Response was closed. When
// neither a failure is reported nor a response head was received (the client left
// first), the breaker learns nothing; nor from a failure that never left this process
// (a refused header value, no connection or file descriptor free).
func (t *Target) Release(r Result) {
	p, k := t.pool, t.key
	if p == nil {
		panic("BUG: upstream: Target released twice")
	}
	o := neutral
	switch {
	case r.Failed && !t.local:
		o = failure
	case t.gotHead:
		o = success
	}
	at := p.opts.Now().Sub(p.start)
	if r.KeyRefused && r.Cooldown <= 0 {
		r.Cooldown = refusedCooldown
	}
	if !r.KeyRefused {
		r.Cooldown = min(r.Cooldown, maxCooldown)
	}
	if r.Cooldown > 0 {
		k.cool(at+r.Cooldown, r.KeyRefused)
		p.opts.Logger.Warn("upstream key set aside", "upstream", k.ep.cfg.Name, "key", k.name, "for", r.Cooldown, "refused", r.KeyRefused)
		if f := p.opts.Observe.Cooling; f != nil {
			f(k.ep.cfg.Name, k.name, r.Cooldown, r.KeyRefused)
		}
	}
	if changed, open := k.ep.breaker.report(at, o, t.probe); changed {
		p.opts.Logger.Warn("upstream breaker", "upstream", k.ep.cfg.Name, "open", open)
		if f := p.opts.Observe.Breaker; f != nil {
			f(k.ep.cfg.Name, open)
		}
	}
	k.inflight.Add(-1)
	p.live.Add(-1)
	*t = Target{}
	p.targets.Put(t)
}

// cool sets the key aside until then; an earlier, longer cool-down stays.
func (k *keyState) cool(until time.Duration, refused bool) {
	for {
		old := k.cooling.Load()
		if int64(until) <= old {
			return
		}
		if k.cooling.CompareAndSwap(old, int64(until)) {
			k.refused.Store(refused)
			return
		}
	}
}
