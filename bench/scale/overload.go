package scale

import (
	"context"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/lab"
	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// Overload measures token-proxy (and others, for the first kind) under Steps times the load
// that it can take, for two reasons: because its processor is busy, and because customers
// send more than they may. In the first case clients wait as they are told to, but those
// of one more sample, who ask again at once, whatever the answer; so do those who send more than they may. What it can take is what it answers with Connections always busy: more
// connections cost more per request, so with few of them it would take more.
type Overload struct {
	Steps       []float64
	Duration    time.Duration
	Connections int // at most; a request beyond waits in the generator
	Customers   int // that send too much
	PerCustomer float64
	Body        int // bytes of a request
	Say         func(format string, args ...any)
}

// overloadWarmup is before what is counted: a proxy needs a moment to see that there is too much to
// do, and another one for what was queued meanwhile.
const overloadWarmup = 5 * time.Second

// Run measures it.
func (c Overload) Run(ctx context.Context, l *lab.Lab) ([]record.Sample, error) {
	var all []record.Sample
	for _, r := range l.Running {
		if err := l.Warm(ctx, r); err != nil {
			return nil, err
		}
		// What it takes without refusing, with as many connections as it can have for that.
		var capacity float64
		for n := c.Connections; ; n = max(64, n/4) {
			s, err := l.Measure(ctx, r, record.PhaseCapacity, load.Config{
				Closed: true, Connections: n, Ramp: time.Second, Warmup: 3 * time.Second, Duration: c.Duration, Jobs: lab.Whole(r, c.Body),
			})
			if err != nil {
				return nil, err
			}
			capacity = float64(s.Load.Answers) / s.Load.Seconds
			c.Say("%s takes %.0f requests/s with %d connections, and refuses %.0f", r.Name, capacity, n, float64(s.Load.Refused)/s.Load.Seconds)
			s.Step = float64(n)
			all = append(all, s)
			if s.Load.Refused*100 <= s.Load.Answers || n <= 64 {
				break
			}
		}
		for _, step := range c.Steps {
			s, err := c.measure(ctx, l, r, record.PhaseOverload, step, load.Config{Rate: capacity * step, Patient: true, Jobs: lab.Whole(r, c.Body)})
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
		s, err := c.measure(ctx, l, r, record.PhaseStorm, float64(c.Connections), load.Config{Closed: true, Ramp: time.Second, Jobs: lab.Whole(r, c.Body)})
		if err != nil {
			return nil, err
		}
		all = append(all, s)
		if len(r.Tokens) < c.Customers {
			continue
		}
		few := *r
		few.Tokens = r.Tokens[:c.Customers]
		for _, step := range c.Steps {
			s, err := c.measure(ctx, l, r, record.PhaseRates, step, load.Config{Rate: float64(c.Customers) * c.PerCustomer * step, Jobs: lab.Whole(&few, c.Body)})
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

func (c Overload) measure(ctx context.Context, l *lab.Lab, r *peers.Running, phase string, step float64, cfg load.Config) (record.Sample, error) {
	cfg.Poisson, cfg.Seed, cfg.Connections = cfg.Rate > 0, 1, c.Connections
	cfg.Warmup, cfg.Duration, cfg.Timeout = overloadWarmup, c.Duration, 10*time.Second
	s, err := l.Measure(ctx, r, phase, cfg)
	if err != nil {
		return s, fmt.Errorf("%s under %s %.2f: %w", r.Name, phase, step, err)
	}
	s.Step = step
	c.Say("%-9s %4.2f × %-16s offered %7.0f/s  admitted %7.0f/s  refused %7.0f/s  waiting as told %7.0f/s  p99 of admitted %.0f µs, of refused %.0f µs  failures %v",
		phase, step, r.Name, cfg.Rate, float64(s.Load.Answers)/s.Load.Seconds, float64(s.Load.Refused)/s.Load.Seconds, float64(s.Load.Withheld)/s.Load.Seconds, s.Load.Latency.P99, s.Load.Refusing.P99, s.Load.Failures)
	s.Offered = cfg.Rate
	return s, nil
}
