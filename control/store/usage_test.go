package store_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// totals returns the totals of one period, and checks them against the events.
func totals(t *testing.T, st *store.Store, customer, period string) control.UsageTotals {
	t.Helper()
	list, err := st.Periods(t.Context(), customer, 100)
	if err != nil {
		t.Fatal(err)
	}
	events, err := st.Events(t.Context(), customer, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	if got := check(t, st, customer, period); got.WrongDays != 0 {
		t.Errorf("%d sums by day and model differ from the events", got.WrongDays)
	}
	var want control.UsageTotals
	for _, e := range events {
		if e.PeriodID == period {
			want.Requests++
			want.Prompt += e.Prompt
			want.Cached += e.Cached
			want.Completion += e.Completion
			want.Reasoning += e.Reasoning
			want.Settled += e.Settled
			want.Unbilled += e.Unbilled
		}
	}
	for _, p := range list {
		if p.ID == period {
			if p.Totals != want {
				t.Errorf("totals %+v differ from the sum of the events %+v", p.Totals, want)
			}
			return p.Totals
		}
	}
	t.Fatalf("no period %q of customer %s", period, customer)
	return control.UsageTotals{}
}

func TestRecordUsageKeepsEveryField(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	c, _, p := addCustomer(t, st)
	d := delivery(c.ID, p.ID, "r1", 1)
	if r := record(t, st, d); r.Inserted != 1 || r.Duplicates != 0 || len(r.Parked) != 0 {
		t.Fatalf("recorded %+v", r)
	}
	events, err := st.Events(t.Context(), c.ID, 10)
	if err != nil || len(events) != 1 {
		t.Fatalf("events %v, %v", events, err)
	}
	if events[0] != d.Event {
		t.Errorf("read  %+v\nwrote %+v", events[0], d.Event)
	}
	want := control.UsageTotals{Requests: 1, Prompt: 100, Cached: 10, Completion: 50, Reasoning: 5, Settled: 150, Unbilled: 1}
	if got := totals(t, st, c.ID, p.ID); got != want {
		t.Errorf("totals %+v, want %+v", got, want)
	}
}

func TestRecordUsageCountsOnce(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	a, b, d := delivery(c.ID, p.ID, "r1", 1), delivery(c.ID, p.ID, "r1", 2), delivery(c.ID, p.ID, "r2", 1)
	other := b
	other.Event.Settled = 7 // another event with b's number

	steps := []struct {
		name string
		list []control.Delivery
		want string // inserted duplicates parked
	}{
		{"first", []control.Delivery{a, b}, "2 0 0"},
		{"again", []control.Delivery{a, b}, "0 2 0"},
		{"overlapping, twice in one call", []control.Delivery{b, d, d, a}, "1 3 0"},
		{"another event with a known number", []control.Delivery{other}, "0 0 1"},
		{"the same in one call with the known one", []control.Delivery{b, other}, "0 1 1"},
	}
	for _, s := range steps {
		r := record(t, st, s.list...)
		if got := fmt.Sprint(r.Inserted, r.Duplicates, len(r.Parked)); got != s.want {
			t.Errorf("%s: %s, want %s", s.name, got, s.want)
		}
	}
	if got := totals(t, st, c.ID, p.ID); got.Requests != 3 || got.Settled != 450 {
		t.Errorf("totals %+v", got)
	}
	if got := strings.TrimSpace(pg.Query("SELECT count(*) FROM dead_letters")); got != "1" {
		t.Errorf("%s dead letters, want 1: the same one was parked twice", got)
	}
}

func TestRecordUsageParksOnlyWhatIsPoisonous(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	c, _, p := addCustomer(t, st)
	var list []control.Delivery
	poison := make(map[int]string)
	for i := range 200 {
		d := delivery(c.ID, p.ID, "r1", int64(i+1))
		d.Index = i
		switch i {
		case 3:
			d.Event.CustomerID = "nobody"
			poison[i] = "unknown customer"
		case 50:
			d.Event.PeriodID = "p\x00" // Postgres refuses NUL
			poison[i] = "22021"
		case 51:
			d.Event.Prompt = -1
			poison[i] = "23514"
		case 120:
			d.Event.Replica = strings.Repeat("x", 20_000) // too long for an index
			poison[i] = "refused by Postgres"
		case 121:
			d.Event.Status = 1 << 40
			poison[i] = "22003"
		case 160:
			d.Event.AdmittedAt = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
			poison[i] = "outside of the months"
		case 161:
			d.Event.AdmittedAt = time.Now().AddDate(0, 3, 0)
			poison[i] = "outside of the months"
		case 199:
			d.Event.ModelAsked = "k2\x00" // chosen by the client: must still be billed
		}
		list = append(list, d)
	}
	r := record(t, st, list...)
	if r.Inserted != 200-len(poison) || len(r.Parked) != len(poison) {
		t.Errorf("inserted %d, parked %d; want %d and %d", r.Inserted, len(r.Parked), 200-len(poison), len(poison))
	}
	dead, err := st.DeadLetters(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dead {
		want, ok := poison[d.Index]
		if !ok || !strings.Contains(d.Reason, want) || string(d.Payload) != string(list[d.Index].Payload) {
			t.Errorf("dead letter %d: %q, payload %q; want a reason with %q", d.Index, d.Reason, d.Payload, want)
		}
		delete(poison, d.Index)
	}
	if len(poison) > 0 {
		t.Errorf("not parked: %v", poison)
	}
	if got := totals(t, st, c.ID, p.ID); got.Requests != int64(r.Inserted) {
		t.Errorf("totals %+v, inserted %d", got, r.Inserted)
	}
	// Once more, all of it: nothing may change.
	if again := record(t, st, list...); again.Inserted != 0 || again.Duplicates != r.Inserted || len(again.Parked) != len(r.Parked) {
		t.Errorf("again: %+v", again)
	}
}

func TestRecordUsageOpensUnknownPeriods(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	c, _, p := addCustomer(t, st)
	next := control.PeriodAt(c.ID, p.Start, p.End, 42)
	record(t, st, delivery(c.ID, next.ID, "r1", 1), delivery(c.ID, p.ID, "r1", 2))

	if got := totals(t, st, c.ID, next.ID); got.Requests != 1 {
		t.Fatalf("totals %+v", got)
	}
	// When the period becomes known, its usage stays.
	err := st.InTx(t.Context(), func(tx *store.Tx) error {
		got, err := tx.OpenPeriod(t.Context(), next)
		if err == nil && (got.LimitTokens != 42 || got.Totals.Settled != 150 || !got.Start.Equal(next.Start)) {
			t.Errorf("opened %+v", got)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	record(t, st, delivery(c.ID, next.ID, "r1", 3))
	if got := totals(t, st, c.ID, next.ID); got.Requests != 2 {
		t.Fatalf("totals %+v", got)
	}
}

func TestPartitionsOnDemandAndAhead(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	now := time.Now().UTC()
	var list []control.Delivery
	months := make(map[string]bool)
	for i := range 14 {
		d := delivery(c.ID, p.ID, "r1", int64(i+1))
		d.Event.AdmittedAt = control.MonthsAfter(now, -i).Truncate(time.Microsecond)
		months[d.Event.AdmittedAt.Format("2006_01")] = true
		list = append(list, d)
	}
	// The edges of a month belong to it.
	edge := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, -3, 0)
	for i, at := range []time.Time{edge, edge.Add(-time.Microsecond)} {
		d := delivery(c.ID, p.ID, "r2", int64(i+1))
		d.Event.AdmittedAt = at
		list = append(list, d)
	}
	var wg sync.WaitGroup
	for range 4 { // all want the same partitions at once
		wg.Go(func() {
			if _, err := st.RecordUsage(t.Context(), list, nil); err != nil {
				t.Error(err)
			}
		})
	}
	if err := st.EnsurePartitions(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for n := range 3 {
		months[control.MonthsAfter(now, n).Format("2006_01")] = true
	}
	got := strings.Fields(pg.Query("SELECT substr(relname, 14) FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'usage_events'::regclass"))
	if len(got) != len(months) {
		t.Errorf("partitions %v, want %v", got, months)
	}
	for _, m := range got {
		if !months[m] {
			t.Errorf("partition %s was not asked for", m)
		}
	}
	if got := totals(t, st, c.ID, p.ID); got.Requests != int64(len(list)) {
		t.Errorf("totals %+v, want %d requests", got, len(list))
	}
	// A partition that vanished, with its rows, is made anew.
	pg.Query("DROP TABLE usage_events_" + now.Format("2006_01"))
	if r := record(t, st, delivery(c.ID, p.ID, "r9", 1)); r.Inserted != 1 {
		t.Errorf("after a partition was dropped: %+v", r)
	}
}

// Writers that meet on the same events and periods, in different order, neither
// deadlock nor count twice.
func TestRecordUsageConcurrently(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	var list []control.Delivery
	type account struct{ customer, period string }
	var accounts []account
	for range 5 {
		c, _, p := addCustomer(t, st)
		accounts = append(accounts, account{c.ID, p.ID})
	}
	for i := range 300 {
		a := accounts[i%len(accounts)]
		list = append(list, delivery(a.customer, a.period, fmt.Sprintf("r%d", i%7), int64(i+1)))
	}
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := 0; i < len(list); i += 50 {
				from := (i + w*50) % len(list)
				if _, err := st.RecordUsage(t.Context(), list[from:from+50], nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var requests int64
	for _, a := range accounts {
		requests += totals(t, st, a.customer, a.period).Requests
	}
	if requests != int64(len(list)) {
		t.Errorf("%d requests, want %d", requests, len(list))
	}
}

// A batch of 500 events is a handful of statements.
func TestRecordUsageIsFewStatements(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	c, _, p := addCustomer(t, st)
	count := store.CountQueries(st)
	record(t, st, delivery(c.ID, p.ID, "r0", 1)) // the month's partition
	before := count.Load()
	list := make([]control.Delivery, 500)
	for i := range list {
		list[i] = delivery(c.ID, p.ID, "r1", int64(i+1))
	}
	record(t, st, list...)
	if n := count.Load() - before; n > 4 {
		t.Errorf("%d statements for 500 events", n)
	}
}

// A batch of 500 events: of one customer, and of as many customers.
func BenchmarkRecordUsage500(b *testing.B) {
	for _, customers := range []int{1, 500} {
		b.Run(fmt.Sprintf("customers=%d", customers), func(b *testing.B) {
			st := store.ForBenchmark(b)
			ids := make([]string, customers)
			for i := range ids {
				ids[i] = control.NewID(control.CustomerID)
				if err := st.InTx(b.Context(), func(tx *store.Tx) error {
					return tx.InsertCustomer(b.Context(), control.Customer{ID: ids[i], Name: "B", Tier: "starter", Status: control.CustomerActive, CreatedAt: time.Now()})
				}); err != nil {
					b.Fatal(err)
				}
			}
			seq := int64(0)
			list := make([]control.Delivery, 500)
			for b.Loop() {
				for i := range list {
					seq++
					list[i] = delivery(ids[i%customers], "p1", "r1", seq)
				}
				if _, err := st.RecordUsage(b.Context(), list, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*500/b.Elapsed().Seconds(), "events/s")
		})
	}
}
