package stripe_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// due makes events due that were tried in vain.
func (e *env) due() {
	e.query("UPDATE stripe_events SET next_attempt_at = now() WHERE processed_at IS NULL")
}

func TestWhoHasNotPaidIsNotServed(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer := e.signUp(t).ID
	url, err := e.checkout.CheckoutURL(t.Context(), customer, "pro")
	if err != nil {
		t.Fatal(err)
	}
	stripeID := e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer)
	e.sim.Decline(stripeID, true)
	sub, err := e.sim.Complete(url)
	if err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	e.want(t, customer, "pending starter incomplete")
	if n := e.query("SELECT count(*) FROM usage_periods"); n != "0" {
		t.Errorf("%s periods", n)
	}
	if _, err := e.service.SetLimit(t.Context(), "test", customer, 5); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a limit without payment: %v", err)
	}
	if _, _, err := e.service.CreateToken(t.Context(), "test", customer, ""); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a token without payment: %v", err)
	}
	// The second card works.
	e.sim.Decline(sub, false)
	if err := e.sim.Retry(sub); err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	e.want(t, customer, "active pro active")
	if got := e.query("SELECT wants || ' ' || subscription_id FROM boxes WHERE customer_id = '%s'", customer); got != "run "+sub {
		t.Errorf("box %s", got)
	}
	if got := e.mails(customer); got != "welcome" {
		t.Errorf("mails %s", got)
	}
}

// A checkout that is never paid leaves the customer free to try again.
func TestIncompleteExpires(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer := e.signUp(t).ID
	url, err := e.checkout.CheckoutURL(t.Context(), customer, "pro")
	if err != nil {
		t.Fatal(err)
	}
	e.sim.Decline(e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer), true)
	sub, err := e.sim.Complete(url)
	if err != nil {
		t.Fatal(err)
	}
	_, end, _ := e.sim.Period(sub)
	e.sim.Advance(end)
	e.deliver(t)
	e.want(t, customer, "pending starter incomplete_expired")
	if _, err := e.checkout.CheckoutURL(t.Context(), customer, "pro"); err != nil {
		t.Error(err)
	}
}

func TestOtherVersionIsReadAgain(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "team")
	var invoice, page string
	for _, ev := range e.sim.Events() { // of which none arrives
		switch ev.Type {
		case "invoice.payment_succeeded":
			invoice = between(string(ev.Body), `"hosted_invoice_url":"https://invoice.example.invalid/`, `"`)
		case "checkout.session.completed":
			page = "cs_" + between(string(ev.Body), `"id":"cs_`, `"`)
		}
	}
	for kind, id := range map[string]string{
		"invoice.payment_succeeded": invoice, "checkout.session.completed": page, "customer.subscription.updated": sub,
	} {
		e.sim.EmitOther(kind, "2025-03-31.basil", id)
	}
	e.deliver(t)
	e.want(t, customer, "active team active")
	if e.metric(t, "billing_stripe_webhooks_total", "other_version") != 3 || e.metric(t, "billing_stripe_events_total", "applied") != 3 {
		t.Errorf("not all of them counted: %s", e.query("SELECT string_agg(type || coalesce(error, ''), ',') FROM stripe_events"))
	}
}

func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}

// What nobody here knows waits, and is applied as soon as it is known; it holds up nobody.
func TestUnknownCustomerWaits(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, _ := e.buy(t, "starter")
	stripeID := e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer)
	e.query("UPDATE customers SET stripe_customer_id = NULL WHERE id = '%s'", customer)
	for _, ev := range e.sim.Events() {
		e.receive(t, ev.Body)
	}
	other, _ := e.buy(t, "pro")
	for _, ev := range e.sim.Events() {
		e.receive(t, ev.Body)
	}
	if _, err := e.processor.ProcessDue(t.Context()); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("processing: %v", err)
	}
	e.want(t, customer, "pending starter -")
	e.want(t, other, "active pro active")
	if err := e.processor.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e.metric(t, "billing_stripe_inbox_failing", "") != 4 || e.metric(t, "billing_stripe_inbox_events", "") != 4 {
		t.Error("what waits is not shown")
	}
	e.query("UPDATE customers SET stripe_customer_id = '%s' WHERE id = '%s'", stripeID, customer)
	e.due()
	e.work(t)
	e.want(t, customer, "active starter active")
}

// What else is sold on the same account of Stripe is nothing of ours, and does not hide what
// fails. A subscription that was ours, and has lost its prices, does fail.
func TestOtherSalesAreIgnored(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	applied := e.metric(t, "billing_stripe_events_total", "applied")
	e.sim.SellOther("")
	e.sim.SellOther(e.stripeID(customer))
	if _, err := e.sim.Subscribe("", "openclaw_pro_monthly"); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, ev := range e.sim.Events() {
		e.receive(t, ev.Body)
		n++
	}
	e.work(t)
	if got := e.metric(t, "billing_stripe_events_total", "ignored"); n < 9 || got != float64(n) {
		t.Errorf("%v of %d events are ignored", got, n)
	}
	if got := e.metric(t, "billing_stripe_events_total", "applied"); got != applied {
		t.Errorf("%v of them are applied", got-applied)
	}
	if n := e.query("SELECT count(*) FROM stripe_events WHERE processed_at IS NULL"); n != "0" {
		t.Errorf("%s events wait", n)
	}
	e.want(t, customer, "active starter active")
	e.sim.SellInstead(sub)
	for _, ev := range e.sim.Events() {
		e.receive(t, ev.Body)
	}
	if _, err := e.processor.ProcessDue(t.Context()); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a subscription that has lost its prices: %v", err)
	}
}

