package stripe_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const secret = "whsec_fake_one"

// shared is what all stories of a test stand on.
type shared struct {
	t      *testing.T
	redis  *testenv.RedisServer
	client *redis.Client
	pg     *testenv.PostgresServer
	store  *store.Store
	limits *limits.Records
	tiers  control.Tiers
	hasher *contract.Hasher
}

func newShared(t *testing.T) *shared {
	t.Helper()
	s := &shared{t: t, redis: testenv.Redis(t), pg: storetest.Postgres(t)}
	var err error
	if s.store, err = store.Open(t.Context(), s.pg.URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.store.Close)
	if s.tiers, err = tiers.Default(); err != nil {
		t.Fatal(err)
	}
	if s.hasher, err = contract.NewHasher([]byte("a pepper that is fake")); err != nil {
		t.Fatal(err)
	}
	s.client = s.redis.Client()
	s.limits = limits.NewRecords(s.store, s.client, time.Second)
	s.openEpoch()
	return s
}

// openEpoch has an epoch of the quota begin, in which records can be made. Nobody keeps it
// afterwards: the usage of these tests comes from no replica.
func (s *shared) openEpoch() {
	s.t.Helper()
	k, err := limits.NewKeeper(s.store, s.client, limits.Options{Every: 10 * time.Millisecond, Logger: quiet()})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	keeper := quota.NewKeeper(s.client, time.Second)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		epoch, err := keeper.Epoch(context.Background())
		if err == nil && epoch.IsOpen() {
			break
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("epoch %+v, %v", epoch, err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		s.t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// directMails puts mails into the outbox without a job that sends them.
type directMails struct{}

func (directMails) AddMail(ctx context.Context, tx *store.Tx, m control.Mail) (bool, error) {
	return tx.AddMail(ctx, m)
}

// env is one account of Stripe with what is done about it here.
type env struct {
	*shared
	sim       *stripesim.Server
	account   *stripe.Account
	service   *customers.Service
	inbox     *stripe.Inbox
	processor *stripe.Processor
	checkout  *stripe.Checkout
	meter     *stripe.Meter
	metrics   *prometheus.Registry
}

// newEnv returns an account that Bootstrap set up, at a time of Stripe's.
func (s *shared) newEnv(t *testing.T, now time.Time) *env {
	t.Helper()
	sim := stripesim.New(now)
	t.Cleanup(sim.Close)
	return s.envOf(t, sim, sim.URL())
}

// envOf is newEnv of a simulator that is spoken to at a URL.
func (s *shared) envOf(t *testing.T, sim *stripesim.Server, url string) *env {
	t.Helper()
	e := &env{shared: s, sim: sim, metrics: prometheus.NewRegistry()}
	var err error
	if e.account, err = stripe.NewAccount(stripesim.Key, url); err != nil {
		t.Fatal(err)
	}
	if _, err := stripe.Bootstrap(t.Context(), e.account, s.tiers, "https://api.example.invalid/stripe"); err != nil {
		t.Fatal(err)
	}
	e.service = &customers.Service{
		Store: s.store, Tiers: s.tiers, Grants: feed.NewPublisher(s.client), Limits: s.limits, Hasher: s.hasher, Now: e.sim.Now,
	}
	e.inbox, err = stripe.NewInbox(stripe.InboxOptions{
		Store: s.store, Secrets: []string{"whsec_fake_other", secret}, Logger: quiet(), Registerer: e.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.processor, err = stripe.NewProcessor(stripe.ProcessorOptions{
		Account: e.account, Customers: e.service, Mails: directMails{}, Logger: quiet(), Registerer: e.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.checkout, err = stripe.NewCheckout(stripe.CheckoutOptions{
		Account: e.account, Customers: e.service,
		SuccessURL: "https://app.example.invalid/paid", CancelURL: "https://app.example.invalid/plans", ReturnURL: "https://app.example.invalid/",
	})
	if err != nil {
		t.Fatal(err)
	}
	e.meter = &stripe.Meter{Account: e.account, Customers: e.service}
	return e
}

// newTest returns an environment of its own. Stripe's time lies some months back, because
// usage of the future is refused.
func newTest(t *testing.T) *env {
	t.Helper()
	return newShared(t).newEnv(t, someMonthsAgo())
}

func someMonthsAgo() time.Time { return time.Now().UTC().AddDate(0, -7, 0).Truncate(time.Hour) }

// signUp adds a customer that has not paid.
func (e *env) signUp(t *testing.T) control.Account {
	t.Helper()
	id := control.NewID(control.CustomerID)
	a := control.Account{
		Customer: control.Customer{
			ID: id, Name: "Ada", Email: id + "@example.com", Tier: "starter", Status: control.CustomerPending, CreatedAt: e.sim.Now(),
		},
		Language: control.Portuguese,
	}
	err := e.store.SignUp(t.Context(), a, control.Identity{
		ID: control.NewID(control.IdentityID), CustomerID: id, Provider: control.ProviderPassword, Subject: a.Email, SecretHash: "fake",
		CreatedAt: e.sim.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// buy has a customer sign up and pay, and returns it with its subscription. The events wait.
func (e *env) buy(t *testing.T, tier string) (customer, subscription string) {
	t.Helper()
	customer = e.signUp(t).ID
	url, err := e.checkout.CheckoutURL(t.Context(), customer, tier)
	if err != nil {
		t.Fatal(err)
	}
	if subscription, err = e.sim.Complete(url); err != nil {
		t.Fatal(err)
	}
	return customer, subscription
}

// receive hands one event over as Stripe would.
func (e *env) receive(t *testing.T, body []byte) {
	t.Helper()
	if err := e.inbox.Receive(t.Context(), body, stripesim.Sign(body, secret, time.Now())); err != nil {
		t.Fatal(err)
	}
}

// deliver hands over what happened, in order, and has it worked.
func (e *env) deliver(t *testing.T) {
	t.Helper()
	for _, ev := range e.sim.Events() {
		e.receive(t, ev.Body)
	}
	e.work(t)
}

func (e *env) work(t *testing.T) {
	t.Helper()
	if _, err := e.processor.ProcessDue(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// token mints a proxy token of a customer.
func (e *env) token(t *testing.T, customer string) control.ProxyToken {
	t.Helper()
	_, token, err := e.service.CreateToken(t.Context(), "test", customer, "")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// grant reads what a proxy would find.
func (e *env) grant(t *testing.T, k control.ProxyToken) contract.Grant {
	t.Helper()
	b, err := e.client.Get(context.Background(), contract.GrantKey(k.Digest)).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	g, err := contract.DecodeGrant(b)
	if err != nil {
		t.Fatal(err)
	}
	return *g
}

// use records one request of a customer in its present period.
func (e *env) use(t *testing.T, customer string, tokens int64) {
	t.Helper()
	p, err := e.store.PeriodAt(t.Context(), customer, e.sim.Now())
	if err != nil {
		t.Fatal(err)
	}
	ev := contract.Event{
		Replica: "r-" + control.NewID("x"), Seq: 1, AdmittedAt: e.sim.Now(), PeriodID: p.ID, RequestID: control.NewID("q"), CustomerID: customer,
		BoxID: "b1", TokenID: "t1", Tier: "starter", ModelAsked: "k2", ModelServed: "k2", Face: contract.FaceOpenAI, Upstream: "sim",
		Prompt: tokens, Settled: tokens, Reserved: tokens, Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK, Status: 200,
	}
	r, err := e.store.RecordUsage(t.Context(), []control.Delivery{{StreamID: "1-1", Payload: []byte(ev.RequestID), Event: ev}}, nil)
	if err != nil || r.Inserted != 1 {
		t.Fatalf("recorded %+v, %v", r, err)
	}
}

// query reads one value.
func (e *env) query(format string, args ...any) string {
	return strings.TrimSpace(e.pg.Query(fmt.Sprintf(format, args...)))
}

// state says what a customer is, on one line: status, tier, then its subscriptions'.
func (e *env) state(t *testing.T, customer string) string {
	t.Helper()
	var out, subscriptions string
	err := e.store.InTx(t.Context(), func(tx *store.Tx) error {
		a, err := tx.Account(t.Context(), customer)
		if err != nil {
			return err
		}
		out = string(a.Status) + " " + a.Tier
		list, err := tx.Subscriptions(t.Context(), customer)
		for _, v := range list {
			subscriptions += "," + string(v.Status)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if subscriptions == "" {
		subscriptions = ",-"
	}
	return out + " " + subscriptions[1:]
}

// want fails the test if the customer is not what it should be.
func (e *env) want(t *testing.T, customer, state string) {
	t.Helper()
	if got := e.state(t, customer); got != state {
		t.Errorf("the customer is %q, want %q; the inbox: %s", got, state,
			e.query(`SELECT string_agg(type || ': ' || error, '; ') FROM stripe_events WHERE error IS NOT NULL`))
	}
}

// mails lists the kinds of mail that a customer got, in order.
func (e *env) mails(customer string) string {
	return e.query(`SELECT string_agg(kind, ' ' ORDER BY id) FROM mails WHERE customer_id = '%s'`, customer)
}

// metric reads a counter or gauge, with the value of its one label.
func (e *env) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := e.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatal(errors.New("no metric " + name))
	return 0
}
