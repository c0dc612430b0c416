//go:build linux

package monitoring

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

var (
	devstack = flag.String("devstack", "", "the program devstack, with the others beside it: make monitoring gives it")
	only     = flag.String("faults", "", "stage only faults whose name this regular expression finds, and look at nothing else")
)

func TestMain(m *testing.M) { testenv.Main(m) }

// world is the stack and what watches it.
type world struct {
	root, t                  *testing.T // root: of the whole, with which programs end; t: of the part that runs now
	dir, run                 string     // run: what devstack keeps
	env                      []string
	ports                    map[string]int              // by names such as PROXY, of OPENCLAW_PROXY_PORT
	programs                 map[string]*testenv.Program // those that the test has started, by name
	token                    string                      // the first customer's
	customer                 string                      // the first customer
	prometheus, alertmanager string                      // URLs
	slack, pagerduty         *inbox
	money                    *money
	seen                     map[string]bool // rules that fired, were told of, and ended in a staged fault
}

// newWorld starts everything. Nothing of it is left when the test ends.
func newWorld(t *testing.T) *world {
	t.Helper()
	if *devstack == "" {
		t.Fatal("run make monitoring, which builds the programs and says where they are")
	}
	dir := t.TempDir()
	w := &world{
		root: t, t: t, dir: dir, run: filepath.Join(dir, "run"), ports: make(map[string]int), programs: make(map[string]*testenv.Program),
		slack: newInbox(t), pagerduty: newInbox(t), seen: make(map[string]bool),
	}
	for _, v := range os.Environ() {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "REDIS_URL", "DATABASE_URL", "KIMI_API_KEY", "KIMI_BASE_URL", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRETS", "TELEGRAM_BOT_TOKEN":
		default:
			w.env = append(w.env, v)
		}
	}
	w.env = append(w.env, "OPENCLAW_RUN_DIR="+w.run, "PATH="+w.patientRedis()+":"+os.Getenv("PATH"))
	w.ports["SECOND"], w.ports["SECOND_ADMIN"] = testenv.FreePort(t), testenv.FreePort(t)
	variables, err := w.tryRun(t.Context(), *devstack, "ports")
	if err != nil {
		t.Fatalf("devstack ports: %v\n%s", err, variables)
	}
	for line := range strings.Lines(variables) {
		variable, _, _ := strings.Cut(line, "=")
		name := strings.TrimSuffix(strings.TrimPrefix(variable, "OPENCLAW_"), "_PORT")
		w.ports[name] = testenv.FreePort(t)
		w.env = append(w.env, fmt.Sprintf("%s=%d", variable, w.ports[name]))
	}
	t.Cleanup(func() {
		if out, err := w.tryRun(context.Background(), *devstack, "clean"); err != nil {
			t.Errorf("devstack clean: %v\n%s", err, out)
		}
	})
	if out, err := w.tryRun(t.Context(), *devstack, "up-cluster"); err != nil {
		t.Fatalf("devstack up-cluster: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		w.showLogs("billing-worker", "api", "box-operator", "onboarding-agent", "token-proxy", "second-token-proxy")
	})
	w.token, w.customer = w.read("token"), w.read("customer")
	w.furnish()
	w.watch()
	return w
}

// patientRedis makes a redis-server that stands a signal which says that a file may not grow: its write
// fails instead, as it does on a full disk. It returns the directory.
func (w *world) patientRedis() string {
	w.t.Helper()
	dir := filepath.Join(w.dir, "bin")
	for _, name := range []string{"redis-server", "valkey-server"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		script := "#!/bin/sh\ntrap '' XFSZ\nexec " + path + " \"$@\"\n"
		if err := os.Mkdir(dir, 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			w.t.Fatal(err)
		}
		return dir
	}
	w.t.Fatal("redis-server is missing: make monitoring installs it")
	return ""
}

