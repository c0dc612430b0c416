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
// send more than they may. What it can take is what it answers with Connections always busy: more
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
			s, err := c.measure(ctx, l, r, record.PhaseOverload, step, capacity*step, lab.Whole(r, c.Body))
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
		if len(r.Tokens) < c.Customers {
			continue
		}
		few := *r
		few.Tokens = r.Tokens[:c.Customers]
		for _, step := range c.Steps {
			s, err := c.measure(ctx, l, r, record.PhaseRates, step, float64(c.Customers)*c.PerCustomer*step, lab.Whole(&few, c.Body))
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

func (c Overload) measure(ctx context.Context, l *lab.Lab, r *peers.Running, phase string, step, rate float64, jobs func(uint64) load.Job) (record.Sample, error) {
	s, err := l.Measure(ctx, r, phase, load.Config{
		Rate: rate, Poisson: true, Seed: 1, Connections: c.Connections, Warmup: overloadWarmup, Duration: c.Duration, Timeout: 10 * time.Second, Jobs: jobs,
	})
	if err != nil {
		return s, fmt.Errorf("%s at %.2f times the load: %w", r.Name, step, err)
	}
	s.Step = step
	c.Say("%-9s %4.2f × %-16s offered %7.0f/s  admitted %7.0f/s  refused %7.0f/s  p99 of admitted %.0f µs, of refused %.0f µs  failures %v",
		phase, step, r.Name, rate, float64(s.Load.Answers)/s.Load.Seconds, float64(s.Load.Refused)/s.Load.Seconds, s.Load.Latency.P99, s.Load.Refusing.P99, s.Load.Failures)
	s.Offered = rate
	return s, nil
}
