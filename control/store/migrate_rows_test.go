package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A database of the release before the control plane's (migrations 1 to 7), with rows in its
// tables, comes up: sums by day are those of the events, and each row is there as it was.
// Back and up again, what the older release knows is still there.
func TestMigrateWithRowsOfTheOlderVersion(t *testing.T) {
	t.Parallel()
	const older = 7
	st, pg := migrated(t)
	if err := st.EnsurePartitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := st.MigrateDownTo(t.Context(), older); err != nil {
		t.Fatal(err)
	}
	// By hand: the store writes the newest schema only.
	now := time.Now().UTC()
	midnight := now.Truncate(24 * time.Hour)
	pg.Query(`INSERT INTO customers (id, name, email, tier, status) VALUES
		('on', 'Ada', 'Ada@Example.com', 'pro', 'active'), ('off', 'Bob', NULL, 'starter', 'suspended'), ('gone', 'Eve', NULL, 'starter', 'cancelled')`)
	pg.Query(`INSERT INTO boxes (id, customer_id, namespace, state) SELECT 'box-' || id, id, 'customer-box-' || id, 'active' FROM customers`)
	pg.Query(`INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version)
		SELECT id, 'p', now() - interval '3 days', now() + interval '3 days', 1000, 1 FROM customers`)
	pg.Query(`INSERT INTO audit_log (actor, action, customer_id, target) VALUES ('test', 'customer.create', 'on', 'on')`)
	seq := 0
	event := func(customer, model string, at time.Time, settled int) {
		seq++
		pg.Query(fmt.Sprintf(`INSERT INTO usage_events VALUES ('r', %d, '%s', 'p', 'x', 'x', '%s', 'b', 't', 'pro', 'asked', '%s', 'openai', 'x',
			%d, 2, 3, 1, %d, 5, 100, 'upstream', 'ok', 200, 1, 1)`, seq, at.Format(time.RFC3339Nano), customer, model, 10+seq, settled))
	}
	event("on", "a", midnight.Add(-time.Microsecond), 7) // the last of one UTC day
	event("on", "a", midnight, 11)                       // and the first of the next
	event("on", "a", midnight.Add(time.Microsecond), 13)
	event("on", "b", midnight, 17)
	event("off", "a", midnight, 19)
	const (
		kept = `SELECT (SELECT string_agg(concat_ws(' ', id, name, email, tier, status, created_at), ';' ORDER BY id) FROM customers),
			(SELECT string_agg(concat_ws(' ', id, customer_id, state), ';' ORDER BY id) FROM boxes),
			(SELECT string_agg(concat_ws(' ', customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version, settled_tokens), ';' ORDER BY customer_id) FROM usage_periods),
			(SELECT string_agg(concat_ws(' ', seq, customer_id, admitted_at, model_served, prompt_tokens, settled_tokens), ';' ORDER BY seq) FROM usage_events),
			(SELECT string_agg(concat_ws(' ', id, actor, action, customer_id, target), ';' ORDER BY id) FROM audit_log)`
		sums = `SELECT concat_ws(' ', customer_id, day - '%s'::date, model, period_id, requests, prompt_tokens, cached_tokens, completion_tokens,
			reasoning_tokens, settled_tokens, unbilled_tokens) FROM usage_days ORDER BY customer_id, day, model`
	)
	before := pg.Query(kept)
	if strings.Count(before, "|") != 4 || !strings.Contains(before, "Ada@Example.com") {
		t.Fatalf("the rows: %s", before)
	}
	want := "off 0 a p 1 15 2 3 1 19 5\non -1 a p 1 11 2 3 1 7 5\non 0 a p 2 25 4 6 2 24 10\non 0 b p 1 14 2 3 1 17 5"
	for _, way := range []string{"up", "down and up again"} {
		if way != "up" {
			if err := st.MigrateDownTo(t.Context(), older); err != nil {
				t.Fatal(err)
			}
			if got := pg.Query(kept); got != before {
				t.Errorf("down again:\n%s\nwant\n%s", got, before)
			}
		}
		if _, err := st.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := pg.Query(kept); got != before {
			t.Errorf("%s:\n%s\nwant\n%s", way, got, before)
		}
		if got := strings.TrimSpace(pg.Query(fmt.Sprintf(sums, midnight.Format(time.DateOnly)))); got != want {
			t.Errorf("%s: sums by day:\n%s\nwant\n%s", way, got, want)
		}
		days, err := st.UsageByDay(t.Context(), "on", midnight, midnight.AddDate(0, 0, 1))
		if err != nil || len(days) != 2 || days[0].Settled != 24 || days[1].Settled != 17 {
			t.Errorf("%s: usage %+v, %v", way, days, err)
		}
	}

	// Who is waiting for a payment has to stay without service in a release that knows no such
	// state; and what is on hold is suspended there anyway.
	pg.Query(`UPDATE customers SET status = 'pending' WHERE id = 'on'; UPDATE customers SET payment_hold = true WHERE id = 'off'`)
	pg.Query(`UPDATE usage_periods SET overage_tokens = 600, overage_most = 600 WHERE customer_id = 'on'`)
	if err := st.MigrateDownTo(t.Context(), 13); err != nil {
		t.Fatal(err)
	}
	// The older release lets overage be more than the limit, after an operator has lowered it.
	pg.Query(`UPDATE usage_periods SET limit_tokens = 400 WHERE customer_id = 'on'`)
	if _, err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(pg.Query(`SELECT overage_tokens, overage_most FROM usage_periods WHERE customer_id = 'on'`)); got != "400|600" {
		t.Errorf("overage of a lowered limit, and the most it was: %s", got)
	}
	if err := st.MigrateDownTo(t.Context(), older); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(pg.Query(`SELECT string_agg(id || ' ' || status, ', ' ORDER BY id) FROM customers`)); got != "gone cancelled, off suspended, on suspended" {
		t.Errorf("customers of the older release: %s", got)
	}
	if _, err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, err := st.Customer(t.Context(), "on"); err != nil || c.Email != "Ada@Example.com" {
		t.Errorf("%+v, %v", c, err)
	}
}

