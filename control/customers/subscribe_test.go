package customers_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// signUp makes a customer that has not paid.
func (e *env) signUp() string {
	e.t.Helper()
	id, now := control.NewID(control.CustomerID), time.Now().UTC().Truncate(time.Microsecond)
	email := id + "@example.com"
	if err := e.Store.SignUp(e.t.Context(), control.Account{
		Customer: control.Customer{ID: id, Name: "Ada", Email: email, Tier: "team", Status: control.CustomerPending, CreatedAt: now.Add(-2 * time.Hour)},
		Language: control.English,
	}, control.Identity{
		ID: control.NewID(control.IdentityID), CustomerID: id, Provider: control.ProviderPassword, Subject: email, SecretHash: "hash", CreatedAt: now,
	}); err != nil {
		e.t.Fatal(err)
	}
	return id
}

func (e *env) row(query string, args ...any) string {
	e.t.Helper()
	return strings.TrimSpace(e.pg.Query(fmt.Sprintf(query, args...)))
}

// A customer gets a tier, tokens to use, a box and tokens to use them with by a subscription
// that is paid, or may still be, and by nothing else; and all of it once.
func TestOnlyPaymentEntitles(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	const state = `SELECT concat_ws(' ', c.status, c.tier, (SELECT string_agg(limit_tokens || '/' || limit_version, ',') FROM usage_periods p WHERE p.customer_id = c.id),
		(SELECT string_agg(state || '/' || coalesce(subscription_id, '-'), ',') FROM boxes b WHERE b.customer_id = c.id)) FROM customers c WHERE id = '%s'`
	for _, tc := range []struct {
		status   control.SubscriptionStatus
		failed   int
		entitled bool
	}{
		{control.SubscriptionIncomplete, 0, false}, {control.SubscriptionIncompleteExpired, 0, false}, {control.SubscriptionCanceled, 0, false},
		{control.SubscriptionUnpaid, 0, false}, {control.SubscriptionPaused, 0, false}, {control.SubscriptionPastDue, 3, false},
		{control.SubscriptionActive, 0, true}, {control.SubscriptionTrialing, 0, true}, {control.SubscriptionPastDue, 2, true},
	} {
		id := e.signUp()
		c, err := e.Store.Customer(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		start := c.CreatedAt.Truncate(time.Second).Add(time.Hour)
		want := "pending team"
		if tc.entitled {
			want = "active pro 5000000/1 pending/sub_" + id
		}
		for n := range 3 { // as often as it is said
			if _, err := e.ApplySubscription(t.Context(), "test", control.StripeSubscription{
				ID: "sub_" + id, CustomerID: id, Status: tc.status, Tier: "pro", PeriodStart: start, PeriodEnd: start.AddDate(0, 1, 0), FailedPayments: tc.failed,
			}, start.Add(time.Duration(n)*time.Minute), nil); err != nil {
				t.Fatalf("%s: %v", tc.status, err)
			}
			if got := e.row(state, id); got != want {
				t.Errorf("%s, said %d times: %s, want %s", tc.status, n+1, got, want)
			}
		}
		_, _, err = e.CreateToken(t.Context(), "test", id, "")
		if tc.entitled != (err == nil) || err != nil && !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%s: a token: %v", tc.status, err)
		}
	}
}

