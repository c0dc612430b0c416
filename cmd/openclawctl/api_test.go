package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Each operation of the operators' api is what a command does: the command that says so is run,
// and the api's log shows the request. What the api learns to do and no command does fails here.
func TestEveryRouteHasItsCommand(t *testing.T) {
	t.Parallel()
	e := newAPIEnv(t)
	operations := e.operations()
	left := maps.Clone(operations)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada")
	id := c.Customer.ID
	var k, spare token
	e.ok(&k, "token", "create", "--customer", id)
	e.ok(&spare, "token", "create", "--customer", id)
	e.record([]control.DeadLetter{{StreamID: "2-1", Index: -1, Payload: []byte("x"), Reason: "not JSON"}}, event("c1", "p1", 1))
	e.pg.Query("INSERT INTO customers (id, name, tier) VALUES ('c1', 'x', 'starter')")
	e.pg.Query("INSERT INTO stripe_events (id, type, api_version, created_at, payload) VALUES ('evt_1', 'invoice.paid', '2023-10-16', now(), '{}')")
	letter := strings.TrimSpace(e.pg.Query("SELECT id FROM dead_letters WHERE replica IS NOT NULL"))
	junk := strings.TrimSpace(e.pg.Query("SELECT id FROM dead_letters WHERE replica IS NULL"))
	// A job for each, far enough away that nobody works it.
	e.ok(&spare, "token", "rotate", spare.ID, "--overlap", "24h")
	job := strings.TrimSpace(e.pg.Query("SELECT id FROM river_job WHERE kind = 'token_revocation'"))
	e.pg.Query("INSERT INTO river_job (kind, args, max_attempts, queue, state, scheduled_at) VALUES ('mail', '{}', 5, 'default', 'scheduled', now() + interval '1 day')")
	mail := strings.TrimSpace(e.pg.Query("SELECT id FROM river_job WHERE kind = 'mail'"))
	var other control.Operator
	password := e.vars["OPENCLAW_API_PASSWORD_FILE"]
	e.ok(&other, "operator", "create", "--email", "first@example.com", "--role", "support", "--password-file", password)

	for _, r := range []struct{ operation, args string }{
		{"getSpecification", "openapi"},
		{"signIn", "login --email " + admin + " --password-file " + password},
		{"getSession", "whoami"},
		{"renewSession", "whoami --renew"},
		{"listCustomers", "customer list"},
		{"createCustomer", "customer create --name Bob"},
		{"getCustomer", "customer show " + id},
		{"suspendCustomer", "customer suspend " + id + " --reason test"},
		{"resumeCustomer", "customer resume " + id + " --reason test"},
		{"getCustomerUsage", "usage --customer " + id + " --from 2026-01-01 --to 2026-02-01"},
		{"getQuota", "quota show --customer " + id},
		{"changeQuota", "quota set --customer " + id + " --limit 7 --reason test"},
		{"changeQuota", "quota add --customer " + id + " --tokens 5 --reason test"},
		{"changeQuota", "quota reset --customer " + id + " --reason test"},
		{"listBoxes", "box list --customer " + id},
		{"getBox", "box show " + c.Box.ID},
		{"getBoxLogs", "box logs " + c.Box.ID},
		{"listBoxEvents", "box events " + c.Box.ID},
		{"restartBox", "box restart " + c.Box.ID + " --reason test"},
		{"suspendBox", "box suspend " + c.Box.ID + " --reason test"},
		{"resumeBox", "box resume " + c.Box.ID + " --reason test"},
		{"resizeBox", "box resize " + c.Box.ID + " --size team --reason test"},
		{"rotateBoxToken", "box rotate-token " + c.Box.ID + " --reason test"},
		{"listTokens", "token list --customer " + id},
		{"createToken", "token create --customer " + id + " --box " + c.Box.ID},
		{"rotateToken", "token rotate " + k.ID + " --overlap 1h"},
		{"revokeToken", "token revoke " + k.ID},
		{"listTiers", "tier list"},
		{"listJobs", "job list --state scheduled"},
		{"retryJob", "job retry " + job},
		{"cancelJob", "job cancel " + mail},
		{"listDeadLetters", "ledger deadletters list"},
		{"getDeadLetter", "ledger deadletters show " + letter},
		{"replayDeadLetter", "ledger deadletters replay " + letter},
		{"dropDeadLetter", "ledger deadletters drop " + junk + " --reason test"},
		{"listAudit", "audit --customer " + id},
		{"getPlatformUsage", "usage"},
		{"listReplicas", "ledger replicas"},
		{"streamTraffic", "traffic"},
		{"listStripeEvents", "billing events"},
		{"retryStripeEvent", "billing retry evt_1 --again"},
		{"listOperators", "operator list"},
		{"createOperator", "operator create --email second@example.com --password-file " + password},
		{"disableOperator", "operator disable " + other.ID + " --yes"},
		{"createBox", "box create --customer " + id + " --reason test"},
		{"destroyBox", "box destroy " + c.Box.ID + " --reason test --yes"},
		{"deleteCustomer", "customer delete " + id + " --yes"},
		{"signOut", "logout"},
	} {
		want := operations[r.operation]
		for _, output := range []string{"table", "yaml"} {
			if output != "table" && !repeatable(r.operation) {
				continue
			}
			from := e.logged()
			got := e.run(append(strings.Fields(r.args), "--output", output)...)
			if got.code != 0 || got.stdout == "" {
				t.Errorf("%s: exit code %d\n%s%s", r.args, got.code, got.stdout, got.stderr)
			}
			e.await(fmt.Sprintf("%s (%s): %q in the api's log", r.args, r.operation, want), func() bool {
				return strings.Contains(strings.Join(e.seen(from), "\n")+" ", want+" 20") // of a stream, when that has ended
			})
		}
		delete(left, r.operation)
		// Who wants to do it by program finds the operation's name.
		if help := e.run(append(words(r.args), "--help")...); !strings.Contains(help.stdout, r.operation) {
			t.Errorf("%s --help does not name the operation %s:\n%s", r.args, r.operation, help.stdout)
		}
	}
	for id, route := range left {
		t.Errorf("no command calls %s (%s)", id, route)
	}
}

