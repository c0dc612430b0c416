package e2e_test

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// payer is a customer whom Stripe bills, in front of a running token-proxy.
type payer struct {
	t         *testing.T
	s         *stack.Stack
	p         *platform
	sim       *stripesim.Server
	inbox     *stripe.Inbox
	processor *stripe.Processor
	id        string
	sub       string
	tok       stack.Token
}

type outbox struct{}

func (outbox) AddMail(ctx context.Context, tx *store.Tx, m control.Mail) (bool, error) {
	return tx.AddMail(ctx, m)
}

// becomes hands over what happened at Stripe, twice and the last first, and wants the proxy
// to answer with status within a second.
func (c *payer) becomes(what string, status int) {
	c.t.Helper()
	events := c.sim.Events()
	for range 2 {
		for i := range events {
			body := events[len(events)-1-i].Body
			if err := c.inbox.Receive(c.t.Context(), body, stripesim.Sign(body, "whsec_fake", time.Now())); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	if _, err := c.processor.ProcessDue(c.t.Context()); err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
	begin := time.Now()
	c.s.Eventually(what, time.Second, func() bool { return c.ask() == status })
	c.t.Logf("%s: %d after %v", what, status, time.Since(begin))
}

func (c *payer) ask() int { return ask(c.s.Proxies[0], c.tok.Raw) }

// What a customer pays for decides what the proxy answers: trial, limit, upgrade, renewal,
// three failed payments, recovery, end.
func TestCustomerLifeByStripe(t *testing.T) {
	const trial = 14 * 24 * time.Hour
	s := stack.New(t, stack.Options{})
	p := newPlatform(t, s, func(*control.Tier) {})
	// The trial ends in a moment.
	end := time.Now().Add(12 * time.Second).Truncate(time.Second)
	sim := stripesim.New(end.Add(-trial))
	t.Cleanup(sim.Close)
	c := &payer{t: t, s: s, p: p, sim: sim, id: control.NewID(control.CustomerID)}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	account, err := stripe.NewAccount(stripesim.Key, sim.URL())
	must(err)
	_, err = stripe.Bootstrap(t.Context(), account, p.Tiers, "https://api.example.invalid/")
	must(err)
	log := slog.New(slog.DiscardHandler)
	c.inbox, err = stripe.NewInbox(stripe.InboxOptions{Store: p.Store, Secrets: []string{"whsec_fake"}, Logger: log})
	must(err)
	c.processor, err = stripe.NewProcessor(stripe.ProcessorOptions{Account: account, Customers: p.Service, Mails: outbox{}, Logger: log})
	must(err)
	checkout, err := stripe.NewCheckout(stripe.CheckoutOptions{
		Account: account, Customers: p.Service, SuccessURL: "https://a.invalid", CancelURL: "https://b.invalid", ReturnURL: "https://c.invalid", TrialDays: 14,
	})
	must(err)
	must(p.Store.SignUp(t.Context(), control.Account{
		Customer: control.Customer{ID: c.id, Name: "Ada", Email: "ada@example.com", Tier: "starter", Status: control.CustomerPending, CreatedAt: time.Now()},
		Language: control.English,
	}, control.Identity{ID: control.NewID(control.IdentityID), CustomerID: c.id, Provider: control.ProviderPassword, Subject: "ada@example.com", SecretHash: "fake", CreatedAt: time.Now()}))
	url, err := checkout.CheckoutURL(t.Context(), c.id, "starter")
	must(err)
	c.sub, err = sim.Complete(url)
	must(err)
	c.becomes("nobody knows the token yet", http.StatusUnauthorized)
	c.tok = p.token(c.id)
	c.becomes("paid", http.StatusOK)

	p.limit(c.id, 1)
	c.becomes("the limit is reached", http.StatusTooManyRequests)
	must(sim.ChangePrice(c.sub, "openclaw_pro_monthly"))
	c.becomes("upgraded", http.StatusOK)

	time.Sleep(time.Until(end) + 100*time.Millisecond)
	sim.Decline(c.sub, true)
	sim.Advance(end)
	c.becomes("renewed, and the first payment has failed", http.StatusOK)
	must(sim.Retry(c.sub))
	c.becomes("the second one has failed", http.StatusOK)
	must(sim.Retry(c.sub))
	c.becomes("the third one has failed", http.StatusForbidden)
	sim.Decline(c.sub, false)
	must(sim.Retry(c.sub))
	c.becomes("paid after all", http.StatusOK)
	sim.Cancel(c.sub)
	c.becomes("cancelled", http.StatusUnauthorized)
	if n := s.Sim.Ledger(); len(n) == 0 {
		t.Error("no request reached Kimi")
	}
}
