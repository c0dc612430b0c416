// Package stack runs the whole system for a test, as it runs in production: the built
// binaries as processes, a real Redis and a real Postgres. Only Kimi is simulated.
package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// UpstreamKey is the key that the proxies hold and the simulator accepts.
const UpstreamKey = "sk-fake-upstream-key"

// RedisTimeout is how long a proxy waits for a command of Redis: far longer than by default, for busy
// machines run the tests.
const RedisTimeout = 2 * time.Second

// Pepper is what the system hashes tokens with.
const Pepper = "a pepper for tests only"

// Models that the proxies serve; each is the simulator's model of the same name.
var models = []string{"kimi-k2.5", "kimi-k2.6", "kimi-for-coding", "kimi-k3"}

// Options of a Stack.
type Options struct {
	Redis    testenv.AnyRedis     // a single one if nil
	Replicas int                  // token-proxies; 1 if zero
	Sim      kimisim.Config       // of the simulator
	Proxy    func(map[string]any) // changes a proxy's configuration before it is written
	Billing  []string             // more arguments of the billing-worker
}

// Stack is one running system.
type Stack struct {
	t        testing.TB
	dir      string
	env      []string
	Redis    testenv.AnyRedis
	Postgres *testenv.PostgresServer
	Sim      *kimisim.Server
	Proxies  []*Proxy
	Billing  *Process

	// BillingAdmin is where the billing-worker has its probes and metrics, http://host:port.
	BillingAdmin string
	billing      []string // its arguments
}

// Proxy is one running token-proxy.
type Proxy struct {
	*Process
	URL    string // http://host:port, for clients
	Admin  string // http://host:port, health and metrics
	config string // its file
}

// Restart starts a token-proxy that has ended again, with its configuration and journal,
// and waits until it is ready.
func (s *Stack) Restart(i int) {
	s.t.Helper()
	p := s.Proxies[i]
	p.Process = s.Start(p.name, testenv.BuildBinary(s.t, "./cmd/token-proxy"), "-config", p.config)
	s.awaitReady(p.Admin+"/readyz", p.Process)
}

// RestartBilling starts a billing-worker that has ended again, and waits until it is ready.
func (s *Stack) RestartBilling() {
	s.t.Helper()
	s.startBilling()
	s.awaitReady(s.BillingAdmin+"/readyz", s.Billing)
}

func (s *Stack) startBilling() {
	s.Billing = s.Start("billing-worker", testenv.BuildBinary(s.t, "./cmd/control"), s.billing...)
}

// New starts a system that ends with the test.
func New(t testing.TB, o Options) *Stack {
	t.Helper()
	s := &Stack{t: t, dir: t.TempDir(), Redis: o.Redis}
	s.Postgres = testenv.PreparedPostgres(t, "migrated", func(url string) error {
		s.env = append(os.Environ(), "DATABASE_URL="+url)
		_, err := s.tryRun("./cmd/control", "migrate")
		return err
	})
	if s.Redis == nil {
		s.Redis = testenv.Redis(t)
	}
	if o.Sim.Keys == nil {
		o.Sim.Keys = []string{UpstreamKey}
	}
	var err error
	if s.Sim, err = kimisim.New(o.Sim); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Sim.Close() })
	pepper := filepath.Join(s.dir, "pepper")
	if err := os.WriteFile(pepper, []byte(Pepper), 0o600); err != nil {
		t.Fatal(err)
	}
	// Without an api of whoever runs the test: openclawctl would go by it.
	s.env = append(os.Environ(), "OPENCLAW_API_URL=", "DATABASE_URL="+s.Postgres.URL, "REDIS_URL="+s.Redis.RedisURL(), "OPENCLAW_TOKEN_PEPPER_FILE="+pepper, "OPENCLAW_ACTOR=test")

	billing := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	s.billing, s.BillingAdmin = append([]string{"billing-worker", "--listen", billing}, o.Billing...), "http://"+billing
	s.startBilling()
	for i := range max(o.Replicas, 1) {
		s.Proxies = append(s.Proxies, s.startProxy(i, pepper, o.Proxy))
	}
	s.awaitReady(s.BillingAdmin+"/readyz", s.Billing)
	for _, p := range s.Proxies {
		s.awaitReady(p.Admin+"/readyz", p.Process)
	}
	return s
}

