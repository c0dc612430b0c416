package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
)

func bodies(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, c := e.customer()
	big := `{"name":"` + strings.Repeat("x", 70_000) + `"}`
	for _, k := range []struct {
		name, body, contentType string
		status                  int
		says                    string
	}{
		{"empty", "", "application/json", 400, "A body is needed"},
		{"spaces", "  \n", "application/json", 400, "A body is needed"},
		{"no JSON", "name=x", "application/json", 400, "not JSON from byte"},
		{"cut", `{"name":"x`, "application/json", 400, "ends too early"},
		{"an array", `[]`, "application/json", 400, "has to be a JSON object"},
		{"a text", `"name"`, "application/json", 400, "has to be a JSON object"},
		{"two", `{"name":"x"}{}`, "application/json", 400, "behind the JSON object"},
		{"a number for a text", `{"name":5}`, "application/json", 422, "name: it may not be a number"},
		{"an object for a text", `{"name":{}}`, "application/json", 422, "name: it may not be an object"},
		{"an unknown field", `{"nam":"x"}`, "application/json", 422, `There is no field \"nam\"`},
		{"one that is not for the caller", `{"tier":"team","status":"active"}`, "application/json", 422, `There is no field`},
		{"no UTF-8", "{\"name\":\"\xff\"}", "application/json", 400, "not UTF-8"},
		{"deep", strings.Repeat(`{"name":`, 20_000), "application/json", 413, ""},
		{"rather deep", strings.Repeat("[", 15_000), "application/json", 400, ""},
		{"a form", `{"name":"x"}`, "application/x-www-form-urlencoded", 415, "Content-Type"},
		{"a form in disguise", `{"name":"x"}`, "text/plain;application/json", 415, "Content-Type"},
		{"too large", big, "application/json", 413, "65536 bytes"},
		{"a name that is too long", `{"name":"` + strings.Repeat("é", 201) + `"}`, "application/json", 422, "200 characters"},
		{"a name of spaces", `{"name":"  "}`, "application/json", 422, "required"},
		{"a name with a line break", `{"name":"a\nb"}`, "application/json", 422, "control characters"},
		{"a name with NUL", `{"name":"a\u0000b"}`, "application/json", 422, "control characters"},
		{"half a surrogate", `{"name":"\ud800"}`, "application/json", 422, "control characters"},
		{"an unknown language", `{"language":"tlh"}`, "application/json", 422, "pt-BR"},
		{"good", `{"name":"Ada"}`, "application/json; charset=utf-8", 200, ""},
	} {
		for _, chunked := range []bool{false, true} {
			var body any = k.body
			if chunked {
				body = io.MultiReader(strings.NewReader(k.body)) // of a length that nobody knows
			}
			a := c.do("PATCH", "/v1/me", body, "Content-Type", k.contentType)
			if a.status != k.status || !strings.Contains(string(a.body), k.says) || k.status >= 400 && a.problem() == "" {
				t.Errorf("%s (chunked %v): %d %s; want %d, %q", k.name, chunked, a.status, a.body, k.status, k.says)
			}
		}
	}
	if strings.Contains(e.log.String(), "level\":\"ERROR") {
		t.Error("a body was our mistake")
	}
}

