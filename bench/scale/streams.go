package scale

import (
	"context"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/lab"
	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// Streams measures open streams: Steps of them at a time, at each of the lab's proxies,
// each at a new instance.
type Streams struct {
	Steps    []int
	Interval time.Duration // between the events of a stream
	Duration time.Duration // that is counted, 3 s or more
	Body     int           // bytes of a request
	Say      func(format string, args ...any)
}

// Run measures them.
func (c Streams) Run(ctx context.Context, l *lab.Lab) ([]record.Sample, error) {
	var all []record.Sample
	for _, n := range c.Steps {
		for _, r := range l.Running {
			fresh, err := l.Fresh(ctx, r.Peer, fmt.Sprintf("-streams%d", n))
			if err != nil {
				return nil, err
			}
			s, err := c.measure(ctx, l, fresh.Name, n, func() (record.Sample, error) {
				if err := l.Warm(ctx, fresh); err != nil {
					return record.Sample{}, err
				}
				warmup := lab.OpenTime(fresh, n) + time.Second
				// They last until the end.
				cfg := lab.Streams(fresh, load.Shape{BodyBytes: c.Body}, n, c.Interval, warmup+c.Duration+10*time.Second)
				cfg.Warmup, cfg.Duration, cfg.Timeout = warmup, c.Duration, time.Hour
				if fresh.Proc == nil {
					return l.Measure(ctx, fresh, record.PhaseMemory, cfg)
				}
				return l.Memory(ctx, fresh, cfg)
			})
			fresh.Close()
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

func (c Streams) measure(ctx context.Context, l *lab.Lab, name string, n int, do func() (record.Sample, error)) (record.Sample, error) {
	if err := l.Settle(ctx); err != nil {
		return record.Sample{}, err
	}
	s, err := do()
	if err != nil {
		return s, err
	}
	s.Step = float64(n)
	c.Say("%6d streams  %-16s %7.0f events/s  %6.2f µs CPU each  %6.1f KiB per stream  lag p50 %.0f p99 %.0f µs  failures %v",
		n, name, float64(s.Load.Events)/s.Load.Seconds, s.CPUMicros, s.StreamBytes/1024, s.Load.Lag.P50, s.Load.Lag.P99, s.Load.Failures)
	return s, nil
}
