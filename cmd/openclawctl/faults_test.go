package main_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control/storetest"
)

// unreliable is a network between the command and the api that loses answers: what was asked
// for is done, and who asked does not hear of it.
type unreliable struct {
	lose    atomic.Int32 // so many answers to what is not about sessions
	refuse  atomic.Int32 // so many requests are answered 503 before they reach the api
	forward *httputil.ReverseProxy
}

func (u *unreliable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/v1/session") {
		u.forward.ServeHTTP(w, r)
		return
	}
	if u.refuse.Add(-1) >= 0 {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"type":"urn:openclaw:problem:unavailable","status":503,"detail":"A part that this needs does not answer.","request_id":"req-1"}`)
		return
	}
	if u.lose.Add(-1) < 0 {
		u.forward.ServeHTTP(w, r)
		return
	}
	u.forward.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler) // the connection breaks
}

func (a *apiEnv) throughUnreliable() *unreliable {
	a.t.Helper()
	target, err := url.Parse(a.operators)
	if err != nil {
		a.t.Fatal(err)
	}
	u := &unreliable{forward: httputil.NewSingleHostReverseProxy(target)}
	s := httptest.NewServer(u)
	a.t.Cleanup(s.Close)
	a.vars["OPENCLAW_API_URL"] = s.URL
	return u
}

// What is asked for again, because the answer was lost, has its effect once.
func TestLostAnswersDoNothingTwice(t *testing.T) {
	t.Parallel()
	e := newAPIEnv(t)
	u := e.throughUnreliable()
	customers := func() string { return strings.TrimSpace(e.pg.Query("SELECT count(*) FROM customers")) }
	var c created
	u.lose.Store(1)
	e.ok(&c, "customer", "create", "--name", "Ada")
	if c.Customer.ID == "" || customers() != "1" {
		t.Fatalf("created %+v, there are %s customers", c, customers())
	}
	limit := func() string { return strings.TrimSpace(e.pg.Query("SELECT limit_tokens FROM usage_periods")) }
	u.lose.Store(2)
	r := e.run("quota", "add", "--customer", c.Customer.ID, "--tokens", "5", "--reason", "test")
	// Whether the proxies know is not in the answer that was noted.
	if r.code != 3 || limit() != "1000005" || !strings.Contains(r.stdout, "1000005") {
		t.Errorf("exit code %d, limit %s\n%s%s", r.code, limit(), r.stdout, r.stderr)
	}

	// All are lost: it says how to go on, and that is true.
	u.lose.Store(1000)
	r = e.run("quota", "add", "--customer", c.Customer.ID, "--tokens", "7", "--reason", "test")
	key := regexp.MustCompile(`--idempotency-key (\S+),`).FindStringSubmatch(r.stderr)
	if r.code != 1 || key == nil || r.stdout != "" || limit() != "1000012" {
		t.Fatalf("exit code %d, limit %s\n%s%s", r.code, limit(), r.stdout, r.stderr)
	}
	u.lose.Store(0)
	for range 2 {
		r = e.run("quota", "add", "--customer", c.Customer.ID, "--tokens", "7", "--reason", "test", "--idempotency-key", key[1])
		if r.code != 3 || limit() != "1000012" || !strings.Contains(r.stderr, "an earlier attempt did it, and nothing was done again") {
			t.Errorf("repeated: exit code %d, limit %s\n%s%s", r.code, limit(), r.stdout, r.stderr)
		}
	}
	r = e.run("quota", "add", "--customer", c.Customer.ID, "--tokens", "8", "--reason", "test", "--idempotency-key", key[1])
	if r.code != 1 || limit() != "1000012" || !strings.Contains(r.stderr, "was used for another request") {
		t.Errorf("another request: exit code %d, limit %s\n%s%s", r.code, limit(), r.stdout, r.stderr)
	}

	// A token whose answer was lost is made, and nobody can see it any more.
	u.lose.Store(1)
	r = e.run("token", "create", "--customer", c.Customer.ID, "--output", "json")
	var k token
	if err := json.Unmarshal([]byte(r.stdout), &k); err != nil || r.code != 1 || k.ID == "" || k.Token != "" || !strings.Contains(r.stderr, "revoke it, and create another") {
		t.Errorf("exit code %d, %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	if got := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM proxy_tokens")); got != "1" {
		t.Errorf("%s tokens", got)
	}
}

func TestBusyAPIIsAskedAgain(t *testing.T) {
	t.Parallel()
	e := newAPIEnv(t)
	u := e.throughUnreliable()
	u.refuse.Store(1)
	if r := e.run("customer", "list"); r.code != 0 || r.stderr != "" {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
	u.refuse.Store(1000)
	r := e.run("customer", "list")
	if want := "the api cannot do this just now: a part that this needs does not answer; try again in 1s (request req-1)"; r.code != 1 || !strings.Contains(r.stderr, want) {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
}

// Without Redis a change holds, the exit code says that it is not out yet, and the figures
// are those of Postgres.
func TestRedisAwayByTheAPI(t *testing.T) {
	t.Parallel()
	e := newAPIEnv(t)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada")
	e.redis.Stop()
	r := e.run("quota", "set", "--customer", c.Customer.ID, "--limit", "5", "--reason", "test")
	if r.code != 3 || !strings.Contains(r.stderr, "The change holds.") || !strings.Contains(r.stdout, " 5 ") || strings.Contains(r.stdout, "proxies") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	r = e.run("token", "create", "--customer", c.Customer.ID, "--output", "json")
	var k token
	if err := json.Unmarshal([]byte(r.stdout), &k); err != nil || r.code != 3 || k.Token == "" || strings.Contains(r.stderr, k.Token) {
		t.Errorf("exit code %d, %v\n%s", r.code, err, r.stderr)
	}
	if r := e.run("usage", "--customer", c.Customer.ID); r.code != 0 || !strings.Contains(r.stdout, "  ?  ") {
		t.Errorf("reading: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// While Postgres is away the api says so, and so does the command.
func TestPostgresAwayByTheAPI(t *testing.T) {
	t.Parallel()
	e := newAPIEnvOn(t, storetest.DedicatedPostgres(t))
	if r := e.run("customer", "list"); r.code != 0 {
		t.Fatalf("exit code %d\n%s", r.code, r.stderr)
	}
	e.pg.Stop()
	r := e.run("customer", "list")
	if r.code != 1 || !strings.Contains(r.stderr, "the api cannot do this just now") || strings.Contains(r.stderr, "pg") {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	e := newAPIEnv(t)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada Lovelace")
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if r := e.run("completion", shell); r.code != 0 || !strings.Contains(r.stdout, "openclawctl") {
			t.Errorf("completion %s: exit code %d\n%s", shell, r.code, r.stderr)
		}
	}
	offered := func(args ...string) string {
		t.Helper()
		r := e.run(append([]string{"__complete"}, args...)...)
		if r.code != 0 {
			t.Errorf("%v: exit code %d\n%s", args, r.code, r.stderr)
		}
		return r.stdout
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"quota", "set", "--customer", ""}, c.Customer.ID + "\tAda Lovelace, active"},
		{[]string{"customer", "suspend", ""}, c.Customer.ID},
		{[]string{"token", "create", "--box", ""}, c.Box.ID},
		{[]string{"customer", "create", "--tier", ""}, "starter\tStarter"},
		{[]string{"customer", "list", "--status", ""}, "suspended"},
		{[]string{"customer", "list", "-o", ""}, "yaml"},
		{[]string{"quo"}, "quota"},
	} {
		if got := offered(c.args...); !strings.Contains(got, c.want) {
			t.Errorf("%v offers %q, not %q", c.args, got, c.want)
		}
	}
	// Who is not signed in is offered nothing, and not disturbed.
	e.vars = map[string]string{"OPENCLAW_SESSION_FILE": filepath.Join(t.TempDir(), "none")}
	if got := offered("customer", "suspend", ""); strings.Contains(got, c.Customer.ID) || strings.Contains(got, "sign in") {
		t.Errorf("offered to a stranger: %q", got)
	}
}
