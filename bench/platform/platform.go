package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/bench/proc"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

// Options of a Platform. All are required.
type Options struct {
	Bin       string   // directory with the built programs
	Dir       string   // for data, logs and secrets; private, and others may pass through
	Env       []string // of all programs, e.g. PATH
	Customers int      // with one token each
}

// The platform's own secrets are for one run on loopback, so they are fixed.
const (
	pepper   = "a pepper for measurements only"
	password = "for-measurements-only"
)

// Platform is a running one. Its methods are safe for concurrent use.
type Platform struct {
	o        Options
	programs localserver.PostgresPrograms
	procs    []*proc.Process // in the order of their start
	client   *redis.Client
	grants   int    // in Redis
	Redis    string // URL
	database string // URL
	// PepperFile is what token-proxies hash tokens with.
	PepperFile string
	// Tokens of the customers, raw.
	Tokens []string
}

// begin writes the pepper and starts Redis.
func (p *Platform) begin(ctx context.Context) error {
	if err := os.WriteFile(p.PepperFile, []byte(pepper), 0o600); err != nil {
		return fmt.Errorf("platform: %w", err)
	}
	if err := p.startRedis(ctx); err != nil {
		return err
	}
	return p.connect(ctx)
}

// Start runs a platform. When it fails it has ended what it began.
func Start(ctx context.Context, o Options) (p *Platform, err error) {
	p = &Platform{o: o, PepperFile: filepath.Join(o.Dir, "pepper")}
	defer func() {
		if err != nil {
			p.Close()
			p = nil
		}
	}()
	if err := p.begin(ctx); err != nil {
		return p, err
	}
	// What runs aside gives way: a disk and processors that are shared are not what is measured.
	if err := p.startPostgres(ctx, true, "shared_buffers=256MB"); err != nil {
		return p, err
	}
	if err := p.migrate(ctx); err != nil {
		return p, err
	}
	if err := p.seed(ctx); err != nil {
		return p, err
	}
	port, err := localserver.FreePort()
	if err != nil {
		return p, err
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	worker, err := p.start(proc.Command{
		Name: "billing-worker", Path: p.Program("control"), Args: []string{"billing-worker", "--listen", listen}, Env: p.env(), Dir: o.Dir, Aside: true,
	})
	if err != nil {
		return p, err
	}
	if err := worker.Await(ctx, time.Minute, Answers("http://"+listen+"/readyz")); err != nil {
		return p, err
	}
	// It writes all grants to a Redis that is new.
	if err := worker.Await(ctx, 2*time.Minute, p.published); err != nil {
		return p, err
	}
	p.grants = o.Customers
	return p, nil
}

// Close ends the platform's processes, the last started first.
func (p *Platform) Close() {
	if p.client != nil {
		_ = p.client.Close()
	}
	for i := len(p.procs) - 1; i >= 0; i-- {
		p.procs[i].End(10 * time.Second)
	}
}

// Processes are all that the platform runs.
func (p *Platform) Processes() []*proc.Process { return p.procs }

func (p *Platform) start(c proc.Command) (*proc.Process, error) {
	one, err := proc.Start(c)
	if err != nil {
		return nil, err
	}
	p.procs = append(p.procs, one)
	return one, nil
}

// Program is the path of one of the built programs.
func (p *Platform) Program(name string) string { return filepath.Join(p.o.Bin, name) }

func (p *Platform) env() []string {
	return append(append([]string(nil), p.o.Env...),
		"DATABASE_URL="+p.database, "REDIS_URL="+p.Redis, "OPENCLAW_TOKEN_PEPPER_FILE="+p.PepperFile, "OPENCLAW_ACTOR=bench")
}

func (p *Platform) migrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Program("control"), "migrate")
	cmd.Env, cmd.Dir = p.env(), p.o.Dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("control migrate: %w: %s", err, out)
	}
	return nil
}

func (p *Platform) startRedis(ctx context.Context) error {
	program, err := localserver.FindRedis()
	if err != nil {
		return err
	}
	port, err := localserver.FreePort()
	if err != nil {
		return err
	}
	dir := filepath.Join(p.o.Dir, "redis")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("platform: %w", err)
	}
	config := filepath.Join(dir, "redis.conf")
	if err := os.WriteFile(config, []byte("requirepass "+password+"\n"), 0o600); err != nil {
		return fmt.Errorf("platform: %w", err)
	}
	one, err := p.start(proc.Command{
		Name: "redis", Path: program, Args: append([]string{config}, localserver.RedisArgs(dir, port)...), Env: p.o.Env, Dir: p.o.Dir,
	})
	if err != nil {
		return err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	p.Redis = "redis://:" + password + "@" + addr + "/0"
	return one.Await(ctx, 30*time.Second, proc.Accepts(addr))
}

