package stripe_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// limit is the limit of a customer's newest period.
func (e *env) limit(t *testing.T, customer string) (n int64) {
	t.Helper()
	for _, c := range e.query("SELECT limit_tokens FROM usage_periods WHERE customer_id = '%s' ORDER BY starts_at DESC LIMIT 1", customer) {
		n = n*10 + int64(c-'0')
	}
	return n
}

// However late in a period someone upgrades, the tokens that it gives at once cost what they
// cost in a whole month, and the next period has all of them.
func TestUpgradeGivesWhatIsPaid(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	stripeID := e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer)
	for _, left := range []time.Duration{time.Hour, 36 * time.Hour, 360 * time.Hour, 700 * time.Hour} {
		_, end, _ := e.sim.Period(sub)
		e.sim.Advance(end.Add(-left))
		e.deliver(t)
		paid := e.sim.Invoiced(stripeID)
		before := e.limit(t, customer)
		if err := b.ChangeTier(t.Context(), customer, "team"); err != nil {
			t.Fatal(err)
		}
		e.want(t, customer, "active team active")
		cents, tokens := e.sim.Invoiced(stripeID)-paid, e.limit(t, customer)-before
		// 110 dollars for 19 million; Stripe rounds to cents.
		if want := tokens * 11_000 / 19_000_000; cents < want-1 || cents > want+1 || tokens <= 0 {
			t.Errorf("%s before the end: %d tokens for %d cents, want %d cents", left, tokens, cents, want)
		}
		if err := b.ChangeTier(t.Context(), customer, "starter"); err != nil {
			t.Fatal(err)
		}
		e.deliver(t)
		e.sim.Advance(end)
		e.deliver(t)
		if e.want(t, customer, "active starter active"); e.limit(t, customer) != 1_000_000 {
			t.Errorf("the next period has %d tokens", e.limit(t, customer))
		}
	}
}

// An upgrade of which we hear late counts from when it was billed.
func TestUpgradeCountsFromWhenItIsBilled(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	start, end, _ := e.sim.Period(sub)
	e.sim.Advance(start.Add(end.Sub(start) / 2))
	if err := e.sim.ChangePrice(sub, "openclaw_pro_monthly"); err != nil {
		t.Fatal(err)
	}
	e.sim.Advance(e.sim.Now().Add(20 * time.Hour))
	e.deliver(t)
	if got := e.limit(t, customer); got != 3_000_000 {
		t.Errorf("%d tokens, want a million and half of four", got)
	}
}

// Between a renewal and its news the tier in our books is the one of before, and has not been
// paid for: to have it back costs what an upgrade costs.
func TestUpgradeBeforeTheRenewalIsHeardOf(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	customer, sub := e.buy(t, "team")
	e.deliver(t)
	stripeID := e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer)
	if err := b.ChangeTier(t.Context(), customer, "starter"); err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	_, end, _ := e.sim.Period(sub)
	e.sim.Advance(end.Add(time.Second)) // Stripe bills Starter
	if err := b.ChangeTier(t.Context(), customer, "team"); err != nil {
		t.Fatal(err)
	}
	e.want(t, customer, "active team active")
	if got := e.sim.Invoiced(stripeID); got < 12_900+12_890 || got > 12_900+12_900 {
		t.Errorf("two months of Team cost %d cents, want 25800 or so", got)
	}
}

// A renewal between the look at the subscription and its change is not paid for with the tier of
// before.
func TestRenewalWhileTheTierChanges(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	customer, sub := e.buy(t, "team")
	e.deliver(t)
	if err := b.ChangeTier(t.Context(), customer, "starter"); err != nil {
		t.Fatal(err)
	}
	_, end, _ := e.sim.Period(sub)
	// Whoever asks just before it is told to ask again.
	e.sim.Advance(end.Add(-time.Minute))
	if err := b.ChangeTier(t.Context(), customer, "team"); !errors.Is(err, control.ErrConflict) {
		t.Errorf("a minute before: %v", err)
	}
	if got := e.sim.Prices(sub); got[0] != "openclaw_starter_monthly" {
		t.Errorf("a minute before, Stripe bills %s next", got)
	}
	// And the customer does not wait for the answer.
	e.sim.EndPeriod(sub, end.Add(time.Hour))
	end = end.Add(time.Hour)
	e.deliver(t)
	ctx, leave := context.WithCancel(t.Context())
	e.sim.Before("POST /v1/subscriptions/{id}", func() {
		e.sim.Advance(end.Add(time.Second))
		leave()
	})
	if err := b.ChangeTier(ctx, customer, "team"); err == nil {
		t.Error("the customer has not left")
	}
	if got := e.sim.Prices(sub); got[0] != "openclaw_starter_monthly" {
		t.Errorf("who has left is billed %s", got)
	}
	e.deliver(t)
	e.want(t, customer, "active starter active")
	// The same with a customer that waits.
	paid := e.sim.Invoiced(e.stripeID(customer))
	if err := b.ChangeTier(t.Context(), customer, "team"); err != nil {
		t.Fatal(err)
	}
	if err := b.ChangeTier(t.Context(), customer, "starter"); err != nil {
		t.Fatal(err)
	}
	_, end, _ = e.sim.Period(sub)
	e.sim.Advance(end.Add(-time.Hour))
	e.sim.Before("POST /v1/subscriptions/{id}", func() { e.sim.Advance(end.Add(time.Second)) })
	if err := b.ChangeTier(t.Context(), customer, "team"); err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	e.want(t, customer, "active team active")
	// The upgrade of the month before, the renewal, and the upgrade of this month.
	if got := e.sim.Invoiced(e.stripeID(customer)) - paid; got < 11_000+1_900+11_000-30 || got > 11_000+1_900+11_000 {
		t.Errorf("two months of Team cost %d cents above what was paid", got)
	}
}

