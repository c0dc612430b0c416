package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// Who is due is read page by page from an index, however many customers there are.
func TestDueForRenewal(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	pg.Query(`INSERT INTO customers (id, name, tier, status, renews_at)
		SELECT 'c' || n, 'x', 'starter', CASE WHEN n % 10 = 0 THEN 'cancelled' ELSE 'active' END,
			CASE WHEN n = 1 THEN NULL ELSE '2031-01-01'::timestamptz + n / 2 * interval '1 minute' END
		FROM generate_series(1, 20000) n`)
	pg.Query("ANALYZE customers")
	at := time.Date(2031, 1, 1, 0, 50, 0, 0, time.UTC)
	var got []store.Due
	for after := (store.Due{}); ; after = got[len(got)-1] {
		page, err := st.DueForRenewal(t.Context(), at, after, 7)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page...)
		if len(page) < 7 {
			break
		}
	}
	seen := make(map[string]bool)
	for i, d := range got {
		if seen[d.ID] || d.End.After(at) || i > 0 && d.End.Before(got[i-1].End) {
			t.Errorf("entry %d: %+v after %+v", i, d, got[max(i-1, 0)])
		}
		seen[d.ID] = true
	}
	if len(got) != 90 { // 2…101 without ten that are cancelled
		t.Errorf("%d are due, want 90", len(got))
	}
	plan := store.ExplainDueForRenewal(t.Context(), st, at, got[3])
	if !strings.Contains(plan, "customers_renewal") || strings.Contains(plan, "Seq Scan") || strings.Contains(plan, "Sort") {
		t.Errorf("the plan is\n%s", plan)
	}
}

// Opening a period moves a customer's turn, and an older period does not move it back.
func TestOpenPeriodMovesTheTurn(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	c, _, p := addCustomer(t, st)
	due := func(at time.Time) int {
		list, err := st.DueForRenewal(t.Context(), at, store.Due{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if due(p.End.Add(-time.Second)) != 0 || due(p.End) != 1 {
		t.Error("the first period does not count")
	}
	older := p
	older.ID, older.Start, older.End = "older", p.Start.AddDate(0, -1, 0), p.Start
	err := st.InTx(t.Context(), func(tx *store.Tx) error { _, err := tx.OpenPeriod(t.Context(), older); return err })
	if err != nil {
		t.Fatal(err)
	}
	if n := due(p.End.Add(-time.Second)); n != 0 {
		t.Errorf("an older period made customer %s due", c.ID)
	}
}
