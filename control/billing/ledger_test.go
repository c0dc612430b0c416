package billing_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control/billing"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestEventsReachPostgresAtOnce(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	o := e.options()
	o.Block = 5 * time.Second // a read that waited for its end would be seen
	registry := prometheus.NewPedanticRegistry()
	o.Registerer = registry
	w := e.start(o)
	e.add(e.batch(1))
	e.await("the first event", func() bool { return e.totals().Requests == e.sent })
	if err := w.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	slow := 0
	for range 20 {
		begin := time.Now()
		e.add(e.batch(3))
		e.await("a batch", func() bool { return e.totals().Requests == e.sent })
		if time.Since(begin) > time.Second {
			slow++
		}
	}
	if slow > 5 { // a machine that has much to do may be slow now and then
		t.Errorf("%d of 20 batches took more than a second", slow)
	}
	e.settledDown()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"billing_ledger_events_total inserted": 61, "billing_ledger_events_total duplicate": 0,
		"billing_ledger_events_total parked": 0, "billing_ledger_batch_seconds": 21, "billing_ledger_delay_seconds": 21,
		"billing_ledger_retries_total postgres": 0, "billing_ledger_lag_seconds": 0,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s = %v (there: %v), want %v", name, value, ok, want)
		}
	}
}

func TestDuplicateDeliveriesCountOnce(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	for range 30 {
		b := e.batch(10)
		for range 3 {
			e.add(b)
		}
	}
	e.start(e.options())
	e.start(e.options())
	e.settledDown()
}

// Dying between any two steps neither loses nor repeats an event: another worker
// claims what the dead one had in hand.
func TestKilledBetweenAnyTwoSteps(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"read", "committed", "acknowledged"} {
		t.Run(step, func(t *testing.T) {
			testenv.SingleAndCluster(t, func(t *testing.T, r testenv.AnyRedis) { testKilledAt(t, r, step) })
		})
	}
}

func testKilledAt(t *testing.T, r testenv.AnyRedis, step string) {
	e := newEnvOn(t, r, storetest.Postgres(t))
	o := e.options()
	o.TxEvents = 10 // several transactions for one read
	for range 20 {
		e.add(e.batch(5))
	}
	for nth := 1; nth <= 3; nth++ {
		w := e.start(killAt(o, step, nth))
		if err := <-w.done; !errors.Is(err, errKilled) {
			t.Fatalf("Run returned %v", err)
		}
		w.done <- nil // for the cleanup
		e.add(e.batch(5))
	}
	if e.totals().Requests == e.sent {
		t.Fatal("nothing was left to another worker: the test shows nothing")
	}
	e.start(e.options())
	e.settledDown()
}

// The same, with the name of the dead worker: what it had pending comes first, and
// without waiting until it may be claimed.
func TestRestartUnderTheSameNameReplaysPending(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	o := e.options()
	o.Consumer, o.ClaimIdle = "ledger-one", time.Hour
	for range 10 {
		e.add(e.batch(2))
	}
	w := e.start(killAt(o, "committed", 1))
	if err := <-w.done; !errors.Is(err, errKilled) {
		t.Fatalf("Run returned %v", err)
	}
	w.done <- nil // for the cleanup
	e.start(o)
	e.settledDown()
}

func TestManyWorkersShareTheStream(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, r testenv.AnyRedis) {
		e := newEnvOn(t, r, storetest.Postgres(t))
		o := e.options()
		o.ReadEntries, o.ClaimIdle = 2, 10*time.Millisecond // they also steal from one another
		var mu sync.Mutex
		commits := make(map[int]int)
		for i := range 3 {
			e.start(billing.WithStep(o, func(name string) error {
				if name == "committed" {
					mu.Lock()
					commits[i]++
					mu.Unlock()
				}
				return nil
			}))
		}
		e.await("three workers", func() bool {
			c, err := e.client.XInfoConsumers(t.Context(), contract.UsageStreamKey, contract.UsageGroup).Result()
			return err == nil && len(c) == 3
		})
		for range 200 {
			e.add(e.batch(3))
		}
		e.settledDown()
		mu.Lock()
		defer mu.Unlock()
		if len(commits) < 2 {
			t.Errorf("transactions by worker %v: they did not share", commits)
		}
	})
}

