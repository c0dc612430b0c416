package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/platform"
	"github.com/andreabadesso/openclaw-cloud/bench/poller"
	"github.com/andreabadesso/openclaw-cloud/bench/proc"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// Options of a Lab.
type Options struct {
	Self      string   // path of this program, which is origin and some peers too
	Bin       string   // directory of the built programs
	Dir       string   // a new directory below this one is used, and removed in the end; "" is the system's for temporary files
	Keep      bool     // keep that directory
	Env       []string // of all programs
	Peers     []string // their names
	Portkey   string   // directory of Portkey's npm package
	Workers   int      // of nginx and HAProxy
	Customers int      // of token-proxy
	Say       func(format string, args ...any)
}

// Lab is what was set up.
type Lab struct {
	o       Options
	env     peers.Env
	origins []*proc.Process
	Running []*peers.Running // in the order of reports
	Missing []string         // peers that are not installed, and what to do
}

// Start sets everything up. When it fails it has ended what it began.
func Start(ctx context.Context, o Options) (l *Lab, err error) {
	files, err := poller.Raise()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.Dir, "openclaw-bench-")
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	l = &Lab{o: o, env: peers.Env{Dir: dir, Env: o.Env, Self: o.Self, Portkey: o.Portkey, Workers: o.Workers, Files: int(min(files, 1<<20))}}
	defer func() {
		if err != nil {
			l.Close()
			l = nil
		}
	}()
	// Postgres runs as another user.
	if err := os.Chmod(dir, 0o711); err != nil {
		return l, fmt.Errorf("lab: %w", err)
	}
	chosen, err := choose(o.Peers)
	if err != nil {
		return l, err
	}
	if l.env.Origin, err = l.origin(ctx, "origin"); err != nil {
		return l, err
	}
	for _, p := range chosen {
		if p.TLS && l.env.TLS == "" {
			l.env.CA = filepath.Join(dir, "origin-ca.pem")
			if l.env.TLS, err = l.origin(ctx, "origin-tls", "--tls-ca", l.env.CA); err != nil {
				return l, err
			}
		}
		if (p.Name == "token-proxy" || p.Name == "token-proxy-tls") && l.env.Platform == nil {
			o.Say("starting Redis, Postgres and the billing-worker, with %d customers", o.Customers)
			l.env.Platform, err = platform.Start(ctx, platform.Options{Bin: o.Bin, Dir: dir, Env: o.Env, Customers: o.Customers})
			if err != nil {
				return l, err
			}
		}
	}
	for _, p := range chosen {
		r, err := p.Start(ctx, &l.env)
		if errors.Is(err, peers.ErrMissing) {
			l.Missing = append(l.Missing, err.Error())
			o.Say("NOT MEASURED: %v", err)
			continue
		}
		if err != nil {
			return l, err
		}
		l.Running = append(l.Running, r)
		o.Say("started %s %s", r.Name, r.Version)
	}
	return l, nil
}