func (p *Platform) startPostgres(ctx context.Context, aside bool, settings ...string) (err error) {
	if p.programs, err = localserver.FindPostgres(); err != nil {
		return err
	}
	cred, err := localserver.Unprivileged()
	if err != nil {
		return err
	}
	if !localserver.CanEnter(p.o.Dir, cred) {
		return fmt.Errorf("platform: Postgres does not run as root, and its own user cannot enter %s: choose another directory", p.o.Dir)
	}
	port, err := localserver.FreePort()
	if err != nil {
		return err
	}
	data := filepath.Join(p.o.Dir, "postgres")
	if err := localserver.InitPostgres(ctx, p.programs, data, password, cred); err != nil {
		return err
	}
	one, err := p.start(proc.Command{
		Name: "postgres-server", Path: p.programs.Postgres, Env: p.o.Env, Dir: p.o.Dir, Cred: cred, Stop: syscall.SIGINT, Aside: aside,
		Args: localserver.PostgresArgs(data, port, append([]string{"max_connections=100", "synchronous_commit=off", "fsync=off"}, settings...)...),
	})
	if err != nil {
		return err
	}
	admin := localserver.PostgresURL(port, password, "postgres")
	err = one.Await(ctx, 30*time.Second, func(ctx context.Context) error {
		_, err := localserver.Psql(ctx, p.programs, admin, "SELECT 1")
		return err
	})
	if err != nil {
		return err
	}
	p.database = localserver.PostgresURL(port, password, "openclaw")
	_, err = localserver.Psql(ctx, p.programs, admin, "CREATE DATABASE openclaw")
	return err
}

// monthlyLimit is one that no measurement reaches.
const monthlyLimit = int64(1e15)

// seed writes customers with boxes, periods and tokens.
func (p *Platform) seed(ctx context.Context) error {
	hasher, err := contract.NewHasher([]byte(pepper))
	if err != nil {
		return fmt.Errorf("platform: %w", err)
	}
	const step = 500 // rows of a statement, which is one argument of psql
	start := time.Now().UTC().Truncate(time.Second)
	for from := 0; from < p.o.Customers; from += step {
		to := min(from+step, p.o.Customers)
		var sql strings.Builder
		fmt.Fprintf(&sql, `INSERT INTO customers (id, name, tier, renews_at) SELECT 'bench' || n, 'Bench ' || n, 'team', timestamptz '%[3]s' FROM generate_series(%[1]d, %[2]d) n;
INSERT INTO boxes (id, customer_id, namespace, state) SELECT 'box' || n, 'bench' || n, 'customer-bench' || n, 'active' FROM generate_series(%[1]d, %[2]d) n;
INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version)
  SELECT 'bench' || n, '%[4]s', '%[5]s', '%[3]s', %[6]d, 1 FROM generate_series(%[1]d, %[2]d) n;
INSERT INTO proxy_tokens (id, customer_id, box_id, digest, hint) VALUES `,
			from, to-1, start.AddDate(0, 1, 0).Format(time.RFC3339), start.Format("20060102T150405Z"), start.Format(time.RFC3339), monthlyLimit)
		for n := from; n < to; n++ {
			token, err := contract.NewToken(nil)
			if err != nil {
				return fmt.Errorf("platform: %w", err)
			}
			raw := token.Reveal()
			p.Tokens = append(p.Tokens, raw)
			if n > from {
				sql.WriteByte(',')
			}
			fmt.Fprintf(&sql, `('t%[1]d','bench%[1]d','box%[1]d','\x%[2]s','%[3]s')`, n, hasher.Digest([]byte(raw)).Hex(), token.Hint())
		}
		if _, err := localserver.Psql(ctx, p.programs, p.database, sql.String()); err != nil {
			return fmt.Errorf("platform: customers: %w", err)
		}
	}
	return nil
}

// Answers returns a check that a GET of url is answered 200.
func Answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := Get(ctx, url)
		return err
	}
}

// Get returns the body of an answer 200, of at most 4 MiB.
func Get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status + ": " + string(body[:min(len(body), 300)]))
	}
	return body, err
}
