package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// every reads all pages of two entries, which must have each entry once and in order.
func every(t *testing.T, what string, want []string, page func(after control.PageKey, limit int) ([]control.PageKey, error)) {
	t.Helper()
	var got []string
	var after control.PageKey
	for range 20 {
		keys, err := page(after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			got = append(got, k.ID)
		}
		if len(keys) < 2 {
			break
		}
		after = keys[len(keys)-1]
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s: read %v, want %v", what, got, want)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	ctx, now := t.Context(), time.Now()
	var customers, boxes, tokens, events []string
	var audits int
	for i := range 5 {
		// Two of an age, so that the id decides.
		at := time.Date(2026, 1, 1, i/2, 0, 0, 0, time.UTC).Format(time.RFC3339)
		id := fmt.Sprintf("c%d", i)
		pg.Query(fmt.Sprintf(`INSERT INTO customers (id, name, tier, created_at) VALUES ('%s', 'x', 'pro', '%s')`, id, at))
		pg.Query(fmt.Sprintf(`INSERT INTO boxes (id, customer_id, namespace, created_at) VALUES ('b%s', '%[1]s', 'n%[1]s', '%s')`, id, at))
		pg.Query(fmt.Sprintf(`INSERT INTO proxy_tokens (id, customer_id, box_id, digest, hint, created_at)
			VALUES ('t%s', '%[1]s', 'b%[1]s', sha256('%[1]s'), 'abcd', '%s')`, id, at))
		pg.Query(fmt.Sprintf(`INSERT INTO stripe_events (id, type, api_version, created_at, payload, received_at) VALUES ('e%s', 'x', 'x', now(), '{}', '%s')`, id, at))
		pg.Query(fmt.Sprintf(`INSERT INTO audit_log (actor, action, customer_id, target) VALUES ('x', 'x', '%s', 'x')`, id))
		pg.Query(fmt.Sprintf(`INSERT INTO dead_letters (stream_id, batch_index, payload, reason) VALUES ('%s', 0, '', 'x')`, id))
		customers, boxes, tokens = append(customers, id), append(boxes, "b"+id), append(tokens, "t"+id)
		events = append([]string{"e" + id}, events...)
		audits++
	}
	every(t, "customers", customers, func(after control.PageKey, limit int) (keys []control.PageKey, err error) {
		list, err := st.CustomersPage(ctx, control.CustomersFilter{Status: control.CustomerActive}, now, after, limit)
		for _, v := range list {
			keys = append(keys, control.PageKey{At: v.CreatedAt, ID: v.ID})
		}
		return keys, err
	})
	every(t, "boxes", boxes, func(after control.PageKey, limit int) (keys []control.PageKey, err error) {
		list, err := st.BoxesPage(ctx, "", "", after, limit)
		for _, v := range list {
			keys = append(keys, control.PageKey{At: v.CreatedAt, ID: v.ID})
		}
		return keys, err
	})
	every(t, "tokens", tokens, func(after control.PageKey, limit int) (keys []control.PageKey, err error) {
		list, err := st.TokensPage(ctx, "", after, limit)
		for _, v := range list {
			keys = append(keys, control.PageKey{At: v.CreatedAt, ID: v.ID})
		}
		return keys, err
	})
	every(t, "events", events, func(after control.PageKey, limit int) (keys []control.PageKey, err error) {
		list, err := st.StripeEventsPage(ctx, after, limit)
		for _, v := range list {
			keys = append(keys, control.PageKey{At: v.ReceivedAt, ID: v.ID})
		}
		return keys, err
	})
	if list, err := st.BoxesPage(ctx, "c3", "", control.PageKey{}, 10); err != nil || len(list) != 1 || list[0].ID != "bc3" {
		t.Errorf("boxes of one: %+v, %v", list, err)
	}
	if list, err := st.CustomersPage(ctx, control.CustomersFilter{Status: control.CustomerPending}, now, control.PageKey{}, 10); err != nil || len(list) != 0 {
		t.Errorf("pending ones: %+v, %v", list, err)
	}
	first, err := st.AuditPage(ctx, "", 0, 3)
	if err != nil || len(first) != 3 || first[0].CustomerID != "c4" {
		t.Fatalf("%+v, %v", first, err)
	}
	if rest, err := st.AuditPage(ctx, "", first[2].ID, 10); err != nil || len(rest) != audits-3 || rest[0].CustomerID != "c1" {
		t.Errorf("%+v, %v", rest, err)
	}
	if own, err := st.AuditPage(ctx, "c2", 0, 10); err != nil || len(own) != 1 || own[0].CustomerID != "c2" {
		t.Errorf("%+v, %v", own, err)
	}
	letters, err := st.DeadLettersPage(ctx, true, 0, 2)
	if err != nil || len(letters) != 2 {
		t.Fatalf("%+v, %v", letters, err)
	}
	if err := st.DropDeadLetter(ctx, "x", letters[1].ID-1, "x"); err != nil {
		t.Fatal(err)
	}
	for waiting, want := range map[bool]int{true: 2, false: 3} {
		if rest, err := st.DeadLettersPage(ctx, waiting, letters[1].ID, 10); err != nil || len(rest) != want {
			t.Errorf("waiting %v: %d, want %d, %v", waiting, len(rest), want, err)
		}
	}
}

func TestUsageByDay(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx := t.Context()
	c, _, p := addCustomer(t, st)
	other, _, q := addCustomer(t, st)
	day := time.Now().UTC().Truncate(24 * time.Hour)
	var list []control.Delivery
	for i, at := range []time.Time{day.Add(-time.Microsecond), day, day.Add(time.Hour), day.Add(2 * time.Hour)} {
		d := delivery(c.ID, p.ID, "r1", int64(i+1))
		d.Event.AdmittedAt = at
		if i == 3 {
			d.Event.ModelServed = "other-model"
		}
		list = append(list, d)
	}
	theirs := delivery(other.ID, q.ID, "r2", 1)
	theirs.Event.AdmittedAt = day
	record(t, st, append(list, theirs)...)
	want := fmt.Sprint([]control.UsageShare{
		{Day: day.AddDate(0, 0, -1), Model: "kimi-k2", Requests: 1, Prompt: 100, Cached: 10, Completion: 50, Reasoning: 5, Settled: 150},
		{Day: day, Model: "kimi-k2", Requests: 2, Prompt: 200, Cached: 20, Completion: 100, Reasoning: 10, Settled: 300},
		{Day: day, Model: "other-model", Requests: 1, Prompt: 100, Cached: 10, Completion: 50, Reasoning: 5, Settled: 150},
	})
	got, err := st.UsageByDay(ctx, c.ID, day.AddDate(0, 0, -1), day.AddDate(0, 0, 1))
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("read %+v\nwant %s\n%v", got, want, err)
	}
	if err := st.ForCustomer(ctx, c.ID, func(tx *store.Tx) error {
		own, err := tx.UsageByDay(ctx, c.ID, day.AddDate(0, 0, -1), day.AddDate(0, 0, 1))
		theirs, err2 := tx.UsageByDay(ctx, other.ID, day, day.AddDate(0, 0, 1))
		if fmt.Sprint(own) != want || len(theirs) != 0 {
			t.Errorf("as the customer: %+v, and of the other one %+v", own, theirs)
		}
		return errors.Join(err, err2)
	}); err != nil {
		t.Error(err)
	}
	u, err := st.PlatformUsage(ctx, time.Now())
	if err != nil || len(u) != 1 || u[0].Customers != 2 || u[0].Totals.Requests != 5 || u[0].Limit != 2_000_000 || u[0].Totals.Settled != 750 {
		t.Errorf("platform %+v, %v", u, err)
	}
}