func choose(names []string) ([]peers.Peer, error) {
	byName := make(map[string]peers.Peer)
	for _, p := range peers.All() {
		byName[p.Name] = p
	}
	var chosen []peers.Peer
	for _, name := range names {
		p, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("there is no peer %q", name)
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

// origin starts an upstream and returns its address.
func (l *Lab) origin(ctx context.Context, name string, args ...string) (string, error) {
	port, err := proc.FreePort()
	if err != nil {
		return "", err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := proc.Start(proc.Command{Name: name, Path: l.o.Self, Args: append([]string{"origin", "--listen", addr}, args...), Env: l.o.Env, Dir: l.env.Dir})
	if err != nil {
		return "", err
	}
	l.origins = append(l.origins, p)
	return addr, p.Await(ctx, 10*time.Second, proc.Accepts(addr))
}

// Close ends everything and removes the directory.
func (l *Lab) Close() {
	for i := len(l.Running) - 1; i >= 0; i-- {
		l.Running[i].Close()
	}
	if l.env.Platform != nil {
		l.env.Platform.Close()
	}
	for _, p := range l.origins {
		p.End(2 * time.Second)
	}
	if l.o.Keep {
		l.o.Say("logs are kept in %s", l.env.Dir)
		return
	}
	_ = os.RemoveAll(l.env.Dir) // it is below a directory for temporary files
}

// Platform is what runs around token-proxy; nil without it.
func (l *Lab) Platform() *platform.Platform { return l.env.Platform }

// Find returns the running peer of a name.
func (l *Lab) Find(name string) *peers.Running {
	for _, r := range l.Running {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// Fresh starts another instance of a peer.
func (l *Lab) Fresh(ctx context.Context, p peers.Peer, suffix string) (*peers.Running, error) {
	name := p.Name
	p.Name += suffix
	r, err := p.Start(ctx, &l.env)
	if err != nil {
		return nil, err
	}
	r.Name = name
	return r, nil
}

// Jobs makes requests of a shape for a peer.
func Jobs(r *peers.Running, s load.Shape) func(uint64) load.Job {
	return s.Jobs(r.Addr, r.Header, r.Tokens)
}

// Warm sends each credential's first requests, so that connections, caches and leases are
// there, and fails if the peer does not answer.
func (l *Lab) Warm(ctx context.Context, r *peers.Running) error {
	n := max(len(r.Tokens), 200)
	arrivals := make([]time.Duration, n)
	for i := range arrivals {
		arrivals[i] = time.Duration(i) * 250 * time.Microsecond
	}
	var last load.Result
	// A customer's first request may be refused while its record is being made.
	for range 5 {
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

// Measure runs a load against a peer.
func (l *Lab) Measure(ctx context.Context, r *peers.Running, phase string, cfg load.Config) (record.Sample, error) {
	s := record.Sample{Peer: r.Name, Phase: phase}
	if err := l.Settle(ctx); err != nil {
		return s, err
	}
	cfg.Target = r.Addr
	var errs []error
	cpu := func() (own, around time.Duration) {
		var err1, err2 error
		if r.Proc != nil {
			own, err1 = r.Proc.CPU()
		}
		if r.Tokens != nil {
			around, err2 = l.env.Platform.CPU()
		}
		errs = append(errs, err1, err2)
		return own, around
	}
	var own, around, own0, around0 time.Duration
	cfg.Begin = func() { own0, around0 = cpu() }
	cfg.End = func() { own, around = cpu() }
	var err error
	if s.Load, err = load.Run(ctx, cfg); err != nil {
		return s, fmt.Errorf("%s, %s: %w", r.Name, phase, err)
	}
	if err := errors.Join(errs...); err != nil {
		return s, err
	}
	if n := float64(s.Ops()); n > 0 {
		s.CPUMicros = float64(own-own0) / 1e3 / n
		s.AroundMicros = float64(around-around0) / 1e3 / n
	}
	return s, nil
}

// Memory runs a load of streams and measures what they add to the peer's memory, when all
// are open, against before the first. The time that is counted must be 3 s or more.
func (l *Lab) Memory(ctx context.Context, r *peers.Running, cfg load.Config) (record.Sample, error) {
	before, err := r.Proc.Usage()
	if err != nil {
		return record.Sample{}, err
	}
	var during proc.Usage
	var failed error
	open := int64(-1)
	cfg.Progress = func(p load.Progress) {
		if open < 0 && p.Elapsed >= cfg.Warmup+cfg.Duration/3 {
			open = p.Open
			during, failed = r.Proc.Usage()
		}
	}
	s, err := l.Measure(ctx, r, record.PhaseMemory, cfg)
	if err := errors.Join(err, failed); err != nil {
		return s, err
	}
	if open < int64(cfg.Connections) {
		return s, fmt.Errorf("%s: only %d of %d streams were open: %v", r.Name, max(open, 0), cfg.Connections, s.Load.Failures)
	}
	s.Step = float64(cfg.Connections)
	s.StreamBytes = float64(during.PSS-before.PSS) / float64(cfg.Connections)
	return s, nil
}
