package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

func stripeSubscription(customer, id string, now time.Time) control.StripeSubscription {
	return control.StripeSubscription{
		ID: id, CustomerID: customer, Status: control.SubscriptionActive, Tier: "starter",
		PeriodStart: now, PeriodEnd: now.AddDate(0, 1, 0),
	}
}

func put(t *testing.T, st *store.Store, v control.StripeSubscription, readAt time.Time) (before, after control.Subscription, err error) {
	t.Helper()
	err = st.InTx(t.Context(), func(tx *store.Tx) (err error) {
		before, after, err = tx.PutSubscription(t.Context(), "stripe", v, readAt)
		return err
	})
	return before, after, err
}

// Whatever the order in which answers are written, the newest one stays.
func TestPutSubscriptionInAnyOrder(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	now := time.Now().UTC().Truncate(time.Second)
	for round := range 20 {
		c, _, _ := addCustomer(t, st)
		v := stripeSubscription(c.ID, fmt.Sprintf("sub_%d", round), now)
		var states []control.StripeSubscription
		for _, status := range []control.SubscriptionStatus{"incomplete", "active", "past_due", "active", "canceled"} {
			v.Status, v.FailedPayments = status, len(states)
			states = append(states, v)
		}
		if round%2 == 0 {
			states = states[:3] // it has not ended, so that only the time of each answer decides
		}
		order := rand.Perm(len(states))
		for _, i := range append(order, order...) {
			if _, _, err := put(t, st, states[i], now.Add(time.Duration(i)*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		_, got, err := put(t, st, states[0], now)
		if last := states[len(states)-1]; err != nil || got.StripeSubscription != last {
			t.Fatalf("order %v: %+v, %v, want %+v", order, got.StripeSubscription, err, last)
		}
		// What has ended does not come back, whenever Stripe is said to have said it.
		if round%2 == 0 {
			continue
		}
		if _, got, err := put(t, st, states[1], now.Add(time.Hour)); err != nil || got.Status != control.SubscriptionCanceled {
			t.Fatalf("it came back: %+v, %v", got, err)
		}
	}
}

func TestOneLiveSubscription(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	now := time.Now().UTC().Truncate(time.Second)
	a, boxA, _ := addCustomer(t, st)
	b, boxB, _ := addCustomer(t, st)
	first := stripeSubscription(a.ID, "sub_1", now)
	if before, after, err := put(t, st, first, now); err != nil || before.ID != "" || after.StripeSubscription != first {
		t.Fatalf("%+v, %+v, %v", before, after, err)
	}
	second := stripeSubscription(a.ID, "sub_2", now)
	if _, _, err := put(t, st, second, now); !errors.Is(err, control.ErrExists) {
		t.Errorf("a second live one: %v", err)
	}
	second.Status = control.SubscriptionIncomplete
	if _, _, err := put(t, st, second, now); err != nil {
		t.Errorf("one that waits for its payment: %v", err)
	}
	stolen := first
	stolen.CustomerID = b.ID
	if _, _, err := put(t, st, stolen, now.Add(1e9)); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("another customer's: %v", err)
	}
	link := func(box, customer, subscription string) error {
		return st.InTx(t.Context(), func(tx *store.Tx) error { return tx.LinkBox(t.Context(), "x", box, customer, subscription) })
	}
	if err := link(boxA.ID, a.ID, "sub_1"); err != nil {
		t.Error(err)
	}
	for _, err := range []error{link(boxB.ID, b.ID, "sub_1"), link(boxB.ID, a.ID, "sub_1"), link(boxA.ID, a.ID, "sub_2")} {
		if !errors.Is(err, control.ErrNotFound) {
			t.Errorf("a box that it does not pay for: %v", err)
		}
	}
	if err := st.InTx(t.Context(), func(tx *store.Tx) error {
		boxes, err := tx.BoxesOf(t.Context(), "sub_1")
		if len(boxes) != 1 || boxes[0].ID != boxA.ID {
			t.Errorf("boxes %+v", boxes)
		}
		live, err2 := tx.LiveSubscription(t.Context(), a.ID)
		if live.ID != "sub_1" {
			t.Errorf("live one %+v", live)
		}
		return errors.Join(err, err2)
	}); err != nil {
		t.Error(err)
	}
}

func TestPendingTierAndOverage(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx, now := t.Context(), time.Now().UTC().Truncate(time.Second)
	c, _, p := addCustomer(t, st)
	v := stripeSubscription(c.ID, "sub_1", now)
	v.Tier = "pro"
	_, sub, err := put(t, st, v, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.InTx(ctx, func(tx *store.Tx) (err error) {
		if _, err := tx.SetPendingTier(ctx, "x", sub, "pro", now); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("pending tier that it has: %v", err)
		}
		if sub, err = tx.SetPendingTier(ctx, "x", sub, "starter", v.PeriodEnd); err != nil {
			return err
		}
		sub, err = tx.SetOverage(ctx, "x", sub, 500)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if sub.PendingTier != "starter" || !sub.PendingFrom.Equal(v.PeriodEnd) || sub.OverageCapCents != 500 {
		t.Fatalf("%+v", sub)
	}
	// A new answer about something else keeps what only we know; the tier itself ends it.
	v.CancelAtPeriodEnd = true
	if _, got, err := put(t, st, v, now.Add(1e9)); err != nil || got.PendingTier != "starter" || got.OverageCapCents != 500 {
		t.Errorf("%+v, %v", got, err)
	}
	v.Tier = "starter"
	if _, got, err := put(t, st, v, now.Add(2e9)); err != nil || got.PendingTier != "" || !got.PendingFrom.IsZero() || got.OverageCapCents != 500 {
		t.Errorf("%+v, %v", got, err)
	}

	report := func(id string, upTo int64) (m control.MeterReport, err error) {
		err = st.InTx(ctx, func(tx *store.Tx) (err error) {
			m, err = tx.AddMeterReport(ctx, id, sub, p.ID, upTo, 300)
			return err
		})
		return m, err
	}
	if m, err := report("m1", 100); err != nil || m.From != 0 || m.To != 100 {
		t.Fatalf("%+v, %v", m, err)
	}
	for _, upTo := range []int64{100, 50} {
		if _, err := report("m2", upTo); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("reported twice: %v", err)
		}
	}
	if m, err := report("m2", 130); err != nil || m.From != 100 || m.To != 130 {
		t.Fatalf("%+v, %v", m, err)
	}
	list, err := st.ClaimMeterReports(ctx, time.Minute, 10)
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	if list, err := st.ClaimMeterReports(ctx, time.Minute, 10); err != nil || len(list) != 0 {
		t.Errorf("in hand twice: %+v, %v", list, err)
	}
	if err := errors.Join(st.MeterReported(ctx, "m1"), st.MeterReportFailed(ctx, "m2", "no", 0)); err != nil {
		t.Fatal(err)
	}
	if list, err := st.ClaimMeterReports(ctx, time.Minute, 10); err != nil || len(list) != 1 || list[0].ID != "m2" || list[0].Attempts != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestStripeInbox(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx := t.Context()
	payload := `{"id":"evt_1", "text":"\u0000"}` // which jsonb refuses
	e := control.StripeEvent{ID: "evt_1", Type: "invoice.paid", APIVersion: "2023-10-16", CreatedAt: time.Now(), Payload: json.RawMessage(payload)}
	for n := range 2 {
		if fresh, err := st.InsertStripeEvent(ctx, e); err != nil || fresh != (n == 0) {
			t.Fatalf("time %d: %v, %v", n, fresh, err)
		}
	}
	claim := func(lease time.Duration) []control.StripeEvent {
		t.Helper()
		list, err := st.ClaimStripeEvents(ctx, lease, 10)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	finish := func(e control.StripeEvent) error {
		return st.InTx(ctx, func(tx *store.Tx) error { return tx.FinishStripeEvent(ctx, e) })
	}
	first := claim(0) // whose lease ends at once
	if len(first) != 1 || string(first[0].Payload) != payload || first[0].Attempts != 1 {
		t.Fatalf("%+v", first)
	}
	second := claim(time.Minute)
	if len(second) != 1 || len(claim(time.Minute)) != 0 {
		t.Fatalf("%+v", second)
	}
	if err := finish(first[0]); !errors.Is(err, control.ErrConflict) {
		t.Errorf("one whose lease ended finishes: %v", err)
	}
	if err := errors.Join(st.FailStripeEvent(ctx, first[0], "stale", time.Hour), st.FailStripeEvent(ctx, second[0], "not now\x00", 0)); err != nil {
		t.Fatal(err)
	}
	third := claim(time.Minute)
	if len(third) != 1 || !strings.HasPrefix(third[0].Error, "not now") || third[0].Attempts != 3 {
		t.Fatalf("%+v", third)
	}
	if err := finish(third[0]); err != nil {
		t.Fatal(err)
	}
	retry := func(again bool) error {
		return st.InTx(ctx, func(tx *store.Tx) error { return tx.RetryStripeEvent(ctx, "x", "evt_1", again) })
	}
	if err := retry(false); !errors.Is(err, control.ErrNotFound) || len(claim(time.Minute)) != 0 {
		t.Errorf("a processed one: %v", err)
	}
	if err := retry(true); err != nil || len(claim(time.Minute)) != 1 {
		t.Errorf("a processed one again: %v", err)
	}
}

func TestMails(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx := t.Context()
	c := signUp(t, st, "ada@example.com")
	add := func(customer, cause string) (fresh bool) {
		t.Helper()
		if err := st.InTx(ctx, func(tx *store.Tx) (err error) {
			fresh, err = tx.AddMail(ctx, control.Mail{CustomerID: customer, Kind: "limit_reached", Cause: cause, Params: map[string]any{"limit": 5}})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return fresh
	}
	if !add(c.ID, "p1") || add(c.ID, "p1") || !add(c.ID, "p2") || !add(signUp(t, st, "b@example.com").ID, "p1") {
		t.Error("not once per customer, kind and cause")
	}
	nobody, _, _ := addCustomer(t, st)
	if add(nobody.ID, "p1") {
		t.Error("a mail to nobody")
	}
	claim := func() []control.Mail {
		t.Helper()
		list, err := st.ClaimMails(ctx, 10)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	list := claim()
	if len(list) != 3 || len(claim()) != 0 {
		t.Fatalf("%+v", list)
	}
	byCause := make(map[string]control.Mail)
	for _, m := range list {
		if m.CustomerID == c.ID {
			byCause[m.Cause] = m
		}
	}
	m := byCause["p1"]
	if m.To != "ada@example.com" || m.Language != control.Portuguese || m.Params["limit"] != 5.0 {
		t.Errorf("%+v", m)
	}
	if err := errors.Join(st.MailSent(ctx, m.ID), st.MailFailed(ctx, m.ID, "late", true, 0), st.MailFailed(ctx, byCause["p2"].ID, "busy", true, 0)); err != nil {
		t.Fatal(err)
	}
	again := claim()
	if len(again) != 1 || again[0].Cause != "p2" || again[0].Error != "busy" || again[0].Attempts != 2 {
		t.Fatalf("%+v", again)
	}
	if err := st.MailFailed(ctx, again[0].ID, "no such address", false, 0); err != nil || len(claim()) != 0 {
		t.Errorf("given up, and claimed again: %v", err)
	}
	// The third one's sender said nothing more: it is not sent again, but shown.
	if list, err := st.UncertainMails(ctx, 0, 10); err != nil || len(list) != 1 || list[0].CustomerID == c.ID {
		t.Errorf("%+v, %v", list, err)
	}
}
