package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

// upstreamKey is the key that the proxies hold and the simulator accepts.
const upstreamKey = "sk-fake-upstream-key"

// servedModel is the simulator's model behind every name.
const servedModel = "kimi-k2.5"

// system is the whole of it: the programs as processes, and what they stand on.
type system struct {
	dir      string // logs, configurations, journals
	bin      string
	redis    *redisServer
	postgres *postgres
	sim      *kimisim.Server
	links    *links
	proxies  []*program
	workers  []*program
	env      []string // of the command line, which reaches everything directly
}

// program is a token-proxy or a billing-worker: one place in the system, in which one
// process after the other runs.
type program struct {
	name    string // such as "proxy 1"
	spec    spec
	probe   string // the address of /readyz
	url     string // where clients connect; proxies only
	admin   string // proxies only
	journal string // proxies only
	arming  string // file that arms commit points

	mu      sync.Mutex // held while the process is changed, as long as that takes
	process *process
}

// size is how much of everything there is.
type size struct {
	proxies, workers int
	cluster          bool
	sim              kimisim.Config
}

// build builds the programs of the module at root, as they are shipped but for the
// commit points, which can be armed.
func build(ctx context.Context, root, bin string, race bool) error {
	args := []string{"build", "-buildvcs=false", "-tags", "faultpoints", "-o", bin + string(filepath.Separator)}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/token-proxy", "./cmd/control", "./cmd/openclawctl")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

// newSystem starts everything but the load. What it has started when it fails, stop ends.
func newSystem(ctx context.Context, s *system, n size) error {
	s.links = newLinks()
	var err error
	if n.sim.Keys == nil {
		n.sim.Keys = []string{upstreamKey}
	}
	if s.sim, err = kimisim.New(n.sim); err != nil {
		return err
	}
	if s.redis, err = newRedis(s.dir, n.cluster); err != nil {
		return err
	}
	if n.cluster {
		for _, node := range s.redis.nodes {
			k, err := s.links.add("everybody to "+node.name, node.port)
			if err != nil {
				return err
			}
			node.announce = k.port
		}
	}
	if err := s.redis.run(); err != nil {
		return err
	}
	if s.postgres, err = newPostgres(s.dir); err != nil {
		return err
	}
	pepper := filepath.Join(s.dir, "pepper")
	if err := os.WriteFile(pepper, []byte("a pepper for drills only"), 0o600); err != nil {
		return err
	}
	direct := s.redis.url(s.redis.ports()...)
	s.env = append(os.Environ(), "OPENCLAW_API_URL=", "DATABASE_URL="+s.postgres.url(s.postgres.port), "REDIS_URL="+direct,
		"OPENCLAW_TOKEN_PEPPER_FILE="+pepper, "OPENCLAW_ACTOR=drill")
	if _, err := s.command(ctx, "control", "migrate"); err != nil {
		return err
	}
	for i := range n.workers {
		if err := s.addWorker(i); err != nil {
			return err
		}
	}
	for i := range n.proxies {
		if err := s.addProxy(i, pepper); err != nil {
			return err
		}
	}
	for _, p := range slices.Concat(s.workers, s.proxies) {
		if err := p.start(); err != nil {
			return err
		}
	}
	for _, p := range slices.Concat(s.workers, s.proxies) {
		if err := p.awaitReady(60 * time.Second); err != nil {
			return err
		}
	}
	return nil
}

func (r *redisServer) ports() []int {
	var out []int
	for _, n := range r.nodes {
		if r.cluster {
			out = append(out, n.announce)
		} else {
			out = append(out, n.port)
		}
	}
	return out
}

// redisFor returns the address of Redis for a program: through links of its own, except
// in a Cluster, whose nodes tell everybody the same addresses.
func (s *system) redisFor(name string) (string, error) {
	if s.redis.cluster {
		return s.redis.url(s.redis.ports()...), nil
	}
	k, err := s.links.add(name+" to redis", s.redis.nodes[0].port)
	if err != nil {
		return "", err
	}
	return s.redis.url(k.port), nil
}

func (s *system) addWorker(i int) error {
	p := &program{name: fmt.Sprintf("worker %d", i), arming: filepath.Join(s.dir, fmt.Sprintf("worker%d.point", i))}
	redisURL, err := s.redisFor(p.name)
	if err != nil {
		return err
	}
	k, err := s.links.add(p.name+" to postgres", s.postgres.port)
	if err != nil {
		return err
	}
	port, err := localserver.FreePort()
	if err != nil {
		return err
	}
	p.probe = "http://" + local(port) + "/readyz"
	p.spec = spec{
		name: p.name, path: filepath.Join(s.bin, "control"), log: filepath.Join(s.dir, fmt.Sprintf("worker%d.log", i)),
		// An entry that a dead worker was given waits no longer than it has to here.
		args: []string{"billing-worker", "--listen", local(port), "--ledger-claim-idle", "5s"},
		env:  append(slices.Clone(s.env), "DATABASE_URL="+s.postgres.url(k.port), "REDIS_URL="+redisURL, "OPENCLAW_FAULTPOINT_FILE="+p.arming),
	}
	s.workers = append(s.workers, p)
	return nil
}

func (s *system) addProxy(i int, pepper string) error {
	p := &program{
		name: fmt.Sprintf("proxy %d", i), journal: filepath.Join(s.dir, fmt.Sprintf("journal%d", i)),
		arming: filepath.Join(s.dir, fmt.Sprintf("proxy%d.point", i)),
	}
	redisURL, err := s.redisFor(p.name)
	if err != nil {
		return err
	}
	target := s.sim.URL()
	var simPort int
	if _, err := fmt.Sscanf(target, "http://127.0.0.1:%d", &simPort); err != nil {
		return fmt.Errorf("address of the simulator %s: %w", target, err)
	}
	kimi, err := s.links.add(p.name+" to kimi", simPort)
	if err != nil {
		return err
	}
	public, err := localserver.FreePort()
	if err != nil {
		return err
	}
	admin, err := localserver.FreePort()
	if err != nil {
		return err
	}
	p.url, p.admin = "http://"+local(public), "http://"+local(admin)
	p.probe = p.admin + "/readyz"
	served := make(map[string]string, models)
	for m := range models {
		served[modelName(m)] = servedModel
	}
	upstream := func(face, path string) map[string]any {
		return map[string]any{
			"name": "kimi-" + face, "face": face, "base_url": "http://" + local(kimi.port) + path, "models": served, "allow_private": true,
			"keys": []any{map[string]any{"name": "k1", "secret": upstreamKey}},
			// Stalls end soon; half of what the upstream does here are failures, none of
			// which must keep the rest away.
			"idle_timeout": "4s", "first_byte_timeout": "6s", "breaker_failures": 1 << 30,
		}
	}
	openai := upstream("openai", "/v1")
	openai["estimate_path"] = "/tokenizers/estimate-token-count"
	raw, err := json.Marshal(map[string]any{
		"listen": local(public), "admin": local(admin), "redis_url": redisURL, "token_pepper_file": pepper, "journal_dir": p.journal,
		"upstreams": []any{openai, upstream("anthropic", "/anthropic/v1")},
		"timeouts":  map[string]any{"pre_stop": "200ms", "drain": "3s"},
		"limits":    map[string]any{"per_address": 20_000, "scheduling_delay": "-1ms"},
	})
	if err != nil {
		return err
	}
	config := filepath.Join(s.dir, fmt.Sprintf("proxy%d.json", i))
	if err := os.WriteFile(config, raw, 0o600); err != nil {
		return err
	}
	p.spec = spec{
		name: p.name, path: filepath.Join(s.bin, "token-proxy"), args: []string{"-config", config},
		env: append(slices.Clone(s.env), "OPENCLAW_FAULTPOINT_FILE="+p.arming), log: filepath.Join(s.dir, fmt.Sprintf("proxy%d.log", i)),
	}
	s.proxies = append(s.proxies, p)
	return nil
}

// start starts the program's process if none runs.
func (p *program) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process != nil && !p.process.ended() {
		return nil
	}
	proc, err := start(p.spec)
	if err == nil {
		p.process = proc
	}
	return err
}