func (s *Stack) startProxy(i int, pepper string, change func(map[string]any)) *Proxy {
	s.t.Helper()
	public, admin := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(s.t)), fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(s.t))
	served := map[string]string{}
	for _, m := range models {
		served[m] = m
	}
	served["kimi-coding/k2p5"] = "kimi-for-coding"
	upstreamOf := func(face, base string) map[string]any {
		return map[string]any{
			"name": "kimi-" + face, "face": face, "base_url": base, "models": served, "allow_private": true,
			"keys":         []any{map[string]any{"name": "k1", "secret": UpstreamKey}},
			"idle_timeout": "2s", "breaker_failures": 1 << 30,
		}
	}
	openai := upstreamOf("openai", s.Sim.OpenAIBase())
	openai["estimate_path"] = "/tokenizers/estimate-token-count"
	cfg := map[string]any{
		"listen": public, "admin": admin, "redis_url": s.Redis.RedisURL(), "token_pepper_file": pepper, "journal_dir": filepath.Join(s.dir, fmt.Sprintf("journal%d", i)),
		"upstreams": []any{openai, upstreamOf("anthropic", s.Sim.AnthropicBase())},
		"timeouts":  map[string]any{"pre_stop": "100ms", "drain": "5s", "redis": RedisTimeout.String()},
	}
	if change != nil {
		change(cfg)
	}
	// The machine of a test may have too much to do for a while.
	limits, _ := cfg["limits"].(map[string]any)
	if limits == nil {
		limits = map[string]any{}
		cfg["limits"] = limits
	}
	if limits["scheduling_delay"] == nil {
		limits["scheduling_delay"] = "-1ms"
	}
	raw, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.dir, fmt.Sprintf("proxy%d.json", i))
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		s.t.Fatal(err)
	}
	p := s.Start(fmt.Sprintf("token-proxy%d", i), testenv.BuildBinary(s.t, "./cmd/token-proxy"), "-config", path)
	return &Proxy{Process: p, URL: "http://" + public, Admin: "http://" + admin, config: path}
}

func (s *Stack) awaitReady(url string, p *Process) {
	s.t.Helper()
	s.Eventually(p.name+" is ready", 30*time.Second, func() bool {
		if p.Ended() {
			s.t.Fatalf("%s ended: %s", p.name, p.Log())
		}
		resp, err := http.Get(url)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// Eventually waits until ok holds, at most limit.
func (s *Stack) Eventually(what string, limit time.Duration, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// Process is a running binary with its output in a file.
type Process struct {
	*testenv.Program
	name string
	log  string
}

// Start runs a binary with the stack's environment until the test ends.
func (s *Stack) Start(name, path string, args ...string) *Process {
	s.t.Helper()
	p := &Process{name: name, log: filepath.Join(s.dir, name+".log")}
	p.Program = testenv.Start(s.t, s.env, p.log, path, args...)
	s.t.Cleanup(func() {
		_ = p.Stop(5 * time.Second) // what a test wants to know of the end, it asks itself
		if s.t.Failed() {
			s.t.Logf("%s: %s", name, p.Log())
		}
	})
	return p
}

// Log returns the last 4 KiB that the process wrote.
func (p *Process) Log() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-4096):])
}

// FullLog returns all that the process wrote.
func (p *Process) FullLog() string {
	b, _ := os.ReadFile(p.log)
	return string(b)
}

func (s *Stack) run(pkg string, args ...string) []byte {
	s.t.Helper()
	out, err := s.tryRun(pkg, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *Stack) tryRun(pkg string, args ...string) ([]byte, error) {
	program := testenv.BuildBinary(s.t, pkg) // which may take longer than it may
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = s.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", pkg, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.Bytes(), nil
}

// Ctl runs openclawctl and decodes its JSON output into v, unless v is nil.
func (s *Stack) Ctl(v any, args ...string) {
	s.t.Helper()
	out := s.run("./cmd/openclawctl", append(args, "--output", "json")...)
	if v == nil {
		return
	}
	if err := json.Unmarshal(out, v); err != nil {
		s.t.Fatalf("openclawctl %s: %v in %s", strings.Join(args, " "), err, out)
	}
}

// Token is a customer's proxy token.
type Token struct {
	Raw      string `json:"token"`
	ID       string `json:"id"`
	Customer string `json:"customer_id"`
}

// Customer creates a customer of a tier, with one box, and a token for it.
func (s *Stack) Customer(name, tier string) Token {
	s.t.Helper()
	var c struct {
		Customer struct{ ID string }
		ID       string
	}
	s.Ctl(&c, "customer", "create", "--name", name, "--tier", tier)
	id := c.ID
	if id == "" {
		id = c.Customer.ID
	}
	var tok Token
	s.Ctl(&tok, "token", "create", "--customer", id)
	return tok
}

// Customers creates n customers, some at a time.
func (s *Stack) Customers(n int, tier string) []Token {
	out := make([]Token, n)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 4)
	for i := range n {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			out[i] = s.Customer(fmt.Sprintf("customer %d", i), tier)
		})
	}
	wg.Wait()
	return out
}
