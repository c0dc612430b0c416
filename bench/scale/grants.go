package scale

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/compare"
	"github.com/andreabadesso/openclaw-cloud/bench/lab"
	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// Grants measures the cost of a request with Steps grants in Redis, beside nginx: when one customer sends
// all requests, so that nothing but the number of grants is different from one step to the next, and when
// up to Active do. With more of them there is more to settle, once a second for each.
type Grants struct {
	Steps    []int // ascending
	Active   int
	Rates    []float64 // requests per second at which Redis' commands are counted
	Few      int       // customers that send those
	Rounds   int
	Duration time.Duration // of each; ten times as long for Redis' commands
	Body     int           // bytes of a request
	Say      func(format string, args ...any)
}

// Run measures it. The lab needs nginx and token-proxy.
func (c Grants) Run(ctx context.Context, l *lab.Lab) ([]record.Sample, error) {
	nginx, proxy := l.Find(compare.Baseline), l.Find(peers.TokenProxy)
	if nginx == nil || proxy == nil {
		return nil, errors.New("grants: nginx and token-proxy are needed")
	}
	if err := l.Warm(ctx, nginx); err != nil {
		return nil, err
	}
	// One customer alone is to send everything.
	if err := l.Platform().Lift(ctx); err != nil {
		return nil, err
	}
	all, err := c.redis(ctx, l, proxy)
	if err != nil {
		return nil, err
	}
	for _, n := range c.Steps {
		c.Say("%d grants in Redis", n)
		if err := l.Platform().Idle(ctx, n); err != nil {
			return nil, err
		}
		fresh, err := l.Fresh(ctx, proxy.Peer, fmt.Sprintf("-grants%d", n))
		if err != nil {
			return nil, err
		}
		samples, err := c.step(ctx, l, nginx, fresh, n)
		fresh.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, samples...)
	}
	return all, nil
}

// step measures with n grants.
func (c Grants) step(ctx context.Context, l *lab.Lab, nginx, fresh *peers.Running, n int) ([]record.Sample, error) {
	one, some := *fresh, *fresh
	one.Tokens = fresh.Tokens[:1]
	some.Tokens = fresh.Tokens[:min(n, c.Active, len(fresh.Tokens))]
	all, err := c.rounds(ctx, l, record.PhaseOne, nginx, &one, n)
	if err != nil {
		return nil, err
	}
	samples, err := c.rounds(ctx, l, record.PhaseRequests, nginx, &some, n)
	return append(all, samples...), err
}

// steady is before Redis' commands are counted at a rate: until no tokens of who is silent are returned any
// more (after 7.5 s), and until leases that grew with what was in flight before have been used up to what is
// spare at this rate, which lasts about twice as long. With what is counted it stays below the 30 s after which
// token-proxy closes a connection on which nothing was sent.
const steady = 18 * time.Second

// redis counts Redis' commands at different rates of the same customers. Nobody else was ever heard of: the
// tokens of customers who fell silent would be returned while the first rate is counted.
func (c Grants) redis(ctx context.Context, l *lab.Lab, proxy *peers.Running) ([]record.Sample, error) {
	few := *proxy
	few.Tokens = few.Tokens[:min(c.Few, len(few.Tokens))]
	if err := l.Warm(ctx, &few); err != nil {
		return nil, err
	}
	var all []record.Sample
	for _, rate := range c.Rates {
		s, err := l.Measure(ctx, &few, record.PhaseRedis, load.Config{
			Rate: rate, Connections: connections, Warmup: steady, Duration: 10 * c.Duration, Timeout: 10 * time.Second,
			Jobs: lab.Whole(&few, c.Body),
		})
		if err != nil {
			return nil, err
		}
		s.Step, s.Offered = rate, rate
		all = append(all, s)
		c.Say("%8.0f requests/s of %d customers: %.0f served, Redis executes %.0f commands/s; failures %v",
			rate, len(few.Tokens), float64(s.Load.Answers)/s.Load.Seconds, float64(s.Redis)/s.Load.Seconds, s.Load.Failures)
	}
	return all, nil
}

const (
	connections = 64
	together    = 3 // measurements of both at the same time in a round
)

// rounds measures token-proxy alone for what it serves, and together with nginx for its processor time.
func (c Grants) rounds(ctx context.Context, l *lab.Lab, phase string, nginx, fresh *peers.Running, n int) ([]record.Sample, error) {
	if err := l.Warm(ctx, fresh); err != nil {
		return nil, err
	}
	// What that has left is none of nginx's.
	if err := l.Settle(ctx, fresh); err != nil {
		return nil, err
	}
	closed := func(r *peers.Running, connections int) load.Config {
		return load.Config{
			Closed: true, Connections: connections, Warmup: 500 * time.Millisecond, Duration: c.Duration,
			Jobs: lab.Whole(r, c.Body),
		}
	}
	pair := []*peers.Running{nginx, fresh}
	var all []record.Sample
	for round := range c.Rounds {
		alone, err := l.Measure(ctx, fresh, phase, closed(fresh, connections))
		if err != nil {
			return nil, err
		}
		if alone.MemoryBytes, err = fresh.Proc.Memory(); err != nil {
			return nil, err
		}
		if alone.RedisBytes, err = l.Platform().RedisMemory(ctx); err != nil {
			return nil, err
		}
		samples := []record.Sample{alone}
		for range together {
			both, err := l.Together(ctx, pair, record.Together(phase), []load.Config{closed(nginx, connections/2), closed(fresh, connections/2)})
			if err != nil {
				return nil, err
			}
			samples = append(samples, both...)
		}
		for _, s := range samples {
			s.Round, s.Step = round, float64(n)
			all = append(all, s)
			c.Say("%8d grants  %4d customers  %-18s %-12s %7.0f/s  %6.2f µs CPU each  p99 %.0f µs  failures %v", n, len(fresh.Tokens), s.Phase, s.Peer, float64(s.Load.Answers)/s.Load.Seconds, s.CPUMicros, s.Load.Latency.P99, s.Load.Failures)
		}
	}
	return all, nil
}