func TestExportAndErase(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	ctx := t.Context()
	a, b := fill(t, st, pg), fill(t, st, pg)
	pg.Query(`UPDATE customers SET email = id || '@example.com', name = 'Ada Lovelace'`)
	var events int
	if err := st.ForCustomer(ctx, a.ID, func(tx *store.Tx) error {
		d, err := tx.Export(ctx, a.ID)
		if err != nil {
			return err
		}
		if d.Account.Email == "" || len(d.Identities) != 1 || len(d.Boxes) != 1 || len(d.Tokens) != 1 || len(d.APIKeys) != 1 || len(d.Subscriptions) != 1 ||
			len(d.Periods) != 1 || len(d.Mails) != 1 || len(d.Audit) != 1 {
			t.Errorf("export %+v", d)
		}
		if _, err := tx.Export(ctx, b.ID); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("export of the other one: %v", err)
		}
		return tx.EachEvent(ctx, a.ID, func(contract.Event) error { events++; return nil })
	}); err != nil || events != 1 {
		t.Fatalf("%d events, %v", events, err)
	}

	box := strings.TrimSpace(pg.Query(`SELECT id FROM boxes WHERE customer_id = '` + a.ID + `'`))
	erase := func() error {
		return st.InTx(ctx, func(tx *store.Tx) error { return tx.EraseCustomer(ctx, "x", a.ID, time.Now()) })
	}
	if err := erase(); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("with a live subscription: %v", err)
	}
	pg.Query(`UPDATE subscriptions SET status = 'canceled'`)
	if err := erase(); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("with a token that is not revoked: %v", err)
	}
	pg.Query(`UPDATE proxy_tokens SET status = 'revoked', revoked_at = now()`)
	if err := erase(); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("with a box that shall run: %v", err)
	}
	pg.Query(`UPDATE boxes SET wants = 'destroy', settings = '{"system_prompt": "private"}', message = 'private'`)
	pg.Query(`INSERT INTO box_steps (box_id, customer_id, generation, name, started_at, error, detail) SELECT id, customer_id, 1, 'x', now(), 'private', 'private' FROM boxes ON CONFLICT DO NOTHING`)
	pg.Query(`UPDATE box_steps SET error = 'private', detail = 'private'`)
	// A report of what was under way is not done yet, and has told of it.
	reported, done := make(chan error, 1), make(chan error, 1)
	go func() {
		done <- st.InTx(ctx, func(tx *store.Tx) error {
			_, _, err := tx.ReportBox(ctx, "x", control.BoxReport{BoxID: box, Generation: 1, State: control.BoxUpdating})
			if err == nil {
				_, err = tx.AddMail(ctx, control.Mail{CustomerID: a.ID, Kind: control.MailAgentLive, Cause: "late", Params: map[string]any{"name": "Ada Lovelace"}})
			}
			reported <- err
			for err == nil && strings.TrimSpace(pg.Query(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%boxes%'`)) == "0" {
				time.Sleep(20 * time.Millisecond)
			}
			return err
		})
	}()
	if err := <-reported; err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(erase(), <-done); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(pg.Query(`SELECT count(*) FROM mails WHERE params::text LIKE '%Ada%' AND customer_id = '` + a.ID + `'`)); got != "0" {
		t.Errorf("%s mails have the name", got)
	}
	if got := strings.TrimSpace(pg.Query(`SELECT count(*), (SELECT count(*) FROM box_steps WHERE error IS NULL AND detail IS NULL) FROM boxes WHERE settings = '{}' AND message = '' AND detail = ''`)); got != "1|1" {
		t.Errorf("%s boxes and steps without settings and texts, want those of who is erased", got)
	}
	const left = `SELECT (SELECT count(*) FROM identities WHERE customer_id = '%[1]s') + (SELECT count(*) FROM sessions WHERE customer_id = '%[1]s')
		+ (SELECT count(*) FROM api_keys WHERE customer_id = '%[1]s') + (SELECT count(*) FROM idempotency_keys WHERE customer_id = '%[1]s')
		+ (SELECT count(*) FROM customers WHERE id = '%[1]s' AND (email IS NOT NULL OR name LIKE 'Ada%%')),
		(SELECT count(*) FROM usage_events WHERE customer_id = '%[1]s') + (SELECT count(*) FROM usage_periods WHERE customer_id = '%[1]s')
		+ (SELECT count(*) FROM subscriptions WHERE customer_id = '%[1]s') + (SELECT count(*) FROM meter_reports WHERE customer_id = '%[1]s')`
	if got := strings.TrimSpace(pg.Query(fmt.Sprintf(left, a.ID))); got != "0|4" {
		t.Errorf("personal and billing rows left: %s", got)
	}
	if got := strings.TrimSpace(pg.Query(fmt.Sprintf(left, b.ID))); got != "5|4" {
		t.Errorf("of the other one: %s", got)
	}
	if acc, err := st.Account(ctx, a.ID); err != nil || acc.DeletedAt.IsZero() || acc.Status != control.CustomerCancelled {
		t.Errorf("%+v, %v", acc, err)
	}
}

func TestPruneSignIns(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	ctx, now := t.Context(), time.Now().UTC().Truncate(time.Microsecond)
	c := signUp(t, st, "ada@example.com")
	signIn(t, st, customerSubject(c.ID), 1, now) // ends in an hour
	kept := signIn(t, st, customerSubject(c.ID), 2, now)
	if _, err := st.RotateSession(ctx, digestOf(2), digestOf(3), now, now.Add(3*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := st.BeginIdempotent(ctx, control.IdempotentRequest{Subject: customerSubject(c.ID), Key: "k", Digest: digestOf(1)}, now, 1, now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{3, 0} { // a session with its token, a used token of the other one, a key
		if n, err := st.PruneSignIns(ctx, now.Add(2*time.Hour), 100); err != nil || n != want {
			t.Errorf("removed %d, want %d, %v", n, want, err)
		}
	}
	if got := strings.TrimSpace(pg.Query(`SELECT string_agg(session_id, ' ') FROM refresh_tokens`)); got != kept.ID {
		t.Errorf("tokens of %q are left, want %q", got, kept.ID)
	}
}
