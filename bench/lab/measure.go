package lab

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/proc"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// Jobs makes requests of a shape for a peer.
func Jobs(r *peers.Running, s load.Shape) func(uint64) load.Job {
	return s.Jobs(r.Addr, r.Header, r.Tokens)
}

// Warm sends each credential's first requests, so that connections, caches and leases are
// there, and fails if the peer does not answer.
func (l *Lab) Warm(ctx context.Context, r *peers.Running) error {
	n := max(len(r.Tokens), 200)
	arrivals := make([]time.Duration, n)
	var last load.Result
	// A customer's first request may be refused while its record is being made, and a share of
	// them where the machine has too much to do: each try is slower.
	for try := range 6 {
		for i := range arrivals {
			arrivals[i] = time.Duration(i) * 250 * time.Microsecond << try
		}
		result, err := load.Run(ctx, load.Config{
			Target: r.Addr, Jobs: Jobs(r, load.Shape{OutputTokens: 16, BodyBytes: 256}), Arrivals: arrivals, Connections: 64, Timeout: 15 * time.Second,
		})
		if err != nil {
			return fmt.Errorf("warm %s: %w", r.Name, err)
		}
		if last = result; result.Answers == int64(n) {
			return nil
		}
	}
	return fmt.Errorf("%s does not answer all requests: %d of %d; failures %v", r.Name, last.Answers, n, last.Failures)
}

// settleLimit is how long a measurement waits for what the last one left.
const settleLimit = 30 * time.Second

// Settle waits until neither the lab's proxies nor others that are given work on the usage of
// earlier requests.
func (l *Lab) Settle(ctx context.Context, others ...*peers.Running) error {
	for _, r := range append(others, l.Running...) {
		if r.Settled == nil {
			continue
		}
		if err := r.Proc.Await(ctx, settleLimit, r.Settled); err != nil {
			return fmt.Errorf("usage of earlier requests: %w", err)
		}
	}
	return nil
}

// Measure runs a load against a peer. While the machine is busy with something else it
// tries again, as the options say, and keeps what was least disturbed.
func (l *Lab) Measure(ctx context.Context, r *peers.Running, phase string, cfg load.Config) (record.Sample, error) {
	return leastDisturbed(l.o.Retries, l.o.Quiet, func(try int, foreign float64) (record.Sample, error) {
		if try > 0 {
			l.o.Say("%s, %s: something else uses %.1f processors; once more", r.Name, phase, foreign)
		}
		return l.measure(ctx, r, phase, cfg, func() {})
	})
}

