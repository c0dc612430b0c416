package peers

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/platform"
	"github.com/andreabadesso/openclaw-cloud/bench/proc"
	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

//go:embed conf
var conf embed.FS

// Env is what peers are started in.
type Env struct {
	Dir     string   // for configuration, logs and data
	Env     []string // of the programs
	Self    string   // this program, which is some of the peers itself
	Origin  string   // host:port of the plain upstream
	TLS     string   // host:port of the TLS upstream; "" without one
	CA      string   // PEM file with its root
	Portkey string   // directory of its npm package
	Workers int      // of nginx and HAProxy
	CPUs    string   // that they may use, as taskset takes them; "" for all
	Files   int      // that a process may have open
	// SchedulingDelay is limits.scheduling_delay of token-proxy, 0 for its default.
	SchedulingDelay time.Duration
	Platform        *platform.Platform // for token-proxy; nil without it
}

// Names of peers that others are compared with, or that results are about.
const (
	Direct        = "direct"
	TokenProxy    = "token-proxy"
	TokenProxyTLS = "token-proxy-tls"
)

// Peer is one kind of proxy.
type Peer struct {
	Name  string // short, in results
	Title string // in reports
	TLS   bool   // it speaks TLS to its upstream
	// Gateway is an AI gateway: much slower, so measured in fewer rounds.
	Gateway bool
	Ours    bool // it is token-proxy, which needs a Platform
	start   func(ctx context.Context, env *Env, name string) (*Running, error)
}

// Running is a started one.
type Running struct {
	Peer
	Addr    string        // host:port, for clients
	Proc    *proc.Process // nil if nothing is in between
	Version string
	Header  string                          // lines that its requests need, each with CRLF
	Tokens  []string                        // credentials to use in turn; any will do if nil
	Settled func(ctx context.Context) error // nil, or an error while it works on after its requests
	Admin   string                          // host:port of its metrics, "" without
}

// ErrMissing is wrapped by the errors of peers whose program is not installed.
var ErrMissing = errors.New("not installed")

// All returns the peers that exist, in the order of reports, in which they are measured too:
// token-proxy follows nginx, so that what the machine does meanwhile hits both.
func All() []Peer {
	return []Peer{
		{Name: Direct, Title: "nothing in between", start: startDirect},
		{Name: "nginx", Title: "nginx proxy_pass", start: startNginx},
		{Name: TokenProxy, Title: "token-proxy, all features on", Ours: true, start: startTokenProxy},
		{Name: "haproxy", Title: "HAProxy", start: startHAProxy},
		{Name: "reverseproxy", Title: "httputil.ReverseProxy", start: startSelf("reverseproxy")},
		{Name: "fasthttp", Title: "bare fasthttp proxy", start: startSelf("fasthttp")},
		{Name: "portkey", Title: "Portkey gateway", Gateway: true, start: startPortkey},
		{Name: "nginx-tls", Title: "nginx, TLS upstream", TLS: true, start: startNginx},
		{Name: TokenProxyTLS, Title: "token-proxy, TLS upstream", TLS: true, Ours: true, start: startTokenProxy},
	}
}

// Start starts the peer and waits until it takes connections.
func (p Peer) Start(ctx context.Context, env *Env) (*Running, error) {
	if p.TLS && env.TLS == "" {
		return nil, fmt.Errorf("%s: %w: there is no TLS upstream", p.Name, ErrMissing)
	}
	e := *env
	if p.TLS {
		e.Origin = env.TLS
	} else {
		e.CA = ""
	}
	r, err := p.start(ctx, &e, p.Name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	r.Peer = p
	return r, nil
}

// Close ends it.
func (r *Running) Close() {
	if r.Proc != nil {
		r.Proc.End(10 * time.Second)
	}
}

// listen picks the peer's address.
func listen() (string, error) {
	port, err := localserver.FreePort()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("127.0.0.1:%d", port), nil
}

// render writes a configuration file from conf/.
func render(env *Env, from, to string, data any) (string, error) {
	text, err := conf.ReadFile("conf/" + from)
	if err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	t, err := template.New(from).Option("missingkey=error").Parse(string(text))
	if err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	path := filepath.Join(env.Dir, to)
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	return path, nil
}

// find looks for a program in PATH and where Debian puts servers.
func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	path := "/usr/sbin/" + name
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w; run: scripts/install-deps %s", ErrMissing, name)
	}
	return path, nil
}

// version is the first line that a program prints of itself.
func version(path string, args ...string) string {
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(bytes.TrimSpace(line))
}

func startDirect(_ context.Context, env *Env, _ string) (*Running, error) {
	return &Running{Addr: env.Origin}, nil
}

// run starts a program of a peer and waits until it listens.
func run(ctx context.Context, env *Env, name, addr, path string, args []string, more ...string) (*proc.Process, error) {
	p, err := proc.Start(proc.Command{
		Name: name, Path: path, Args: args, Dir: env.Dir, CPUs: env.CPUs,
		Env: append(append([]string(nil), env.Env...), more...),
	})
	if err != nil {
		return nil, err
	}
	if err := p.Await(ctx, 30*time.Second, proc.Accepts(addr)); err != nil {
		p.End(time.Second)
		return nil, err
	}
	return p, nil
}
