package api_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

const fakeWebhookSecret = "whsec_fake_one"

// shop is an env whose customers can pay, at a Stripe that is simulated.
type shop struct {
	*env
	sim       *stripesim.Server
	processor *stripe.Processor
	delivered []stripesim.Event
}

func newShop(t *testing.T, change func(*api.Options)) *shop {
	t.Helper()
	s := &shop{sim: stripesim.New(time.Now())}
	t.Cleanup(s.sim.Close)
	account, err := stripe.NewAccount(stripesim.Key, s.sim.URL())
	if err != nil {
		t.Fatal(err)
	}
	s.env = newEnv(t, func(o *api.Options) {
		if _, err := stripe.Bootstrap(t.Context(), account, o.Customers.Tiers, "https://app.example.com/v1/webhooks/stripe"); err != nil {
			t.Fatal(err)
		}
		checkout, err := stripe.NewCheckout(stripe.CheckoutOptions{
			Account: account, Customers: o.Customers, SuccessURL: issuer, CancelURL: issuer, ReturnURL: issuer,
		})
		if err != nil {
			t.Fatal(err)
		}
		if s.processor, err = stripe.NewProcessor(stripe.ProcessorOptions{Account: account, Customers: o.Customers, Mails: o.Mails, Logger: o.Logger}); err != nil {
			t.Fatal(err)
		}
		if o.Billing, err = stripe.NewBilling(checkout, s.processor); err != nil {
			t.Fatal(err)
		}
		if o.Webhook, err = stripe.NewInbox(stripe.InboxOptions{Store: o.Store, Secrets: []string{fakeWebhookSecret}, Logger: o.Logger}); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(o)
		}
	})
	s.openEpoch()
	return s
}