// With an upgrade whose payment fails nothing has changed: a lower tier that was to follow still
// is.
func TestFailedUpgradeKeepsTheDowngrade(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	customer, sub := e.buy(t, "pro")
	e.deliver(t)
	if err := b.ChangeTier(t.Context(), customer, "starter"); err != nil {
		t.Fatal(err)
	}
	const update = "POST /v1/subscriptions/{id}"
	e.sim.Decline(sub, true)
	if err := b.ChangeTier(t.Context(), customer, "team"); err != nil {
		t.Fatal(err)
	}
	e.sim.Decline(sub, false)
	follows := func(step string) {
		t.Helper()
		e.deliver(t)
		got := e.query("SELECT tier || ' ' || coalesce(pending_tier, '-') FROM subscriptions WHERE customer_id = '%s'", customer)
		if prices := e.sim.Prices(sub); got != "pro starter" || prices[0] != "openclaw_starter_monthly" {
			t.Errorf("%s: here it is %s, and Stripe bills %s next", step, got, prices)
		}
	}
	follows("the card declines")
	// The second change of the two fails.
	e.sim.Before(update, func() { e.sim.Before(update, func() { e.sim.FailRoute(update, 1) }) })
	if err := b.ChangeTier(t.Context(), customer, "team"); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("Stripe fails: %v", err)
	}
	follows("Stripe fails")
	if err := b.ChangeTier(t.Context(), customer, "team"); err != nil {
		t.Fatal(err)
	}
	e.want(t, customer, "active team active")
}

// What was paid for at Stripe, and is not heard of yet, is not lost by another change.
func TestDowngradeBeforeTheUpgradeIsHeardOf(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	if err := e.sim.ChangePrice(sub, "openclaw_pro_monthly"); err != nil {
		t.Fatal(err)
	}
	if err := b.ChangeTier(t.Context(), customer, "starter"); err != nil {
		t.Fatal(err)
	}
	e.want(t, customer, "active pro active")
	_, end, _ := e.sim.Period(sub)
	e.sim.Advance(end)
	e.deliver(t)
	e.want(t, customer, "active starter active")
}

// Changes of one customer's tier at the same time come one after the other: whatever is held
// in the end is paid for.
func TestTiersAtOnce(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	customer, _ := e.buy(t, "starter")
	e.deliver(t)
	stripeID := e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer)
	var wg sync.WaitGroup
	for n := range 12 {
		wg.Go(func() {
			tier := []string{"pro", "starter", "team"}[n%3]
			if err := b.ChangeTier(t.Context(), customer, tier); err != nil && !errors.Is(err, control.ErrConflict) {
				t.Errorf("to %s: %v", tier, err)
			}
		})
	}
	wg.Wait()
	price := map[string]int64{"starter": 1900, "pro": 4900, "team": 12900}
	tier := e.query("SELECT tier FROM customers WHERE id = '%s'", customer)
	if got := e.sim.Invoiced(stripeID); got < price[tier]-5 || got > price[tier]+5 {
		t.Errorf("the customer has %s for %d cents", tier, got)
	}
}

// Who is suspended comes back by paying what it owes, not by a newer and smaller invoice.
func TestSmallInvoiceDoesNotPayForTheRenewal(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	b := e.billing(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	_, end, _ := e.sim.Period(sub)
	e.sim.Decline(sub, true)
	e.sim.Advance(end)
	for range 2 {
		if err := e.sim.Retry(sub); err != nil {
			t.Fatal(err)
		}
	}
	e.deliver(t)
	e.want(t, customer, "suspended starter past_due")
	e.sim.Decline(sub, false)
	if err := b.ChangeTier(t.Context(), customer, "pro"); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("an upgrade by who owes: %v", err)
	}
	// In the portal it is possible, and Stripe says active.
	if err := e.sim.ChangePrice(sub, "openclaw_pro_monthly"); err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	if got := e.state(t, customer); !strings.HasPrefix(got, "suspended ") || !strings.HasSuffix(got, " active") {
		t.Errorf("with the renewal unpaid the customer is %s", got)
	}
	if err := e.sim.Retry(sub); err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	e.want(t, customer, "active pro active")
}
