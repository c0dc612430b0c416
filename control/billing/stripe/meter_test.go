package stripe_test

import (
	"errors"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Opt-in: the limit gives way up to the cap, and what is used above it is reported once.
func TestOverage(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	key := e.token(t, customer)
	stripeID := e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer)
	report := func(want int) {
		t.Helper()
		if n, err := e.meter.ReportDue(t.Context()); n != want || err != nil {
			t.Errorf("reported %d, %v, want %d", n, err, want)
		}
	}
	limit := func(want int64) {
		t.Helper()
		if g := e.grant(t, key); g.MonthlyLimit != want || g.Status != contract.StatusActive {
			t.Errorf("the grant's limit is %d, want %d", g.MonthlyLimit, want)
		}
	}

	e.use(t, customer, 1_000_000)
	report(0)
	if _, err := e.checkout.SetOverage(t.Context(), "customer", customer, 600); err != nil { // 2 million tokens
		t.Fatal(err)
	}
	limit(3_000_000)
	report(0)
	e.use(t, customer, 250_000)
	report(1)
	report(0)
	e.use(t, customer, 750_000)
	report(1)
	if got := e.sim.Metered(stripeID); got != 300_000_000 { // millionths of 300 cents
		t.Errorf("Stripe counts %d", got)
	}
	e.deliver(t) // that the price was added
	// A larger tier includes more; of what was reported nothing is taken back.
	if err := e.sim.ChangePrice(sub, "openclaw_pro_monthly"); err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	limit(7_000_000)
	report(0)

	// The new period begins with the cap, and late usage of the old one is still reported.
	_, end, _ := e.sim.Period(sub)
	e.sim.Advance(end)
	e.deliver(t)
	limit(7_000_000)
	e.use(t, customer, 5_500_000)
	report(1)
	// Less than was used is no cap.
	if _, err := e.checkout.SetOverage(t.Context(), "customer", customer, 0); err != nil {
		t.Fatal(err)
	}
	limit(5_500_000)
	report(0)
	check, err := e.meter.Verify(t.Context(), customer, end.AddDate(-1, 0, 0))
	if err != nil || check.Differs() || check.Reported != 450_000_000 || check.Waiting != 0 {
		t.Errorf("verify: %+v, %v", check, err)
	}
	if got := e.query("SELECT string_agg(tokens_from || '-' || tokens_to, ',' ORDER BY created_at) FROM meter_reports"); got != "0-250000,250000-1000000,0-500000" {
		t.Errorf("reports %s", got)
	}
	// The period after that has no cap.
	_, end, _ = e.sim.Period(sub)
	e.sim.Advance(end)
	e.deliver(t)
	limit(5_000_000)
}

// A report whose answer was lost is sent again, and counts once.
func TestReportWhoseAnswerWasLost(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, _ := e.buy(t, "team")
	e.deliver(t)
	if _, err := e.checkout.SetOverage(t.Context(), "customer", customer, 1000); err != nil {
		t.Fatal(err)
	}
	e.use(t, customer, 20_000_100)
	e.sim.Fail(1)
	if n, err := e.meter.ReportDue(t.Context()); n != 0 || err == nil {
		t.Errorf("reported %d, %v", n, err)
	}
	for range 2 {
		e.query("UPDATE meter_reports SET reported_at = NULL, next_attempt_at = now()")
		if n, err := e.meter.ReportDue(t.Context()); n != 1 || err != nil {
			t.Errorf("reported %d, %v", n, err)
		}
	}
	if got := e.sim.Metered(e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer)); got != 100*200 {
		t.Errorf("Stripe counts %d", got)
	}
	// What Stripe was never told of is found.
	e.query("UPDATE meter_reports SET tokens_to = tokens_to + 1")
	if check, err := e.meter.Verify(t.Context(), customer, e.sim.Now().AddDate(-1, 0, 0)); err != nil || !check.Differs() {
		t.Errorf("verify: %+v, %v", check, err)
	}
}

