package meter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy/meter"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const replica = "r1"

func newMeter(t *testing.T, rdb redis.UniversalClient, o meter.Options) *meter.Meter {
	t.Helper()
	o.Replica, o.Logger = replica, slog.New(slog.DiscardHandler)
	m := meter.New(rdb, o)
	t.Cleanup(m.Close)
	return m
}

// event is a valid event whose request id is its place in the order of Record.
func event(n int) contract.Event {
	return contract.Event{
		AdmittedAt: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), PeriodID: "p1", RequestID: fmt.Sprintf("req_%d", n),
		CustomerID: "c1", BoxID: "b1", TokenID: "t1", Face: contract.FaceOpenAI,
		Prompt: int64(n), Settled: int64(n), Reserved: int64(n),
		Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK,
	}
}

// batches reads the stream: the events of each of its entries.
func batches(t *testing.T, rdb *redis.Client) [][]contract.Event {
	t.Helper()
	entries, err := rdb.XRange(context.Background(), contract.UsageStreamKey, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	var out [][]contract.Event
	for _, e := range entries {
		b, err := contract.DecodeBatch([]byte(e.Values[contract.UsageField].(string)))
		if err != nil {
			t.Fatal(err)
		}
		if b.Replica != replica {
			t.Errorf("batch of replica %q", b.Replica)
		}
		var events []contract.Event
		for _, raw := range b.Events {
			ev, err := contract.DecodeEvent(raw)
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, ev)
		}
		out = append(out, events)
	}
	return out
}

// checkAll fails unless the events 1 to n are there, numbered in the order in which
// they were recorded. An answer of Redis that was lost makes a batch come twice; its
// numbers tell the reader.
func checkAll(t *testing.T, all [][]contract.Event, n int) {
	t.Helper()
	next := int64(1)
	for _, b := range all {
		for _, e := range b {
			if e.Replica != replica || e.RequestID != fmt.Sprintf("req_%d", e.Seq) || e.Prompt != e.Seq {
				t.Fatalf("event %d is that of %s on %s", e.Seq, e.RequestID, e.Replica)
			}
			switch {
			case e.Seq == next:
				next++
			case e.Seq > next:
				t.Fatalf("event %d follows event %d", e.Seq, next-1)
			}
		}
	}
	if next-1 != int64(n) {
		t.Fatalf("%d events are in Redis, want %d", next-1, n)
	}
}

func flush(t *testing.T, m *meter.Meter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if n := m.Queued(); n != 0 {
		t.Errorf("%d events are queued after Flush", n)
	}
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestEventsAreNumberedAndShippedInBatches(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	rdb := srv.Client()
	m := newMeter(t, rdb, meter.Options{MaxBatch: 100, Linger: 50 * time.Millisecond})
	const n = 1050
	for i := range n {
		m.Record(event(i + 1))
	}
	flush(t, m)
	all := batches(t, rdb)
	checkAll(t, all, n)
	if len(all) < 11 || len(all) > 20 {
		t.Errorf("%d events came in %d entries", n, len(all))
	}
	for _, b := range all {
		if len(b) == 0 || len(b) > 100 {
			t.Errorf("an entry has %d events", len(b))
		}
	}
}

// A lone event does not wait for company for longer than the linger, and nothing is
// sent while there is nothing.
func TestLoneEventShipsAtOnce(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	rdb := srv.Client()
	m := newMeter(t, rdb, meter.Options{})
	for i := range 3 {
		m.Record(event(i + 1))
		eventually(t, "the event is in Redis", func() bool { return len(batches(t, rdb)) == i+1 })
		eventually(t, "nothing is queued", func() bool { return m.Queued() == 0 })
	}
	checkAll(t, batches(t, rdb), 3)
}

// Recording from many goroutines: every number is given once, and every event ships
// with its own number.
func TestConcurrentRecords(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	rdb := srv.Client()
	m := newMeter(t, rdb, meter.Options{MaxBatch: 64, Linger: time.Millisecond})
	const each, writers = 250, 8
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				m.Record(event(w*each + i))
			}
		})
	}
	wg.Wait()
	flush(t, m)
	requests := map[string]bool{}
	next := int64(1)
	for _, b := range batches(t, rdb) {
		for _, e := range b {
			if e.Seq != next {
				t.Fatalf("event %d follows event %d", e.Seq, next-1)
			}
			next++
			requests[e.RequestID] = true
		}
	}
	if len(requests) != each*writers {
		t.Errorf("%d of %d events arrived", len(requests), each*writers)
	}
}

