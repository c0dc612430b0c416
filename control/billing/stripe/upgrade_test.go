package stripe_test

import (
	"testing"
	"time"
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
