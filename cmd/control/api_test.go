package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

const fakeJWTSecret = "a fake secret of access tokens, for tests only"

func TestAPIRefusesToStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	long, short := file("long", fakeJWTSecret+"\n"), file("short", "hush-hush\n")
	good := func(more ...string) map[string]string {
		env := map[string]string{
			"REDIS_URL": "redis://x", "DATABASE_URL": "postgres://x/y", "PUBLIC_URL": "https://app.example.com",
			"JWT_SECRET_FILE": long, "OPENCLAW_TOKEN_PEPPER": "a pepper that is fake",
		}
		for i := 0; i < len(more); i += 2 {
			env[more[i]] = more[i+1]
		}
		return env
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		args string
		code int
		want []string
	}{
		{"valid", good(), "api -check-config", 0, []string{"configuration is valid"}},
		{"nothing", nil, "api -check-config", 2, []string{"DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "JWT_SECRET_FILE", "OPENCLAW_TOKEN_PEPPER_FILE"}},
		{"no secret", good("JWT_SECRET_FILE", ""), "api", 2, []string{"--jwt-secret-file (JWT_SECRET_FILE) or JWT_SECRET is required"}},
		{"a short secret", good("JWT_SECRET_FILE", short), "api", 2, []string{"--jwt-secret has 9 bytes; it needs 32"}},
		{"a short secret of the environment", good("JWT_SECRET_FILE", "", "JWT_SECRET", "hush-hush"), "api", 2, []string{"it needs 32"}},
		{"two secrets", good("JWT_SECRET", fakeJWTSecret), "api", 2, []string{"both given"}},
		{"a file that is not there", good("JWT_SECRET_FILE", filepath.Join(dir, "none")), "api", 2, []string{"--jwt-secret-file"}},
		{"an empty file", good("JWT_SECRET_FILE", file("empty", "\n")), "api", 2, []string{"is empty"}},
		{"a short pepper", good("OPENCLAW_TOKEN_PEPPER", "hush"), "api", 2, []string{"--openclaw-token-pepper has 4 bytes"}},
		{"wrong addresses", good("PUBLIC_URL", "app.example.com", "ORIGINS", "*,https://ok.example", "TRUSTED_PROXIES", "10.0.0.1"), "api --listen nowhere", 2,
			[]string{`--public-url: "app.example.com" is no origin`, `--origins: "*"`, "--trusted-proxies", "--listen"}},
		{"operators in public", good(), "api --listen :8000 --listen-operators :8000", 2, []string{"operators need one of their own"}},
		{"payments", good("STRIPE_SECRET_KEY", "sk_test_fake", "STRIPE_WEBHOOK_SECRETS", "whsec_hush,whsec_hush2", "TRIAL_DAYS", "14"), "api -check-config", 0, []string{"configuration is valid"}},
		{"payments by files", good("STRIPE_SECRET_KEY_FILE", file("key", "sk_test_fake\n"), "STRIPE_WEBHOOK_SECRETS_FILE", file("hook", "whsec_hush\n")), "api -check-config", 0, []string{"configuration is valid"}},
		{"a key of the browser's", good("STRIPE_SECRET_KEY", "pk_hush", "STRIPE_WEBHOOK_SECRETS", "hush"), "api", 2, []string{"neither sk_ nor rk_", "whsec_"}},
		{"a key alone", good("STRIPE_SECRET_KEY", "sk_test_hush"), "api", 2, []string{"STRIPE_WEBHOOK_SECRETS is required with a key"}},
		{"webhooks alone", good("STRIPE_WEBHOOK_SECRETS", "whsec_hush"), "api", 2, []string{"STRIPE_SECRET_KEY is required with webhook secrets"}},
		{"wrong payments", good("TRIAL_DAYS", "-1", "DASHBOARD_URL", "app.example.com"), "api", 2, []string{"--trial-days -1", "--dashboard-url"}},
		{"no login for development", good(), "api --dev-login", 2, []string{"unknown flag"}},
		{"help", nil, "api --help", 0, []string{"$JWT_SECRET_FILE", "$PUBLIC_URL", "Examples:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out := run(t, c.env, strings.Fields(c.args)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(strings.ReplaceAll(out, `\"`, `"`), w) {
					t.Errorf("%q is not in:\n%s", w, out)
				}
			}
			if strings.Contains(out, "hush") || strings.Contains(out, fakeJWTSecret) {
				t.Error("a secret is shown")
			}
		})
	}
}

// startAPI runs an api until it is ready, and returns where customers and operators reach it.
func startAPI(t *testing.T, world *world) (w *worker, env map[string]string, customers, operators string) {
	t.Helper()
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)) }
	customers, operators, probes := address(), address(), address()
	env = map[string]string{
		"DATABASE_URL": world.pg.URL, "REDIS_URL": world.redis.URL, "PUBLIC_URL": "http://" + customers,
		"JWT_SECRET": fakeJWTSecret, "OPENCLAW_TOKEN_PEPPER": "a pepper that is fake",
		"LISTEN": customers, "LISTEN_OPERATORS": operators, "LISTEN_PROBES": probes,
	}
	w = &worker{admin: probes}
	w.cmd = command(t, env, "api")
	w.cmd.Stdout, w.cmd.Stderr = w, w
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.end(os.Kill) })
	await(t, "readiness", func() bool { code, _ := w.get("/readyz"); return code == 200 }, w.said)
	return w, env, customers, operators
}

func TestAPILife(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	w, env, customers, operators := startAPI(t, world)
	request := func(method, url, body string, cookies []*http.Cookie) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-OpenClaw-CSRF", "1")
		for _, k := range cookies {
			r.AddCookie(&http.Cookie{Name: k.Name, Value: k.Value})
		}
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		return res
	}
	const password = "correct horse battery staple"
	up := request("POST", "http://"+customers+"/v1/signup", `{"name":"Ada","email":"ada@example.com","password":"`+password+`"}`, nil)
	if up.StatusCode != http.StatusCreated {
		t.Fatalf("%s\n%s", up.Status, w.said())
	}
	// The first operator, made by a command.
	add := command(t, env, "add-operator", "--email", "ops@example.com", "--role", "admin")
	var out bytes.Buffer
	add.Stdin, add.Stdout, add.Stderr = strings.NewReader(password+"\n"), &out, &out
	if err := add.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	in := request("POST", "http://"+operators+"/v1/session", `{"email":"ops@example.com","password":"`+password+`"}`, nil)
	if in.StatusCode != http.StatusOK {
		t.Fatal(in.Status)
	}
	list := request("GET", "http://"+operators+"/v1/customers", "", in.Cookies())
	if b, _ := io.ReadAll(list.Body); list.StatusCode != http.StatusOK || !bytes.Contains(b, []byte(world.customer)) {
		t.Errorf("%s %s", list.Status, b)
	}
	// A customer that an operator makes logs in once a command has given it a password.
	made := request("POST", "http://"+operators+"/v1/customers", `{"name":"Bob","email":"bob@example.com","tier":"starter"}`, in.Cookies())
	var bob struct {
		Customer struct {
			ID string `json:"id"`
		} `json:"customer"`
	}
	if err := json.NewDecoder(made.Body).Decode(&bob); err != nil || made.StatusCode != http.StatusCreated {
		t.Fatal(made.Status, err)
	}
	for _, c := range []struct{ customer, said string }{{bob.Customer.ID, "can log in"}, {bob.Customer.ID, "exists"}, {"c0", "not found"}} {
		add := command(t, env, "add-login", "--customer", c.customer)
		var out bytes.Buffer
		add.Stdin, add.Stdout, add.Stderr = strings.NewReader(password+"\n"), &out, &out
		if err := add.Run(); (err == nil) != (c.said == "can log in") || !strings.Contains(out.String(), c.said) || strings.Contains(out.String(), password) {
			t.Errorf("add-login %s: %v, want %q\n%s", c.customer, err, c.said, out.String())
		}
	}
	if res := request("POST", "http://"+customers+"/v1/session", `{"email":"bob@example.com","password":"`+password+`"}`, nil); res.StatusCode != http.StatusOK {
		t.Errorf("the customer that an operator made: %s", res.Status)
	}
	if res := request("GET", "http://"+customers+"/v1/customers", "", in.Cookies()); res.StatusCode != http.StatusNotFound {
		t.Errorf("operators' routes in public: %s", res.Status)
	}
	if code, body := w.get("/metrics"); code != 200 || !strings.Contains(body, `control_api_requests_total{route="/v1/signup",side="customers",status="201"} 1`) {
		t.Errorf("metrics: %d\n%s", code, body)
	}
	// An open stream does not keep it from ending.
	stream := request("GET", "http://"+customers+"/v1/me/events", "", up.Cookies())
	if line, err := bufio.NewReader(stream.Body).ReadString('\n'); err != nil || !strings.HasPrefix(line, "retry:") {
		t.Fatalf("%q, %v", line, err)
	}
	began := time.Now()
	if code := w.end(syscall.SIGTERM); code != 0 || time.Since(began) > 15*time.Second {
		t.Errorf("exit code %d after %v\n%s", code, time.Since(began), w.said())
	}
	if said := w.said(); strings.Contains(said, password) || strings.Contains(said, fakeJWTSecret) || strings.Contains(said, up.Cookies()[0].Value) {
		t.Error("a secret is in the log")
	}
}

func TestAddLoginRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, stdin, want string }{
		{"--customer c1", "", "read the password"},
		{"", "correct horse battery staple\n", "--customer is required"},
	} {
		cmd := command(t, map[string]string{"DATABASE_URL": "postgres://x/y"}, append([]string{"add-login"}, strings.Fields(c.args)...)...)
		var out bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.stdin), &out, &out
		if err := cmd.Run(); err == nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %v\n%s", c.args, err, out.String())
		}
	}
}

func TestAddOperatorRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, stdin, want string }{
		{"--email ops@example.com", "short\n", "at least 12 characters"},
		{"--email ops@example.com", "", "read the password"},
		{"--email ops", "correct horse battery staple\n", "not an e-mail address"},
		{"--email ops@example.com --role root", "correct horse battery staple\n", "support, operator and admin"},
		{"", "", "--email is required"},
	} {
		cmd := command(t, map[string]string{"DATABASE_URL": "postgres://x/y"}, append([]string{"add-operator"}, strings.Fields(c.args)...)...)
		var out bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.stdin), &out, &out
		if err := cmd.Run(); err == nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %v\n%s", c.args, err, out.String())
		}
	}
}
