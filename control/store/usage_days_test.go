package store_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// share adds an event to what was used by day and model.
func share(list []control.UsageShare, d control.Delivery) []control.UsageShare {
	e := d.Event
	day := e.AdmittedAt.Truncate(24 * time.Hour)
	i := slices.IndexFunc(list, func(s control.UsageShare) bool { return s.Day.Equal(day) && s.Model == e.ModelServed })
	if i < 0 {
		i, list = len(list), append(list, control.UsageShare{Day: day, Model: e.ModelServed})
	}
	s := &list[i]
	s.Requests++
	s.Prompt += e.Prompt
	s.Cached += e.Cached
	s.Completion += e.Completion
	s.Reasoning += e.Reasoning
	s.Settled += e.Settled
	return list
}

// From any time to any other, usage is the sum of the events in between, although whole
// days are taken from their sums: as at first, and when events were recorded again.
func TestUsageOfAnyTimesIsTheSumOfItsEvents(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	c, _, p := addCustomer(t, st)
	other, _, q := addCustomer(t, st)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	begin := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -5)
	edges := []time.Time{begin, begin.AddDate(0, 0, 1), begin.AddDate(0, 0, 3), begin.AddDate(0, 0, 5)}
	var list []control.Delivery
	for i := range 300 {
		d := delivery(c.ID, []string{p.ID, "another"}[random.IntN(2)], fmt.Sprintf("r%d", i%3), int64(i+1))
		d.Event.AdmittedAt = begin.Add(time.Duration(random.Int64N(int64(5 * 24 * time.Hour)))).Truncate(time.Microsecond)
		if i < 2*len(edges) { // exactly at the edges of days, and just before
			d.Event.AdmittedAt = edges[i/2].Add(-time.Duration(i%2) * time.Microsecond)
		}
		d.Event.ModelServed = []string{"a", "b"}[random.IntN(2)]
		d.Event.Prompt, d.Event.Settled = random.Int64N(1000)+100, random.Int64N(200)
		list = append(list, d)
	}
	for _, part := range [][]control.Delivery{list[:150], list[100:300], list} { // some two and three times
		record(t, st, part...)
		record(t, st, delivery(other.ID, q.ID, "other", int64(len(part))))
	}
	for range 200 {
		at := func() time.Time {
			if random.IntN(3) == 0 {
				return edges[random.IntN(len(edges))]
			}
			return begin.Add(time.Duration(random.Int64N(int64(5 * 24 * time.Hour))))
		}
		from, to := at(), at()
		if to.Before(from) {
			from, to = to, from
		}
		var want []control.UsageShare
		for _, d := range list {
			if t := d.Event.AdmittedAt; !t.Before(from) && t.Before(to) {
				want = share(want, d)
			}
		}
		slices.SortFunc(want, func(a, b control.UsageShare) int {
			return cmp.Or(a.Day.Compare(b.Day), strings.Compare(a.Model, b.Model))
		})
		got, err := st.UsageByDay(t.Context(), c.ID, from, to)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("seed %d, from %s to %s, %v:\n%v\nwant\n%v", seed, from, to, err, got, want)
		}
	}
	for _, period := range []string{p.ID, "another"} {
		totals(t, st, c.ID, period)
	}
}

