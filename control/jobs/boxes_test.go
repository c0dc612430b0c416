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

// What waits for another attempt does not stand for a decision that is made meanwhile; what is due
// again does.
func TestWakeDoesNotWaitForRetries(t *testing.T) {
	t.Parallel()
	st, pg := prepared(t)
	ctx := t.Context()
	if _, err := jobs.Migrate(ctx, st, discard()); err != nil {
		t.Fatal(err)
	}
	j, err := jobs.New(ctx, st, discard(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	wake := func() {
		t.Helper()
		if err := st.InTx(ctx, func(tx *store.Tx) error { return j.WakeBox(ctx, tx, "b1") }); err != nil {
			t.Fatal(err)
		}
	}
	due := func() string {
		return strings.TrimSpace(pg.Query("SELECT count(*) || ' of ' || (SELECT count(*) FROM river_job) FROM river_job WHERE state = 'available' OR scheduled_at <= now()"))
	}
	wake()
	for _, state := range []string{"retryable", "scheduled"} {
		pg.Query("DELETE FROM river_job")
		wake()
		pg.Query("UPDATE river_job SET attempt = 5, state = '" + state + "', scheduled_at = now() + interval '1 hour'")
		if wake(); due() != "1 of 2" {
			t.Errorf("%s, in an hour: %s jobs are due", state, due())
		}
		pg.Query("DELETE FROM river_job WHERE state = 'available'")
		pg.Query("UPDATE river_job SET scheduled_at = now()")
		if wake(); due() != "1 of 1" {
			t.Errorf("%s, now: %s jobs are due", state, due())
		}
	}
}

// Another attempt of a wake comes soon, however many have failed, and also if the process died that
// made the last one.
func TestWakesAreTriedAgainSoon(t *testing.T) {
	t.Parallel()
	st, pg := prepared(t)
	ctx := t.Context()
	if _, err := jobs.Migrate(ctx, st, discard()); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	woken := map[string]int{}
	j, err := jobs.New(ctx, st, discard(), &jobs.Handlers{WakeBox: func(_ context.Context, box string) error {
		mu.Lock()
		defer mu.Unlock()
		if woken[box]++; woken[box] == 1 {
			return errors.New("not yet")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	if err := st.InTx(ctx, func(tx *store.Tx) error {
		return errors.Join(j.WakeBox(ctx, tx, "failing"), j.WakeBox(ctx, tx, "stuck"))
	}); err != nil {
		t.Fatal(err)
	}
	pg.Query("UPDATE river_job SET attempt = 10, errors = array_fill('{}'::jsonb, ARRAY[10]) WHERE args->>'box_id' = 'failing'")
	pg.Query("UPDATE river_job SET attempt = 1, state = 'running', attempted_by = '{dead}', attempted_at = now() - interval '7 minutes' WHERE args->>'box_id' = 'stuck'")
	if err := j.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		mu.Lock()
		done := woken["failing"] == 2 && woken["stuck"] == 2
		mu.Unlock()
		if done {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("woken %v\n%s", woken, pg.Query("SELECT args, state, attempt, max_attempts, scheduled_at - now() FROM river_job"))
		}
	}
	if err := j.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

// However many jobs wait, those of one box are found by an index, also by a plan that is made for
// any box.
func TestPlanOfWaking(t *testing.T) {
	t.Parallel()
	st, pg := prepared(t)
	if _, err := jobs.Migrate(t.Context(), st, discard()); err != nil {
		t.Fatal(err)
	}
	pg.Query(`INSERT INTO river_job (kind, queue, state, args, max_attempts)
		SELECT 'box', 'boxes', 'available', jsonb_build_object('box_id', 'b' || n), 25 FROM generate_series(1, 50000) n`)
	pg.Query("VACUUM ANALYZE river_job")
	for _, mode := range []string{"force_generic_plan", "force_custom_plan"} {
		plan := pg.Query("SET plan_cache_mode = " + mode + "; PREPARE w(text, text) AS " + jobs.Waiting + "; EXPLAIN EXECUTE w('box', 'nobody')")
		if !strings.Contains(plan, "river_job_args_index") || !strings.Contains(plan, "(id = found.id)") || strings.Contains(plan, "Seq Scan") {
			t.Errorf("%s:\n%s", mode, plan)
		}
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
