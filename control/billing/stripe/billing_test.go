package stripe_test

import (
	"errors"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// billing is what customers do about money in e.
func (e *env) billing(t *testing.T) *stripe.Billing {
	t.Helper()
	b, err := stripe.NewBilling(e.checkout, e.processor)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What a customer changes holds when the answer is there, before any event of it.
func TestBillingHoldsAtOnce(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	ctx := t.Context()
	if err := b.ChangeTier(ctx, customer, "pro"); err != nil {
		t.Fatal(err)
	}
	e.want(t, customer, "active pro active")
	cancels := func() string {
		return e.query("SELECT cancel_at_period_end FROM subscriptions WHERE id = '%s'", sub)
	}
	if err := b.Cancel(ctx, customer); err != nil || cancels() != "t" {
		t.Errorf("cancelled: %s, %v", cancels(), err)
	}
	if err := b.Resume(ctx, customer); err != nil || cancels() != "f" {
		t.Errorf("resumed: %s, %v", cancels(), err)
	}
	if err := b.SetOverage(ctx, "customer:"+customer, customer, 900); err != nil {
		t.Error(err)
	}
	nobody := e.signUp(t).ID
	for name, err := range map[string]error{
		"tier": b.ChangeTier(ctx, nobody, "pro"), "cancel": b.Cancel(ctx, nobody), "resume": b.Resume(ctx, nobody), "overage": b.SetOverage(ctx, "x", nobody, 900),
	} {
		if !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%s without a subscription: %v", name, err)
		}
	}
	// Stripe has it and our books do not: it is done, and the event will tell.
	e.query("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''away''; END'; " +
		"CREATE TRIGGER refuse BEFORE UPDATE ON subscriptions FOR EACH ROW EXECUTE FUNCTION refuse()")
	if err := b.Cancel(ctx, customer); !errors.Is(err, customers.ErrUnpublished) || cancels() != "f" {
		t.Errorf("our books are away: %s, %v", cancels(), err)
	}
	e.query("DROP TRIGGER refuse ON subscriptions")
	e.deliver(t)
	if cancels() != "t" {
		t.Error("the event changed nothing")
	}
	e.sim.Fail(10)
	if err := b.Cancel(ctx, customer); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("Stripe is down: %v", err)
	}
	e.sim.Fail(0)
}

