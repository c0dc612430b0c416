package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/platform"
	"github.com/andreabadesso/openclaw-cloud/bench/poller"
	"github.com/andreabadesso/openclaw-cloud/bench/proc"
	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
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
	Apart     bool     // the proxies have the last processor, and all else the others, if there are any
	Customers int      // of token-proxy
	// SchedulingDelay is limits.scheduling_delay of token-proxy, 0 for its default.
	SchedulingDelay time.Duration
	Retries         int     // of a measurement during which the machine was busy with something else
	Quiet           float64 // processors that something else may use without that
	Say             func(format string, args ...any)
}

// Lab is what was set up.
type Lab struct {
	o       Options
	env     peers.Env
	origins []*proc.Process
	free    func()           // gives this process back the processors that the proxies had
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
	l = &Lab{o: o, env: peers.Env{Dir: dir, Env: o.Env, Self: o.Self, Portkey: o.Portkey, Workers: o.Workers, Files: int(min(files, 1<<20)), SchedulingDelay: o.SchedulingDelay}}
	defer func() {
		if err != nil {
			l.Close()
			l = nil
		}
	}()
	if o.Apart {
		var last int
		if last, l.free, err = proc.Confine(); err != nil {
			return l, err
		}
		if last < 0 {
			o.Say("there is one processor only: the proxies have none for themselves")
		} else {
			l.env.CPUs = strconv.Itoa(last)
		}
	}
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
		if p.Ours && l.env.Platform == nil {
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
	port, err := localserver.FreePort()
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
	if l.free != nil {
		l.free()
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