func TestOverageWantsAPaidSubscription(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	pending := e.signUp(t).ID
	customer, sub := e.buy(t, "pro")
	e.deliver(t)
	for name, c := range map[string]struct {
		customer string
		cents    int64
	}{"no subscription": {pending, 100}, "a negative cap": {customer, -1}} {
		if _, err := e.checkout.SetOverage(t.Context(), "customer", c.customer, c.cents); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	e.sim.SetStatus(sub, "unpaid")
	e.deliver(t)
	if _, err := e.checkout.SetOverage(t.Context(), "customer", customer, 100); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("unpaid: %v", err)
	}
}

// Whoever leaves pays for what it used above its limit, also in the minute before.
func TestLeavingPaysForOverage(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	ctx := t.Context()
	for name, leave := range map[string]func(customer, sub string) error{
		"the account is deleted": func(customer, _ string) error { return b.End(ctx, customer) },
		"cancelled now": func(customer, _ string) error {
			_, err := e.checkout.Cancel(ctx, customer, true)
			return err
		},
		"cancelled with the period": func(customer, sub string) error {
			if err := b.Cancel(ctx, customer); err != nil {
				return err
			}
			_, err := e.meter.ReportDue(ctx)
			_, end, _ := e.sim.Period(sub)
			e.sim.Advance(end)
			return err
		},
	} {
		customer, sub := e.buy(t, "starter")
		e.deliver(t)
		if err := b.SetOverage(ctx, "customer", customer, 3000); err != nil {
			t.Fatal(err)
		}
		e.use(t, customer, 6_000_000)
		if err := leave(customer, sub); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		stripeID := e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer)
		if got := e.sim.Invoiced(stripeID); got != 1900+1500 { // five million tokens
			t.Errorf("%s: %d cents are invoiced, want 3400", name, got)
		}
		e.deliver(t)
		e.want(t, customer, "cancelled starter canceled")
	}
}

// What comes of requests that were under way when a subscription ended is not billed, and is no
// more than was left of the cap.
func TestUseUnderWayAtTheEnd(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	customer, _ := e.buy(t, "starter")
	e.deliver(t)
	if err := b.SetOverage(t.Context(), "customer", customer, 300); err != nil { // a million tokens
		t.Fatal(err)
	}
	key := e.token(t, customer)
	e.use(t, customer, 1_400_000)
	if err := b.End(t.Context(), customer); err != nil {
		t.Fatal(err)
	}
	if g := e.grant(t, key); g.Status == contract.StatusActive {
		t.Errorf("more is let in: %+v", g)
	}
	stripeID := e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer)
	invoiced := e.sim.Invoiced(stripeID)
	if invoiced != 1900+120 {
		t.Errorf("%d cents are invoiced for what was used before", invoiced)
	}
	e.use(t, customer, 900_000) // more than could be under way
	if _, err := e.meter.ReportDue(t.Context()); err != nil {
		t.Error(err)
	}
	if got := e.sim.Metered(stripeID); got != 300*1_000_000 {
		t.Errorf("Stripe counts %d microcents, want the cap", got)
	}
	_, end, _ := e.sim.Period(e.query("SELECT id FROM subscriptions WHERE customer_id = '%s'", customer))
	e.sim.Advance(end.AddDate(0, 1, 0))
	if got := e.sim.Invoiced(stripeID); got != invoiced {
		t.Errorf("%d cents are invoiced later, %d before", got, invoiced)
	}
}

// Stripe does not bill what is used above the limit in a trial: so nothing is.
func TestNoOverageInATrial(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	e.trial(t, 7)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	set := func() error {
		_, err := e.checkout.SetOverage(t.Context(), "customer", customer, 300)
		return err
	}
	if err := set(); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("in the trial: %v", err)
	}
	key := e.token(t, customer)
	_, end, _ := e.sim.Period(sub)
	e.sim.Advance(end)
	e.deliver(t)
	if err := set(); err != nil {
		t.Error(err)
	}
	if g := e.grant(t, key); g.MonthlyLimit != 2_000_000 {
		t.Errorf("after the trial: %+v", g)
	}
	// A card that declines allows no more than was allowed; less it may be.
	e.sim.SetStatus(sub, "past_due")
	e.deliver(t)
	for cents, want := range map[int64]error{600: control.ErrInvalid, 200: nil} {
		if _, err := e.checkout.SetOverage(t.Context(), "customer", customer, cents); !errors.Is(err, want) {
			t.Errorf("%d cents: %v", cents, err)
		}
	}
}
