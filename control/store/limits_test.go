package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// lead runs do as the leader.
func lead(t *testing.T, st *store.Store, do func(*store.Leader) error) {
	t.Helper()
	err := st.Lead(t.Context(), "test", 10*time.Millisecond, func(_ context.Context, l *store.Leader) error { return do(l) })
	if err != nil {
		t.Fatal(err)
	}
}

// records returns what EachRecord finds.
func records(ctx context.Context, l *store.Leader, epoch int64) (list []control.QuotaRecord, err error) {
	err = l.EachRecord(ctx, epoch, time.Now(), 2, func(page []control.QuotaRecord) error {
		list = append(list, page...)
		return nil
	})
	return list, err
}

// What a record is made from does not depend on when and by whom it is asked, once the
// bases are set.
func TestRecordsOfAnEpochStayTheSame(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx := t.Context()
	var keys []control.QuotaKey
	for range 5 {
		c, _, p := addCustomer(t, st)
		keys = append(keys, control.QuotaKey{CustomerID: c.ID, PeriodID: p.ID})
	}
	event := func(replica string, customer int, seqs ...int64) {
		record(t, st, deliveries(keys[customer].CustomerID, keys[customer].PeriodID, replica, seqs...)...)
	}
	event("other", 0, 1, 3)
	event("member", 0, 1, 2, 4)
	event("member", 1, 5, 6)
	lead(t, st, func(l *store.Leader) error {
		first, err := l.TakeEpoch(ctx, 0, "test")
		if err != nil {
			return err
		}
		if _, err := l.SetBases(ctx, first); err != nil {
			return err
		}
		if _, fits, err := l.Register(ctx, first, "member"); err != nil || fits {
			t.Errorf("with a gap: fits %v, %v", fits, err)
		}
		if reason, err := l.Repair(ctx, first); err != nil || !strings.Contains(reason, "replica member came back") {
			t.Errorf("repair %q, %v", reason, err)
		}
		epoch, err := l.TakeEpoch(ctx, 7, "test")
		if err != nil || epoch != 8 {
			t.Errorf("epoch %d, %v", epoch, err)
		}
		if e, err := l.Epoch(ctx); err != nil || e != (control.QuotaEpoch{Number: 8}) {
			t.Errorf("epoch %+v, %v", e, err)
		}
		bases, err := l.SetBases(ctx, epoch)
		if err != nil || len(bases) != 1 || bases["member"] != 2 {
			t.Errorf("bases %v, %v", bases, err)
		}
		check := func(when string) {
			t.Helper()
			each, err := records(ctx, l, epoch)
			if err != nil {
				t.Fatal(err)
			}
			some, err := st.QuotaRecords(ctx, epoch, keys)
			if err != nil {
				t.Fatal(err)
			}
			for _, list := range [][]control.QuotaRecord{each, some} {
				settled := map[control.QuotaKey]int64{}
				for _, r := range list {
					settled[r.Key()] = r.Settled
					if r.Limit != 1_000_000 || r.LimitVersion != 1 || r.Period.End.IsZero() {
						t.Errorf("record %+v", r)
					}
				}
				if len(list) != 5 || settled[keys[0]] != 4*150 || settled[keys[1]] != 0 || settled[keys[2]] != 0 {
					t.Errorf("%s: %v", when, settled)
				}
			}
		}
		check("at first")
		event("member", 0, 3, 7)
		event("member", 1, 8, 9)
		check("after more of a member")
		if reason, err := l.Repair(ctx, epoch); reason != "" || err != nil {
			t.Errorf("repair %q, %v", reason, err)
		}
		event("other", 2, 2)
		if reason, err := l.Repair(ctx, epoch); err != nil || !strings.Contains(reason, "events of replica other") {
			t.Errorf("repair %q, %v", reason, err)
		}
		unknown, err := st.QuotaRecords(ctx, epoch, []control.QuotaKey{{CustomerID: "nobody", PeriodID: "p"}})
		if err != nil || len(unknown) != 1 || unknown[0].Settled != 0 || unknown[0].Limit != 0 {
			t.Errorf("unknown: %+v, %v", unknown, err)
		}
		return nil
	})
}

// The few events above the bases are found by their numbers, however many there are.
func TestEventsAboveTheBasesAreFoundByNumber(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	for from := int64(1); from <= 3000; from += 1000 {
		var seqs []int64
		for seq := from; seq < from+1000; seq++ {
			seqs = append(seqs, seq)
		}
		record(t, st, deliveries(c.ID, p.ID, "r1", seqs...)...)
	}
	pg.Query("ANALYZE")
	lead(t, st, func(l *store.Leader) error {
		epoch, err := l.TakeEpoch(t.Context(), 0, "test")
		if err != nil {
			return err
		}
		if _, err := l.SetBases(t.Context(), epoch); err != nil {
			return err
		}
		plan := store.ExplainAboveBases(t.Context(), st, epoch)
		if strings.Contains(plan, "Seq Scan on usage_events") || !strings.Contains(plan, "_pkey") {
			t.Errorf("plan\n%s", plan)
		}
		return nil
	})
}

