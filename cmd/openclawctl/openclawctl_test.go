package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	openclawctl "github.com/andreabadesso/openclaw-cloud/cmd/openclawctl"
	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const pepper = "a pepper that is fake"

// env runs commands against real databases.
type env struct {
	t     *testing.T
	vars  map[string]string
	redis *testenv.RedisServer
	pg    *testenv.PostgresServer
	store *store.Store
}

func newEnv(t *testing.T) *env {
	t.Helper()
	return newEnvOn(t, storetest.PostgresWithJobs(t))
}

func newEnvOn(t *testing.T, pg *testenv.PostgresServer) *env {
	t.Helper()
	e := &env{t: t, redis: testenv.Redis(t), pg: pg}
	file := filepath.Join(t.TempDir(), "pepper")
	if err := os.WriteFile(file, []byte(pepper+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.vars = map[string]string{
		"DATABASE_URL": e.pg.URL, "REDIS_URL": e.redis.URL, "OPENCLAW_TOKEN_PEPPER_FILE": file, "OPENCLAW_ACTOR": "ada",
	}
	st, err := store.Open(t.Context(), e.pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	e.store = st
	return e
}

type result struct {
	code           int
	stdout, stderr string
}

func (e *env) run(args ...string) result {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code := openclawctl.Run(ctx, args, func(name string) string { return e.vars[name] }, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// ok runs a command that must succeed silently, and decodes its JSON into out.
func (e *env) ok(out any, args ...string) {
	e.t.Helper()
	r := e.run(append(args, "--output", "json")...)
	if r.code != 0 || r.stderr != "" {
		e.t.Fatalf("%v: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout), out); err != nil {
		e.t.Fatalf("%v: %v\n%s", args, err, r.stdout)
	}
}

type created struct {
	Customer struct{ ID, Name, Email, Tier, Status string }
	Box      struct{ ID string }
	Period   struct {
		ID    string `json:"period_id"`
		Limit int64  `json:"limit_tokens"`
	}
}

type token struct {
	Token   string
	ID      string
	BoxID   string `json:"box_id"`
	Hint    string
	Status  string
	Version int64
}

type period struct {
	ID     string `json:"period_id"`
	Limit  int64  `json:"limit_tokens"`
	Totals control.UsageTotals
	Redis  *struct {
		Limit   int64 `json:"limit_tokens"`
		Settled int64 `json:"settled_tokens"`
		Held    int64 `json:"held_tokens"`
	}
}

func (e *env) grant(raw string) *contract.Grant {
	e.t.Helper()
	h, err := contract.NewHasher([]byte(pepper))
	if err != nil {
		e.t.Fatal(err)
	}
	b, err := e.redis.Client().Get(context.Background(), contract.GrantKey(h.Digest([]byte(raw)))).Bytes()
	if err != nil {
		e.t.Fatal(err)
	}
	g, err := contract.DecodeGrant(b)
	if err != nil {
		e.t.Fatal(err)
	}
	return g
}

func TestLifeOfACustomer(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada Lovelace", "--tier", "starter", "--email", "ada@example.com")
	if c.Customer.Name != "Ada Lovelace" || c.Customer.Tier != "starter" || c.Box.ID == "" || c.Period.Limit != 1_000_000 {
		t.Fatalf("created %+v", c)
	}
	id := c.Customer.ID
	var list []struct{ ID, Email string }
	if e.ok(&list, "customer", "list", "--search", "lovelace"); len(list) != 0 {
		t.Errorf("found in the middle of a name: %+v", list)
	}
	e.ok(&list, "customer", "list", "--search", "ADA@")
	if len(list) != 1 || list[0].ID != id || list[0].Email != "ada@example.com" {
		t.Errorf("customers %+v", list)
	}

	var k token
	e.ok(&k, "token", "create", "--customer", id)
	if _, err := contract.ParseToken(k.Token); err != nil || k.BoxID != c.Box.ID || !strings.HasSuffix(k.Token, k.Hint) {
		t.Fatalf("token %+v, %v", k, err)
	}
	if g := e.grant(k.Token); g.Status != contract.StatusActive || g.TokenID != k.ID || g.MonthlyLimit != 1_000_000 {
		t.Errorf("grant %+v", g)
	}

	var q period
	e.ok(&q, "quota", "set", "--customer", id, "--limit", "2000000")
	if q.Limit != 2_000_000 || q.Redis == nil || q.Redis.Limit != 2_000_000 {
		t.Errorf("quota set: %+v", q)
	}
	if g := e.grant(k.Token); g.MonthlyLimit != 2_000_000 || g.Version != 2 {
		t.Errorf("grant after quota set: %+v", g)
	}

	// What the proxy and the ledger would write.
	now := time.Now().UTC().Truncate(time.Microsecond)
	event := contract.Event{
		Replica: "r1", Seq: 1, AdmittedAt: now, PeriodID: c.Period.ID, RequestID: "req-1", CustomerID: id, BoxID: c.Box.ID,
		TokenID: k.ID, Tier: "starter", ModelAsked: "k2", ModelServed: "k2\x1b[2J", Face: contract.FaceOpenAI, Upstream: "sim",
		Prompt: 10, Completion: 5, Settled: 15, Reserved: 20, Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK, Status: 200,
	}
	if _, err := e.store.RecordUsage(t.Context(), []control.Delivery{{Event: event, Payload: []byte("x")}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := e.redis.Client().HSet(t.Context(), contract.QuotaKey(id, c.Period.ID), "settled", 16).Err(); err != nil {
		t.Fatal(err)
	}
	var u struct {
		Periods []period
		Events  []contract.Event
	}
	e.ok(&u, "usage", "--customer", id, "--events", "5")
	if len(u.Periods) != 1 || u.Periods[0].Totals.Settled != 15 || u.Periods[0].Redis.Settled != 16 || len(u.Events) != 1 || u.Events[0] != event {
		t.Errorf("usage %+v", u)
	}
	e.ok(&q, "quota", "show", "--customer", id)
	if q.Totals.Settled != 15 || q.Redis.Settled != 16 || q.Limit != 2_000_000 {
		t.Errorf("quota show: %+v", q)
	}
	table := e.run("usage", "--customer", id)
	if table.code != 0 || !regexp.MustCompile(`(?m)^`+c.Period.ID+`\s.*\s15\s+16\s+0\s+2000000$`).MatchString(table.stdout) {
		t.Errorf("usage as a table: exit code %d\n%s%s", table.code, table.stdout, table.stderr)
	}
	if strings.Contains(table.stdout, "\x1b") {
		t.Error("a model's name moved the cursor")
	}

	var changed struct{ ID, Status string }
	e.ok(&changed, "customer", "suspend", id, "--reason", "no payment")
	if changed.ID != id || changed.Status != "suspended" || e.grant(k.Token).Status != contract.StatusSuspended {
		t.Errorf("after suspension: %+v, grant %+v", changed, e.grant(k.Token))
	}
	e.ok(&changed, "customer", "resume", id)
	if changed.Status != "active" || e.grant(k.Token).Status != contract.StatusActive {
		t.Errorf("resumed: %+v, grant %+v", changed, e.grant(k.Token))
	}
	if r := e.run("customer", "suspend", "nobody"); r.code != 1 || !strings.Contains(r.stderr, "customer nobody") {
		t.Errorf("suspending nobody: exit code %d, %s", r.code, r.stderr)
	}

	e.ok(&k, "token", "revoke", k.ID)
	if k.Status != "revoked" || e.grant(k.Token).Status != contract.StatusRevoked {
		t.Errorf("after revocation: %+v, grant %+v", k, e.grant(k.Token))
	}
	var tokens []token
	e.ok(&tokens, "token", "list", "--customer", id)
	if len(tokens) != 1 || tokens[0].Status != "revoked" || tokens[0].Token != "" {
		t.Errorf("tokens %+v", tokens)
	}
	if got := strings.TrimSpace(e.pg.Query("SELECT string_agg(DISTINCT actor, ',') FROM audit_log")); got != "ada" {
		t.Errorf("actors in the audit log: %q", got)
	}
	// The raw token is nowhere: not in Postgres, not in Redis.
	dump := e.pg.Query("SELECT string_agg(t::text, ' ') FROM proxy_tokens t") +
		e.pg.Query("SELECT string_agg(t::text, ' ') FROM config_changes t") + e.pg.Query("SELECT string_agg(t::text, ' ') FROM audit_log t")
	if strings.Contains(dump, k.Token) || strings.Contains(dump, contract.TokenPrefix) {
		t.Error("the raw token is in Postgres")
	}
	file, err := e.redis.Client().Do(t.Context(), "DUMP", contract.FeedLogKey).Text()
	if err != nil || strings.Contains(file, k.Token) {
		t.Errorf("the raw token is in the feed's log (or %v)", err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	raw, err := contract.NewToken(nil)
	if err != nil {
		t.Fatal(err)
	}
	secret := raw.Reveal()
	for _, c := range []struct {
		name string
		args string
		vars map[string]string
		code int
		want string
	}{
		{"no such customer", "quota show --customer c1", nil, 1, "customer c1: not found"},
		{"no such token", "token revoke t1", nil, 1, "token t1: not found"},
		{"unknown tier", "customer create --name x --tier gold", nil, 1, "starter"},
		{"missing flag", "quota set --customer c1", nil, 2, "limit"},
		{"unknown flag", "quota set --custmer c1", nil, 2, "--custmer"},
		{"unknown command", "qouta", nil, 2, "qouta"},
		{"unknown command below one", "quota sett", nil, 2, `unknown command "sett" for "openclawctl quota"; did you mean set?`},
		{"unknown command further below", "ledger deadletters eat 5", nil, 2, `unknown command "eat"`},
		{"negative limit", "quota set --customer c1 --limit -1", nil, 2, "negative"},
		{"no such replica", "ledger declare-lost r9 --reason x", nil, 1, "replica r9: not found"},
		{"lost without a grace", "ledger declare-lost r9 --reason x --grace 10ms", nil, 2, "--grace must be at least 1s"},
		{"lost without a reason", "ledger declare-lost r9", nil, 2, "reason"},
		{"no such dead letter", "ledger deadletters show 9", nil, 1, "dead letter 9: not found"},
		{"not a dead letter's id", "ledger deadletters replay nine", nil, 2, "not the id"},
		{"replay of nothing", "ledger deadletters replay", nil, 2, "at least 1 arg"},
		{"drop without a reason", "ledger deadletters drop 9", nil, 2, "reason"},
		{"a limit too high", "ledger replicas --limit 99999", nil, 2, "--limit"},
		{"verify of nobody", "ledger verify --customer c1", nil, 1, "customer c1: not found"},
		{"overage of the future", "ledger verify --overage-within -1s", nil, 2, "--overage-within"},
		{"a wait below 0", "ledger verify --wait -1s", nil, 2, "--wait"},
		{"a part below 0", "customer list --used-from -1", nil, 2, "--used-from must be in 0…1000: percent of the limit"},
		{"a part too large", "customer list --used-from 1001", nil, 2, "--used-from must be in 0…1000: percent of the limit"},
		{"a part that is no number", "customer list --used-from 90%", nil, 2, "used-from"},
		{"output", "customer list --output xml", nil, 2, "table, json or yaml"},
		{"no environment", "customer list", map[string]string{"DATABASE_URL": "", "REDIS_URL": ""}, 2, "OPENCLAW_API_URL (to work on the databases themselves: DATABASE_URL and REDIS_URL)"},
		{"no databases", "customer list --direct", map[string]string{"DATABASE_URL": "", "REDIS_URL": ""}, 2, "REDIS_URL: "},
		{"no Redis", "customer list", map[string]string{"REDIS_URL": ""}, 2, "REDIS_URL: "},
		{"no pepper", "token create --customer c1", map[string]string{"OPENCLAW_TOKEN_PEPPER_FILE": ""}, 2, "OPENCLAW_TOKEN_PEPPER_FILE"},
		{"short pepper", "token create --customer c1", map[string]string{"OPENCLAW_TOKEN_PEPPER": "short"}, 2, "at least 16 bytes"},
		{"no Postgres", "customer list", map[string]string{"DATABASE_URL": "postgres://u:hush@127.0.0.1:1/x"}, 1, "refused"},
		{"a token for an id", "token revoke " + secret, nil, 2, "never tokens"},
		{"a token for a customer", "usage --customer " + secret, nil, 2, "never tokens"},
		{"a token for a command", "token list " + secret, nil, 2, "ocp_[redacted]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sub := *e
			sub.t, sub.vars = t, make(map[string]string)
			for k, v := range e.vars {
				sub.vars[k] = v
			}
			for k, v := range c.vars {
				sub.vars[k] = v
			}
			r := sub.run(strings.Fields(c.args)...)
			if r.code != c.code || !strings.Contains(r.stderr, c.want) || r.stdout != "" {
				t.Errorf("exit code %d, want %d with %q\nstdout %s\nstderr %s", r.code, c.code, c.want, r.stdout, r.stderr)
			}
			for _, hidden := range []string{secret, "hush"} {
				if strings.Contains(r.stdout+r.stderr, hidden) {
					t.Errorf("a secret is shown: %s", r.stderr)
				}
			}
		})
	}
}

func TestDatabaseWithoutSchema(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.vars["DATABASE_URL"] = testenv.Postgres(t).URL
	if r := e.run("customer", "list"); r.code != 1 || !strings.Contains(r.stderr, `"control migrate"`) {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
}

// Without Redis a change holds, the exit code says that it is not out yet, and the
// next command brings it out. Reading goes on.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada")
	e.redis.Stop()
	r := e.run("token", "create", "--customer", c.Customer.ID, "--output", "json")
	var k token
	if err := json.Unmarshal([]byte(r.stdout), &k); err != nil || r.code != 3 || !strings.Contains(r.stderr, "The change holds.") {
		t.Fatalf("exit code %d, %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	if strings.Contains(r.stderr, k.Token) {
		t.Error("the raw token is in an error")
	}
	if r := e.run("usage", "--customer", c.Customer.ID); r.code != 0 || !strings.Contains(r.stderr, "warning") || !strings.Contains(r.stdout, c.Period.ID) {
		t.Errorf("reading: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	e.redis.Start()
	if r := e.run("customer", "list"); r.code != 0 || !strings.Contains(r.stderr, "published 1 earlier") {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
	if g := e.grant(k.Token); g.Status != contract.StatusActive {
		t.Errorf("grant %+v", g)
	}
}

// Each command explains itself, with an example, without any database.
func TestHelp(t *testing.T) {
	t.Parallel()
	e := &env{t: t}
	for _, c := range []string{
		"", "customer create", "customer list", "customer show", "customer suspend", "customer resume", "customer delete",
		"token create", "token list", "token rotate", "token revoke", "quota set", "quota add", "quota reset", "quota show", "usage",
		"ledger verify", "ledger replicas", "ledger declare-lost", "ledger deadletters list", "ledger deadletters show",
		"ledger deadletters replay", "ledger deadletters drop", "feed republish", "login", "logout", "whoami", "openapi", "audit",
		"box list", "box create", "box show", "box logs", "box events", "box restart", "box suspend", "box resume", "box resize", "box rotate-token", "box destroy", "tier list", "job list", "job retry", "job cancel", "operator list", "operator create", "operator disable",
		"billing events", "billing retry", "smoke",
	} {
		r := e.run(append(strings.Fields(c), "--help")...)
		if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, "Examples:\n  openclawctl "+c) {
			t.Errorf("%q --help: exit code %d\n%s%s", c, r.code, r.stdout, r.stderr)
		}
	}
	if r := e.run("--help"); !strings.Contains(r.stdout, "DATABASE_URL") || !strings.Contains(r.stdout, "OPENCLAW_API_URL") {
		t.Errorf("the environment is not explained:\n%s", r.stdout)
	}
	// The program itself.
	for _, args := range [][]string{{"quota", "set", "--help"}, {"nonsense"}} {
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), testenv.BuildBinary(t, "./cmd/openclawctl"), args...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Fatal(err)
		}
		if got, want := (result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}), e.run(args...); got != want {
			t.Errorf("%v: %+v, want %+v", args, got, want)
		}
	}
	// What needs no api says why.
	for _, c := range []string{"ledger verify", "ledger declare-lost", "feed republish"} {
		if r := e.run(append(strings.Fields(c), "--help")...); !strings.Contains(r.stdout, "when the api is not") {
			t.Errorf("%s --help does not say why it works on the databases:\n%s", c, r.stdout)
		}
	}
}
