package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

func check(t *testing.T, st *store.Store, customer, period string) control.PeriodCheck {
	t.Helper()
	list, err := st.CheckPeriods(t.Context(), []string{customer}, period)
	if err != nil || len(list) != 1 {
		t.Fatalf("checks %+v, %v", list, err)
	}
	return list[0]
}

func TestCheckAndRepairTotals(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	other, _, _ := addCustomer(t, st)
	record(t, st, deliveries(c.ID, p.ID, "r1", 1, 2, 3)...)
	right := control.UsageTotals{Requests: 3, Prompt: 300, Cached: 30, Completion: 150, Reasoning: 15, Settled: 450, Unbilled: 3}
	if got := check(t, st, c.ID, ""); got.TotalsDiffer() || got.Counted != right || got.Recorded != right || !got.Start.Equal(p.Start) || !got.Kept {
		t.Errorf("check %+v", got)
	}
	list, err := st.CheckPeriods(t.Context(), []string{c.ID, other.ID}, "")
	if err != nil || len(list) != 2 {
		t.Errorf("checks %+v, %v", list, err)
	}

	for _, column := range strings.Fields("requests prompt_tokens cached_tokens completion_tokens reasoning_tokens settled_tokens unbilled_tokens") {
		pg.Query(fmt.Sprintf("UPDATE usage_periods SET %s = %s + 1 WHERE customer_id = '%s'", column, column, c.ID))
		if got := check(t, st, c.ID, p.ID); !got.TotalsDiffer() || got.Counted != right {
			t.Errorf("%s tampered with: %+v", column, got)
		}
		found, err := st.RepairTotals(t.Context(), "ada", c.ID, p.ID)
		if err != nil || !found.TotalsDiffer() {
			t.Errorf("repair of %s: %+v, %v", column, found, err)
		}
		if got := check(t, st, c.ID, p.ID); got.TotalsDiffer() || got.Recorded != right {
			t.Errorf("%s repaired: %+v", column, got)
		}
	}
	// The sums by day and model are looked at, and repaired, like the totals.
	for _, tamper := range []string{
		"UPDATE usage_days SET requests = requests + 1", "UPDATE usage_days SET prompt_tokens = 0", "UPDATE usage_days SET cached_tokens = 0",
		"UPDATE usage_days SET completion_tokens = 0", "UPDATE usage_days SET reasoning_tokens = 0", "UPDATE usage_days SET settled_tokens = 1",
		"UPDATE usage_days SET unbilled_tokens = 0", "UPDATE usage_days SET model = 'x'", "UPDATE usage_days SET day = day - 1", "DELETE FROM usage_days",
		"INSERT INTO usage_days SELECT customer_id, day, 'x', period_id, 0, 0, 0, 0, 0, 0, 0 FROM usage_days",
	} {
		pg.Query(tamper)
		if got := check(t, st, c.ID, p.ID); !got.TotalsDiffer() || got.WrongDays == 0 || got.Recorded != right || got.Counted != right {
			t.Errorf("%s: %+v", tamper, got)
		}
		if found, err := st.RepairTotals(t.Context(), "eve", c.ID, p.ID); err != nil || !found.TotalsDiffer() {
			t.Errorf("%s: repair %+v, %v", tamper, found, err)
		}
		if got := check(t, st, c.ID, p.ID); got.TotalsDiffer() {
			t.Errorf("%s, repaired: %+v", tamper, got)
		}
	}
	if got := strings.TrimSpace(pg.Query("SELECT count(*), sum((detail->>'wrong_days')::int) FROM audit_log WHERE actor = 'eve'")); got != "11|13" {
		t.Errorf("audit log of the repairs by day: %s", got)
	}
	// Nothing to repair: nothing is written.
	if found, err := st.RepairTotals(t.Context(), "ada", c.ID, p.ID); err != nil || found.TotalsDiffer() {
		t.Errorf("repair: %+v, %v", found, err)
	}
	if got := strings.TrimSpace(pg.Query("SELECT count(*), min(actor), min(detail->'after'->>'settled_tokens') FROM audit_log WHERE action = 'ledger.repair_totals' AND actor = 'ada'")); got != "7|ada|450" {
		t.Errorf("audit log: %s", got)
	}

	// A row that is missing, and one without events.
	pg.Query("DELETE FROM usage_periods WHERE customer_id = '" + c.ID + "'")
	if got := check(t, st, c.ID, ""); !got.TotalsDiffer() || got.Recorded != (control.UsageTotals{}) {
		t.Errorf("without a row: %+v", got)
	}
	if _, err := st.RepairTotals(t.Context(), "ada", c.ID, p.ID); err != nil {
		t.Error(err)
	}
	if got := check(t, st, c.ID, ""); got.Recorded != right {
		t.Errorf("row made anew: %+v", got)
	}
	pg.Query("DELETE FROM usage_events")
	if got := check(t, st, c.ID, ""); !got.TotalsDiffer() || got.Counted != (control.UsageTotals{}) {
		t.Errorf("without events: %+v", got)
	}
	for _, period := range []string{"", "p9"} {
		if _, err := st.RepairTotals(t.Context(), "ada", c.ID, period); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("period %q: %v, want ErrNotFound", period, err)
		}
	}
	// Whose events are gone by age says nothing.
	pg.Query("UPDATE usage_periods SET starts_at = now() - interval '3 years', ends_at = now(), limit_tokens = 1, limit_version = 1 WHERE customer_id = '" + c.ID + "'")
	if got := check(t, st, c.ID, ""); got.Kept || got.TotalsDiffer() {
		t.Errorf("an old period: %+v", got)
	}
	if _, err := st.RepairTotals(t.Context(), "ada", c.ID, p.ID); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("repair of an old period: %v", err)
	}
}

