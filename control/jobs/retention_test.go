package jobs_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// Retention needs no mail server: it removes what has expired, and the mail jobs and
// wakes of boxes that nobody works, and leaves the mails and the events of usage alone.
func TestRetention(t *testing.T) {
	t.Parallel()
	st, pg := prepared(t)
	ctx := t.Context()
	if _, err := jobs.Migrate(ctx, st, discard()); err != nil {
		t.Fatal(err)
	}
	j, err := jobs.New(ctx, st, discard(), &jobs.Handlers{Retention: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	pg.Query("SELECT usage_events_ensure_month('2019-05-01')")
	pg.Query(`INSERT INTO idempotency_keys (customer_id, key, request_digest, leased_until, created_at, expires_at)
		SELECT 'c1', n::text, decode(repeat('00', 32), 'hex'), now(), now() - interval '2 days', now() + n * interval '1 hour' FROM generate_series(-1, 1) n`)
	for _, cause := range []string{"old", "new"} {
		err := st.InTx(ctx, func(tx *store.Tx) error {
			_, err := j.AddMail(ctx, tx, control.Mail{CustomerID: "c1", Kind: "welcome", Cause: cause})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := st.InTx(ctx, func(tx *store.Tx) error { return errors.Join(j.WakeBox(ctx, tx, "old"), j.WakeBox(ctx, tx, "new")) }); err != nil {
		t.Fatal(err)
	}
	pg.Query("UPDATE river_job SET created_at = now() - interval '2 hours' WHERE id = (SELECT min(id) FROM river_job WHERE kind = 'mail') OR args->>'box_id' = 'old'")
	for range 2 { // one waits at most
		if err := st.InTx(ctx, func(tx *store.Tx) error { return j.Retain(ctx, tx) }); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.TrimSpace(pg.Query("SELECT count(*) FROM river_job WHERE kind = 'retention'")); n != "1" {
		t.Errorf("%s retention jobs wait", n)
	}
	if err := j.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(60 * time.Second); strings.TrimSpace(pg.Query("SELECT count(*) FROM river_job WHERE kind = 'retention' AND state = 'completed'")) == "0"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the retention job did not run")
		}
	}
	if err := j.Stop(ctx); err != nil {
		t.Error(err)
	}
	if got := strings.TrimSpace(pg.Query(`SELECT (SELECT string_agg(key, ',') FROM idempotency_keys), (SELECT count(*) FROM river_job WHERE kind = 'mail'),
		(SELECT string_agg(args->>'box_id', ',') FROM river_job WHERE kind = 'box'),
		(SELECT count(*) FROM mails), to_regclass('usage_events_2019_05') IS NOT NULL`)); got != "1|1|new|2|t" {
		t.Errorf("keys, mail jobs, wakes, mails, the events of 2019 are there: %s", got)
	}
}
