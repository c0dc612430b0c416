package jobs_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// One wake of a box waits at most, comes with its change, and is worked by the operator of the
// boxes only; a change that comes while it is worked has another one.
func TestBoxesAreWoken(t *testing.T) {
	t.Parallel()
	st, pg := prepared(t)
	ctx := t.Context()
	if _, err := jobs.Migrate(ctx, st, discard()); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	woken := map[string]int{}
	working, goOn := make(chan string, 10), make(chan struct{})
	j, err := jobs.New(ctx, st, discard(), &jobs.Handlers{WakeBox: func(_ context.Context, box string) error {
		mu.Lock()
		woken[box]++
		n := woken[box]
		mu.Unlock()
		if box == "b1" {
			working <- box
			<-goOn
		}
		if box == "b2" && n == 1 {
			return errors.New("not yet")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	wake := func(result error, boxes ...string) {
		t.Helper()
		err := st.InTx(ctx, func(tx *store.Tx) error {
			for _, box := range boxes {
				if err := j.WakeBox(ctx, tx, box); err != nil {
					return err
				}
			}
			return result
		})
		if !errors.Is(err, result) {
			t.Fatal(err)
		}
	}
	count := func(where string) string {
		return strings.TrimSpace(pg.Query("SELECT count(*) FROM river_job WHERE kind = 'box' AND " + where))
	}
	wake(nil, "b1", "b1", "b2")
	wake(nil, "b1")
	wake(errors.New("rolled back"), "b3")
	if got := count("queue = 'boxes'"); got != "2" {
		t.Fatalf("%s jobs, want one per box", got)
	}
	if err := st.InTx(ctx, func(tx *store.Tx) error { return j.Retain(ctx, tx) }); err != nil {
		t.Fatal(err)
	}
	if err := j.Start(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-working:
	case <-time.After(60 * time.Second):
		t.Fatal("b1 was not woken")
	}
	// It has looked at the box already: what is decided now needs another look.
	wake(nil, "b1")
	if got := count("args->>'box_id' = 'b1'"); got != "2" {
		t.Errorf("%s jobs of a box whose job is being worked, want 2", got)
	}
	close(goOn)
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		mu.Lock()
		done := woken["b1"] == 2 && woken["b2"] == 2
		mu.Unlock()
		if done {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("woken %v", woken)
		}
	}
	if err := j.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(pg.Query("SELECT state FROM river_job WHERE kind = 'retention'")); got != "available" || woken["b3"] != 0 {
		t.Errorf("other queues were worked (%s), or what was rolled back: %v", got, woken)
	}
}

// A wake that is waiting is kept for a change that goes on: it is not worked before that is
// committed.
func TestWakeWaitsForTheChange(t *testing.T) {
	t.Parallel()
	st, pg := prepared(t)
	ctx := t.Context()
	if _, err := jobs.Migrate(ctx, st, discard()); err != nil {
		t.Fatal(err)
	}
	woken := make(chan string, 10)
	j, err := jobs.New(ctx, st, discard(), &jobs.Handlers{WakeBox: func(context.Context, string) error {
		woken <- strings.TrimSpace(pg.Query("SELECT name FROM customers WHERE id = 'c1'"))
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	if err := st.InTx(ctx, func(tx *store.Tx) error { return j.WakeBox(ctx, tx, "b1") }); err != nil {
		t.Fatal(err)
	}
	if err := st.InTx(ctx, func(tx *store.Tx) error {
		if err := j.WakeBox(ctx, tx, "b1"); err != nil {
			return err
		}
		if err := j.Start(ctx); err != nil {
			return err
		}
		time.Sleep(2 * time.Second) // in which an unlocked job is fetched many times over
		return tx.SetProfile(ctx, "x", "c1", "changed", "en", time.Now())
	}); err != nil {
		t.Fatal(err)
	}
	select {
	case name := <-woken:
		if name != "changed" {
			t.Errorf("woken before the change was there: %s", name)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("not woken")
	}
	if err := j.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}