// Whatever is in a request stays a value, and what is stored is what was sent.
func injection(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	id, c := e.customer()
	_, admin := e.operator(control.RoleAdmin)
	_, other := e.customer()
	attacks := []string{
		`' OR '1'='1`, `'; DROP TABLE customers; --`, `" OR ""="`, `1; SELECT pg_sleep(10)`, `\'; --`, `$1`, `%27%20OR%201=1`, `admin'--`,
		`') UNION SELECT secret_hash FROM identities --`, "x\u2019 OR 1=1", `{{7*7}}`, `../../etc/passwd`, `<script>alert(1)</script>`,
	}
	began := time.Now()
	for _, s := range attacks {
		c.want(http.StatusOK, "PATCH", "/v1/me", map[string]string{"name": s})
		var p api.Profile
		c.want(http.StatusOK, "GET", "/v1/me", nil).into(t, &p)
		if p.Name != s || p.ID != id {
			t.Errorf("%q was stored as %q", s, p.Name)
		}
		var k api.CreatedAPIKey
		c.want(http.StatusCreated, "POST", "/v1/me/api-keys", api.NewAPIKey{Name: s}).into(t, &k)
		c.want(http.StatusNoContent, "DELETE", "/v1/me/api-keys/"+k.ID, nil)
		in := escape(s)
		for _, path := range []string{
			"/v1/customers/" + in, "/v1/customers/" + in + "/usage", "/v1/customers/" + in + "/quota", "/v1/customers?cursor=" + in, "/v1/customers?limit=" + in, "/v1/customers?status=" + in,
			"/v1/boxes?customer=" + in, "/v1/tokens?customer=" + in, "/v1/audit?customer=" + in, "/v1/audit?cursor=" + in,
			"/v1/dead-letters/" + in, "/v1/jobs?state=" + in, "/v1/jobs?cursor=" + in, "/v1/stripe-events?cursor=" + in,
			"/v1/customers/" + id + "/usage?from=" + in + "&to=" + in,
		} {
			if a := admin.do("GET", path, nil); a.status < 400 || a.status >= 500 {
				t.Errorf("%s: %d %s", path, a.status, a.body)
			}
		}
		for _, a := range []answer{
			newClient(t, e.customers).do("POST", "/v1/session", api.SignIn{Email: s, Password: s}),
			c.do("DELETE", "/v1/me/api-keys/"+in, nil),
			admin.do("POST", "/v1/tokens/"+in+"/rotate", nil),
			admin.do("POST", "/v1/customers", api.NewCustomer{Name: "x", Email: s, Tier: "starter"}),
			admin.do("POST", "/v1/customers", api.NewCustomer{Name: "x", Tier: s}),
		} {
			if a.status < 400 || a.status >= 500 {
				t.Errorf("%q: %d %s", s, a.status, a.body)
			}
		}
	}
	if time.Since(began) > 60*time.Second {
		t.Error("something slept")
	}
	other.want(http.StatusOK, "GET", "/v1/me", nil)
	if strings.Contains(e.log.String(), "SQLSTATE 42601") {
		t.Error("a syntax error: something was put into a statement")
	}
}

func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// Behind a proxy that nobody told us of all callers are one address: the log says so, once.
func TestUntrustedProxyIsToldOf(t *testing.T) {
	t.Parallel()
	for _, trusted := range []bool{false, true} {
		e := newEnv(t, func(o *api.Options) {
			if !trusted {
				o.TrustedProxies = nil
			}
		})
		c := newClient(t, e.customers)
		c.do("GET", "/v1/tiers", nil)
		if strings.Contains(e.log.String(), "no proxies are trusted") {
			t.Error("told of without any proxy")
		}
		for range 3 {
			c.do("GET", "/v1/tiers", nil, "X-Forwarded-For", "192.0.2.1")
		}
		if n := strings.Count(e.log.String(), "no proxies are trusted"); n != 1 && !trusted || n != 0 && trusted {
			t.Errorf("trusted: %t, told %d times", trusted, n)
		}
	}
}