// openEpoch has an epoch of the quota begin, in which limits can be published.
func (e *env) openEpoch() {
	e.t.Helper()
	k, err := limits.NewKeeper(e.store, e.redis, limits.Options{Every: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if epoch, err := quota.NewKeeper(e.redis, time.Second).Epoch(e.t.Context()); err == nil && epoch.IsOpen() {
			break
		}
		if time.Now().After(deadline) {
			e.t.Fatal("no epoch begins")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		e.t.Fatal(err)
	}
}

// deliver posts Stripe's events to the api, and has them worked.
func (s *shop) deliver() {
	s.t.Helper()
	stripe := &client{t: s.t, base: s.customers, cookies: map[string]string{}, header: http.Header{}}
	events := s.sim.Events()
	s.delivered = append(s.delivered, events...)
	for _, ev := range events {
		stripe.want(http.StatusOK, "POST", "/v1/webhooks/stripe", string(ev.Body), "Stripe-Signature", stripesim.Sign(ev.Body, fakeWebhookSecret, time.Now()))
	}
	if _, err := s.processor.ProcessDue(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// buyer is a customer that has paid for a tier.
func (s *shop) buyer(email, tier string) (control.Account, *client, string) {
	s.t.Helper()
	account, c := s.signUp(email)
	var l api.Link
	c.want(http.StatusOK, "POST", "/v1/me/checkout", api.Purchase{Tier: tier}).into(s.t, &l)
	sub, err := s.sim.Complete(l.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	s.deliver()
	return account, c, sub
}

// What a customer can do about its subscription, from the first payment to the end.
func TestSubscription(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	account, c, sub := s.buyer("ada@example.com", "starter")
	me := func() api.Profile {
		t.Helper()
		var p api.Profile
		c.want(http.StatusOK, "GET", "/v1/me", nil).into(t, &p)
		return p
	}
	if p := me(); p.Status != control.CustomerActive || p.Subscription == nil || p.Subscription.Tier != "starter" {
		t.Fatalf("%+v", p)
	}
	if a := c.do("POST", "/v1/me/checkout", api.Purchase{Tier: "pro"}); a.problem() != "exists" && a.problem() != "conflict" {
		t.Errorf("a second subscription: %d %s", a.status, a.body)
	}
	change := func(tier string) (p api.Profile) {
		t.Helper()
		c.want(http.StatusOK, "POST", "/v1/me/subscription/tier", api.Purchase{Tier: tier}).into(t, &p)
		return p
	}
	// Up at once, down with the next period, and back for nothing.
	if p := change("pro"); p.Tier != "pro" || p.Subscription.Tier != "pro" || p.Subscription.PendingTier != "" {
		t.Errorf("upgraded: %+v, %+v", p, p.Subscription)
	}
	if p := change("starter"); p.Tier != "pro" || p.Subscription.Tier != "pro" || p.Subscription.PendingTier != "starter" {
		t.Errorf("downgraded: %+v, %+v", p, p.Subscription)
	}
	if p := change("pro"); p.Subscription.PendingTier != "" {
		t.Errorf("taken back: %+v", p.Subscription)
	}
	var u api.Usage
	c.want(http.StatusOK, "GET", "/v1/me/usage", nil).into(t, &u)
	// It was made within minutes of the period's start, and so with nearly all of pro's tokens.
	if u.Period == nil || u.Period.LimitTokens > 5_000_000 || u.Period.LimitTokens < 4_990_000 {
		t.Fatalf("%+v", u.Period)
	}
	included := u.Period.LimitTokens
	// An upgrade that is not paid changes nothing, and says so.
	s.sim.Decline(s.stripeID(account.ID), true)
	if a := c.do("POST", "/v1/me/subscription/tier", api.Purchase{Tier: "team"}); a.status != http.StatusPaymentRequired || a.problem() != "unpaid" {
		t.Errorf("declined: %d %s", a.status, a.body)
	}
	if p := me(); p.Subscription.Tier != "pro" {
		t.Errorf("declined: %+v", p.Subscription)
	}
	s.sim.Decline(s.stripeID(account.ID), false)

	var p api.Profile
	c.want(http.StatusOK, "POST", "/v1/me/subscription/cancel", nil).into(t, &p)
	if !p.Subscription.CancelAtPeriodEnd || p.Status != control.CustomerActive {
		t.Errorf("cancelled: %+v", p)
	}
	c.want(http.StatusOK, "POST", "/v1/me/subscription/resume", nil).into(t, &p)
	if p.Subscription.CancelAtPeriodEnd {
		t.Errorf("resumed: %+v", p)
	}
	c.want(http.StatusOK, "PUT", "/v1/me/subscription/overage", api.Overage{CapCents: 900}).into(t, &p)
	c.want(http.StatusOK, "GET", "/v1/me/usage", nil).into(t, &u)
	if p.Subscription.OverageCapCents != 900 || u.Period.LimitTokens != included+3_000_000 {
		t.Errorf("overage: %+v, limit %d", p.Subscription, u.Period.LimitTokens)
	}
	c.want(http.StatusOK, "PUT", "/v1/me/subscription/overage", api.Overage{}).into(t, &p)
	for _, cap := range []int64{-1, 1_000_001} {
		if a := c.do("PUT", "/v1/me/subscription/overage", api.Overage{CapCents: cap}); a.problem() != "invalid" {
			t.Errorf("a cap of %d: %d %s", cap, a.status, a.body)
		}
	}
	var list api.List[control.Invoice]
	c.want(http.StatusOK, "GET", "/v1/me/invoices", nil).into(t, &list)
	if len(list.Items) < 2 || list.Items[len(list.Items)-1].AmountCents != 1900 {
		t.Errorf("invoices %+v", list.Items)
	}
	c.want(http.StatusOK, "POST", "/v1/me/portal", nil)

	// One welcome, by billing.
	if n := strings.TrimSpace(s.pg.Query("SELECT string_agg(kind || ' ' || n, ',' ORDER BY kind) FROM (SELECT kind, count(*) n FROM mails WHERE customer_id = '" + account.ID + "' GROUP BY kind) k")); n != "verify_email 1,welcome 1" {
		t.Errorf("mails: %s", n)
	}
	// Stripe is away: nothing changes, and the caller may come again.
	s.sim.Fail(10)
	if a := c.do("POST", "/v1/me/subscription/cancel", nil); a.problem() != "unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := c.do("DELETE", "/v1/me", nil); a.problem() != "unavailable" {
		t.Errorf("deleted without ending what is paid: %d %s", a.status, a.body)
	}
	s.sim.Fail(0)
	// Deleting the account ends what is paid.
	if a := c.do("DELETE", "/v1/me", nil); a.status != http.StatusNoContent && a.status != http.StatusAccepted {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if _, _, status := s.sim.Period(sub); status != "canceled" {
		t.Errorf("the subscription is %s", status)
	}
	c.want(http.StatusUnauthorized, "GET", "/v1/me", nil)
	// So does an admin who deletes it.
	other, _, sub := s.buyer("eve@example.com", "starter")
	_, admin := s.operator(control.RoleAdmin)
	if a := admin.do("DELETE", "/v1/customers/"+other.ID, nil); a.status != http.StatusNoContent && a.status != http.StatusAccepted {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if _, _, status := s.sim.Period(sub); status != "canceled" {
		t.Errorf("the subscription is %s", status)
	}
}

// stripeID is the id by which Stripe knows a customer.
func (e *env) stripeID(customer string) string {
	e.t.Helper()
	a, err := e.store.Account(e.t.Context(), customer)
	if err != nil {
		e.t.Fatal(err)
	}
	return a.StripeID
}

// moneyRoutes are all that need Stripe.
func moneyRoutes() map[string]any {
	return map[string]any{
		"POST /v1/me/checkout": api.Purchase{Tier: "pro"}, "POST /v1/me/portal": nil, "GET /v1/me/invoices": nil,
		"POST /v1/me/subscription/tier": api.Purchase{Tier: "pro"}, "POST /v1/me/subscription/cancel": nil,
		"POST /v1/me/subscription/resume": nil, "PUT /v1/me/subscription/overage": api.Overage{CapCents: 100},
	}
}

// Who owes an invoice is told where to pay it, and cannot buy beside it.
func TestCheckoutWithAnOpenInvoice(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	_, c, sub := s.buyer("eve@example.com", "starter")
	_, end, _ := s.sim.Period(sub)
	s.sim.Decline(sub, true)
	s.sim.Advance(end)
	s.sim.Cancel(sub)
	s.deliver()
	a := c.do("POST", "/v1/me/checkout", api.Purchase{Tier: "pro"})
	if a.status != http.StatusPaymentRequired || a.problem() != "unpaid" {
		t.Errorf("%d %s", a.status, a.body)
	}
	var p api.Problem
	if a.into(t, &p); !strings.HasPrefix(p.PayURL, "https://invoice.example.invalid/in_") || !strings.HasSuffix(p.Detail, p.PayURL) {
		t.Errorf("to be paid at %q: %s", p.PayURL, p.Detail)
	}
}

// Strangers are told whether real money moves. Who was not told the mode takes it for real.
func TestInstallation(t *testing.T) {
	t.Parallel()
	stranger := func(e *env) *client { return newClient(t, e.customers) }
	for _, c := range []struct {
		e    *env
		want api.PaymentMode
	}{
		{newEnv(t, func(o *api.Options) { o.Payments = api.PaymentsTest }), api.PaymentsNone}, // there is nobody to pay at
		{newShop(t, nil).env, api.PaymentsLive},
		{newShop(t, func(o *api.Options) { o.Payments = api.PaymentsSimulated }).env, api.PaymentsSimulated},
	} {
		var got api.Installation
		if stranger(c.e).want(http.StatusOK, "GET", "/v1/installation", nil).into(t, &got); got.Payments != c.want {
			t.Errorf("payments are %q, want %q", got.Payments, c.want)
		}
	}
}

func TestMoneyWithoutStripe(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, c := e.signUp("ada@example.com")
	for route, body := range moneyRoutes() {
		method, path, _ := strings.Cut(route, " ")
		if a := c.do(method, path, body); a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), "Payments are not set up here.") {
			t.Errorf("%s: %d %s", route, a.status, a.body)
		}
	}
}

func TestMoneyWithoutSubscription(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	var c *client
	for route, body := range moneyRoutes() {
		_, c = s.signUp(control.NewID("x") + "@example.com") // who began a checkout has a portal
		method, path, _ := strings.Cut(route, " ")
		want := "conflict"
		if strings.HasSuffix(path, "/checkout") || strings.HasSuffix(path, "/invoices") {
			want = ""
		}
		if a := c.do(method, path, body); a.problem() != want || want == "" && a.status != http.StatusOK {
			t.Errorf("%s: %d %s", route, a.status, a.body)
		}
	}
	if a := c.do("POST", "/v1/me/subscription/tier", api.Purchase{Tier: "gold"}); a.problem() != "invalid" {
		t.Errorf("%d %s", a.status, a.body)
	}
}
