package lab

import (
	"context"
	"errors"
	"fmt"
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

// Settle waits until no proxy works on the usage of earlier requests.
func (l *Lab) Settle(ctx context.Context) error {
	for _, r := range l.Running {
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
	best, err := l.measure(ctx, r, phase, cfg)
	for try := 0; try < l.o.Retries && err == nil && best.Foreign > l.o.Quiet; try++ {
		l.o.Say("%s, %s: something else uses %.1f processors; once more", r.Name, phase, best.Foreign)
		var s record.Sample
		if s, err = l.measure(ctx, r, phase, cfg); err == nil && s.Foreign < best.Foreign {
			best = s
		}
	}
	return best, err
}

func (l *Lab) measure(ctx context.Context, r *peers.Running, phase string, cfg load.Config) (record.Sample, error) {
	s := record.Sample{Peer: r.Name, Phase: phase}
	if err := l.Settle(ctx); err != nil {
		return s, err
	}
	cfg.Target = r.Addr
	own, err1 := proc.NewMeter(r.Proc)
	around, err2 := proc.NewMeter(l.platformOf(r)...)
	rest, err3 := proc.NewMeter(l.bystanders(r)...)
	if err := errors.Join(err1, err2, err3); err != nil {
		return s, err
	}
	var errs []error
	var busy, self, busy0, self0 time.Duration
	var commands, commands0, switches, switches0 int64
	// The exact clocks first: the others need longer, and less precision.
	cfg.Begin = func() {
		own.Begin()
		around.Begin()
		rest.Begin()
		busy0, self0 = machine(&errs)
		switches0, commands0 = switched(r, &errs), l.commands(ctx, r, &errs)
	}
	cfg.End = func() {
		own.End()
		around.End()
		rest.End()
		busy, self = machine(&errs)
		switches, commands = switched(r, &errs), l.commands(ctx, r, &errs)
	}
	var err error
	if s.Load, err = load.Run(ctx, cfg); err != nil {
		return s, fmt.Errorf("%s, %s: %w", r.Name, phase, err)
	}
	if err := errors.Join(errs...); err != nil {
		return s, err
	}
	s.Redis = commands - commands0
	foreign := busy - busy0 - (self - self0) - own.Spent() - around.Spent() - rest.Spent()
	s.Foreign = max(0, foreign.Seconds()/s.Load.Seconds)
	if n := float64(s.Ops()); n > 0 {
		s.CPUMicros = float64(own.Spent()) / 1e3 / n
		s.AroundMicros = float64(around.Spent()) / 1e3 / n
		s.Switches = float64(switches-switches0) / n
	}
	return s, nil
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

// machine is what all processors, and this process, have worked.
func machine(errs *[]error) (busy, self time.Duration) {
	busy, err1 := proc.Busy()
	self, err2 := proc.Self()
	*errs = append(*errs, err1, err2)
	return busy, self
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
// are open, against before the first. The time that is counted must be 3 s or more.
func (l *Lab) Memory(ctx context.Context, r *peers.Running, cfg load.Config) (record.Sample, error) {
	before, err := rested(ctx, r, min(10*time.Second, cfg.Duration))
	if err != nil {
		return record.Sample{}, err
	}
	var during proc.Usage
	var failed error
	open, most, done := int64(0), int64(0), false
	cfg.Progress = func(p load.Progress) {
		open = max(open, p.Open)
		u, err := r.Proc.Usage()
		if err != nil {
			failed = err
			return
		}
		most = max(most, u.PSS)
		if p.Elapsed >= cfg.Warmup && p.Open >= int64(cfg.Connections) {
			during, done = u, true
		}
	}
	// Once only: what another try found would be what the first has left.
	s, err := l.measure(ctx, r, record.PhaseMemory, cfg)
	if err := errors.Join(err, failed); err != nil {
		return s, err
	}
	if !done {
		return s, fmt.Errorf("%s: only %d of %d streams were open: %v", r.Name, open, cfg.Connections, s.Load.Failures)
	}
	s.Step = float64(cfg.Connections)
	s.StreamBytes = float64(during.PSS-before.PSS) / float64(cfg.Connections)
	s.PeakBytes = float64(most-before.PSS) / float64(cfg.Connections)
	return s, nil
}

// rested returns what a process uses when it has given back what its first requests took: it
// has not shrunk for as long as rest.
func rested(ctx context.Context, r *peers.Running, rest time.Duration) (proc.Usage, error) {
	tick := time.NewTicker(rest / 10)
	defer tick.Stop()
	least, err := r.Proc.Usage()
	was := least.PSS // at since
	for since, end := time.Now(), time.Now().Add(settleLimit); err == nil && time.Since(since) < rest && time.Now().Before(end); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return least, ctx.Err()
		}
		var u proc.Usage
		if u, err = r.Proc.Usage(); err == nil && u.PSS < least.PSS {
			if u.PSS < was-was/100 {
				since, was = time.Now(), u.PSS
			}
			least = u
		}
	}
	return least, err
}