// running returns the present process.
func (p *program) running() *process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process
}

var probing = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// ready asks the program whether it is.
func (p *program) ready() error {
	resp, err := probing.Get(p.probe)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var b bytes.Buffer
		_, _ = b.ReadFrom(resp.Body) // only for the message
		return fmt.Errorf("%s is not ready: %s", p.name, strings.TrimSpace(b.String()))
	}
	return nil
}

func (p *program) awaitReady(limit time.Duration) error {
	err := poll(limit, func() error {
		if p.running().ended() {
			return nil
		}
		return p.ready()
	})
	if p.running().ended() {
		return fmt.Errorf("%s ended at its start: %v", p.name, p.running().err)
	}
	return err
}

// command runs one of the programs to its end and returns its output.
func (s *system) command(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Env = s.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := onLauncher(cmd.Start); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// ctl runs openclawctl and decodes its answer.
func (s *system) ctl(ctx context.Context, v any, args ...string) error {
	out, err := s.command(ctx, "openclawctl", append(args, "--output", "json")...)
	if err != nil || v == nil {
		return err
	}
	if err := json.Unmarshal(out, v); err != nil {
		return fmt.Errorf("openclawctl %s: %w in %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// newCustomers makes customers with a token each. The first few get a limit that they
// reach, or come near, within the run.
func (s *system) newCustomers(ctx context.Context, n, small int, during time.Duration, rng *rand.Rand) ([]*customer, []int64, error) {
	out, limits := make([]*customer, n), make([]int64, n)
	for i := range limits {
		limits[i] = 20_000_000 // of the tier
		if i < small {
			limits[i] = int64(during.Seconds() * float64(100+rng.IntN(700)))
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, n)
	gate := make(chan struct{}, 4)
	for i := range n {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			out[i], errs[i] = s.newCustomer(ctx, i, limits[i], i < small)
		})
	}
	wg.Wait()
	return out, limits, errors.Join(errs...)
}

func (s *system) newCustomer(ctx context.Context, i int, limit int64, small bool) (*customer, error) {
	var made struct {
		Customer struct{ ID string }
		ID       string
	}
	if err := s.ctl(ctx, &made, "customer", "create", "--name", fmt.Sprintf("customer %d", i), "--tier", "team"); err != nil {
		return nil, err
	}
	id := made.ID
	if id == "" {
		id = made.Customer.ID
	}
	if small {
		if err := s.ctl(ctx, nil, "quota", "set", "--customer", id, "--limit", fmt.Sprint(limit)); err != nil {
			return nil, err
		}
	}
	var token struct{ Token string }
	if err := s.ctl(ctx, &token, "token", "create", "--customer", id); err != nil {
		return nil, err
	}
	return &customer{id: id, token: token.Token, small: small}, nil
}

// stop ends everything, whatever state it is in.
func (s *system) stop() {
	for _, p := range slices.Concat(s.proxies, s.workers) {
		p.mu.Lock()
		if p.process != nil {
			p.process.kill()
		}
		p.mu.Unlock()
	}
	if s.links != nil {
		s.links.close()
	}
	if s.postgres != nil {
		s.postgres.stop()
	}
	if s.redis != nil {
		s.redis.stop()
	}
	if s.sim != nil {
		_ = s.sim.Close()
	}
}