func TestOutageLosesNothing(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct{ begin, end func(*testenv.RedisServer) }{
		"killed": {(*testenv.RedisServer).Stop, (*testenv.RedisServer).Start},
		"frozen": {(*testenv.RedisServer).Pause, (*testenv.RedisServer).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := testenv.Redis(t)
			rdb := srv.Client()
			m := newMeter(t, srv.Client(), meter.Options{MaxBatch: 50, Linger: time.Millisecond, Timeout: 50 * time.Millisecond})
			n := 0
			record := func(k int) {
				for range k {
					n++
					m.Record(event(n))
				}
			}
			record(120)
			flush(t, m)
			record(60) // on their way when the fault comes
			fault.begin(srv)
			record(120)
			if m.Queued() < 120 {
				t.Errorf("%d events wait", m.Queued())
			}
			time.Sleep(150 * time.Millisecond) // some attempts fail
			record(60)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if err := m.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Flush while Redis is away: %v", err)
			}
			fault.end(srv)
			record(10)
			flush(t, m)
			checkAll(t, batches(t, rdb), n)
		})
	}
}

// A server that is up but cannot take events (here: it is full) is an outage too.
func TestRefusedBatchesWait(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	rdb := srv.Client()
	m := newMeter(t, rdb, meter.Options{Linger: time.Millisecond})
	ctx := context.Background()
	if err := rdb.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		m.Record(event(i + 1))
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := m.Flush(short); err == nil {
		t.Error("Flush says that a full Redis took the events")
	}
	if err := rdb.ConfigSet(ctx, "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	flush(t, m)
	checkAll(t, batches(t, rdb), 20)
}

func TestFull(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	m := newMeter(t, srv.Client(), meter.Options{MaxQueued: 10, Linger: time.Millisecond, Timeout: 50 * time.Millisecond})
	srv.Stop()
	for i := range 12 { // what is in flight already is recorded beyond the limit
		if full := m.Full(); full != (i >= 10) {
			t.Errorf("Full is %v with %d events queued", full, i)
		}
		m.Record(event(i + 1))
	}
	srv.Start()
	flush(t, m)
	if m.Full() {
		t.Error("still full after everything was sent")
	}
	checkAll(t, batches(t, srv.Client()), 12)
}

func TestFlushWithoutEventsReturnsAtOnce(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	srv.Stop()
	m := newMeter(t, srv.Client(), meter.Options{})
	if err := m.Flush(context.Background()); err != nil {
		t.Error(err)
	}
}

// Flush waits for what was recorded before it, not for what comes after.
func TestFlushEndsUnderLoad(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	m := newMeter(t, srv.Client(), meter.Options{MaxBatch: 10, Linger: time.Millisecond})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	n := 0
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				n++
				m.Record(event(n))
				for m.Queued() < 50 { // never empty
					n++
					m.Record(event(n))
				}
			}
		}
	})
	eventually(t, "events are queued", func() bool { return m.Queued() > 0 })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := m.Flush(ctx)
	close(stop)
	wg.Wait()
	if err != nil {
		t.Error(err)
	}
}

// Close waits for the command under way and its timeout, not for Redis to come back.
func TestCloseDoesNotWaitForRedis(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	m := meter.New(srv.Client(), meter.Options{Replica: replica, Timeout: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	srv.Pause()
	defer srv.Resume()
	m.Record(event(1))
	time.Sleep(30 * time.Millisecond) // the command is waiting for its answer
	start := time.Now()
	m.Close()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
}