// words are those that name a command: up to the first id or flag.
func words(args string) []string {
	fields := strings.Fields(args)
	for i, f := range fields {
		if strings.HasPrefix(f, "-") || strings.ContainsAny(f, "0123456789_") {
			return fields[:i]
		}
	}
	return fields
}

// repeatable reports whether the commands that call an operation can be run again at once.
func repeatable(operation string) bool {
	return strings.HasPrefix(operation, "get") || strings.HasPrefix(operation, "list")
}

func TestLifeByTheAPI(t *testing.T) {
	t.Parallel()
	e := newAPIEnv(t)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada Lovelace", "--tier", "starter", "--email", "ada@example.com")
	id := c.Customer.ID
	if c.Customer.Name != "Ada Lovelace" || c.Box.ID == "" || c.Period.Limit != 1_000_000 {
		t.Fatalf("created %+v", c)
	}
	var k token
	e.ok(&k, "token", "create", "--customer", id)
	if _, err := contract.ParseToken(k.Token); err != nil || k.BoxID != c.Box.ID {
		t.Fatalf("token %+v, %v", k, err)
	}
	var q period
	e.ok(&q, "quota", "set", "--customer", id, "--limit", "2000000", "--reason", "test")
	if g := e.grant(k.Token); q.Limit != 2_000_000 || g.MonthlyLimit != 2_000_000 {
		t.Errorf("quota set: %+v, grant %+v", q, g)
	}
	e.ok(&q, "quota", "add", "--customer", id, "--tokens", "-500000", "--reason", "test")
	if q.Limit != 1_500_000 {
		t.Errorf("quota add: %+v", q)
	}
	r := e.run("quota", "reset", "--customer", id, "--reason", "test")
	if r.code != 0 || !strings.Contains(r.stdout, " 1000000 ") || !strings.Contains(r.stdout, "No proxy lives") {
		t.Errorf("quota reset: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	var changed struct{ ID, Status string }
	e.ok(&changed, "customer", "suspend", id, "--reason", "no payment")
	if changed.Status != "suspended" || e.grant(k.Token).Status != contract.StatusSuspended {
		t.Errorf("suspended: %+v", changed)
	}
	var list []struct{ ID string }
	e.ok(&list, "customer", "list", "--status", "suspended")
	if len(list) != 1 || list[0].ID != id {
		t.Errorf("suspended customers %+v", list)
	}
	for search, want := range map[string]int{"ADA LOV": 1, "ada@": 1, "lovelace": 0} {
		if e.ok(&list, "customer", "list", "--search", search); len(list) != want {
			t.Errorf("search for %q: %+v", search, list)
		}
	}
	var rotated token
	e.ok(&rotated, "token", "rotate", k.ID)
	if _, err := contract.ParseToken(rotated.Token); err != nil || e.grant(k.Token).Status != contract.StatusRevoked {
		t.Errorf("rotated %+v, %v", rotated, err)
	}
	var u struct {
		Periods []period
		Days    []control.UsageShare
	}
	e.record(nil, event(id, c.Period.ID, 1))
	e.ok(&u, "usage", "--customer", id)
	if len(u.Periods) != 1 || u.Periods[0].Totals.Settled != 15 || len(u.Days) != 1 || u.Days[0].Settled != 15 {
		t.Errorf("usage %+v", u)
	}
	// Who did it is the operator, whatever the environment says.
	e.vars["OPENCLAW_ACTOR"] = "nobody"
	if got := strings.TrimSpace(e.pg.Query("SELECT count(DISTINCT actor) FROM audit_log WHERE customer_id = '" + id + "' AND actor LIKE 'operator:o%'")); got != "1" {
		t.Errorf("%s actors in the audit log", got)
	}
	if b, err := os.ReadFile(e.log); err != nil || bytes.Contains(b, []byte(contract.TokenPrefix)) || bytes.Contains(b, []byte(fakePassword)) {
		t.Errorf("a secret is in the log of the api, or %v", err)
	}
}

// YAML says the same as JSON, whatever a name looks like.
func TestYAML(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	names := []string{"yes", "null", "~", "0x10", "1e3", "2026-01-01", "a: b #c", "- x", "{}", "Zoë \"Q\" O'Neil", "*a &b !c", "9007199254740993"}
	for i, name := range names {
		e.pg.Query(fmt.Sprintf("INSERT INTO customers (id, name, tier) VALUES ('c%d', $x$%s$x$, 'starter')", i, name))
	}
	var list []map[string]any
	e.ok(&list, "customer", "list")
	r := e.run("customer", "list", "--output", "yaml")
	var same []map[string]any
	if err := yaml.Unmarshal([]byte(r.stdout), &same); err != nil || r.code != 0 || len(same) != len(names) {
		t.Fatalf("exit code %d, %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	for i := range list {
		for field, value := range list[i] {
			if same[i][field] != value {
				if at, ok := same[i][field].(time.Time); !ok || at.Format(time.RFC3339Nano) != value {
					t.Errorf("%s: %v in YAML, %v in JSON", field, same[i][field], value)
				}
			}
		}
	}
	if strings.ContainsAny(strings.ReplaceAll(r.stdout, "{}", ""), "{}[]") || !strings.Contains(r.stdout, "- id: c0\n") {
		t.Errorf("hardly YAML:\n%s", r.stdout)
	}
	e.pg.Query("DELETE FROM customers")
	if r := e.run("customer", "list", "-o", "yaml"); r.stdout != "[]\n" {
		t.Errorf("nobody: %q", r.stdout)
	}
}

// Lists come page by page, and whole.
func TestLongLists(t *testing.T) {
	t.Parallel()
	e := newAPIEnv(t)
	e.pg.Query("INSERT INTO customers (id, name, tier, created_at) SELECT 'c' || n, 'x', 'starter', now() - n * interval '1 second' FROM generate_series(1, 1201) n")
	var list []struct{ ID string }
	e.ok(&list, "customer", "list")
	if len(list) != 1201 || list[0].ID != "c1201" || list[1200].ID != "c1" {
		t.Errorf("%d customers", len(list))
	}
	e.ok(&list, "customer", "list", "--limit", "503")
	if len(list) != 503 {
		t.Errorf("%d customers instead of 503", len(list))
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	e := newAPIEnv(t)
	signIns := func() string {
		return strings.TrimSpace(e.pg.Query("SELECT count(*) FROM audit_log WHERE action = 'session.create'"))
	}
	for range 3 {
		if r := e.run("customer", "list"); r.code != 0 {
			t.Fatalf("exit code %d\n%s", r.code, r.stderr)
		}
	}
	if signIns() != "1" {
		t.Errorf("%s sign-ins for three commands", signIns())
	}
	file := e.vars["OPENCLAW_SESSION_FILE"]
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the session's file: %v, %v", info, err)
	}
	// The kept session alone is enough, and names the api.
	kept := map[string]string{"OPENCLAW_SESSION_FILE": file}
	all := e.vars
	e.vars = kept
	var me struct {
		URL  string `json:"api_url"`
		Role string
	}
	e.ok(&me, "whoami")
	if me.URL != e.operators || me.Role != "admin" {
		t.Errorf("whoami %+v", me)
	}
	// It wins over databases that are named for other programs.
	e.vars = map[string]string{"OPENCLAW_SESSION_FILE": file, "DATABASE_URL": "postgres://127.0.0.1:1/none", "REDIS_URL": all["REDIS_URL"]}
	if r := e.run("customer", "list"); r.code != 0 {
		t.Errorf("with DATABASE_URL: exit code %d\n%s", r.code, r.stderr)
	}
	e.vars = kept
	// An access token that has ended is renewed, by one of several commands at once.
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var session map[string]any
	if err := json.Unmarshal(text, &session); err != nil {
		t.Fatal(err)
	}
	session["expires_at"], session["access_token"] = time.Now().Add(-time.Minute), "ended"
	text, err = json.Marshal(session)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	from := e.logged()
	results := make(chan result, 4)
	for range cap(results) {
		go func() { results <- e.run("customer", "list") }()
	}
	for range cap(results) {
		if r := <-results; r.code != 0 {
			t.Errorf("exit code %d\n%s", r.code, r.stderr)
		}
	}
	if n := strings.Count(strings.Join(e.seen(from), "\n"), "POST /v1/session/renew 200"); n != 1 || signIns() != "1" {
		t.Errorf("%d renewals, %s sign-ins: %q", n, signIns(), e.seen(from))
	}
	// A session that was ended elsewhere: who cannot sign in is told to, who can does.
	e.pg.Query("UPDATE sessions SET revoked_at = now(), revoked_reason = 'test'")
	if r := e.run("customer", "list"); r.code != 1 || !strings.Contains(r.stderr, `Sign in with "openclawctl login"`) {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
	e.vars = all
	if r := e.run("customer", "list"); r.code != 0 || signIns() != "2" {
		t.Errorf("exit code %d, %s sign-ins\n%s", r.code, signIns(), r.stderr)
	}
	e.vars = kept
	if r := e.run("logout"); r.code != 0 {
		t.Errorf("logout: exit code %d\n%s", r.code, r.stderr)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the session is still there: %v", err)
	}
	if got := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM sessions WHERE revoked_at IS NULL")); got != "0" {
		t.Errorf("%s sessions live", got)
	}
	if r := e.run("customer", "list"); r.code != 2 || !strings.Contains(r.stderr, "OPENCLAW_API_URL") {
		t.Errorf("without anything: exit code %d\n%s", r.code, r.stderr)
	}
}

func TestErrorsOfTheAPISayWhatToDo(t *testing.T) {
	t.Parallel()
	e := newAPIEnv(t)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada", "--email", "ada@example.com")
	e.runControl(fakePassword, "add-operator", "--email", "support@example.com", "--role", "support")
	wrong := filepath.Join(t.TempDir(), "wrong")
	if err := os.WriteFile(wrong, []byte("not the right password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	support := map[string]string{"OPENCLAW_API_EMAIL": "support@example.com", "OPENCLAW_SESSION_FILE": filepath.Join(t.TempDir(), "s")}
	for _, c := range []struct {
		name string
		args string
		vars map[string]string
		code int
		want string
	}{
		{"no such customer", "quota show --customer c1", nil, 1, "c1: not found"},
		{"no id at all", "customer show c%20/1", nil, 1, "customer c%20/1: not found"},
		{"no such token", "token revoke t1", nil, 1, "token t1: not found"},
		{"no such job", "job retry 999", nil, 1, "job 999: not found"},
		{"unknown tier", "customer create --name x --tier gold", nil, 1, "tier: there is no such tier"},
		{"an address twice", "customer create --name x --email ada@example.com", nil, 1, "exists already"},
		{"no reason", "customer suspend " + c.Customer.ID, nil, 2, "--reason is required"},
		{"requests by the api", "usage --customer c1 --events 5", nil, 2, "--direct"},
		{"a role", "quota set --customer " + c.Customer.ID + " --limit 1 --reason x", support, 1, "your role may not do this"},
		{"a wrong password", "customer list", map[string]string{"OPENCLAW_API_PASSWORD_FILE": wrong, "OPENCLAW_SESSION_FILE": filepath.Join(t.TempDir(), "w")}, 1, "the e-mail address or the password is wrong"},
		{"no password", "customer list", map[string]string{"OPENCLAW_API_PASSWORD_FILE": "", "OPENCLAW_SESSION_FILE": filepath.Join(t.TempDir(), "n")}, 1, "sign in first"},
		{"whose password", "customer list", map[string]string{"OPENCLAW_API_EMAIL": ""}, 2, "OPENCLAW_API_EMAIL"},
		{"nobody there", "customer list", map[string]string{"OPENCLAW_API_URL": "http://127.0.0.1:1"}, 1, "nothing listens there"},
		{"nobody there, and databases are no help", "box list --customer x", map[string]string{"OPENCLAW_API_URL": "http://127.0.0.1:1", "DATABASE_URL": "postgres://x/y"}, 1, "!--direct"},
		{"nobody there, but databases", "customer list", map[string]string{"OPENCLAW_API_URL": "http://127.0.0.1:1", "DATABASE_URL": "postgres://x/y"}, 1, "With --direct"},
		{"the customers' address", "customer list", map[string]string{"OPENCLAW_API_URL": e.customers}, 1, "operators have one of their own"},
		{"something else", "openapi", map[string]string{"OPENCLAW_API_URL": e.probes}, 1, "is not the operators' api (404"},
		{"no URL", "customer list", map[string]string{"OPENCLAW_API_URL": "ops.example.com"}, 2, "must be like https://"},
		{"in the clear", "customer list", map[string]string{"OPENCLAW_API_URL": "http://ops.invalid"}, 2, "use https://, or --plain-http"},
		{"a sign-in in the clear", "login --email ada@example.com --api-url http://ops.invalid", nil, 2, "use https://, or --plain-http"},
		{"in the clear, in so many words", "customer list --plain-http", map[string]string{"OPENCLAW_API_URL": "http://ops.invalid"}, 1, "ops.invalid"},
		{"both ways", "customer list --direct --api-url " + e.operators, nil, 2, "which one?"},
		{"a key for databases", "customer create --name x --direct --idempotency-key k", nil, 2, "for the api"},
		{"by the api only", "audit --direct", nil, 2, "goes by the api only"},
		{"on databases only", "ledger verify --api-url " + e.operators, nil, 2, "leave out --api-url"},
		{"on databases that are not named", "ledger verify", map[string]string{"REDIS_URL": "redis://x"}, 2, "DATABASE_URL must name Postgres"},
		{"for ever", "customer delete " + c.Customer.ID, nil, 2, "say --yes"},
		{"yourself", "operator disable " + strings.TrimSpace(e.pg.Query("SELECT id FROM operators WHERE role = 'admin'")) + " --yes", nil, 1, "cannot disable yourself"},
		{"a short password", "operator create --email x@example.com --password-file /dev/null", nil, 1, "at least 12 characters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sub := *e.env
			sub.t, sub.vars = t, map[string]string{}
			for k, v := range e.vars {
				sub.vars[k] = v
			}
			for k, v := range c.vars {
				sub.vars[k] = v
			}
			r := sub.run(strings.Fields(c.args)...)
			want, not := strings.CutPrefix(c.want, "!")
			if r.code != c.code || strings.Contains(r.stderr, want) == not || r.stdout != "" {
				t.Errorf("exit code %d, want %d with %q\nstdout %s\nstderr %s", r.code, c.code, c.want, r.stdout, r.stderr)
			}
			if strings.Contains(r.stderr, fakePassword) || strings.Count(r.stderr, "\n") > 2 {
				t.Errorf("too much is said: %s", r.stderr)
			}
		})
	}
}