func TestStripeAway(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, _ := e.buy(t, "starter")
	events := e.sim.Events()
	for _, ev := range events {
		e.receive(t, ev.Body)
	}
	e.sim.Fail(len(events))
	if n, err := e.processor.ProcessDue(t.Context()); err == nil || n != 0 {
		t.Errorf("processed %d, %v", n, err)
	}
	e.want(t, customer, "pending starter -")
	e.due()
	e.work(t)
	e.want(t, customer, "active starter active")
}

func TestTrial(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	e.trial(t, 14)
	customer, sub := e.buy(t, "pro")
	e.deliver(t)
	e.want(t, customer, "active pro trialing")
	start, end, _ := e.sim.Period(sub)
	if end.Sub(start) != 14*24*time.Hour {
		t.Fatalf("the trial is %s", end.Sub(start))
	}
	e.sim.TrialWillEnd(sub)
	e.sim.TrialWillEnd(sub)
	e.deliver(t)
	if got := e.mails(customer); got != "welcome trial_ending" {
		t.Errorf("mails %s", got)
	}
	e.sim.Advance(end)
	e.deliver(t)
	e.want(t, customer, "active pro active")
	if got := e.query("SELECT string_agg(limit_tokens::text, ',' ORDER BY starts_at) FROM usage_periods WHERE customer_id = '%s'", customer); got != "5000000,5000000" {
		t.Errorf("periods with limits %s", got)
	}
	// Without a card at the trial's end Stripe pauses it.
	e.sim.SetStatus(sub, "paused")
	e.deliver(t)
	e.want(t, customer, "suspended pro paused")
}

func TestUnpaidSuspends(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "pro")
	e.deliver(t)
	key := e.token(t, customer)
	e.sim.SetStatus(sub, "unpaid")
	e.deliver(t)
	e.want(t, customer, "suspended pro unpaid")
	if g := e.grant(t, key); g.Status != contract.StatusSuspended {
		t.Errorf("grant %+v", g)
	}
	if got := e.query("SELECT wants FROM boxes WHERE customer_id = '%s'", customer); got != "suspend" {
		t.Errorf("box %s", got)
	}
	e.sim.SetStatus(sub, "active")
	e.deliver(t)
	e.want(t, customer, "active pro active")
	if got := e.query("SELECT wants FROM boxes WHERE customer_id = '%s'", customer); got != "run" {
		t.Errorf("box %s", got)
	}
	if got := e.mails(customer); got != "welcome suspended back" {
		t.Errorf("mails %s", got)
	}
}

// Paying does not bring back whom an operator suspended.
func TestOperatorsSuspensionHolds(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "pro")
	e.deliver(t)
	e.sim.SetStatus(sub, "unpaid")
	e.deliver(t)
	if _, err := e.service.SuspendCustomer(t.Context(), "operator", customer, "abuse"); err != nil {
		t.Fatal(err)
	}
	e.sim.SetStatus(sub, "active")
	e.deliver(t)
	e.want(t, customer, "suspended pro active")
	if _, err := e.service.ResumeCustomer(t.Context(), "operator", customer, ""); err != nil {
		t.Fatal(err)
	}
	e.want(t, customer, "active pro active")
}

// The renewal is seen within a moment also if no event tells of it, and our own chain of
// months keeps out of it.
func TestRenewalWithoutEvents(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	key := e.token(t, customer)
	_, end, _ := e.sim.Period(sub)
	e.sim.Advance(end.Add(time.Minute))
	e.sim.Events()
	if n, err := e.service.RenewDue(t.Context()); n != 0 || err != nil {
		t.Errorf("our own chain renewed %d, %v", n, err)
	}
	if _, err := e.service.SetLimit(t.Context(), "test", customer, 1); !errors.Is(err, control.ErrConflict) {
		t.Errorf("a limit between two periods: %v", err)
	}
	if n, err := e.processor.SyncOverdue(t.Context()); n != 1 || err != nil {
		t.Fatalf("asked for %d, %v", n, err)
	}
	if g := e.grant(t, key); !g.Period.Start.Equal(end) || g.MonthlyLimit != 1_000_000 {
		t.Errorf("grant %+v", g)
	}
	if n, err := e.processor.SyncOverdue(t.Context()); n != 0 || err != nil {
		t.Errorf("asked for %d more, %v", n, err)
	}
	if n := e.query("SELECT count(*) FROM usage_periods WHERE customer_id = '%s'", customer); n != "2" {
		t.Errorf("%s periods", n)
	}
}

