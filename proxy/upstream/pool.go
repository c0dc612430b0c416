package upstream

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

const (
	defaultRetryBudget = 0.1
	minRetries         = 3           // retries at a time that are always allowed, whatever the budget
	refusedCooldown    = time.Minute // for a refused key when the caller names no time
	maxCooldown        = 2 * time.Minute
)

// Options of a Pool; the zero value is usable.
type Options struct {
	Logger *slog.Logger     // key and breaker transitions; defaults to discarding
	Now    func() time.Time // for cool-downs and breakers; defaults to time.Now

	// RetryBudget is the greatest share of live requests that may be retries at any
	// moment (three are always allowed). Defaults to 0.1; negative means no retries.
	RetryBudget float64

	Observe Observe
}

// Observe holds hooks for metrics; each may be nil. They are called from the
// goroutine of a request and must be quick.
type Observe struct {
	Dial    func(upstream string, took time.Duration, err error)      // a connection was opened, or not
	Retry   func(upstream string, done bool)                          // a retry was due; done is false when the budget did not allow it
	Breaker func(upstream string, open bool)                          // a breaker opened or closed
	Cooling func(upstream, key string, d time.Duration, refused bool) // a key was set aside
	Conn    func(upstream string, reused bool)                        // a connection was taken for a request
}

// Pool is the set of upstreams of one proxy. Safe for concurrent use.
type Pool struct {
	opts       Options
	start      time.Time // all instants in the pool are durations since start
	endpoints  []*endpoint
	routes     map[kimi.Face]map[string]*route
	models     []string
	estimators map[string]*route // of upstreams with an EstimatePath, by model
	targets    sync.Pool
	live       atomic.Int64 // Targets picked and not released
	retrying   atomic.Int64
	readBufs   bufferPool
	writeBufs  bufferPool
}

// route lists what can serve one (face, model).
type route struct {
	asked      string
	next       atomic.Uint32 // where to start, so that equals take turns
	candidates []candidate
}

type candidate struct {
	key    *keyState
	served string
}

// keyState is one key of one endpoint.
type keyState struct {
	ep       *endpoint
	name     string
	weight   int64
	auth     []byte // head lines of every request with this key, the secret included
	inflight atomic.Int64
	cooling  atomic.Int64 // until then; 0 when not
	refused  atomic.Bool  // why it is cooling
}

// NewPool builds a pool from configurations, each with defaults applied and validated
// here; all problems are returned at once.
func NewPool(cfgs []Config, opts Options) (*Pool, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.RetryBudget == 0 {
		opts.RetryBudget = defaultRetryBudget
	}
	p := &Pool{opts: opts, start: opts.Now(), routes: map[kimi.Face]map[string]*route{}, estimators: map[string]*route{}}
	p.targets.New = func() any { return new(Target) }
	p.readBufs.keep, p.writeBufs.keep = 4*readBufferBytes, keepBytes
	var errs []error
	seen := map[string]bool{}
	if len(cfgs) == 0 {
		errs = append(errs, errors.New("upstreams: configure at least one"))
	}
	for i := range cfgs {
		c := cfgs[i]
		c.Keys = slices.Clone(c.Keys)
		c.SetDefaults()
		if err := c.Validate(); err != nil {
			errs = append(errs, err)
			continue
		}
		if seen[c.Name] {
			errs = append(errs, fmt.Errorf("upstream %q: the name is used twice", c.Name))
			continue
		}
		seen[c.Name] = true
		ep, err := newEndpoint(c, &p.opts)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.add(ep)
	}
	if err := errors.Join(errs...); err != nil {
		p.Close()
		return nil, err
	}
	slices.Sort(p.models)
	p.models = slices.Compact(p.models)
	return p, nil
}

func (p *Pool) add(ep *endpoint) {
	p.endpoints = append(p.endpoints, ep)
	face, _ := ep.cfg.face()
	models := p.routes[face]
	if models == nil {
		models = map[string]*route{}
		p.routes[face] = models
	}
	for _, k := range ep.cfg.Keys {
		ep.keys = append(ep.keys, &keyState{ep: ep, name: k.Name, weight: int64(k.Weight), auth: ep.authLines(k)})
	}
	for asked, served := range ep.cfg.Models {
		p.models = append(p.models, asked)
		addRoute(models, asked, served, ep.keys)
		if ep.cfg.EstimatePath != "" {
			addRoute(p.estimators, asked, served, ep.keys)
		}
	}
}

func addRoute(routes map[string]*route, asked, served string, keys []*keyState) {
	r := routes[asked]
	if r == nil {
		r = &route{asked: asked}
		routes[asked] = r
	}
	for _, k := range keys {
		r.candidates = append(r.candidates, candidate{key: k, served: served})
	}
}

// Close closes idle connections and refuses new ones; exchanges in progress go on and
// close theirs at their end.
func (p *Pool) Close() {
	for _, ep := range p.endpoints {
		ep.close()
	}
}

// Models returns the sorted names that clients may ask for, over both faces.
func (p *Pool) Models() []string { return slices.Clone(p.models) }

// Serves reports whether some upstream is configured for the face and model.
func (p *Pool) Serves(face kimi.Face, model string) bool { return p.routes[face][model] != nil }

