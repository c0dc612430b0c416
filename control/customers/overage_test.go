package customers_test

import (
	"errors"
	"testing"
	"time"

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
	return e.row("SELECT limit_tokens || ' ' || overage_tokens FROM usage_periods WHERE customer_id = '%s' ORDER BY starts_at DESC LIMIT 1", id)
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
		"reset":                             {500_000, customers.LimitChange{Reset: true}, 1_500_000, "11000000 10000000", "0", "500000"},
		"set":                               {500_000, to(2_000_000), 2_000_000, "2000000 1000000", "0", "1000000"},
		"set to nothing":                    {500_000, to(0), 500_000, "0 0", "0", "0"},
		"set to nothing, more is under way": {500_000, to(0), 6_500_000, "0 0", "0", "5500000"},
		"set to nothing, what is included is under way": {500_000, to(0), 1_000_000, "0 0", "0", "0"},
		"take what is included":                         {500_000, customers.LimitChange{Add: -10_500_000}, 1_200_000, "500000 0", "0", "200000"},
		"set below overage":                             {4_000_000, to(2_000_000), 4_000_000, "2000000 1000000", "3000000", "3000000"},
		"add":                                           {500_000, customers.LimitChange{Add: 1_000_000}, 2_500_000, "12000000 10000000", "0", "500000"},
		"take":                                          {500_000, customers.LimitChange{Add: -9_500_000}, 1_500_000, "1500000 500000", "0", "500000"},
		"take all, and more":                            {1_500_000, customers.LimitChange{Add: -90_000_000}, 1_500_000, "0 0", "500000", "500000"},
		"raise what is at most":                         {11_000_000, to(12_000_000), 12_000_000, "12000000 10000000", "9000000", "10000000"},
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

// said has Stripe say, in minute n, what has become of a subscription to Starter, in its first
// month or so many later.
func (e *env) said(id string, status control.SubscriptionStatus, failed, months, n int) {
	e.t.Helper()
	c, err := e.Store.Customer(e.t.Context(), id)
	if err != nil {
		e.t.Fatal(err)
	}
	start := c.CreatedAt.Truncate(time.Second).Add(time.Hour)
	_, err = e.ApplySubscription(e.t.Context(), "test", control.StripeSubscription{
		ID: "sub_" + id, CustomerID: id, Status: status, Tier: "starter", FailedPayments: failed,
		PeriodStart: start.AddDate(0, months, 0), PeriodEnd: start.AddDate(0, months+1, 0),
	}, start.Add(time.Duration(n)*time.Minute), nil)
	e.committed(err)
}

// An operator's stop is the operator's to undo, and ends with the period.
func TestOverageDoesNotUndoAnOperator(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.metered(3000)
	limit := func(ch customers.LimitChange, want string) {
		t.Helper()
		_, err := e.ChangeLimit(t.Context(), "test", id, ch)
		e.committed(err)
		if got := e.terms(id); got != want {
			t.Errorf("limit and overage are %s, want %s", got, want)
		}
	}
	overage := func(cents int64, want string) {
		t.Helper()
		_, err := e.SetOverage(t.Context(), "customer", id, cents)
		e.committed(err)
		if got := e.terms(id); got != want {
			t.Errorf("with a cap of %d limit and overage are %s, want %s", cents, got, want)
		}
	}
	to := func(n int64) customers.LimitChange { return customers.LimitChange{To: &n} }
	limit(to(0), "0 0")
	overage(6000, "0 0")
	overage(0, "0 0")
	overage(3000, "0 0")
	e.said(id, control.SubscriptionActive, 0, 0, 2)
	if got := e.terms(id); got != "0 0" {
		t.Errorf("by an event limit and overage are %s", got)
	}
	limit(to(2_000_000), "2000000 0") // of which one million is a gift
	overage(6000, "2000000 0")
	limit(customers.LimitChange{Reset: true}, "21000000 20000000")
	limit(to(3_000_000), "3000000 2000000")
	overage(9000, "3000000 2000000")
	overage(300, "2000000 1000000") // less is the customer's to say
	overage(3000, "3000000 2000000")
	limit(customers.LimitChange{Add: 500_000}, "3500000 2000000")
	overage(6000, "3500000 2000000")
	e.said(id, control.SubscriptionActive, 0, 1, 3)
	if got := e.terms(id); got != "21000000 20000000" {
		t.Errorf("in the next period limit and overage are %s", got)
	}
}

// A larger tier is paid for, and so its tokens come also where an operator has lowered the limit.
func TestUpgradeOfALoweredLimit(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id, nothing := e.metered(3000), int64(0)
	_, err := e.ChangeLimit(t.Context(), "test", id, customers.LimitChange{To: &nothing})
	e.committed(err)
	e.committed(apply(e, id, control.SubscriptionActive, "pro", 2))
	const state = "SELECT (limit_tokens BETWEEN 3900000 AND 4000000) || ' ' || overage_tokens || ' ' || (included_tokens - limit_tokens) FROM usage_periods WHERE customer_id = '%s'"
	if got := e.row(state, id); got != "true 0 1000000" {
		t.Errorf("after an upgrade: %s", got)
	}
	// To take the stop back gives what was paid for: Starter's tokens and a part of Pro's.
	_, err = e.ChangeLimit(t.Context(), "test", id, customers.LimitChange{Reset: true})
	e.committed(err)
	if got := e.row("SELECT limit_tokens - overage_tokens - included_tokens FROM usage_periods WHERE customer_id = '%s'", id); got != "0" {
		t.Errorf("reset gives %s tokens more than were paid for", got)
	}
}

// Nothing is sold on top while something is owed, and all of the cap holds again once that is paid.
func TestNoOverageWhileOwing(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id := e.metered(3000)
	want := func(when, terms string) {
		t.Helper()
		if got := e.terms(id); got != terms {
			t.Errorf("%s limit and overage are %s, want %s", when, got, terms)
		}
	}
	refused := func(when string) {
		t.Helper()
		if _, err := e.SetOverage(t.Context(), "customer", id, 6000); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%s the cap is raised: %v", when, err)
		}
	}
	want("paid,", "11000000 10000000")
	e.used(id, 3_000_000)
	e.said(id, control.SubscriptionPastDue, 1, 0, 2)
	want("past due,", "3000000 2000000") // what was used of it already
	refused("past due,")
	_, err := e.SetOverage(t.Context(), "customer", id, 1500)
	e.committed(err)
	want("past due, and with a lower cap,", "3000000 2000000")
	e.said(id, control.SubscriptionActive, 2, 0, 3)
	want("with an older invoice open,", "3000000 2000000")
	refused("with an older invoice open,")
	_, err = e.ChangeLimit(t.Context(), "test", id, customers.LimitChange{Reset: true})
	e.committed(err)
	want("reset by an operator,", "1000000 0")
	e.said(id, control.SubscriptionActive, 0, 0, 4)
	want("paid again,", "6000000 5000000")
	if got := e.billed(id); got != "2000000" {
		t.Errorf("%s tokens are billed, want 2000000", got)
	}
	e.said(id, control.SubscriptionPastDue, 1, 1, 5)
	want("a renewal that is not paid:", "1000000 0")
	e.said(id, control.SubscriptionActive, 0, 1, 6)
	want("a renewal that is paid after all:", "6000000 5000000")
}