// Totals that are repaired while events are recorded count each of them once, and no
// check in between sees a difference that is none.
func TestRepairTotalsWhileRecording(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	record(t, st, deliveries(c.ID, p.ID, "first", 1)...)
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range int64(25) {
				if _, err := st.RecordUsage(context.Background(), deliveries(c.ID, p.ID, fmt.Sprintf("r%d", w), 10*i+1, 10*i+2), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		if got := check(t, st, c.ID, p.ID); got.TotalsDiffer() {
			t.Errorf("differs while events are recorded: %+v", got)
		}
		pg.Query("UPDATE usage_periods SET settled_tokens = settled_tokens + 7 WHERE customer_id = '" + c.ID + "'")
		pg.Query("UPDATE usage_days SET requests = requests + 7 WHERE customer_id = '" + c.ID + "'")
		if _, err := st.RepairTotals(t.Context(), "ada", c.ID, p.ID); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if got := totals(t, st, c.ID, p.ID); got.Requests != 151 {
		t.Errorf("totals %+v, want 151 requests", got)
	}
}

func TestDropOldPartitions(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	now := time.Date(2025, 3, 31, 12, 0, 0, 0, time.UTC)
	store.SetNow(st, func() time.Time { return now })
	at := func(seq int64, when time.Time) control.Delivery {
		d := delivery(c.ID, p.ID, "r1", seq)
		d.Event.AdmittedAt = when
		return d
	}
	kept := []time.Time{now.AddDate(-2, 0, 0), time.Date(2023, 4, 1, 0, 0, 0, 0, time.UTC), now}
	for i, when := range kept {
		if r := record(t, st, at(int64(i+1), when)); r.Inserted != 1 {
			t.Fatalf("event of %s: %+v", when, r)
		}
	}
	for _, month := range []string{"2023-02-01", "2021-12-01"} {
		pg.Query("SELECT usage_events_ensure_month('" + month + "')")
	}
	pg.Query("CREATE TABLE usage_events_by_hand PARTITION OF usage_events FOR VALUES FROM ('2014-01-01') TO ('2015-01-01')")
	dropped, err := st.DropOldPartitions(t.Context())
	if err != nil || fmt.Sprint(dropped) != "[usage_events_2021_12 usage_events_2023_02]" {
		t.Errorf("dropped %v, %v", dropped, err)
	}
	if dropped, err := st.DropOldPartitions(t.Context()); err != nil || len(dropped) != 0 {
		t.Errorf("dropped once more %v, %v", dropped, err)
	}
	if got := totals(t, st, c.ID, p.ID); got.Requests != int64(len(kept)) {
		t.Errorf("totals %+v", got)
	}
	// A month later the first of them goes, and its totals stay.
	now = now.AddDate(0, 0, 1)
	if dropped, err := st.DropOldPartitions(t.Context()); err != nil || fmt.Sprint(dropped) != "[usage_events_2023_03]" {
		t.Errorf("dropped %v, %v", dropped, err)
	}
	if got := check(t, st, c.ID, p.ID); got.Recorded.Requests != 3 || got.Counted.Requests != 2 {
		t.Errorf("check %+v", got)
	}
	// A clock that goes wrong costs nothing that Postgres' own would keep.
	month := time.Now().UTC().Format("2006_01")
	pg.Query("SELECT usage_events_ensure_month(now())")
	now = time.Now().AddDate(10, 0, 0)
	dropped, err = st.DropOldPartitions(t.Context())
	if there := strings.TrimSpace(pg.Query("SELECT to_regclass('usage_events_" + month + "') IS NOT NULL")); err != nil || there != "t" {
		t.Errorf("by a clock that is ten years ahead, dropped %v, %v", dropped, err)
	}
}
