package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func command(t *testing.T, env map[string]string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(testenv.BuildBinary(t, "./cmd/control"), args...)
	cmd.Env = []string{}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

// run runs control until it ends, and returns its exit code and all that it said.
func run(t *testing.T, env map[string]string, args ...string) (int, string) {
	t.Helper()
	cmd := command(t, env, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// worker is a running billing-worker.
type worker struct {
	cmd   *exec.Cmd
	admin string
	mu    sync.Mutex
	log   bytes.Buffer
}

func (w *worker) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

func (w *worker) said() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func startWorker(t *testing.T, env map[string]string, args ...string) *worker {
	t.Helper()
	w := &worker{admin: fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))}
	w.cmd = command(t, env, append([]string{"billing-worker", "--listen", w.admin, "--ledger-claim-idle", "300ms"}, args...)...)
	w.cmd.Stdout, w.cmd.Stderr = w, w
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.end(os.Kill) })
	return w
}

// end sends sig and returns the exit code.
func (w *worker) end(sig os.Signal) int {
	_ = w.cmd.Process.Signal(sig)
	_ = w.cmd.Wait()
	return w.cmd.ProcessState.ExitCode()
}

func (w *worker) get(path string) (int, string) {
	r, err := http.Get("http://" + w.admin + path)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(body)
}

func await(t *testing.T, what string, ok func() bool, more func() string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s\n%s", what, more())
		}
	}
}

