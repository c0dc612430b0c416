package store_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// populate makes 5,000 customers with all that belongs to them, 20 periods each, and
// 130,000 events in 13 months, so that Postgres means what it plans.
func populate(t *testing.T, st *store.Store, pg *testenv.PostgresServer) {
	t.Helper()
	c, _, p := addCustomer(t, st)
	record(t, st, delivery(c.ID, p.ID, "r1", 1))
	pg.Query(`SELECT usage_events_ensure_month(now() - n * interval '1 month') FROM generate_series(0, 12) n`)
	for _, statement := range []string{
		`INSERT INTO customers (id, name, tier, status, created_at, email, renews_at)
			SELECT 'x' || n, 'x', 'pro', CASE WHEN n % 50 = 0 THEN 'suspended' ELSE 'active' END, now() - n * interval '1 minute',
				n || '@example.com', now() + n * interval '1 minute' FROM generate_series(1, 5000) n`,
		`INSERT INTO identities (id, customer_id, provider, subject) SELECT 'i' || n, 'x' || n, 'google', n FROM generate_series(1, 5000) n`,
		`INSERT INTO subscriptions (id, customer_id, status, tier, period_start, period_end, read_at)
			SELECT 's' || n, 'x' || n, 'active', 'pro', now(), now() + n * interval '1 minute', now() FROM generate_series(1, 5000) n`,
		`INSERT INTO boxes (id, customer_id, namespace, created_at, subscription_id)
			SELECT 'b' || n, 'x' || n, 'n' || n, now() - n * interval '1 minute', 's' || n FROM generate_series(1, 5000) n`,
		`UPDATE boxes SET state = 'active' WHERE length(id) < 5`,
		`UPDATE boxes SET telegram_token = 'sealed' WHERE length(id) = 5`,
		`INSERT INTO box_steps SELECT id, customer_id, 1, 's' || n, now() FROM boxes, generate_series(1, 4) n`,
		`INSERT INTO proxy_tokens (id, customer_id, box_id, digest, hint, created_at)
			SELECT 't' || n, 'x' || n, 'b' || n, sha256(('t' || n)::bytea), 'abcd', now() - n * interval '1 minute' FROM generate_series(1, 5000) n`,
		`INSERT INTO api_keys (id, customer_id, digest, hint, name, last_used_at)
			SELECT 'k' || n, 'x' || n, sha256(n::text::bytea), 'abcd', 'x', now() FROM generate_series(1, 5000) n`,
		`INSERT INTO sessions (id, customer_id, expires_at) SELECT 'o' || n, 'x' || n, now() + '1 day' FROM generate_series(1, 5000) n`,
		`INSERT INTO onboarding_sessions (id, key_digest, telegram_user, customer_id, state, expires_at)
			SELECT 'n' || n, sha256(n::text::bytea), n, 'x' || n, CASE WHEN n % 100 = 0 THEN 'provisioning' WHEN n % 100 = 1 THEN 'abandoned' WHEN n % 10 = 0 THEN 'awaiting_payment' ELSE 'complete' END, now() + '1 day' FROM generate_series(1, 5000) n`,
		`INSERT INTO refresh_tokens (digest, session_id, expires_at) SELECT sha256(('r' || n)::bytea), 'o' || n, now() + '1 day' FROM generate_series(1, 5000) n`,
		`INSERT INTO mails (customer_id, kind, cause, language, claimed_at, sent_at)
			SELECT 'x' || n, 'welcome', 'x', 'en', now(), now() FROM generate_series(1, 5000) n`,
		`INSERT INTO audit_log (actor, action, customer_id, target) SELECT 'x', 'x', 'x' || n, 'x' FROM generate_series(1, 5000) n, generate_series(1, 4)`,
		`INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version)
			SELECT 'x' || n, 'p' || m, now() - m * interval '1 month', now() - (m - 1) * interval '1 month', 1, 1 FROM generate_series(1, 5000) n, generate_series(0, 19) m`,
		`INSERT INTO usage_events SELECT 'r', n, now() - n % 13 * interval '1 month', 'p' || n % 13, request_id, upstream_request_id, 'x' || n / 26 + 1,
			box_id, token_id, tier, model_asked, model_served, face, upstream, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
			settled_tokens, unbilled_tokens, reserved_tokens, basis, outcome, status, ttfb_us, duration_us, recorded_at
			FROM usage_events e, generate_series(1, 129974) n`,
		`INSERT INTO usage_days SELECT customer_id, (admitted_at AT TIME ZONE 'UTC')::date, model_served, period_id, count(*), 1, 1, 1, 1, 1, 1
			FROM usage_events WHERE replica = 'r' GROUP BY 1, 2, 3, 4`,
		`VACUUM ANALYZE`,
	} {
		pg.Query(statement)
	}
}

