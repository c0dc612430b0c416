package customers_test

import (
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

// metered is a customer of Starter, a million tokens, that pays for more token by token.
func (e *env) metered(cents int64) string {
	e.t.Helper()
	id := e.signUp()
	e.committed(apply(e, id, control.SubscriptionActive, "starter", 1))
	_, err := e.SetOverage(e.t.Context(), "test", id, cents)
	e.committed(err)
	return id
}

// used says of how many tokens a customer's present period is, without their events.
func (e *env) used(id string, tokens int64) {
	e.t.Helper()
	e.row("UPDATE usage_periods SET settled_tokens = %d WHERE customer_id = '%s'", tokens, id)
}

// billed is what was written down of a customer for Stripe, after all that is due was.
func (e *env) billed(id string) string {
	e.t.Helper()
	if _, err := e.ReportOverage(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	return e.row("SELECT coalesce(max(tokens_to), 0) FROM meter_reports WHERE customer_id = '%s'", id)
}

func (e *env) terms(id string) string {
	e.t.Helper()
	return e.row("SELECT limit_tokens || ' ' || overage_tokens FROM usage_periods WHERE customer_id = '%s'", id)
}

// An operator who changes a limit has nobody pay for what was included, or was never used.
func TestChangeLimitBillsNothing(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	to := func(n int64) customers.LimitChange { return customers.LimitChange{To: &n} }
	for name, c := range map[string]struct {
		used       int64
		change     customers.LimitChange
		then       int64 // used in the end
		terms      string
		first, end string // billed after the change, and in the end
	}{
		"reset":                 {500_000, customers.LimitChange{Reset: true}, 1_500_000, "11000000 10000000", "0", "500000"},
		"set":                   {500_000, to(2_000_000), 2_000_000, "2000000 1000000", "0", "1000000"},
		"set to nothing":        {500_000, to(0), 500_000, "0 0", "0", "0"},
		"set below overage":     {4_000_000, to(2_000_000), 4_000_000, "2000000 1000000", "3000000", "3000000"},
		"add":                   {500_000, customers.LimitChange{Add: 1_000_000}, 2_500_000, "12000000 10000000", "0", "500000"},
		"take":                  {500_000, customers.LimitChange{Add: -9_500_000}, 1_500_000, "1500000 500000", "0", "500000"},
		"take all, and more":    {1_500_000, customers.LimitChange{Add: -90_000_000}, 1_500_000, "0 0", "500000", "500000"},
		"raise what is at most": {11_000_000, to(12_000_000), 12_000_000, "12000000 10000000", "9000000", "10000000"},
	} {
		id := e.metered(3000) // ten million tokens
		e.used(id, c.used)
		_, err := e.ChangeLimit(t.Context(), "test", id, c.change)
		e.committed(err)
		if got := e.terms(id); got != c.terms {
			t.Errorf("%s: limit and overage are %s, want %s", name, got, c.terms)
		}
		if got := e.billed(id); got != c.first {
			t.Errorf("%s: %s tokens are billed, want %s", name, got, c.first)
		}
		e.used(id, c.then)
		if got := e.billed(id); got != c.end {
			t.Errorf("%s: %s tokens are billed in the end, want %s", name, got, c.end)
		}
	}
}

// What was given, and used, is not paid for once it is taken back.
func TestResetAfterAGift(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.metered(3000)
	for _, ch := range []customers.LimitChange{{Add: 1_000_000}, {Reset: true}} {
		_, err := e.ChangeLimit(t.Context(), "test", id, ch)
		e.committed(err)
		e.used(id, 1_800_000)
	}
	if got := e.billed(id); got != "0" {
		t.Errorf("%s tokens are billed that were given", got)
	}
	e.used(id, 2_000_000)
	if got := e.billed(id); got != "200000" {
		t.Errorf("%s tokens are billed, want 200000", got)
	}
}

// Requests that are under way when a customer takes its overage back are paid for.
func TestOverageTakenBackWhileUnderWay(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.metered(3000)
	e.used(id, 1_100_000)
	_, err := e.SetOverage(t.Context(), "test", id, 0)
	e.committed(err)
	if got := e.terms(id); got != "1100000 100000" {
		t.Errorf("limit and overage are %s", got)
	}
	e.used(id, 7_000_000) // that were held when the limit was lowered
	if got := e.billed(id); got != "6000000" {
		t.Errorf("%s tokens are billed, want 6000000", got)
	}
}