// What is kept of a request lets nobody guess the password in it: it is no hash that can be
// computed without our secret.
func TestIdempotencyKeepsNoPassword(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, admin := e.operator(control.RoleAdmin)
	body := `{"email":"new@example.com","password":"a password to be guessed","role":"support"}`
	admin.want(http.StatusCreated, "POST", "/v1/operators", body, api.KeyHeader, "k1")
	kept := strings.TrimSpace(e.pg.Query("SELECT encode(request_digest, 'hex') FROM idempotency_keys WHERE key = 'k1'"))
	plain := sha256.Sum256([]byte("POST /v1/operators\n" + body))
	if kept == "" || kept == hex.EncodeToString(plain[:]) {
		t.Errorf("the digest %q can be computed by whoever reads it", kept)
	}
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	id, c := e.customer()
	// A key's secret is shown once, whoever repeats the request.
	var first, again api.CreatedAPIKey
	c.want(http.StatusCreated, "POST", "/v1/me/api-keys", api.NewAPIKey{Name: "a"}, api.KeyHeader, "k1").into(t, &first)
	repeated := c.want(http.StatusCreated, "POST", "/v1/me/api-keys", api.NewAPIKey{Name: "a"}, api.KeyHeader, "k1")
	repeated.into(t, &again)
	if first.Key == "" || again.Key != "" || again.ID != first.ID || repeated.header.Get(api.ReplayedHeader) != "true" {
		t.Errorf("first %+v, again %+v", first, again)
	}
	if n := e.pg.Query("SELECT count(*) FROM idempotency_keys WHERE convert_from(body, 'UTF8') LIKE '%" + first.Key + "%'"); strings.TrimSpace(n) != "0" {
		t.Error("the secret is kept")
	}
	if a := c.do("POST", "/v1/me/api-keys", api.NewAPIKey{Name: "b"}, api.KeyHeader, "k1"); a.problem() != "invalid" {
		t.Errorf("for another request: %d %s", a.status, a.body)
	}
	// What failed can be tried again.
	c.want(http.StatusUnprocessableEntity, "POST", "/v1/me/api-keys", api.NewAPIKey{}, api.KeyHeader, "k2")
	c.want(http.StatusUnprocessableEntity, "POST", "/v1/me/api-keys", api.NewAPIKey{}, api.KeyHeader, "k2")
	for _, bad := range []string{strings.Repeat("x", 256), "a b", "é"} {
		if a := c.do("POST", "/v1/me/api-keys", api.NewAPIKey{Name: "a"}, api.KeyHeader, bad); a.problem() != "invalid" {
			t.Errorf("%q: %d", bad, a.status)
		}
	}
	// Another caller's key of the same name is another key.
	_, other := e.customer()
	other.want(http.StatusCreated, "POST", "/v1/me/api-keys", api.NewAPIKey{Name: "a"}, api.KeyHeader, "k1")

	// At once, one of them has the effect.
	_, operator := e.operator(control.RoleOperator)
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range 8 {
		wg.Go(func() {
			c := &client{t: t, base: operator.base, cookies: map[string]string{operatorCookie: operator.cookies[operatorCookie]}, header: operator.header}
			a := c.do("POST", "/v1/customers/"+id+"/quota", `{"action":"add","tokens":1000,"reason":"sorry"}`, api.KeyHeader, "q1")
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
		})
	}
	wg.Wait()
	var q api.PeriodUsage
	operator.want(http.StatusOK, "GET", "/v1/customers/"+id+"/quota", nil).into(t, &q)
	if q.LimitTokens != 1_001_000 || statuses[http.StatusOK] != 1 || statuses[http.StatusOK]+statuses[http.StatusAccepted]+statuses[http.StatusConflict] != 8 {
		t.Errorf("limit %d, answers %v", q.LimitTokens, statuses)
	}
	// Without a key each counts.
	for range 2 {
		operator.want(http.StatusOK, "POST", "/v1/customers/"+id+"/quota", `{"action":"add","tokens":1000,"reason":"sorry"}`)
	}
	operator.want(http.StatusOK, "GET", "/v1/customers/"+id+"/quota", nil).into(t, &q)
	if q.LimitTokens != 1_003_000 {
		t.Errorf("limit %d", q.LimitTokens)
	}
	// A customer is made once, a token's secret shown once.
	var one, two struct {
		Customer control.Customer `json:"customer"`
	}
	operator.want(http.StatusCreated, "POST", "/v1/customers", api.NewCustomer{Name: "x", Tier: "pro"}, api.KeyHeader, "c1").into(t, &one)
	operator.want(http.StatusCreated, "POST", "/v1/customers", api.NewCustomer{Name: "x", Tier: "pro"}, api.KeyHeader, "c1").into(t, &two)
	var token, later api.CreatedToken
	operator.want(http.StatusCreated, "POST", "/v1/customers/"+id+"/tokens", nil, api.KeyHeader, "t1").into(t, &token)
	operator.want(http.StatusAccepted, "POST", "/v1/customers/"+id+"/tokens", nil, api.KeyHeader, "t1").into(t, &later)
	if one != two || token.Token == "" || later.Token != "" || later.ID != token.ID {
		t.Errorf("%+v %+v, %+v %+v", one, two, token.ProxyToken, later)
	}
}

func floods(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(o *api.Options) {
		o.PerAddress, o.PerAccount = api.Rate{PerSecond: 1e-6, Burst: 10}, api.Rate{PerSecond: 1e-6, Burst: 4}
	})
	id, c := e.customer()
	second := e.signedIn(control.Subject{Kind: control.SubjectCustomer, ID: id})
	count := func(c *client, from string, n int) (refused int) {
		for range n {
			if a := c.do("GET", "/v1/session", nil, "X-Forwarded-For", from); a.status == http.StatusTooManyRequests {
				refused++
				if a.problem() != "too-many-requests" || a.header.Get("Retry-After") == "" {
					t.Errorf("%d %s", a.status, a.body)
				}
			}
		}
		return refused
	}
	// An account, from any address and by any session.
	if n := count(c, "192.0.2.1", 3) + count(second, "192.0.2.2", 3); n != 2 {
		t.Errorf("%d of 6 requests of an account were refused, want 2", n)
	}
	// An address, whoever comes from there.
	if n := count(newClient(t, e.customers), "192.0.2.3", 13); n != 3 {
		t.Errorf("%d of 13 requests from an address were refused, want 3", n)
	}
	if n := count(newClient(t, e.customers), "192.0.2.4", 3); n != 0 {
		t.Errorf("%d requests from another address were refused", n)
	}
}