// world is databases with one customer.
type world struct {
	redis            *testenv.RedisServer
	pg               *testenv.PostgresServer
	store            *store.Store
	env              map[string]string
	customer, period string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	pg := testenv.PreparedPostgres(t, "migrated", func(url string) error {
		if code, out := run(t, map[string]string{"DATABASE_URL": url}, "migrate"); code != 0 {
			return fmt.Errorf("migrate: exit code %d\n%s", code, out)
		}
		return nil
	})
	w := &world{redis: testenv.Redis(t), pg: pg}
	w.env = map[string]string{"DATABASE_URL": w.pg.URL, "REDIS_URL": w.redis.URL}
	st, err := store.Open(t.Context(), w.pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	w.store, w.customer = st, control.NewID(control.CustomerID)
	now := time.Now().UTC()
	p := control.FirstPeriod(w.customer, now, 1000)
	w.period = p.ID
	err = st.InTx(t.Context(), func(tx *store.Tx) error {
		err := tx.InsertCustomer(t.Context(), control.Customer{ID: w.customer, Name: "x", Tier: "starter", Status: control.CustomerActive, CreatedAt: now})
		if err != nil {
			return err
		}
		_, err = tx.OpenPeriod(t.Context(), p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// batch encodes events from first on.
func (w *world) batch(t *testing.T, first, n int64) []byte {
	t.Helper()
	b := contract.Batch{Replica: "r1"}
	for seq := first; seq < first+n; seq++ {
		b.Events = append(b.Events, contract.Event{
			Replica: "r1", Seq: seq, AdmittedAt: time.Now().UTC().Truncate(time.Microsecond), PeriodID: w.period,
			RequestID: fmt.Sprintf("req-%d", seq), CustomerID: w.customer, BoxID: "b1", TokenID: "t1", Face: contract.FaceOpenAI,
			Prompt: 1, Settled: 1, Reserved: 1, Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK, Status: 200,
		})
	}
	encoded, err := contract.EncodeBatch(b)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func (w *world) totals(t *testing.T) control.UsageTotals {
	t.Helper()
	p, err := w.store.PeriodAt(context.Background(), w.customer, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return p.Totals
}

func TestWorkerLife(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	w := startWorker(t, world.env)
	await(t, "readiness", func() bool { code, _ := w.get("/readyz"); return code == 200 }, w.said)
	if code, body := w.get("/healthz"); code != 200 {
		t.Errorf("/healthz: %d %s", code, body)
	}
	client := world.redis.Client()
	err := client.XAdd(t.Context(), &redis.XAddArgs{
		Stream: contract.UsageStreamKey, Values: []any{contract.UsageField, world.batch(t, 1, 5)},
	}).Err()
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the events", func() bool { return world.totals(t).Requests == 5 }, w.said)
	await(t, "the acknowledgement", func() bool {
		return client.HGet(context.Background(), contract.UsageAckedKey, "r1").Val() == "5"
	}, w.said)
	await(t, "the metric", func() bool {
		_, body := w.get("/metrics")
		return strings.Contains(body, `billing_ledger_events_total{result="inserted"} 5`)
	}, w.said)

	// It publishes what others committed and did not live to publish.
	digest := contract.Digest{1, 2, 3}
	period, err := world.store.PeriodAt(t.Context(), world.customer, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	err = world.store.InTx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.AddChange(t.Context(), control.Change{Kind: control.ChangeGrant, CustomerID: world.customer, Digest: digest, Grant: contract.Grant{
			Format: contract.GrantFormat, Version: 1, TokenID: "t1", CustomerID: world.customer, BoxID: "b1", Tier: "starter", Status: contract.StatusActive,
			RequestsPerSecond: 1, Burst: 1, Concurrent: 1, Period: period.Period(),
		}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the grant", func() bool { return client.Exists(context.Background(), contract.GrantKey(digest)).Val() == 1 }, w.said)

	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM\n%s", code, w.said())
	}
	for line := range strings.Lines(w.said()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not a JSON log line: %s", line)
		}
	}
}

// Workers are killed with SIGKILL again and again while events flow: each event is
// there once in the end.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	client := world.redis.Client()
	const batches, size = 400, 5
	produced := make(chan error, 1)
	go func(produced chan<- error) {
		for i := range int64(batches) {
			err := client.XAdd(context.Background(), &redis.XAddArgs{
				Stream: contract.UsageStreamKey, Values: []any{contract.UsageField, world.batch(t, i*size+1, size)},
			}).Err()
			if err != nil {
				produced <- err
				return
			}
			time.Sleep(5 * time.Millisecond) // so that the kills fall into the flow
		}
		produced <- nil
	}(produced)
	killed := 0
	for done := false; !done || killed < 2; {
		w := startWorker(t, world.env, "--ledger-read-entries", "3", "--ledger-tx-events", "5")
		before := world.totals(t).Requests
		await(t, "progress", func() bool {
			return world.totals(t).Requests > before || world.totals(t).Requests == batches*size
		}, w.said)
		w.end(os.Kill)
		killed++
		select {
		case err := <-produced:
			if err != nil {
				t.Fatal(err)
			}
			done, produced = true, nil
		default:
		}
	}
	t.Logf("killed %d workers", killed)
	w := startWorker(t, world.env)
	await(t, "an empty stream", func() bool {
		return client.XLen(context.Background(), contract.UsageStreamKey).Val() == 0
	}, w.said)
	if got := world.totals(t); got.Requests != batches*size || got.Settled != batches*size {
		t.Errorf("totals %+v, want %d", got, batches*size)
	}
	if got := strings.TrimSpace(world.pg.Query("SELECT count(*) FROM usage_events")); got != fmt.Sprint(batches*size) {
		t.Errorf("%s rows, want %d", got, batches*size)
	}
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

func TestRefusesToStart(t *testing.T) {
	t.Parallel()
	safe, unsafe := testenv.Redis(t), testenv.Redis(t, testenv.RedisArgs("--maxmemory-policy", "allkeys-lru", "--appendonly", "no"))
	empty := testenv.Postgres(t)
	for _, c := range []struct {
		name string
		env  map[string]string
		args string
		code int
		want []string
	}{
		{"unsafe Redis", map[string]string{"REDIS_URL": unsafe.URL, "DATABASE_URL": empty.URL}, "billing-worker", 1,
			[]string{"maxmemory-policy noeviction", "appendonly yes"}},
		{"no schema", map[string]string{"REDIS_URL": safe.URL, "DATABASE_URL": empty.URL}, "billing-worker", 1,
			[]string{"control migrate"}},
		{"unsafe Redis allowed", map[string]string{"REDIS_URL": unsafe.URL, "DATABASE_URL": empty.URL}, "billing-worker --allow-unsafe-redis", 1,
			[]string{"running with an unsafe Redis", "control migrate"}},
		{"everything wrong", map[string]string{"DATABASE_URL": "mysql://u:hush@x/y", "LEDGER_TX_EVENTS": "many"},
			"billing-worker -check-config --listen nowhere --renew-every 0s --log-level loud", 2,
			[]string{`LEDGER_TX_EVENTS is "many": want a whole number`, "--redis-url (REDIS_URL) is required", "postgres://", `--listen "nowhere": write it with a port`, "--renew-every: 0s", `--log-level "loud": use debug`}},
		{"Redis of an unknown kind", map[string]string{"REDIS_URL": "http://:hush@x", "DATABASE_URL": "postgres://x/y"}, "billing-worker --check-config", 2,
			[]string{"--redis-url: ", "redis-cluster://", "redis-sentinel://"}},
		{"Redis Sentinel", map[string]string{"REDIS_URL": "redis-sentinel://:hush@x,y/0?master=m", "DATABASE_URL": "postgres://x/y"}, "billing-worker --check-config", 0,
			[]string{"configuration is valid"}},
		{"valid", map[string]string{"REDIS_URL": "redis://x", "DATABASE_URL": "postgres://x/y"}, "billing-worker --check-config", 0,
			[]string{"configuration is valid"}},
		{"an operator's settings", map[string]string{"TOKEN_PROXY_LABELS": "token-proxy", "KUBE_REQUESTS_PER_SECOND": "many", "READY_WITHIN": "4m"}, "operator --check-config", 2,
			[]string{`TOKEN_PROXY_LABELS is "token-proxy": want name=value, or several of them separated by commas, such as app.kubernetes.io/name=token-proxy`,
				`KUBE_REQUESTS_PER_SECOND is "many": want a number`, "--ready-within: 4m0s is too short", "GATEWAY_IMAGE"}},
		{"labels of which one has no value", map[string]string{"TOKEN_PROXY_LABELS": "app=token-proxy,tier=a,front", "GATEWAY_IMAGE": "registry.test/gateway@sha256:" + strings.Repeat("0f", 32)}, "operator --check-config", 2,
			[]string{`TOKEN_PROXY_LABELS is "app=token-proxy,tier=a,front", of which "front" has no =: want name=value`}},
		{"a label that none can be", map[string]string{"TOKEN_PROXY_LABELS": "app=token-proxy,front", "GATEWAY_IMAGE": "registry.test/gateway@sha256:" + strings.Repeat("0f", 32)}, "operator --check-config", 2,
			[]string{"label app=token-proxy,front: "}},
		{"migrate nowhere", nil, "migrate", 2, []string{"DATABASE_URL"}},
		{"unknown role", nil, "billing", 2, []string{"billing"}},
		{"help", nil, "billing-worker --help", 0, []string{"$DATABASE_URL", "$LEDGER_CLAIM_IDLE", "Examples:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := strings.Fields(c.args)
			if c.code == 1 {
				args = append(args, "--listen", "127.0.0.1:0")
			}
			code, out := run(t, c.env, args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(strings.ReplaceAll(out, `\"`, `"`), w) {
					t.Errorf("%q is not in:\n%s", w, out)
				}
			}
			if strings.Contains(out, "hush") {
				t.Error("the password is shown")
			}
		})
	}
}

// A worker that starts before its databases waits for them.
func TestStartsBeforeItsDatabases(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	world.redis.Stop()
	w := startWorker(t, world.env)
	await(t, "a word about Redis", func() bool { return strings.Contains(w.said(), "waiting for Redis") }, w.said)
	if code, _ := w.get("/healthz"); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	if code, _ := w.get("/readyz"); code != 503 {
		t.Errorf("/readyz: %d", code)
	}
	world.redis.Start()
	await(t, "readiness", func() bool { code, _ := w.get("/readyz"); return code == 200 }, w.said)
	world.redis.Stop()
	await(t, "unreadiness", func() bool { code, _ := w.get("/readyz"); return code == 503 }, w.said)
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM without Redis\n%s", code, w.said())
	}
}