// A record is noted once per epoch, by one of all who try.
func TestRecordsAreNotedOnce(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx := t.Context()
	keys := []control.QuotaKey{{CustomerID: "a", PeriodID: "1"}, {CustomerID: "b", PeriodID: "1"}, {CustomerID: "b", PeriodID: "2"}}
	mark := func(epoch int64, made bool, keys ...control.QuotaKey) int {
		t.Helper()
		fresh, err := st.MarkRecords(ctx, epoch, keys, made)
		if err != nil {
			t.Fatal(err)
		}
		return len(fresh)
	}
	if n := mark(3, false, keys[0], keys[0], keys[1]); n != 2 {
		t.Errorf("%d are fresh", n)
	}
	// That it is part of the beginning is more than that someone means to make it.
	if n := mark(3, true, keys[1:]...); n != 2 {
		t.Errorf("%d are fresh", n)
	}
	if n := mark(2, true, keys...); n != 0 {
		t.Errorf("%d are fresh in an older epoch", n)
	}
	made := func(epoch int64) []control.QuotaKey {
		t.Helper()
		list, err := st.MadeRecords(ctx, epoch, keys, 0)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if list := made(3); !slices.Equal(list, keys[1:]) {
		t.Errorf("made %v", list)
	}
	if list, err := st.UnmadeRecords(ctx, 3, 0, 10); err != nil || !slices.Equal(list, keys[:1]) {
		t.Errorf("not made %v, %v", list, err)
	}
	if list, err := st.UnmadeRecords(ctx, 3, time.Hour, 10); err != nil || len(list) != 0 {
		t.Errorf("not made for an hour %v, %v", list, err)
	}
	if fresh, err := st.RecordsMade(ctx, 2, keys); err != nil || len(fresh) != 0 || len(made(3)) != 2 {
		t.Errorf("fresh %v, made %v, %v", fresh, made(3), err)
	}
	if fresh, err := st.RecordsMade(ctx, 3, keys); err != nil || !slices.Equal(fresh, keys[:1]) || len(made(3)) != 3 {
		t.Errorf("fresh %v, made %v, %v", fresh, made(3), err)
	}
	if fresh, err := st.RecordsMade(ctx, 3, keys); err != nil || len(fresh) != 0 {
		t.Errorf("fresh once more %v, %v", fresh, err)
	}
	if list, err := st.MadeRecords(ctx, 3, keys, time.Hour); err != nil || len(list) != 0 {
		t.Errorf("made an hour ago %v, %v", list, err)
	}
	if n := mark(4, false, keys...); n != 3 || len(made(4)) != 0 {
		t.Errorf("%d are fresh in the next epoch", n)
	}
	var all []control.QuotaKey
	for after := (control.QuotaKey{}); ; after = all[len(all)-1] {
		page, err := st.RecordKeys(ctx, 4, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, page...); len(page) < 2 {
			break
		}
	}
	if !slices.Equal(all, keys) {
		t.Errorf("all %v", all)
	}
}

// A leader that says nothing for some seconds is none any more.
func TestSilentLeader(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	led, second := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- st.Lead(context.Background(), "x", 10*time.Millisecond, func(ctx context.Context, l *store.Leader) error {
			if err := l.Ping(ctx); err != nil {
				return err
			}
			close(led)
			<-second
			if err := l.Ping(ctx); err == nil || l.Alive() {
				return fmt.Errorf("alive %v, %w", l.Alive(), err)
			}
			return nil
		})
	}()
	select {
	case <-led:
	case err := <-first:
		t.Fatal(err)
	}
	errLed := errors.New("led")
	err := st.Lead(t.Context(), "x", 10*time.Millisecond, func(context.Context, *store.Leader) error { close(second); return errLed })
	if !errors.Is(err, errLed) {
		t.Error(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// Repairs are requested by what changes the past.
func TestRepairIsRequested(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	ctx := t.Context()
	early := delivery("c1", "p1", "r1", 1) // whom nobody knows yet
	if _, err := st.RecordUsage(ctx, []control.Delivery{early, delivery(c.ID, p.ID, "r1", 2)}, []control.DeadLetter{{StreamID: "9-1", Index: -1, Payload: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	list, err := st.WaitingDeadLetters(ctx, 10)
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	requests := func() string {
		return strings.TrimSpace(pg.Query("SELECT string_agg(reason, ', ' ORDER BY id) FROM quota_repairs"))
	}
	if got := requests(); got != "" {
		t.Errorf("requests %s", got)
	}
	if err := st.DropDeadLetter(ctx, "ada", list[0].ID, "x"); err != nil {
		t.Fatal(err)
	}
	pg.Query("INSERT INTO customers (id, name, tier) VALUES ('c1', 'x', 'starter')")
	if _, err := st.ReplayDeadLetter(ctx, "ada", list[1].ID, []control.Delivery{early}, nil); err != nil {
		t.Fatal(err)
	}
	pg.Query("UPDATE usage_periods SET settled_tokens = 1 WHERE customer_id = '" + c.ID + "'")
	if _, err := st.RepairTotals(ctx, "ada", c.ID, p.ID); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("dead letter %d was dropped, dead letter %d was replayed, totals of customer %s were repaired", list[0].ID, list[1].ID, c.ID)
	if got := requests(); got != want {
		t.Errorf("requests %s\nwant     %s", got, want)
	}
	lead(t, st, func(l *store.Leader) error {
		epoch, err := l.TakeEpoch(ctx, 0, "test")
		if err != nil {
			return err
		}
		_, err = l.SetBases(ctx, epoch)
		return err
	})
	if got := requests(); got != "" {
		t.Errorf("requests after an epoch: %s", got)
	}
}