// Taking a downgrade back costs nothing, and an upgrade after one costs the difference to
// what is paid already.
func TestTierAfterADowngrade(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	customer, sub := e.buy(t, "pro")
	e.deliver(t)
	ctx := t.Context()
	invoices := func() []control.Invoice {
		t.Helper()
		list, err := b.Invoices(ctx, customer, 10)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	for _, tier := range []string{"starter", "pro"} {
		if err := b.ChangeTier(ctx, customer, tier); err != nil {
			t.Fatal(err)
		}
		e.want(t, customer, "active pro active")
		if n := len(invoices()); n != 1 {
			t.Errorf("to %s: %d invoices: %+v", tier, n, invoices())
		}
	}
	if err := b.ChangeTier(ctx, customer, "starter"); err != nil {
		t.Fatal(err)
	}
	start, end, _ := e.sim.Period(sub)
	e.sim.Advance(start.Add(end.Sub(start) / 2))
	if err := b.ChangeTier(ctx, customer, "team"); err != nil {
		t.Fatal(err)
	}
	e.want(t, customer, "active team active")
	// Half of a month of 129 - 49 dollars, to the cent or so.
	if list := invoices(); len(list) != 2 || list[0].AmountCents < 3990 || list[0].AmountCents > 4010 {
		t.Errorf("invoices %+v", list)
	}
	// It renews as what it is.
	e.sim.Advance(end.Add(time.Minute))
	e.deliver(t)
	e.want(t, customer, "active team active")
}

// A first payment that never came does not keep anybody from deleting its account, and what is not
// sold here goes on.
func TestEndAfterAPaymentThatNeverCame(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	customer := e.signUp(t).ID
	url, err := b.CheckoutURL(t.Context(), customer, "pro")
	if err != nil {
		t.Fatal(err)
	}
	e.sim.Decline(e.stripeID(customer), true)
	sub, err := e.sim.Complete(url)
	if err != nil {
		t.Fatal(err)
	}
	e.sim.Decline(sub, false)
	other := e.sim.SellOther(e.stripeID(customer))
	e.sim.Advance(e.sim.Now().AddDate(0, 1, 1))
	e.deliver(t)
	e.want(t, customer, "pending starter incomplete_expired")
	if err := b.End(t.Context(), customer); err != nil {
		t.Errorf("end: %v", err)
	}
	if err := e.service.DeleteCustomer(t.Context(), "test", customer); err != nil {
		t.Error(err)
	}
	if _, _, status := e.sim.Period(other); status != "active" {
		t.Errorf("what is not sold here is %s", status)
	}
	// One that ends by itself meanwhile has ended.
	customer, sub = e.buy(t, "starter")
	e.deliver(t)
	e.sim.Before("DELETE /v1/subscriptions/{id}", func() { e.sim.Cancel(sub) })
	if err := b.End(t.Context(), customer); err != nil {
		t.Errorf("end of what has ended: %v", err)
	}
	e.want(t, customer, "cancelled starter canceled")
}

// What begins after the end of a customer is cancelled in Stripe, and someone is told.
func TestSubscriptionOfACancelledCustomer(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	customer, _ := e.buy(t, "starter")
	e.deliver(t)
	stripeID := e.stripeID(customer)
	if err := b.End(t.Context(), customer); err != nil {
		t.Fatal(err)
	}
	if err := e.service.DeleteCustomer(t.Context(), "test", customer); err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	sub, err := e.sim.Subscribe(stripeID, "openclaw_team_monthly")
	if err != nil {
		t.Fatal(err)
	}
	for _, ev := range e.sim.Events() {
		e.receive(t, ev.Body)
	}
	e.sim.FailRoute("DELETE /v1/subscriptions/{id}", 10)
	if _, err := e.processor.ProcessDue(t.Context()); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("Stripe does not cancel it: %v", err)
	}
	e.sim.FailRoute("DELETE /v1/subscriptions/{id}", 0)
	e.due()
	e.work(t)
	e.deliver(t) // that it has ended
	if _, _, status := e.sim.Period(sub); status != "canceled" {
		t.Errorf("it is %s", status)
	}
	if n := e.query("SELECT count(*) FROM stripe_events WHERE processed_at IS NULL"); n != "0" {
		t.Errorf("%s events wait", n)
	}
	if e.metric(t, "billing_stripe_second_subscriptions_total", "") != 1 {
		t.Error("the alert is not raised once")
	}
	e.want(t, customer, "cancelled starter canceled,canceled")
}

// Whoever deletes its account owes nothing more: no subscription, also of those that we have
// not heard of, and no page on which one could begin.
func TestEnd(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	ctx := t.Context()
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	key := e.token(t, customer)
	unheard, unheardSub := e.buy(t, "pro") // its events are not delivered
	open := e.signUp(t).ID
	page, err := b.CheckoutURL(ctx, open, "pro")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{customer, unheard, open, e.signUp(t).ID} {
		for range 2 {
			if err := b.End(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.service.DeleteCustomer(ctx, "test", id); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{sub, unheardSub} {
		if _, _, status := e.sim.Period(id); status != "canceled" {
			t.Errorf("subscription %s is %s", id, status)
		}
	}
	if g := e.grant(t, key); g.Status != contract.StatusRevoked {
		t.Errorf("grant %+v", g)
	}
	if _, err := e.sim.Complete(page); err == nil {
		t.Error("the page can still be paid")
	}
	e.deliver(t)
	e.want(t, customer, "cancelled starter canceled")
	if err := b.End(ctx, "nobody"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}
