package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func TestCustomerStates(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	type made struct {
		customer control.Customer
		period   control.UsagePeriod
		tokens   int
	}
	want := make(map[string]made)
	for n := range 5 {
		c, b, p := addCustomer(t, st)
		err := st.InTx(t.Context(), func(tx *store.Tx) error {
			next := p
			next.ID, next.Start, next.End = "next", p.End, p.End.AddDate(0, 1, 0)
			if _, err := tx.OpenPeriod(t.Context(), next); err != nil {
				return err
			}
			for i := range n {
				err := tx.InsertToken(t.Context(), control.ProxyToken{
					ID: control.NewID(control.TokenID), CustomerID: c.ID, BoxID: b.ID, Digest: contract.Digest{byte(n), byte(i), 1},
					Hint: "hint", Version: 1, Status: contract.StatusActive, CreatedAt: time.Now(),
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		record(t, st, delivery(c.ID, p.ID, "r1", int64(n+1)))
		want[c.ID] = made{c, p, n}
	}
	seen := 0
	for after := ""; ; {
		page, err := st.CustomerStates(t.Context(), after, time.Now(), 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page {
			w := want[s.Customer.ID]
			if s.Customer.Name != w.customer.Name || s.Period.ID != w.period.ID || s.Period.Totals.Settled != 150 || len(s.Tokens) != w.tokens {
				t.Errorf("state %+v, want %+v", s, w)
			}
			seen++
		}
		if len(page) < 2 {
			break
		}
		after = page[1].Customer.ID
	}
	if seen != len(want) {
		t.Errorf("%d customers, want %d", seen, len(want))
	}
	if page, err := st.CustomerStates(t.Context(), "", time.Now().AddDate(-1, 0, 0), 9); err != nil || len(page) != 5 || page[0].Period.ID != "" {
		t.Errorf("before the first period: %+v, %v", page, err)
	}
}

func TestWithLock(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	other, err := store.Open(t.Context(), pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	run := func(s *store.Store, name string, do func(context.Context) error) bool {
		t.Helper()
		ran, err := s.WithLock(t.Context(), name, do)
		if err != nil {
			t.Fatal(err)
		}
		return ran
	}
	nothing := func(context.Context) error { return nil }
	ran := run(st, "a", func(context.Context) error {
		if run(other, "a", nothing) || run(st, "a", nothing) {
			t.Error("two have the lock")
		}
		if !run(other, "b", nothing) {
			t.Error("another lock is taken")
		}
		return nil
	})
	if !ran || !run(other, "a", nothing) {
		t.Error("the lock is not free")
	}
	for i := range 200 { // it is free at once
		if !run([]*store.Store{st, other}[i%2], "a", nothing) {
			t.Fatalf("turn %d: the lock is not free", i)
		}
	}
	// A failure, and an end of the context, free it too.
	ctx, cancel := context.WithCancel(t.Context())
	failure := errors.New("failed")
	if ran, err := st.WithLock(ctx, "a", func(context.Context) error { cancel(); return failure }); !ran || !errors.Is(err, failure) {
		t.Errorf("%v, %v", ran, err)
	}
	for deadline := time.Now().Add(20 * time.Second); !run(other, "a", nothing); time.Sleep(10 * time.Millisecond) {
		// The connection was cut, which the server notices by and by.
		if time.Now().After(deadline) {
			t.Fatal("the lock is not free after a failure")
		}
	}
}

// However many ask for locks at once, a process opens few connections for them; and for one that
// it has, none.
func TestLocksAreBounded(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	release := make(chan struct{})
	var holders sync.WaitGroup
	for n := range 8 {
		held := make(chan struct{})
		done := sync.OnceFunc(func() { close(held) })
		holders.Go(func() {
			defer done()
			if ran, err := st.WithLock(t.Context(), fmt.Sprint("held ", n), func(context.Context) error { done(); <-release; return nil }); !ran || err != nil {
				t.Errorf("lock %d: %v, %v", n, ran, err)
			}
		})
		<-held
	}
	connections := func() string {
		return pg.Query("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'")
	}
	before := connections()
	var wg sync.WaitGroup
	for n := range 40 {
		wg.Go(func() {
			never := func(context.Context) error { t.Error("it ran"); return nil }
			if ran, err := st.WithLock(t.Context(), fmt.Sprint("one more ", n), never); ran || !errors.Is(err, control.ErrUnavailable) {
				t.Errorf("one more: %v, %v", ran, err)
			}
			if ran, err := st.WithLock(t.Context(), "held 3", never); ran || err != nil {
				t.Errorf("one that it has: %v, %v", ran, err)
			}
		})
	}
	wg.Wait()
	for deadline := time.Now().Add(20 * time.Second); connections() != before && time.Now().Before(deadline); { // that which counted may not have ended
		time.Sleep(20 * time.Millisecond)
	}
	if after := connections(); after != before {
		t.Errorf("%s connections, before %s", after, before)
	}
	close(release)
	holders.Wait()
	if ran, err := st.WithLock(t.Context(), "one more", func(context.Context) error { return nil }); !ran || err != nil {
		t.Errorf("after they were released: %v, %v", ran, err)
	}
}