// wide finds what reads all of a table, and by name, which one.
var wide = regexp.MustCompile(`Seq Scan on (\w+)`)

// Whatever the pages of customers and operators ask is answered by an index: with
// arguments that are known, with any, and under the policies of a customer.
func TestPlansOfPages(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	populate(t, st, pg)
	ctx, now := t.Context(), time.Now().UTC()
	const id = "x7"
	middle := control.PageKey{At: now.Add(-40 * time.Hour), ID: "x2400"}
	own := func(do func(*store.Tx) error) func(*store.Store, *store.Tx) error {
		return func(_ *store.Store, tx *store.Tx) error { return do(tx) }
	}
	all := func(do func(*store.Store) error) func(*store.Store, *store.Tx) error {
		return func(st *store.Store, _ *store.Tx) error { return do(st) }
	}
	usage := func(from, to time.Time) func(*store.Store, *store.Tx) error {
		return own(func(tx *store.Tx) error { _, err := tx.UsageByDay(ctx, id, from, to); return err })
	}
	customersOf := func(of control.CustomersFilter, after control.PageKey) func(*store.Store, *store.Tx) error {
		return all(func(st *store.Store) error { _, err := st.CustomersPage(ctx, of, now, after, 51); return err })
	}
	customers := func(status control.CustomerStatus, after control.PageKey) func(*store.Store, *store.Tx) error {
		return customersOf(control.CustomersFilter{Status: status}, after)
	}
	nearLimit := 90
	for _, page := range []struct {
		name, customer string
		ask            func(*store.Store, *store.Tx) error
	}{
		{"usage of a month", id, usage(now.AddDate(0, -1, 0), now)},
		{"usage of a year", id, usage(now.AddDate(-1, 0, 0), now)},
		{"usage of an hour", id, usage(now.Add(-time.Minute), now)},
		{"the present period", id, own(func(tx *store.Tx) error { _, err := tx.PeriodAt(ctx, id, now); return err })},
		{"export", id, own(func(tx *store.Tx) error { _, err := tx.Export(ctx, id); return err })},
		{"exported events", id, own(func(tx *store.Tx) error { return tx.EachEvent(ctx, id, func(contract.Event) error { return nil }) })},
		{"an API key", "", all(func(st *store.Store) error {
			_, err := st.UseAPIKey(ctx, contract.Digest([]byte("\x60\x30\x3a\xe2\x2b\x99\x88\x61\xbc\xe3\xb2\x8f\x33\xee\xc1\xbe\x75\x8a\x21\x3c\x86\xc9\x3c\x07\x6d\xbe\x9f\x55\x8c\x11\xc7\x52")), now)
			return ignoreMissing(err)
		})},
		{"a session", "", all(func(st *store.Store) error { _, err := st.SessionLive(ctx, "o7", now); return err })},
		{"a conversation in a browser", "", all(func(st *store.Store) error {
			_, err := st.OnboardingByKey(ctx, [32]byte{1}, now)
			return ignoreMissing(err)
		})},
		{"a conversation on Telegram", "", all(func(st *store.Store) error { _, err := st.OnboardingOfTelegram(ctx, 7, now); return ignoreMissing(err) })},
		{"conversations that wait", "", all(func(st *store.Store) error { _, err := st.WaitingOnboardings(ctx, "n4", now, 51); return err })},
		{"all customers", "", customers("", control.PageKey{})},
		{"all customers, later", "", customers("", middle)},
		{"suspended ones", "", customers(control.CustomerSuspended, control.PageKey{})},
		{"suspended ones, later", "", customers(control.CustomerSuspended, middle)},
		{"active ones, later", "", customers(control.CustomerActive, middle)},
		{"cancelled ones, of which there are none", "", customers(control.CustomerCancelled, control.PageKey{})},
		{"customers by the beginning of a name or address", "", customersOf(control.CustomersFilter{Prefix: "ada", Status: control.CustomerActive}, middle)},
		{"customers near their limit, of whom there are none", "", customersOf(control.CustomersFilter{UsedFrom: &nearLimit}, control.PageKey{})},
		{"customers near their limit, later", "", customersOf(control.CustomersFilter{UsedFrom: &nearLimit}, middle)},
		{"active customers near their limit, later", "", customersOf(control.CustomersFilter{Status: control.CustomerActive, UsedFrom: &nearLimit}, middle)},
		{"customers near their limit by the beginning of a name", "", customersOf(control.CustomersFilter{Prefix: "ada", UsedFrom: &nearLimit}, middle)},
		{"boxes", "", all(func(st *store.Store) error { _, err := st.BoxesPage(ctx, "", "", middle, 51); return err })},
		{"active boxes", "", all(func(st *store.Store) error {
			_, err := st.BoxesPage(ctx, "", control.BoxActive, middle, 51)
			return err
		})},
		{"failed boxes, of which there are none", "", all(func(st *store.Store) error {
			_, err := st.BoxesPage(ctx, "", control.BoxFailed, control.PageKey{}, 51)
			return err
		})},
		{"boxes of one with their steps", id, own(func(tx *store.Tx) error { _, err := tx.BoxDetails(ctx, id); return err })},
		{"boxes that have secrets", "", all(func(st *store.Store) error { _, err := st.BoxesWithSecrets(ctx, "b2", 100); return err })},
		{"boxes that a subscription pays for", id, own(func(tx *store.Tx) error { _, err := tx.BoxesOf(ctx, "s7"); return err })},
		{"boxes that none pays for", id, own(func(tx *store.Tx) error { _, err := tx.UnpaidBoxes(ctx, id); return err })},
		{"tokens of a box", id, own(func(tx *store.Tx) error { _, err := tx.TokensOfBox(ctx, id, "b7"); return err })},
		{"boxes of one", "", all(func(st *store.Store) error { _, err := st.BoxesPage(ctx, id, "", control.PageKey{}, 51); return err })},
		{"tokens", "", all(func(st *store.Store) error { _, err := st.TokensPage(ctx, "", middle, 51); return err })},
		{"tokens of one", "", all(func(st *store.Store) error { _, err := st.TokensPage(ctx, id, control.PageKey{}, 51); return err })},
		{"audit log", "", all(func(st *store.Store) error { _, err := st.AuditPage(ctx, "", 10_000, 51); return err })},
		{"audit log of one", "", all(func(st *store.Store) error { _, err := st.AuditPage(ctx, id, 0, 51); return err })},
		{"periods of one", "", all(func(st *store.Store) error { _, err := st.Periods(ctx, id, 12); return err })},
		{"events of one", "", all(func(st *store.Store) error { _, err := st.Events(ctx, id, 50); return err })},
		{"the ledger of one", "", all(func(st *store.Store) error { _, err := st.CheckPeriods(ctx, []string{id}, ""); return err })},
	} {
		asked, err := store.Plans(ctx, st, page.customer, page.ask)
		if err != nil || len(asked) == 0 {
			t.Fatalf("%s: %d queries, %v", page.name, len(asked), err)
		}
		for _, a := range asked {
			for _, plan := range []string{a.Custom, a.Generic} {
				if wide.MatchString(plan) {
					t.Errorf("%s: %s\n%s", page.name, a.SQL, plan)
				}
			}
		}
	}
	// Of the conversations, nearly all of which were ended otherwise, only those are read that were paid for late.
	asked, err := store.Plans(ctx, st, "", all(func(st *store.Store) error { _, err := st.PaidLateOnboardings(ctx, "", now, 200); return err }))
	if err != nil || len(asked) != 1 {
		t.Fatal(len(asked), err)
	}
	for _, plan := range []string{asked[0].Custom, asked[0].Generic} {
		if wide.MatchString(plan) || !strings.Contains(plan, "onboarding_sessions_late") {
			t.Errorf("%s\n%s", asked[0].SQL, plan)
		}
	}
	// Without their indexes the same look finds what is read as a whole.
	pg.Query(`DROP INDEX customers_age; DROP INDEX customers_status_age; DROP INDEX usage_events_customer`)
	for table, ask := range map[string]func(*store.Store, *store.Tx) error{
		"customers":    customers("", middle),
		"usage_events": all(func(st *store.Store) error { _, err := st.Events(ctx, id, 50); return err }),
	} {
		asked, err := store.Plans(ctx, st, "", ask)
		if err != nil || len(asked) != 1 {
			t.Fatal(len(asked), err)
		}
		for _, plan := range []string{asked[0].Custom, asked[0].Generic} {
			if found := wide.FindStringSubmatch(plan); found == nil || !strings.HasPrefix(found[1], table) {
				t.Errorf("without an index on %s: %v\n%s", table, found, plan)
			}
		}
	}
}

func ignoreMissing(err error) error {
	if err != nil && strings.Contains(err.Error(), control.ErrNotFound.Error()) {
		return nil
	}
	return err
}