// The log has what is needed to find a request, and no secret of any.
func TestLogHasNoSecrets(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	account, c := e.signUp("ada@example.com")
	key := c.apiKey()
	raw := strings.TrimPrefix(key.header.Get("Authorization"), "Bearer ")
	key.want(http.StatusOK, "GET", "/v1/me?token="+raw, nil)
	key.do("GET", "/v1/"+raw, nil)
	newClient(t, e.customers).do("POST", "/v1/session", api.SignIn{Email: "ada@example.com", Password: "a wrong password"})
	secrets := []string{raw, raw[4:], fakePassword, "a wrong password", fakeSecret, c.cookies[customerCookie], c.cookies[refreshCookie]}
	c.want(http.StatusOK, "POST", "/v1/session/renew", nil)
	c.want(http.StatusNoContent, "DELETE", "/v1/session", nil)
	log := e.log.String()
	for i, s := range secrets {
		if strings.Contains(log, s) {
			t.Errorf("secret %d is in the log", i)
		}
	}
	for _, part := range []string{`"route":"/v1/me"`, `"subject":"customer:` + account.ID + `"`, `"by":"api_key"`, `"status":401`, `"request_id":"`, `"address":"127.0.0.1"`} {
		if !strings.Contains(log, part) {
			t.Errorf("the log has no %s", part)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	if _, err := api.New(api.Options{Secret: []byte("short"), Issuer: "https://app.example.com/", Origins: []string{"*"}}); err == nil ||
		!strings.Contains(err.Error(), "has 5 bytes, and needs 32") || !strings.Contains(err.Error(), "a store") || !strings.Contains(err.Error(), `"*" is no origin`) {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "app.example.com", "https://app.example.com/", "https://app.example.com/x", "ftp://x", "https://", "null", "https://user@x.example"} {
		if api.CheckOrigin(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for _, good := range []string{"https://app.example.com", "http://127.0.0.1:8000"} {
		if err := api.CheckOrigin(good); err != nil {
			t.Error(err)
		}
	}
}

// What Stripe sends is handed over byte for byte, without a session and a header of ours.
func TestWebhook(t *testing.T) {
	t.Parallel()
	hook := &webhook{}
	e := newEnv(t, func(o *api.Options) { o.Webhook = hook })
	c := &client{t: t, base: e.customers, cookies: map[string]string{}, header: http.Header{}}
	body := "{ \"id\" : \"evt_1\",\n\"x\":\"\\u00e9\"}"
	c.want(http.StatusOK, "POST", "/v1/webhooks/stripe", body, "Stripe-Signature", "good")
	if string(hook.payload) != body || hook.signature != "good" {
		t.Errorf("%q, %q", hook.payload, hook.signature)
	}
	for status, do := range map[int]func() answer{
		http.StatusBadRequest: func() answer {
			return c.do("POST", "/v1/webhooks/stripe", body, "Stripe-Signature", "forged")
		},
		http.StatusInternalServerError: func() answer {
			return c.do("POST", "/v1/webhooks/stripe", body, "Stripe-Signature", "trouble")
		},
		http.StatusRequestEntityTooLarge: func() answer {
			return c.do("POST", "/v1/webhooks/stripe", bytes.NewReader(make([]byte, 2<<20)), "Stripe-Signature", "good")
		},
	} {
		if a := do(); a.status != status {
			t.Errorf("%d, want %d: %s", a.status, status, a.body)
		}
	}
	c.want(http.StatusBadRequest, "POST", "/v1/webhooks/stripe", body)
	without := newEnv(t, nil)
	c.base = without.customers
	c.want(http.StatusServiceUnavailable, "POST", "/v1/webhooks/stripe", body, "Stripe-Signature", "good")
}

type webhook struct {
	payload   []byte
	signature string
}

func (w *webhook) Receive(_ context.Context, payload []byte, signature string) error {
	switch signature {
	case "forged":
		return fmt.Errorf("signature: %w", control.ErrInvalid)
	case "trouble":
		return errors.New("the inbox is full")
	}
	w.payload, w.signature = bytes.Clone(payload), signature
	return nil
}
