package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// However many periods there were, billing reads those that go on.
func TestBillingPlans(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	pg.Query(`INSERT INTO customers (id, name, email, tier) SELECT 'c' || n, 'x', n || '@example.com', 'starter' FROM generate_series(1, 2000) n;
		INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version, settled_tokens, overage_tokens, overage_most)
		SELECT 'c' || n, 'p' || m, '2031-01-01'::timestamptz + m * interval '1 month', '2031-02-01'::timestamptz + m * interval '1 month', 1000, 1, n % 1000, n % 2, n % 2
		FROM generate_series(1, 2000) n, generate_series(1, 24) m;
		INSERT INTO subscriptions (id, customer_id, status, tier, period_start, period_end, read_at)
		SELECT 's' || n, 'c' || n, 'active', 'starter', '2033-01-01', '2033-02-01'::timestamptz + n * interval '1 minute', now() FROM generate_series(1, 2000) n;
		ANALYZE`)
	at := time.Date(2033, 1, 20, 0, 0, 0, 0, time.UTC)
	for name, plan := range store.ExplainBilling(t.Context(), st, at) {
		if !strings.Contains(plan, "Index") || strings.Contains(plan, "Seq Scan on usage_periods") || strings.Contains(plan, "Seq Scan on subscriptions") {
			t.Errorf("%s: the plan is\n%s", name, plan)
		}
	}
	used, err := st.PeriodsUsed(t.Context(), at, 90, false, control.MailNearLimit, 500)
	if err != nil || len(used) != 180 { // 900…989, twice
		t.Errorf("%d periods, %v", len(used), err)
	}
	above, err := st.PeriodsAboveLimit(t.Context(), at, control.QuotaKey{}, 500)
	if err != nil || len(above) != 0 { // 999 are included, and at most as many are used
		t.Errorf("%v, %v", above, err)
	}
	pg.Query("UPDATE usage_periods SET settled_tokens = 1000 WHERE period_id = 'p24' AND customer_id IN ('c1', 'c2', 'c3')")
	if above, err = st.PeriodsAboveLimit(t.Context(), at, control.QuotaKey{}, 1); err != nil || len(above) != 1 || above[0].CustomerID != "c1" {
		t.Errorf("%v, %v", above, err)
	}
	if above, err = st.PeriodsAboveLimit(t.Context(), at, above[0], 10); err != nil || len(above) != 1 || above[0].CustomerID != "c3" {
		t.Errorf("%v, %v", above, err)
	}
	late, err := st.OverdueSubscriptions(t.Context(), time.Date(2033, 2, 1, 0, 3, 0, 0, time.UTC), 10)
	if err != nil || len(late) != 3 || late[0].ID != "s1" {
		t.Errorf("%+v, %v", late, err)
	}
}

// Only who is suspended can be so for a payment.
func TestPaymentHold(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	c, _, _ := addCustomer(t, st)
	hold := func(status control.CustomerStatus) error {
		return st.InTx(t.Context(), func(tx *store.Tx) error {
			if _, err := tx.SetCustomerStatus(t.Context(), c.ID, status, time.Now()); err != nil {
				return err
			}
			return tx.SetPaymentHold(t.Context(), c.ID, true)
		})
	}
	if err := hold(control.CustomerActive); err == nil {
		t.Error("an active customer is held")
	}
	if err := hold(control.CustomerSuspended); err != nil {
		t.Fatal(err)
	}
	err := st.InTx(t.Context(), func(tx *store.Tx) error {
		held, err := tx.PaymentHold(t.Context(), c.ID)
		if !held {
			t.Error("the hold is not there")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = st.InTx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.SetCustomerStatus(t.Context(), c.ID, control.CustomerActive, time.Now())
		return err
	})
	if err == nil {
		t.Error("a customer that is held became active")
	}
}

func TestMovePeriodEnd(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	c, _, p := addCustomer(t, st)
	longer := p.End.AddDate(0, 0, 7)
	err := st.InTx(t.Context(), func(tx *store.Tx) error {
		moved, err := tx.MovePeriodEnd(t.Context(), c.ID, p.ID, longer)
		if err == nil && !moved.End.Equal(longer) {
			t.Errorf("it ends %s", moved.End)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	due, err := st.DueForRenewal(t.Context(), p.End.Add(time.Hour), store.Due{}, 10)
	if err != nil || len(due) != 0 {
		t.Errorf("due %v, %v", due, err)
	}
	err = st.InTx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.MovePeriodEnd(t.Context(), c.ID, p.ID, p.Start)
		return err
	})
	if !errors.Is(err, control.ErrNotFound) {
		t.Errorf("a period without length: %v", err)
	}
}

func TestNoteStripeEventOfAnother(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	e := control.StripeEvent{ID: "evt_1", Type: "x", APIVersion: "1", CreatedAt: time.Now(), Payload: []byte("{}")}
	if _, err := st.InsertStripeEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	list, err := st.ClaimStripeEvents(t.Context(), time.Minute, 1)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if in, err := st.StripeInbox(t.Context()); err != nil || in.Waiting != 1 || in.Failing != 0 {
		t.Errorf("%+v, %v", in, err)
	}
	old := list[0]
	old.Attempts--
	for _, c := range []control.StripeEvent{old, list[0], list[0]} { // somebody else's claim, ours, and again
		if err := st.NoteStripeEvent(t.Context(), c); err != nil {
			t.Error(err)
		}
	}
	if in, err := st.StripeInbox(t.Context()); err != nil || in != (store.StripeQueue{}) {
		t.Errorf("%+v, %v", in, err)
	}
}