// A release that knew only states comes up with what they stood for, and goes back to states that
// stand for what is wanted.
func TestMigrateBoxes(t *testing.T) {
	t.Parallel()
	const older = 15
	st, pg := migrated(t)
	if err := st.MigrateDownTo(t.Context(), older); err != nil {
		t.Fatal(err)
	}
	pg.Query(`INSERT INTO customers (id, name, tier) VALUES ('c', 'x', 'pro')`)
	pg.Query(`INSERT INTO boxes (id, customer_id, namespace, state) SELECT s, 'c', s, s
		FROM unnest('{pending,provisioning,active,updating,suspended,unhealthy,destroying,destroyed}'::text[]) s`)
	up := func() {
		t.Helper()
		if _, err := st.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	up()
	const wanted = `SELECT string_agg(id || ' ' || wants || ' ' || generation || ' ' || observed_generation, ', ' ORDER BY id) FROM boxes`
	want := "active run 1 0, destroyed destroy 1 0, destroying destroy 1 0, pending run 1 0, provisioning run 1 0, suspended suspend 1 0, unhealthy run 1 0, updating run 1 0"
	if got := strings.TrimSpace(pg.Query(wanted)); got != want {
		t.Errorf("wanted:\n%s\nwant\n%s", got, want)
	}
	pg.Query(`UPDATE boxes SET wants = 'suspend' WHERE id = 'active'; UPDATE boxes SET wants = 'run' WHERE id = 'suspended'`)
	pg.Query(`UPDATE boxes SET wants = 'destroy' WHERE id = 'pending'; UPDATE boxes SET state = 'failed' WHERE id = 'unhealthy'`)
	pg.Query(`INSERT INTO boxes (id, customer_id, namespace, state, wants, held, size, telegram_token) VALUES
		('failed-gone', 'c', 'f1', 'failed', 'destroy', false, NULL, NULL), ('failed-held', 'c', 'f2', 'failed', 'suspend', true, 'team', 'sealed'),
		('back', 'c', 'f3', 'suspended', 'run', false, NULL, 'sealed')`)
	if err := st.MigrateDownTo(t.Context(), older); err != nil {
		t.Fatal(err)
	}
	want = "active suspended, back provisioning, destroyed destroyed, destroying destroying, failed-gone destroying, failed-held suspended, pending destroying, provisioning provisioning, suspended provisioning, unhealthy unhealthy, updating updating"
	if got := strings.TrimSpace(pg.Query(`SELECT string_agg(id || ' ' || state, ', ' ORDER BY id) FROM boxes`)); got != want {
		t.Errorf("states of the older release:\n%s\nwant\n%s", got, want)
	}
	// And up again, from where the older release goes on.
	pg.Query(`UPDATE boxes SET state = 'active' WHERE id = 'back'`)
	up()
	want = "active suspend 1 0, back run 1 0, destroyed destroy 1 0, destroying destroy 1 0, failed-gone destroy 1 0, failed-held suspend 1 0, " +
		"pending destroy 1 0, provisioning run 1 0, suspended run 1 0, unhealthy run 1 0, updating run 1 0"
	if got := strings.TrimSpace(pg.Query(wanted)); got != want {
		t.Errorf("wanted again:\n%s\nwant\n%s", got, want)
	}
}