func TestPoisonIsParkedAndNeighboursPass(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	add := e.add
	good := string(e.batch(2))
	open := strings.TrimSuffix(good, "]}")
	unknown := e.event()
	unknown.CustomerID = "nobody"
	foreign, err := contract.EncodeBatch(contract.Batch{Replica: "r1", Events: []contract.Event{unknown}})
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]int{ // entry → events to park
		open + `,{"seq":"one"},null,17,{}]}`: 4,
		string(foreign):                      1,
		`{"format":99,"events":[{}]}`:        1,
		`{"format":1,"replica":"r1"}`:        1,
		`not JSON` + "\x00\xff":              1,
		``:                                   1,
		strings.Replace(good, `"r1"`, `"r\u0000"`, 3): 2,
	}
	parked := 0
	for entry, n := range entries {
		add(entry)
		parked += n
	}
	// An entry without our field.
	if err := e.client.XAdd(t.Context(), &redis.XAddArgs{Stream: contract.UsageStreamKey, Values: []any{"other", "x"}}).Err(); err != nil {
		t.Fatal(err)
	}
	parked++
	add(e.batch(3))

	e.start(e.options())
	e.settledDown()
	dead, err := e.store.DeadLetters(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(dead) != parked {
		t.Errorf("%d dead letters, want %d", len(dead), parked)
	}
	for _, d := range dead {
		t.Logf("%s[%d] %q: %s", d.StreamID, d.Index, d.Payload, d.Reason)
		if d.Reason == "" || d.StreamID == "" {
			t.Errorf("dead letter %+v", d)
		}
	}
}

func TestPostgresStopsInTheMiddle(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.DedicatedPostgres(t))
	w := e.start(e.options())
	e.add(e.batch(5))
	e.await("the first events", func() bool { return e.totals().Requests == e.sent })

	e.pg.Stop()
	for range 10 {
		e.add(e.batch(5))
	}
	e.await("the ledger to notice", func() bool { return w.Ready() != nil })
	if n := e.streamLen(); n != 10 {
		t.Errorf("%d entries on the stream, want all 10", n)
	}
	e.pg.Start()
	e.await("all events", func() bool { return e.streamLen() == 0 })
	e.settledDown()
	e.await("readiness", func() bool { return w.Ready() == nil })
}

func TestPostgresHangs(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.DedicatedPostgres(t))
	o := e.options()
	o.CommitTimeout = 200 * time.Millisecond
	w := e.start(o)
	e.add(e.batch(5))
	e.await("the first events", func() bool { return e.totals().Requests == e.sent })
	e.pg.Pause()
	e.add(e.batch(5))
	e.await("the ledger to notice", func() bool { return w.Ready() != nil })
	e.pg.Resume()
	e.settledDown()
}

func TestRedisStopsInTheMiddle(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, r testenv.AnyRedis) {
		// With "everysec" Redis answers before it writes while the disk is busy, and a kill
		// loses what it answered. The proxies send that again; here nobody does.
		e := newEnvOn(t, r, storetest.Postgres(t))
		w := e.start(e.options())
		e.await("readiness", func() bool { return w.Ready() == nil })
		for range 3 {
			for range 20 {
				e.add(e.batch(2))
			}
			e.redis.Stop()
			e.await("the ledger to notice", func() bool { return w.Ready() != nil })
			e.redis.Start()
			e.await("readiness", func() bool { return w.Ready() == nil })
		}
		e.settledDown()
	}, testenv.RedisArgs("--appendfsync", "always"))
}

// When Redis has lost everything, the group included, the proxies send again what
// was not acknowledged; some of it is in Postgres already.
func TestRedisLosesItsData(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, r testenv.AnyRedis) {
		e := newEnvOn(t, r, storetest.Postgres(t))
		e.start(e.options())
		again := [][]byte{e.batch(5), e.batch(5)}
		for _, b := range again {
			e.add(b)
		}
		e.await("the first events", func() bool { return e.totals().Requests == e.sent })
		e.redis.FlushAll()
		for _, b := range append(again, e.batch(5)) {
			e.add(b)
		}
		e.settledDown()
	})
}

// SIGTERM: the batch in hand is finished, nothing new is begun, the name is removed.
func TestStopFinishesTheBatchInHand(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	o := e.options()
	reached, resume := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w := e.start(billing.WithStep(o, func(name string) error {
		if name == "read" {
			once.Do(func() { close(reached); <-resume })
		}
		return nil
	}))
	e.add(e.batch(7))
	<-reached
	stopped := make(chan error)
	go func() { stopped <- w.stop() }()
	close(resume)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	e.settledDown()
	consumers, err := e.client.XInfoConsumers(t.Context(), contract.UsageStreamKey, contract.UsageGroup).Result()
	if err != nil || len(consumers) != 0 {
		t.Errorf("consumers left: %v, %v", consumers, err)
	}
}

// Without Postgres, stopping takes FinishWithin, and what was in hand stays pending.
func TestStopWithoutPostgresLeavesTheBatchPending(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.DedicatedPostgres(t))
	o := e.options()
	o.FinishWithin = 300 * time.Millisecond
	w := e.start(o)
	e.pg.Stop()
	e.add(e.batch(7))
	e.await("the ledger to notice", func() bool { return w.Ready() != nil })
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if n := e.streamLen(); n != 1 {
		t.Fatalf("%d entries on the stream, want 1", n)
	}
	e.pg.Start()
	e.start(e.options())
	e.settledDown()
}
