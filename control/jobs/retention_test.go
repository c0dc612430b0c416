package jobs_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// The retention job removes events of three years ago and keeps their sums, keeps those of
// a year ago, and makes room for the next months.
func TestRetention(t *testing.T) {
	t.Parallel()
	st, pg := prepared(t)
	ctx := t.Context()
	if _, err := jobs.Migrate(ctx, st, discard()); err != nil {
		t.Fatal(err)
	}
	name := func(months int) string {
		now := time.Now().UTC()
		return time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, months, 0).Format("usage_events_2006_01")
	}
	for i, months := range []int{-36, -25, -24, -12} {
		at := fmt.Sprintf("date_trunc('month', now()) + interval '%d months'", months)
		pg.Query("SELECT usage_events_ensure_month(" + at + ")")
		pg.Query(fmt.Sprintf(`INSERT INTO usage_events VALUES ('r', %d, %s, 'p', 'x', 'x', 'c1', 'b', 't', 'pro', 'k', 'k', 'openai', 'x', 1, 1, 1, 1, 1, 1, 1, 'upstream', 'ok', 200, 1, 1)`, i+1, at))
		pg.Query(fmt.Sprintf(`INSERT INTO usage_days VALUES ('c1', (%s)::date, 'k', 'p', 1, 1, 1, 1, 1, 1, 1)`, at))
	}
	pg.Query(`INSERT INTO usage_periods (customer_id, period_id, requests) VALUES ('c1', 'p', 4)`)
	j, err := jobs.New(ctx, st, discard(), &jobs.Handlers{SendMails: nothing})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	if err := st.InTx(ctx, func(tx *store.Tx) error { return j.Retain(ctx, tx) }); err != nil {
		t.Fatal(err)
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
	want := strings.Join([]string{name(-24), name(-12), name(0), name(1), name(2)}, " ")
	got := strings.TrimSpace(pg.Query("SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'usage_events'::regclass"))
	if got != want {
		t.Errorf("partitions %s, want %s", got, want)
	}
	if got := strings.TrimSpace(pg.Query("SELECT (SELECT count(*) FROM usage_events), (SELECT count(*) FROM usage_days), (SELECT requests FROM usage_periods)")); got != "2|4|4" {
		t.Errorf("events, sums by day, total: %s, want 2|4|4", got)
	}
}

func nothing(context.Context) error { return nil }