// Two and a half years, month by month: the next months' partitions are always there, no
// event is kept for less than two years or much longer, the sums stay for ever, and what
// comes too late is parked and makes no partition.
func TestMonthsComeAndGo(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	begin := time.Now().UTC().AddDate(0, -30, 0).Truncate(24 * time.Hour)
	begin = time.Date(begin.Year(), begin.Month(), 1, 12, 0, 0, 0, time.UTC)
	var now time.Time
	store.SetNow(st, func() time.Time { return now })
	partitions := func() []string {
		return strings.Fields(pg.Query(`SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'usage_events'::regclass ORDER BY relname`))
	}
	name := func(at time.Time) string { return at.Format("usage_events_2006_01") }
	for month := range 30 {
		now = begin.AddDate(0, month, 14)
		if err := st.EnsurePartitions(t.Context()); err != nil {
			t.Fatal(err)
		}
		dropped, err := st.DropOldPartitions(t.Context())
		if err != nil || len(dropped) > 1 || (len(dropped) == 1) != (month >= 25) {
			t.Fatalf("month %d: dropped %v, %v", month, dropped, err)
		}
		there := partitions()
		for ahead := range 3 {
			if at := begin.AddDate(0, month+ahead, 0); !slices.Contains(there, name(at)) {
				t.Errorf("month %d: %s is not there ahead", month, name(at))
			}
		}
		if oldest := name(begin.AddDate(0, max(month-24, 0), 0)); there[0] != oldest || len(there) != min(month, 24)+3 {
			t.Errorf("month %d: %d partitions from %s on, want them from %s", month, len(there), there[0], oldest)
		}
		d := delivery(c.ID, p.ID, "r1", int64(month+1))
		d.Event.AdmittedAt = now
		record(t, st, d)
	}
	// Sums of 30 months, events of 25.
	if got := check(t, st, c.ID, p.ID); got.Recorded.Requests != 30 || got.Counted.Requests != 25 {
		t.Errorf("%+v", got)
	}
	days, err := st.UsageByDay(t.Context(), c.ID, begin.Truncate(24*time.Hour), now.Truncate(24*time.Hour).AddDate(0, 0, 1))
	if err != nil || len(days) != 30 || !days[0].Day.Equal(begin.AddDate(0, 0, 14).Truncate(24*time.Hour)) {
		t.Errorf("usage of %d days, %v", len(days), err)
	}
	// Its replica may forget it, it is shown to operators, and nothing else changes.
	before := partitions()
	late := delivery(c.ID, p.ID, "r1", 31)
	late.Event.AdmittedAt = begin.AddDate(0, 2, 0)
	r := record(t, st, late)
	if r.Inserted != 0 || len(r.Parked) != 1 || !strings.Contains(r.Parked[0].Reason, "outside of the months") || r.Acked["r1"] != 31 {
		t.Errorf("a late event: %+v", r)
	}
	dead, err := st.WaitingDeadLetters(t.Context(), 10)
	if err != nil || len(dead) != 1 || dead[0].Seq != 31 {
		t.Fatalf("dead letters %+v, %v", dead, err)
	}
	if _, err := st.ReplayDeadLetter(t.Context(), "test", dead[0].ID, []control.Delivery{late}, nil); err == nil || !strings.Contains(err.Error(), "outside of the months") {
		t.Errorf("replayed: %v", err)
	}
	if after := partitions(); !slices.Equal(after, before) {
		t.Errorf("a late event made partitions: %v, before %v", after, before)
	}
	if got := check(t, st, c.ID, p.ID); got.Recorded.Requests != 30 {
		t.Errorf("a late event counts: %+v", got)
	}
	// The day before, in the oldest month that is kept, it is taken.
	late.Event.AdmittedAt, late.Event.Seq = now.AddDate(-2, 0, 0), 32
	if r := record(t, st, late); r.Inserted != 1 {
		t.Errorf("an event of just two years: %+v", r)
	}
}

// Events that are being written while the sums by day are made are in them.
func TestMigrationSumsUpWhatIsBeingWritten(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	if err := st.EnsurePartitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	addCustomer(t, st)
	if err := st.MigrateDownTo(t.Context(), 9); err != nil {
		t.Fatal(err)
	}
	written := make(chan string)
	go func() {
		written <- pg.Query(`INSERT INTO usage_events SELECT 'r', 1, now(), 'p', 'x', 'x', id, 'b', 't', 'pro', 'k', 'k', 'openai', 'x', 1, 1, 1, 1, 1, 1, 1, 'upstream', 'ok', 200, 1, 1
			FROM customers; SELECT pg_sleep(10)`)
	}()
	for strings.TrimSpace(pg.Query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")) == "0" {
		time.Sleep(20 * time.Millisecond)
		select {
		case said := <-written:
			t.Fatalf("they were written before anybody looked: %s", said)
		default:
		}
	}
	if _, err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-written
	if got := strings.TrimSpace(pg.Query("SELECT (SELECT count(*) FROM usage_events), (SELECT sum(requests) FROM usage_days)")); got != "1|1" {
		t.Errorf("events, and those in the sums by day: %s", got)
	}
}
