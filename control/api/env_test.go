package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/billing"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	issuer       = "https://app.example.com"
	fakeSecret   = "a fake secret of access tokens, for tests only"
	fakePassword = "correct horse battery staple"
)

// env is an API on real servers, reached by real HTTP.
type env struct {
	*api.API
	t                    *testing.T
	store                *store.Store
	pg                   *testenv.PostgresServer
	redis                *redis.Client
	service              *customers.Service
	jobs                 *jobs.Jobs
	log                  *lockedBuffer
	customers, operators string // base URLs
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newEnv starts it. Limits are far away unless change sets them.
func newEnv(t *testing.T, change func(*api.Options)) *env {
	t.Helper()
	return newEnvOn(t, storetest.PostgresWithJobs(t), change)
}

func newEnvOn(t *testing.T, pg *testenv.PostgresServer, change func(*api.Options)) *env {
	t.Helper()
	e := &env{t: t, pg: pg, redis: testenv.Redis(t).Client(), log: &lockedBuffer{}}
	ctx := t.Context()
	log := slog.New(slog.NewJSONHandler(e.log, nil))
	var err error
	if e.store, err = store.Open(ctx, pg.URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.store.Close)
	if err := e.store.EnsurePartitions(ctx); err != nil {
		t.Fatal(err)
	}
	table, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	hasher, err := contract.NewHasher([]byte("a pepper that is fake"))
	if err != nil {
		t.Fatal(err)
	}
	records, publisher := limits.NewRecords(e.store, e.redis, 5*time.Second), feed.NewPublisher(e.redis)
	e.service = &customers.Service{Store: e.store, Tiers: table, Grants: publisher, Limits: records, Hasher: hasher, PublishWithin: 20 * time.Second}
	if e.jobs, err = jobs.New(ctx, e.store, log, &jobs.Handlers{RevokeToken: func(ctx context.Context, id string) error {
		_, err := e.service.RevokeToken(ctx, "system:rotation", id)
		return err
	}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.jobs.Close)
	e.service.Later, e.service.Wake = e.jobs, e.jobs
	if e.service.Seals, err = secret.ParseKeys("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"); err != nil { // fake
		t.Fatal(err)
	}
	far := api.Rate{PerSecond: 1e6, Burst: 1e6}
	o := api.Options{
		Store: e.store, Customers: e.service, Hasher: hasher, Secret: []byte(fakeSecret), Issuer: issuer, Logger: log,
		Origins: []string{issuer}, OperatorOrigins: []string{"https://ops.example.com"},
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Books:          &billing.Books{Store: e.store, Redis: e.redis}, Live: records, Jobs: e.jobs, Feed: publisher, Mails: e.jobs,
		PerAddress: far, PerAccount: far, SignIns: api.Guesses{PerAddress: far, PerAccount: far, PerPair: far, SignUps: far, Audited: far, Mails: far, MailsFrom: far},
		StreamEvery: 20 * time.Millisecond, Heartbeat: 100 * time.Millisecond, AwaitApplied: time.Second,
	}
	if change != nil {
		change(&o)
	}
	if e.API, err = api.New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Drain)
	serve := func(h http.Handler) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	e.customers, e.operators = serve(e.Customers()), serve(e.Operators())
	return e
}

// client is a browser, or a program, of one person.
type client struct {
	t       *testing.T
	base    string
	cookies map[string]string
	header  http.Header // sent with each request
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// into decodes the body.
func (a answer) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("status %d, body %q: %v", a.status, a.body, err)
	}
}

// problem is the last part of the problem's type; "" if it is none.
func (a answer) problem() string {
	var p api.Problem
	if a.header.Get("Content-Type") != "application/problem+json" || json.Unmarshal(a.body, &p) != nil || p.Status != a.status || p.RequestID == "" {
		return ""
	}
	return strings.TrimPrefix(p.Type, "urn:openclaw:problem:")
}

func newClient(t *testing.T, base string) *client {
	return &client{t: t, base: base, cookies: map[string]string{}, header: http.Header{api.ForgeryHeader: {"1"}}}
}

// do sends a request; body is JSON text, a reader, nil or a value.
func (c *client) do(method, path string, body any, header ...string) answer {
	c.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case io.Reader:
		r = b
	default:
		text, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, r)
	if err != nil {
		c.t.Fatal(err)
	}
	if r != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range c.header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	for name, value := range c.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, k := range res.Cookies() {
		if k.MaxAge < 0 {
			delete(c.cookies, k.Name)
			continue
		}
		c.cookies[k.Name] = k.Value
	}
	return answer{res.StatusCode, res.Header, b}
}

// want is do for requests that have one right status.
func (c *client) want(status int, method, path string, body any, header ...string) answer {
	c.t.Helper()
	a := c.do(method, path, body, header...)
	if a.status != status {
		c.t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.status, status, a.body)
	}
	return a
}

// cookie names.
const (
	customerCookie  = "__Host-openclaw_session"
	refreshCookie   = "__Host-openclaw_refresh"
	operatorCookie  = "__Host-openclaw_operator"
	operatorRefresh = "__Host-openclaw_operator_refresh"
)

// customer makes an active customer that can sign in, and a client of it that has.
func (e *env) customer() (string, *client) {
	e.t.Helper()
	created, err := e.service.CreateCustomer(e.t.Context(), "test", customers.NewCustomer{Name: "Ada", Tier: "starter"})
	if err != nil {
		e.t.Fatal(err)
	}
	id := created.Customer.ID
	return id, e.signedIn(control.Subject{Kind: control.SubjectCustomer, ID: id})
}

// operator makes an operator, and a client of it that has signed in.
func (e *env) operator(role control.Role) (string, *client) {
	e.t.Helper()
	o := control.Operator{
		ID: control.NewID(control.OperatorID), Role: role, PasswordHash: "none", CreatedAt: time.Now().UTC(),
		Email: control.NewID("x") + "@example.com",
	}
	if err := e.store.InTx(e.t.Context(), func(tx *store.Tx) error { return tx.InsertOperator(e.t.Context(), "test", o) }); err != nil {
		e.t.Fatal(err)
	}
	return o.ID, e.signedIn(control.Subject{Kind: control.SubjectOperator, ID: o.ID})
}

func (e *env) signedIn(who control.Subject) *client {
	e.t.Helper()
	access, refresh, err := e.Open(e.t.Context(), who)
	if err != nil {
		e.t.Fatal(err)
	}
	c := newClient(e.t, e.customers)
	names := []string{customerCookie, refreshCookie}
	if who.Kind == control.SubjectOperator {
		c.base, names = e.operators, []string{operatorCookie, operatorRefresh}
	}
	c.cookies[names[0]], c.cookies[names[1]] = access, refresh
	return c
}

// apiKey makes an API key of the client's customer, and a client that uses it.
func (c *client) apiKey() *client {
	c.t.Helper()
	var k api.CreatedAPIKey
	c.want(http.StatusCreated, "POST", "/v1/me/api-keys", api.NewAPIKey{Name: "test"}).into(c.t, &k)
	return &client{t: c.t, base: c.base, cookies: map[string]string{}, header: http.Header{"Authorization": {"Bearer " + k.Key}}}
}

// signUp signs up by HTTP.
func (e *env) signUp(email string) (control.Account, *client) {
	e.t.Helper()
	c := newClient(e.t, e.customers)
	var a control.Account
	c.want(http.StatusCreated, "POST", "/v1/signup", api.SignUp{Name: "Ada", Email: email, Password: fakePassword}).into(e.t, &a)
	return a, c
}
