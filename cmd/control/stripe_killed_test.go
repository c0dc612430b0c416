package main_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

// Killed again and again while it works on Stripe's events, the worker loses none and does
// nothing twice.
func TestWorkerKilledWhileBilling(t *testing.T) {
	t.Parallel()
	t.Log("drawn at random, so no run is like another")
	const buyers, kills = 40, 8
	w := newWorld(t)
	sim, account, table := newStripe(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	checkout, err := stripe.NewCheckout(stripe.CheckoutOptions{
		Account: account, Customers: &customers.Service{Store: w.store, Tiers: table}, SuccessURL: "https://a.invalid", CancelURL: "https://b.invalid", ReturnURL: "https://c.invalid",
	})
	must(err)
	inbox, err := stripe.NewInbox(stripe.InboxOptions{Store: w.store, Secrets: []string{"whsec_fake"}, Logger: slog.New(slog.DiscardHandler)})
	must(err)
	for i := range buyers {
		id, now := control.NewID(control.CustomerID), time.Now().UTC()
		email := fmt.Sprintf("%d@example.com", i)
		must(w.store.SignUp(t.Context(), control.Account{
			Customer: control.Customer{ID: id, Name: "Ada", Email: email, Tier: "starter", Status: control.CustomerPending, CreatedAt: now}, Language: control.English,
		}, control.Identity{ID: control.NewID(control.IdentityID), CustomerID: id, Provider: control.ProviderPassword, Subject: email, SecretHash: "fake", CreatedAt: now}))
		url, err := checkout.CheckoutURL(t.Context(), id, "starter")
		must(err)
		sub, err := sim.Complete(url)
		must(err)
		must(sim.ChangePrice(sub, "openclaw_pro_monthly"))
	}
	w.env["STRIPE_SECRET_KEY"], w.env["STRIPE_URL"], w.env["STRIPE_EVENTS_EVERY"] = stripesim.Key, sim.URL(), "10ms"
	for _, ev := range sim.Events() {
		must(inbox.Receive(t.Context(), ev.Body, stripesim.Sign(ev.Body, "whsec_fake", time.Now())))
	}
	waiting := func() int {
		in, err := w.store.StripeInbox(t.Context())
		must(err)
		return in.Waiting
	}
	worker, killed := startWorker(t, w.env), 0
	for before := waiting(); killed < kills; killed++ {
		await(t, "the worker to get ahead", func() bool { return waiting() < before }, worker.said)
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
		worker.end(os.Kill)
		if before = waiting(); before == 0 {
			break
		}
		// What it had in hand waits for its lease; nobody here waits for so long.
		w.pg.Query("UPDATE stripe_events SET next_attempt_at = now() WHERE processed_at IS NULL")
		worker = startWorker(t, w.env)
	}
	t.Logf("killed %d times", killed)
	if killed < 3 {
		t.Error("the worker was too fast to be killed while it worked")
	}
	await(t, "all events to be processed", func() bool {
		return waiting() == 0
	}, worker.said)
	for what, query := range map[string]string{
		"active customers of the tier": "SELECT count(*) FROM customers WHERE status = 'active' AND tier = 'pro'",
		"periods with that limit":      "SELECT count(*) FROM usage_periods WHERE limit_tokens = 5000000",
		"boxes that are paid":          "SELECT count(*) FROM boxes WHERE subscription_id IS NOT NULL",
		"welcomes":                     "SELECT count(*) FROM mails WHERE kind = 'welcome'",
		"jobs that send them":          "SELECT count(*) FROM river_job WHERE kind = 'mail'",
		"activations in the audit log": "SELECT count(*) FROM audit_log WHERE action = 'customer.activate'",
		"periods opened in it":         "SELECT count(*) FROM audit_log WHERE action = 'period.open'",
		"first readings of it":         "SELECT count(*) FROM audit_log WHERE action = 'box.link'",
		"customers with one period":    "SELECT count(*) FROM (SELECT customer_id FROM usage_periods JOIN subscriptions USING (customer_id) GROUP BY 1 HAVING count(*) = 1) c",
	} {
		if got := strings.TrimSpace(w.pg.Query(query)); got != fmt.Sprint(buyers) {
			t.Errorf("%s %s, want %d", got, what, buyers)
		}
	}
}