// Name returns the name of a model: without a copy of it if some upstream is configured for it.
func (p *Pool) Name(face kimi.Face, model []byte) string {
	if r := p.routes[face][string(model)]; r != nil {
		return r.asked
	}
	return string(model)
}

// Pick chooses the least loaded key (in flight per weight) among those that are not
// cooling and whose endpoint's breaker lets a request pass, and counts it as in
// flight until Target.Release. Errors: ErrNoModel, *UnavailableError.
func (p *Pool) Pick(face kimi.Face, model []byte, now time.Time) (*Target, error) {
	return p.PickExcept(face, model, now, "")
}

// PickExcept is Pick without the upstream of this name, for another attempt after
// Error.Sent was false. It returns an *UnavailableError when there is no other.
func (p *Pool) PickExcept(face kimi.Face, model []byte, now time.Time, except string) (*Target, error) {
	return p.pick(p.routes[face][string(model)], now, except)
}

// PickEstimator is Pick among the upstreams that have an EstimatePath, whatever their
// face: estimates have one format, the OpenAI face's. Any other face gives ErrNoModel.
func (p *Pool) PickEstimator(face kimi.Face, model []byte, now time.Time) (*Target, error) {
	if face != kimi.OpenAI {
		return nil, ErrNoModel
	}
	return p.pick(p.estimators[string(model)], now, "")
}

// pick chooses from r, which may be nil.
func (p *Pool) pick(r *route, now time.Time, except string) (*Target, error) {
	if r == nil {
		return nil, ErrNoModel
	}
	at := now.Sub(p.start)
	for {
		c, probe := r.least(at, except)
		if c == nil {
			return nil, r.unavailable(at)
		}
		if probe && !c.key.ep.breaker.tryProbe(at) {
			continue // somebody else won the probe: the breaker now says no
		}
		c.key.inflight.Add(1)
		p.live.Add(1)
		t := p.targets.Get().(*Target)
		*t = Target{pool: p, key: c.key, served: c.served, probe: probe}
		return t, nil
	}
}

// least returns the candidate to use, nil when there is none, and whether using it
// needs the probe of its endpoint's breaker.
func (r *route) least(at time.Duration, except string) (best *candidate, probe bool) {
	n := len(r.candidates)
	start := 0
	if n > 1 {
		start = int(r.next.Add(1) % uint32(n)) //nolint:gosec // n is small
	}
	var load int64
	for i := range n {
		c := &r.candidates[(start+i)%n]
		k := c.key
		if time.Duration(k.cooling.Load()) > at || except != "" && k.ep.cfg.Name == except {
			continue
		}
		ok, half, _ := k.ep.breaker.state(at)
		if !ok {
			continue
		}
		// load/best.weight > inflight/weight, without dividing
		in := k.inflight.Load()
		if best == nil || in*best.key.weight < load*k.weight {
			best, probe, load = c, half, in
		}
	}
	return best, probe
}

// unavailable says when the first candidate becomes usable again.
func (r *route) unavailable(at time.Duration) *UnavailableError {
	reason := ReasonBreaker
	first := time.Duration(-1)
	for i := range r.candidates {
		k := r.candidates[i].key
		_, _, t := k.ep.breaker.state(at)
		if t == 0 {
			if reason != ReasonCooling {
				reason = ReasonCooling
				if k.refused.Load() {
					reason = ReasonRefused
				}
			}
			if !k.refused.Load() {
				reason = ReasonCooling
			}
		}
		t = max(t, time.Duration(k.cooling.Load()))
		if first < 0 || t < first {
			first = t
		}
	}
	return &UnavailableError{RetryAfter: wholeSeconds(first - at), Reason: reason}
}

// wholeSeconds rounds up to seconds, at least one.
func wholeSeconds(d time.Duration) time.Duration {
	return max(time.Second, (d + time.Second - 1).Truncate(time.Second))
}

// allowRetry takes a place among the retries in progress; endRetry gives it back.
func (p *Pool) allowRetry() bool {
	if p.opts.RetryBudget < 0 {
		return false
	}
	limit := max(minRetries, int64(p.opts.RetryBudget*float64(p.live.Load())))
	if p.retrying.Add(1) > limit {
		p.retrying.Add(-1)
		return false
	}
	return true
}

func (p *Pool) endRetry() { p.retrying.Add(-1) }

// Stats is a snapshot for metrics.
type Stats struct {
	Upstream    string
	Open, Idle  int  // connections, idle ones included in Open
	InFlight    int  // requests picked and not released
	BreakerOpen bool // requests are kept away, or one of them probes
	Keys        int
	KeysCooling int
}

// Stats returns one entry per upstream, in configuration order.
func (p *Pool) Stats() []Stats {
	at := p.opts.Now().Sub(p.start)
	out := make([]Stats, len(p.endpoints))
	for i, ep := range p.endpoints {
		s := &out[i]
		s.Upstream = ep.cfg.Name
		s.Open, s.Idle = ep.counts()
		s.BreakerOpen = ep.breaker.keepsAway(at)
		s.Keys = len(ep.keys)
		for _, k := range ep.keys {
			s.InFlight += int(k.inflight.Load())
			if time.Duration(k.cooling.Load()) > at {
				s.KeysCooling++
			}
		}
	}
	return out
}
