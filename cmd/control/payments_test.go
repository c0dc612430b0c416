package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// browser keeps a customer's cookies.
type browser struct {
	t       *testing.T
	base    string
	cookies map[string]string
}

func (b *browser) do(method, path, body string, header ...string) (int, map[string]any) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-OpenClaw-CSRF", "1")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	for _, k := range res.Cookies() {
		b.cookies[k.Name] = k.Value
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	out := map[string]any{}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &out); err != nil {
			b.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, text)
		}
	}
	return res.StatusCode, out
}

// A customer signs up, confirms its address, pays, changes its tier, cancels and is deleted:
// through the programs, Stripe's pages and its mailbox.
func TestAPISells(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	box, port := newLetterBox(t)
	sim, _, _ := newStripe(t)
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)) }
	customers, probes := address(), address()
	a := &worker{admin: probes}
	a.cmd = command(t, map[string]string{
		"DATABASE_URL": world.pg.URL, "REDIS_URL": world.redis.URL, "PUBLIC_URL": "http://" + customers,
		"JWT_SECRET": fakeJWTSecret, "OPENCLAW_TOKEN_PEPPER": "a pepper that is fake",
		"LISTEN": customers, "LISTEN_OPERATORS": address(), "LISTEN_PROBES": probes,
		"STRIPE_SECRET_KEY": stripesim.Key, "STRIPE_URL": sim.URL(), "STRIPE_WEBHOOK_SECRETS": sim.EndpointSecret(), "DASHBOARD_URL": "https://app.example.invalid/account",
	}, "api")
	a.cmd.Stdout, a.cmd.Stderr = a, a
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.end(os.Kill) })
	await(t, "readiness", func() bool { code, _ := a.get("/readyz"); return code == 200 }, a.said)
	world.env["STRIPE_SECRET_KEY"], world.env["STRIPE_URL"] = stripesim.Key, sim.URL()
	world.env["SMTP_HOST"], world.env["SMTP_PORT"], world.env["SMTP_TLS"] = "127.0.0.1", fmt.Sprint(port), "none"
	world.env["MAIL_FROM"], world.env["DASHBOARD_URL"] = "billing@example.net", "https://app.example.invalid/account"
	w := startWorker(t, world.env)

	c := &browser{t, "http://" + customers, map[string]string{}}
	want := func(status int, method, path, body string, header ...string) map[string]any {
		t.Helper()
		got, out := c.do(method, path, body, header...)
		if got != status {
			t.Fatalf("%s %s: %d %v\n%s", method, path, got, out, a.said())
		}
		return out
	}
	if got := want(200, "GET", "/v1/installation", "")["payments"]; got != "simulated" {
		t.Errorf("payments are %v, at a Stripe that is simulated", got)
	}
	want(201, "POST", "/v1/signup", `{"name":"Ada","email":"ada@example.com","password":"correct horse battery staple"}`)
	link := regexp.MustCompile(`https://app\.example\.invalid/account/verify-email#token=3D(ocm_[A-Z2-7=\r\n]+)`)
	await(t, "the mail with the link", func() bool { return link.MatchString(box.got()) }, w.said)
	token := strings.NewReplacer("=\r\n", "", "\r", "", "\n", "").Replace(link.FindStringSubmatch(box.got())[1])
	want(204, "POST", "/v1/verify-email", `{"token":"`+token[:56]+`"}`)
	if me := want(200, "GET", "/v1/me", ""); me["email_confirmed"] != true || me["status"] != "pending" {
		t.Errorf("%v", me)
	}
	page := want(200, "POST", "/v1/me/checkout", `{"tier":"starter"}`)["url"].(string)
	if _, err := sim.Complete(page); err != nil {
		t.Fatal(err)
	}
	for _, ev := range sim.Events() {
		want(200, "POST", "/v1/webhooks/stripe", string(ev.Body), "Stripe-Signature", stripesim.Sign(ev.Body, sim.EndpointSecret(), time.Now()))
		want(400, "POST", "/v1/webhooks/stripe", string(ev.Body), "Stripe-Signature", stripesim.Sign(ev.Body, "whsec_fake_wrong", time.Now()))
	}
	await(t, "the customer to be active", func() bool { _, me := c.do("GET", "/v1/me", ""); return me["status"] == "active" }, w.said)
	subscription := func(p map[string]any) map[string]any { t.Helper(); return p["subscription"].(map[string]any) }
	if p := want(200, "POST", "/v1/me/subscription/tier", `{"tier":"pro"}`); p["tier"] != "pro" {
		t.Errorf("%v", p)
	}
	if p := want(200, "POST", "/v1/me/subscription/cancel", ""); subscription(p)["cancel_at_period_end"] != true {
		t.Errorf("%v", p)
	}
	if p := want(200, "POST", "/v1/me/subscription/resume", ""); subscription(p)["cancel_at_period_end"] != false {
		t.Errorf("%v", p)
	}
	if list := want(200, "GET", "/v1/me/invoices", "")["items"].([]any); len(list) != 2 {
		t.Errorf("invoices %v", list)
	}
	await(t, "the welcome", func() bool { return strings.Contains(box.got(), "Welcome to OpenClaw") }, w.said)
	if status, out := c.do("DELETE", "/v1/me", ""); status != 204 && status != 202 {
		t.Errorf("%d %v", status, out)
	}
	want(401, "GET", "/v1/me", "")
	if n := strings.Count(box.got(), "Welcome to OpenClaw"); n != 1 {
		t.Errorf("%d welcomes", n)
	}
	if _, metrics := a.get("/metrics"); !strings.Contains(metrics, `billing_stripe_webhooks_total{result="forged"}`) {
		t.Error("no metrics of webhooks")
	}
	for _, p := range []*worker{a, w} {
		for i, secret := range []string{stripesim.Key, sim.EndpointSecret(), token[4:56]} {
			if strings.Contains(p.said(), secret) {
				t.Errorf("the log holds secret %d", i)
			}
		}
		if code := p.end(syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d\n%s", code, p.said())
		}
	}
}