// A downgrade that is taken back, and an upgrade over it, leave nothing behind.
func TestTiersThatFollow(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "pro")
	e.deliver(t)
	pending := func() string {
		return e.query("SELECT concat_ws(' ', tier, pending_tier) FROM subscriptions WHERE customer_id = '%s'", customer)
	}
	for _, step := range []struct{ price, want string }{
		{"starter", "pro starter"}, {"pro", "pro"}, {"starter", "pro starter"}, {"team", "team"}, {"pro", "team pro"}, {"starter", "team starter"},
	} {
		if err := e.sim.ChangePrice(sub, "openclaw_"+step.price+"_monthly"); err != nil {
			t.Fatal(err)
		}
		e.deliver(t)
		if got := pending(); got != step.want {
			t.Errorf("after %s: %q, want %q", step.price, got, step.want)
		}
	}
	e.want(t, customer, "active team active")
	if got := e.query("SELECT limit_tokens FROM usage_periods WHERE customer_id = '%s'", customer); got != "20000000" {
		t.Errorf("limit %s", got)
	}
	// An upgrade that is not paid gives nothing.
	_, end, _ := e.sim.Period(sub)
	e.sim.Advance(end)
	e.deliver(t)
	e.want(t, customer, "active starter active")
	e.sim.Decline(sub, true)
	if err := e.sim.ChangePrice(sub, "openclaw_team_monthly"); err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	e.want(t, customer, "active starter past_due")
	e.sim.Decline(sub, false)
	if err := e.sim.Retry(sub); err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	e.want(t, customer, "active team active")
}

// What an operator added stays with an upgrade, and is gone with the period.
func TestUpgradeKeepsWhatWasAdded(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	if _, err := e.service.SetLimit(t.Context(), "operator", customer, 1_500_000); err != nil {
		t.Fatal(err)
	}
	if err := e.sim.ChangePrice(sub, "openclaw_pro_monthly"); err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	_, end, _ := e.sim.Period(sub)
	e.sim.Advance(end)
	e.deliver(t)
	if got := e.query("SELECT string_agg(limit_tokens::text, ',' ORDER BY starts_at) FROM usage_periods WHERE customer_id = '%s'", customer); got != "5500000,5000000" {
		t.Errorf("limits %s", got)
	}
}

// The tier is the price's, also when a newer price has its lookup key; an unknown price, or
// metadata, gives none.
func TestTierOfAnOldPrice(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "pro")
	e.deliver(t)
	e.newPrices(t)
	_, end, _ := e.sim.Period(sub)
	e.sim.Advance(end)
	e.deliver(t)
	e.want(t, customer, "active pro active")
}

// An answer that was asked for earlier changes nothing, however late it comes, and neither
// does the same one once more.
func TestOlderAnswerChangesNothing(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "pro")
	e.deliver(t)
	e.token(t, customer)
	start, end, _ := e.sim.Period(sub)
	v := control.StripeSubscription{ID: sub, CustomerID: customer, Status: control.SubscriptionActive, Tier: "pro", PeriodStart: start, PeriodEnd: end}
	all := func() string {
		return e.query(`SELECT concat_ws(' ', c.status, c.tier, s.status, s.period_end, p.limit_version, k.version, (SELECT count(*) FROM config_changes), (SELECT count(*) FROM audit_log))
			FROM customers c JOIN subscriptions s ON s.customer_id = c.id JOIN usage_periods p ON p.customer_id = c.id JOIN proxy_tokens k ON k.customer_id = c.id WHERE c.id = '%s'`, customer)
	}
	before := all()
	unpaid, ended, smaller := v, v, v
	unpaid.Status, ended.Status, smaller.Tier = control.SubscriptionUnpaid, control.SubscriptionCanceled, "starter"
	for _, older := range []control.StripeSubscription{unpaid, ended, smaller} {
		if _, err := e.service.ApplySubscription(t.Context(), "test", older, time.Now().Add(-time.Hour), nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if _, err := e.service.ApplySubscription(t.Context(), "test", v, time.Now(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := all(); got != before {
		t.Errorf("it became %s, and was %s", got, before)
	}
	// What ended does not begin again.
	if _, err := e.service.ApplySubscription(t.Context(), "test", ended, time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := e.service.ApplySubscription(t.Context(), "test", v, time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	e.want(t, customer, "cancelled pro canceled")
	other := v
	other.CustomerID = e.signUp(t).ID
	if _, err := e.service.ApplySubscription(t.Context(), "test", other, time.Now(), nil); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("another customer's subscription: %v", err)
	}
	other.ID, other.Tier = "sub_other", "gold"
	if _, err := e.service.ApplySubscription(t.Context(), "test", other, time.Now(), nil); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("a tier that is not sold: %v", err)
	}
}

// With Redis away all is committed, and published later.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "pro")
	e.deliver(t)
	key := e.token(t, customer)
	e.service.PublishWithin = 200 * time.Millisecond
	e.redis.Stop()
	e.sim.SetStatus(sub, "unpaid")
	e.deliver(t)
	e.want(t, customer, "suspended pro unpaid")
	e.redis.Start()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := e.service.PublishPending(t.Context()); err == nil && e.grant(t, key).Status == contract.StatusSuspended {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the suspension is not published")
		}
	}
}