// Together runs a load against each of some peers at the same time, as Measure does against one. What
// something else does to the machine meanwhile, it does to all of them alike.
func (l *Lab) Together(ctx context.Context, rs []*peers.Running, phase string, cfgs []load.Config) ([]record.Sample, error) {
	began := time.Now()
	// What one of them has left shall not be the others'.
	if err := l.Settle(ctx); err != nil {
		return nil, err
	}
	waited := time.Since(began).Seconds()
	var best []record.Sample
	disturbed, tries := math.Inf(1), 0
	for ; best == nil || tries <= l.o.Retries && disturbed > l.o.Quiet; tries++ {
		samples, errs := make([]record.Sample, len(rs)), make([]error, len(rs))
		// Nobody begins before all can.
		var all, ready sync.WaitGroup
		ready.Add(len(rs))
		for i, r := range rs {
			all.Go(func() {
				var once sync.Once
				arrive := func() { once.Do(ready.Done) }
				defer arrive()
				samples[i], errs[i] = l.measure(ctx, r, phase, cfgs[i], func() {
					arrive()
					ready.Wait()
				})
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		foreign, settled := 0.0, 0.0
		for i := range samples {
			foreign, settled = max(foreign, samples[i].Foreign), max(settled, samples[i].SettleSeconds)
			samples[i].SettleSeconds, samples[i].Tries = 0, 1 // the first one tells of all
		}
		if waited += settled; best == nil || foreign < disturbed {
			best, disturbed = samples, foreign
		}
	}
	best[0].SettleSeconds, best[0].Tries = waited, tries
	return best, nil
}

// leastDisturbed measures until nothing else uses more than quiet processors, but not more often
// than that and retries times again. measure is told how many tries there were, and the least
// that something else has used in them.
func leastDisturbed(retries int, quiet float64, measure func(try int, foreign float64) (record.Sample, error)) (record.Sample, error) {
	best, err := measure(0, 0)
	settled := best.SettleSeconds
	for best.Tries = 1; err == nil && best.Tries <= retries && best.Foreign > quiet; {
		var s record.Sample
		if s, err = measure(best.Tries, best.Foreign); err != nil {
			break
		}
		settled += s.SettleSeconds
		s.Tries = best.Tries + 1
		if s.Foreign < best.Foreign {
			best = s
		}
		best.Tries = s.Tries
	}
	best.SettleSeconds = settled
	return best, err
}

// measure does so once. It calls ready when all is prepared, just before the load.
func (l *Lab) measure(ctx context.Context, r *peers.Running, phase string, cfg load.Config, ready func()) (record.Sample, error) {
	s := record.Sample{Peer: r.Name, Phase: phase}
	if err := l.settle(ctx, r, &s); err != nil {
		return s, err
	}
	cfg.Target = r.Addr
	own, err1 := proc.NewMeter(r.Proc)
	around, err2 := proc.NewMeter(l.platformOf(r)...)
	rest, err3 := proc.NewMeter(l.bystanders(r)...)
	// The platform does much of its work later: from rest to rest it is all there.
	whole, err4 := proc.NewMeter(l.platformOf(r)...)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return s, err
	}
	var errs []error
	var busy, self, busy0, self0, stolen, stolen0 time.Duration
	var commands, commands0, switches, switches0 int64
	// The exact clocks first: the others need longer, and less precision.
	cfg.Begin = func() {
		own.Begin()
		around.Begin()
		rest.Begin()
		busy0, stolen0, self0 = machine(&errs)
		switches0, commands0 = switched(r, &errs), l.commands(ctx, r, &errs)
	}
	cfg.End = func() {
		own.End()
		around.End()
		rest.End()
		busy, stolen, self = machine(&errs)
		switches, commands = switched(r, &errs), l.commands(ctx, r, &errs)
	}
	ready()
	whole.Begin()
	var err error
	if s.Load, err = load.Run(ctx, cfg); err != nil {
		return s, fmt.Errorf("%s, %s: %w", r.Name, phase, err)
	}
	if err := errors.Join(errs...); err != nil {
		return s, err
	}
	if err := l.settle(ctx, r, &s); err != nil {
		return s, err
	}
	whole.End()
	s.Redis = commands - commands0
	s.Foreign = foreign(busy-busy0, s.Load.Seconds, self-self0, own.Spent(), around.Spent(), rest.Spent())
	s.Stolen = (stolen - stolen0).Seconds() / s.Load.Seconds
	if n := float64(s.Ops()); n > 0 {
		s.CPUMicros = float64(own.Spent()) / 1e3 / n
		s.AroundMicros = float64(whole.Spent()) / 1e3 / (n * uncounted(&cfg, s.Load.Seconds))
		s.Switches = float64(switches-switches0) / n
	}
	return s, nil
}

// settle waits for what r and the lab's proxies have left, and notes for how long.
func (l *Lab) settle(ctx context.Context, r *peers.Running, s *record.Sample) error {
	began := time.Now()
	err := l.Settle(ctx, r)
	s.SettleSeconds += time.Since(began).Seconds()
	return err
}

// foreign is how many processors were busy with what is none of the parts.
func foreign(busy time.Duration, seconds float64, parts ...time.Duration) float64 {
	for _, part := range parts {
		busy -= part
	}
	return max(0, busy.Seconds()/seconds)
}

// uncounted is by how much more was done from the beginning of a load to its end than while it was
// counted, at one rate all the time but for a ramp, in which it grows from nothing.
func uncounted(cfg *load.Config, seconds float64) float64 {
	before := cfg.Warmup - min(cfg.Ramp, cfg.Warmup)/2
	return (before.Seconds() + seconds) / seconds
}

// platformOf are the processes that work for a peer beside its own.
func (l *Lab) platformOf(r *peers.Running) []*proc.Process {
	if r.Tokens == nil {
		return nil
	}
	return l.env.Platform.Processes()
}

// bystanders are the lab's other processes: part of the measurement, but not of its result.
func (l *Lab) bystanders(r *peers.Running) []*proc.Process {
	all := append([]*proc.Process(nil), l.origins...)
	for _, other := range l.Running {
		if other.Proc != r.Proc {
			all = append(all, other.Proc)
		}
	}
	if r.Tokens == nil && l.env.Platform != nil {
		all = append(all, l.env.Platform.Processes()...)
	}
	return all
}

// machine is what all processors, and this process, have worked, and what the host withheld.
func machine(errs *[]error) (busy, stolen, self time.Duration) {
	busy, stolen, err1 := proc.Busy()
	self, err2 := proc.Self()
	*errs = append(*errs, err1, err2)
	return busy, stolen, self
}

func switched(r *peers.Running, errs *[]error) int64 {
	if r.Proc == nil {
		return 0
	}
	n, err := r.Proc.Switches()
	*errs = append(*errs, err)
	return n
}

func (l *Lab) commands(ctx context.Context, r *peers.Running, errs *[]error) int64 {
	if r.Tokens == nil {
		return 0
	}
	n, err := l.env.Platform.Commands(ctx)
	*errs = append(*errs, err)
	return n
}

// Memory runs a load of streams and measures what they add to the peer's memory, when all
// are open, against before the first. The time that is counted must be 3 s or more. The streams
// begin no faster than OpenTime says, which may make the warm-up longer.
func (l *Lab) Memory(ctx context.Context, r *peers.Running, cfg load.Config) (record.Sample, error) {
	before, err := rested(ctx, r, min(10*time.Second, cfg.Duration))
	if err != nil {
		return record.Sample{}, err
	}
	cfg.Ramp = max(cfg.Ramp, OpenTime(r, cfg.Connections))
	cfg.Warmup = max(cfg.Warmup, cfg.Ramp+time.Second)
	var during int64
	var failed error
	open, most, done := int64(0), int64(0), false
	cfg.Progress = func(p load.Progress) {
		open = max(open, p.Open)
		u, err := r.Proc.Memory()
		if err != nil {
			failed = err
			return
		}
		most = max(most, u)
		if p.Elapsed >= cfg.Warmup && p.Open >= int64(cfg.Connections) {
			during, done = u, true
		}
	}
	// Once only: what another try found would be what the first has left.
	s, err := l.measure(ctx, r, record.PhaseMemory, cfg, func() {})
	if err := errors.Join(err, failed); err != nil {
		return s, err
	}
	if !done {
		return s, fmt.Errorf("%s: only %d of %d streams were open: %v", r.Name, open, cfg.Connections, s.Load.Failures)
	}
	s.Step = float64(cfg.Connections)
	s.Tries = 1
	s.StreamBytes = float64(during-before) / float64(cfg.Connections)
	s.PeakBytes = float64(most-before) / float64(cfg.Connections)
	return s, nil
}

// OpenTime is over how long the first requests of n streams are spread, so that a proxy is not
// asked for more of them at a time than it has processors for: one that refuses what it has not
// the time for would refuse some. Each takes a handshake where the upstream speaks TLS.
func OpenTime(r *peers.Running, n int) time.Duration {
	each := 300 * time.Microsecond
	if r.TLS {
		each = time.Millisecond
	}
	return time.Second + time.Duration(n)*each
}

// rested returns how much memory a process has when it has given back what its first requests took:
// it has not shrunk by a hundredth for as long as rest, or 30 s have passed.
func rested(ctx context.Context, r *peers.Running, rest time.Duration) (int64, error) {
	tick := time.NewTicker(rest / 10)
	defer tick.Stop()
	least, err := r.Proc.Memory()
	was := least // at since
	for since, end := time.Now(), time.Now().Add(settleLimit); err == nil && time.Since(since) < rest && time.Now().Before(end); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return least, ctx.Err()
		}
		var now int64
		if now, err = r.Proc.Memory(); err == nil && now < least {
			if now < was-was/100 {
				since, was = time.Now(), now
			}
			least = now
		}
	}
	return least, err
}