// furnish gives the stack what faults of it need, and what it has in a cluster: a Stripe, a mail server, a
// file with the tier table, and a second token-proxy. What takes the operator minutes takes it seconds.
func (w *world) furnish() {
	w.t.Helper()
	w.money = newMoney(w)
	w.write("tiers.yaml", w.tiers())
	w.again("billing-worker", append(w.money.billingArguments(), "--tiers-file", filepath.Join(w.dir, "tiers.yaml"))...)
	w.again("api", w.money.apiArguments()...)
	w.again("box-operator", "--sweep-every=1s", "--health-every=2s", "--placed-within=20s", "--retry-min=15s", "--retry-max=15s",
		"--end-within=2s", "--force-after=1s")

	// The second one has little of everything: room for usage, processor time, and patience with being
	// given none.
	var conf map[string]any
	if err := json.Unmarshal([]byte(w.read("token-proxy.json")), &conf); err != nil {
		w.t.Fatal(err)
	}
	conf["listen"], conf["admin"], conf["journal_dir"] = w.address("SECOND"), w.address("SECOND_ADMIN"), filepath.Join(w.dir, "journal")
	conf["limits"] = map[string]any{"scheduling_delay": "10ms", "journal_bytes": 64 << 10, "journal_slots": 16, "per_address": 10_000}
	text, err := json.Marshal(conf)
	if err != nil {
		w.t.Fatal(err)
	}
	w.programs["second-token-proxy"] = testenv.Start(w.root, append(os.Environ(), "GOMAXPROCS=1"), w.logOf("second-token-proxy"),
		"/usr/bin/env", "nice", "-n", "19", filepath.Join(filepath.Dir(*devstack), "token-proxy"), "-config", w.write("second-token-proxy.json", string(text)))
}

// tiers is the tier table that is compiled in.
func (w *world) tiers() string {
	w.t.Helper()
	root, err := testenv.ModuleRoot()
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "control", "tiers", "tiers.yaml"))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

func (w *world) tryRun(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	root, err := testenv.ModuleRoot()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Dir = w.env, root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ctl runs openclawctl, or kubectl, as devstack has written them for this stack.
func (w *world) ctl(program string, args ...string) string {
	w.t.Helper()
	out, err := w.tryRun(w.t.Context(), filepath.Join(w.run, program), args...)
	if err != nil {
		w.t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return out
}

func (w *world) read(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.run, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// write makes a file of text, or of what is YAML, and returns its path.
func (w *world) write(name string, content any) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(textOf(w.t, content)), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *world) address(port string) string { return "127.0.0.1:" + strconv.Itoa(w.ports[port]) }

// passwords are those of the stack's servers.
func (w *world) passwords() (redis, postgres string) {
	w.t.Helper()
	var secrets struct {
		Redis    string `json:"redis_password"`
		Postgres string `json:"postgres_password"`
	}
	if err := json.Unmarshal([]byte(w.read("secrets.json")), &secrets); err != nil {
		w.t.Fatal(err)
	}
	return secrets.Redis, secrets.Postgres
}

// redis returns a client of the stack's Redis. Close it.
func (w *world) redis() *redis.Client {
	w.t.Helper()
	password, _ := w.passwords()
	return redis.NewClient(&redis.Options{Addr: w.address("REDIS"), Password: password})
}

// sql runs a statement in the stack's Postgres, and returns what it answers.
func (w *world) sql(statement string) string {
	w.t.Helper()
	psql, err := exec.LookPath("psql")
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/psql"); err != nil && len(found) > 0 {
		psql, err = found[0], nil
	}
	if err != nil {
		w.t.Fatalf("psql is missing: make monitoring installs it: %v", err)
	}
	_, password := w.passwords()
	u := url.URL{Scheme: "postgres", User: url.User("openclaw"), Host: w.address("POSTGRES"), Path: "/openclaw", RawQuery: "sslmode=disable"}
	cmd := exec.CommandContext(w.t.Context(), psql, "--no-psqlrc", "--quiet", "--no-password", "--tuples-only", "--no-align",
		"--set=ON_ERROR_STOP=1", "--dbname="+u.String(), "--command="+statement)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("psql: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// within waits for what becomes so, at most limit, and returns what is missing then; "" if nothing. ok says
// it.
func within(limit time.Duration, ok func() string) string {
	for deadline := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		missing := ok()
		if missing == "" || time.Now().After(deadline) {
			return missing
		}
	}
}

// eventually is within for what the test cannot do without.
func (w *world) eventually(what string, limit time.Duration, ok func() string) {
	w.t.Helper()
	if missing := within(limit, ok); missing != "" {
		w.t.Fatalf("not within %v: %s: %s", limit, what, missing)
	}
}