// What is wanted of boxes goes by the subscription of their customer, whatever state they are in,
// which nobody but the operator of the boxes changes, and whatever subscription paid for them; one
// that an operator suspended or that is to be destroyed stays so.
func TestBoxesFollowTheirSubscription(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	id, other := e.signUp(), e.signUp()
	for _, c := range []string{id, other} {
		if err := apply(e, c, control.SubscriptionActive, "pro", 1); err != nil {
			t.Fatal(err)
		}
	}
	e.pg.Query(`INSERT INTO subscriptions (id, customer_id, status, tier, period_start, period_end, read_at)
		VALUES ('sub_former', '` + id + `', 'canceled', 'pro', now(), now() + interval '1 month', now())`)
	e.pg.Query(`INSERT INTO boxes (id, customer_id, namespace, subscription_id) VALUES ('former', '` + id + `', 'former', 'sub_former')`)
	kinds := strings.Fields("pending provisioning active updating suspended unhealthy failed held destroying destroyed")
	for _, s := range kinds {
		e.pg.Query(fmt.Sprintf(`INSERT INTO boxes (id, customer_id, namespace, subscription_id) VALUES ('%[1]s', '%[2]s', '%[1]s', 'sub_%[2]s')`, s, id))
	}
	reset := func() {
		e.pg.Query(`UPDATE boxes SET generation = 1, held = id = 'held', state = CASE id WHEN 'held' THEN 'suspended' ELSE id END,
			wants = CASE WHEN id LIKE 'destroy%' THEN 'destroy' WHEN id IN ('suspended', 'held') THEN 'suspend' ELSE 'run' END
			WHERE id IN ('` + strings.Join(kinds, "', '") + `')`)
	}
	boxes := func() string {
		return e.row(`SELECT string_agg(wants || generation, ' ' ORDER BY array_position('{%s}', id)) FROM boxes WHERE subscription_id = 'sub_%s' AND namespace NOT LIKE 'customer-%%'`,
			strings.Join(kinds, ","), id)
	}
	const run, suspend, destroy = "run1 run1 run1 run1 ", "suspend2 suspend2 suspend2 suspend2 ", "destroy2 destroy2 destroy2 destroy2 "
	for n, tc := range []struct {
		status control.SubscriptionStatus
		reset  bool
		want   string
	}{
		{control.SubscriptionActive, true, run + "run2 run1 run1 suspend1 destroy1 destroy1"}, // who pays has none that is suspended
		{control.SubscriptionUnpaid, true, suspend + "suspend1 suspend2 suspend2 suspend1 destroy1 destroy1"},
		{control.SubscriptionActive, false, "run3 run3 run3 run3 run2 run3 run3 suspend1 destroy1 destroy1"},
		{control.SubscriptionCanceled, true, destroy + "destroy2 destroy2 destroy2 destroy2 destroy1 destroy1"},
	} {
		if tc.reset {
			reset()
		}
		if err := apply(e, id, tc.status, "pro", 2+n); err != nil {
			t.Fatal(err)
		}
		if got := boxes(); got != tc.want {
			t.Errorf("%s:\n%s\nwant\n%s", tc.status, got, tc.want)
		}
		if got := e.row(`SELECT string_agg(state, ' ' ORDER BY array_position('{%s}', id)) FROM boxes WHERE id = ANY('{%[1]s}')`, strings.Join(kinds, ",")); got != strings.Replace(strings.Join(kinds, " "), "held", "suspended", 1) {
			t.Errorf("%s: the states became %s", tc.status, got)
		}
	}
	if got := e.row(`SELECT string_agg(wants || generation, ' ') FROM boxes WHERE customer_id = '%s'`, other); got != "run1" {
		t.Errorf("another's box: %s", got)
	}
	if got := e.row(`SELECT wants || generation FROM boxes WHERE id = 'former'`); got != "destroy4" {
		t.Errorf("a box of a former subscription: %s", got)
	}
}

// Who owes gets no more boxes, and who was suspended by an operator before it had one gets one that waits.
func TestBoxesOfWhoIsNotServed(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	id := c.Customer.ID
	e.committed(apply(e, id, control.SubscriptionUnpaid, "pro", 1))
	if _, err := e.ResumeCustomer(t.Context(), "test", id, ""); err != nil {
		t.Fatal(err)
	}
	if d, err := e.AddBox(t.Context(), "test", id, "x"); !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "has not paid") {
		t.Errorf("a box for who owes: %+v, %v", d, err)
	}
	e.pg.Query("DELETE FROM boxes")
	_, err := e.SuspendCustomer(t.Context(), "test", id, "")
	e.committed(err)
	e.committed(apply(e, id, control.SubscriptionActive, "pro", 2))
	if got := e.row(`SELECT wants FROM boxes`); got != "suspend" {
		t.Errorf("the first box of who is suspended shall %s", got)
	}
	_, err = e.ResumeCustomer(t.Context(), "test", id, "")
	e.committed(err)
	if got := e.row(`SELECT wants FROM boxes`); got != "run" {
		t.Errorf("resumed, it shall %s", got)
	}
}

// A box that no subscription pays for does not outlive the service of its customer, and stops with
// it; whoever suspended the customer without a word about its boxes has them stopped by the next
// reading.
func TestBoxesEndWithTheirCustomer(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	want := func(what, is string) {
		t.Helper()
		if got := e.row(`SELECT c.status || ' ' || b.wants FROM customers c JOIN boxes b ON b.customer_id = c.id WHERE c.id = '%s'`, c.Customer.ID); got != is {
			t.Errorf("%s: %s, want %s", what, got, is)
		}
	}
	e.committed(apply(e, c.Customer.ID, control.SubscriptionUnpaid, "pro", 1))
	want("never paid", "suspended suspend")
	e.pg.Query(`UPDATE boxes SET wants = 'run', generation = generation + 1`)
	e.committed(apply(e, c.Customer.ID, control.SubscriptionUnpaid, "pro", 2))
	want("still unpaid", "suspended suspend")
	e.pg.Query(`UPDATE boxes SET wants = 'run', generation = generation + 1`)
	e.committed(apply(e, c.Customer.ID, control.SubscriptionCanceled, "pro", 3))
	want("ended", "cancelled destroy")
}
