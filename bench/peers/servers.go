package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/platform"
)

// settings fill the templates of conf/.
type settings struct {
	Name, Dir, Listen, Upstream, CA string
	Workers, Files, MaxConn         int
	Root                            bool
	Admin, Redis, Pepper            string
	Scheme, UpstreamHost            string
	SchedulingDelay                 time.Duration
}

func (env *Env) settings(name, addr string) settings {
	s := settings{
		Name: name, Dir: env.Dir, Listen: addr, Upstream: env.Origin, CA: env.CA, Workers: max(env.Workers, 1),
		Files: env.Files, MaxConn: max(env.Files/2-100, 100), // a client's and the upstream's
		Root: os.Geteuid() == 0, Scheme: "http", UpstreamHost: env.Origin, SchedulingDelay: env.SchedulingDelay,
	}
	if env.CA != "" {
		s.Scheme = "https"
	}
	return s
}

// startNginx starts nginx with conf/nginx.conf.
func startNginx(ctx context.Context, env *Env, name string) (*Running, error) {
	return startConfigured(ctx, env, name, "nginx", "nginx.conf", "-p", env.Dir, "-e", "stderr", "-c")
}

// startHAProxy starts HAProxy with conf/haproxy.cfg.
func startHAProxy(ctx context.Context, env *Env, name string) (*Running, error) {
	return startConfigured(ctx, env, name, "haproxy", "haproxy.cfg", "-db", "-f")
}

// startConfigured starts an installed program with a configuration of conf/, whose path follows args.
func startConfigured(ctx context.Context, env *Env, name, program, config string, args ...string) (*Running, error) {
	path, err := find(program)
	if err != nil {
		return nil, err
	}
	addr, err := listen()
	if err != nil {
		return nil, err
	}
	file, err := render(env, config, name+filepath.Ext(config), env.settings(name, addr))
	if err != nil {
		return nil, err
	}
	p, err := run(ctx, env, name, addr, path, append(args, file))
	if err != nil {
		return nil, err
	}
	return &Running{Addr: addr, Proc: p, Version: version(path, "-v")}, nil
}

// startSelf starts a proxy that is a part of this program.
func startSelf(kind string) func(context.Context, *Env, string) (*Running, error) {
	return func(ctx context.Context, env *Env, name string) (*Running, error) {
		addr, err := listen()
		if err != nil {
			return nil, err
		}
		p, err := run(ctx, env, name, addr, env.Self, []string{"peer", kind, "--listen", addr, "--upstream", env.Origin})
		if err != nil {
			return nil, err
		}
		return &Running{Addr: addr, Proc: p}, nil
	}
}

// Where scripts/install-deps puts Portkey, and the release that it installs.
const (
	PortkeyDir   = ".run/portkey"
	portkeyEntry = "node_modules/@portkey-ai/gateway"
)

func startPortkey(ctx context.Context, env *Env, name string) (*Running, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("%w; run: scripts/install-deps node portkey", ErrMissing)
	}
	module, err := filepath.Abs(filepath.Join(env.Portkey, portkeyEntry))
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(module, "package.json"))
	if err != nil {
		return nil, fmt.Errorf("%w; run: scripts/install-deps portkey", ErrMissing)
	}
	var pkg struct{ Version string }
	if err := json.Unmarshal(raw, &pkg); err != nil {
		return nil, fmt.Errorf("its package.json: %w", err)
	}
	addr, err := listen()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	preload, err := render(env, "portkey.mjs", name+".mjs", nil)
	if err != nil {
		return nil, err
	}
	p, err := run(ctx, env, name, addr, node, []string{"--import", preload, filepath.Join(module, "build/start-server.js"), "--port=" + port, "--headless"},
		"NODE_ENV=production", "TRUSTED_CUSTOM_HOSTS="+host+",localhost")
	if err != nil {
		return nil, err
	}
	return &Running{
		Addr: addr, Proc: p, Version: "Portkey " + pkg.Version + ", node " + version(node, "--version"),
		Header: "x-portkey-provider: openai\r\nx-portkey-custom-host: http://" + env.Origin + "/v1\r\n",
	}, nil
}

func startTokenProxy(ctx context.Context, env *Env, name string) (*Running, error) {
	if env.Platform == nil {
		return nil, errors.New("there is no platform for it")
	}
	addr, err := listen()
	if err != nil {
		return nil, err
	}
	s := env.settings(name, addr)
	if s.Admin, err = listen(); err != nil {
		return nil, err
	}
	s.Redis, s.Pepper = env.Platform.Redis, env.Platform.PepperFile
	if env.CA != "" { // the certificate's name
		_, port, err := net.SplitHostPort(env.Origin)
		if err != nil {
			return nil, err
		}
		s.UpstreamHost = net.JoinHostPort("localhost", port)
	}
	if err := os.MkdirAll(filepath.Join(env.Dir, s.Name+"-journal"), 0o700); err != nil {
		return nil, err
	}
	file, err := render(env, "token-proxy.json", s.Name+".json", s)
	if err != nil {
		return nil, err
	}
	p, err := run(ctx, env, name, addr, env.Platform.Program("token-proxy"), []string{"-config", file})
	if err != nil {
		return nil, err
	}
	if err := p.Await(ctx, 30*time.Second, platform.Answers("http://"+s.Admin+"/readyz")); err != nil {
		p.End(time.Second)
		return nil, err
	}
	return &Running{
		Addr: addr, Proc: p, Tokens: env.Platform.Tokens, Admin: s.Admin,
		Settled: func(ctx context.Context) error { return settled(ctx, s.Admin) },
	}, nil
}

// settled is nil once all usage is in Postgres and charged to the limits: until then the
// platform works on what the last measurement left.
func settled(ctx context.Context, admin string) error {
	text, err := platform.Get(ctx, "http://"+admin+"/metrics")
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	for _, name := range []string{"token_proxy_usage_events_unacknowledged", "token_proxy_settlements_pending", "token_proxy_journal_open"} {
		n, err := Metric(text, name)
		if err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("%s is %v", name, n)
		}
	}
	return nil
}

// Metric reads a value without labels in the text form of Prometheus.
func Metric(text []byte, name string) (float64, error) {
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}
