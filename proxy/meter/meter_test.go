package meter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy/journal"
	"github.com/andreabadesso/openclaw-cloud/proxy/meter"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// rig is a Meter over a journal of its own.
type rig struct {
	*meter.Meter
	t       testing.TB
	journal *journal.Journal
	limit   *limit
}

// limit is charged for what the test says.
type limit struct {
	mu      sync.Mutex
	settled int64
	err     error
	epoch   int64
	asked   int
	onAsk   func()
}

func (l *limit) Epoch() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

func (l *limit) Forgettable(context.Context) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	settled, err := l.settled, l.err
	if l.onAsk != nil {
		l.onAsk()
	}
	return settled, err
}

// set says up to which event the limit was charged, or why that is not known.
func (l *limit) set(settled int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settled, l.err = settled, err
}

func openRig(t testing.TB, rdb redis.UniversalClient, dir string, o meter.Options) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	j, err := journal.Open(dir, journal.Options{Slots: 64, LogBytes: 8 << 20, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	o.Logger = log
	l := &limit{settled: math.MaxInt64}
	return &rig{Meter: meter.New(rdb, j, l, o), t: t, journal: j, limit: l}
}

func newMeter(t *testing.T, rdb redis.UniversalClient, o meter.Options) *rig {
	t.Helper()
	m := openRig(t, rdb, t.TempDir(), o)
	t.Cleanup(m.close)
	return m
}

func (r *rig) close() {
	r.Close()
	_ = r.journal.Close()
}

// Record takes a request through the journal. Its id is its place in the order of Record.
func (r *rig) Record(n int) {
	slot, err := r.journal.Begin(&journal.Intent{
		AdmittedAt: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), PeriodID: "p1", RequestID: fmt.Sprintf("req_%d", n),
		CustomerID: "c1", BoxID: "b1", TokenID: "t1", Face: contract.FaceOpenAI, Reserved: int64(n), PromptBound: int64(n),
	})
	if err != nil {
		r.t.Errorf("begin: %v", err)
		return
	}
	slot.Sent()
	slot.Complete(&contract.Event{Prompt: int64(n), Settled: int64(n), Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK})
}

// batches reads the stream: the events of each of its entries.
func batches(t *testing.T, rdb redis.Cmdable) [][]contract.Event {
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
		if b.Replica == "" {
			t.Error("batch without a replica")
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
			if e.RequestID != fmt.Sprintf("req_%d", e.Seq) || e.Prompt != e.Seq {
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

func flush(t *testing.T, m *rig) {
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
	for deadline := time.Now().Add(12 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 12 s: %s", what)
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
		m.Record(i + 1)
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
		m.Record(i + 1)
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
				m.Record(w*each + i + 1)
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
	for name, fault := range map[string]struct{ begin, end func(testenv.AnyRedis) }{
		"killed": {testenv.AnyRedis.Stop, testenv.AnyRedis.Start},
		"frozen": {testenv.AnyRedis.Pause, testenv.AnyRedis.Resume},
	} {
		t.Run(name, func(t *testing.T) {
			testenv.SingleAndCluster(t, func(t *testing.T, srv testenv.AnyRedis) { testOutage(t, srv, fault.begin, fault.end) })
		})
	}
}

func testOutage(t *testing.T, srv testenv.AnyRedis, begin, end func(testenv.AnyRedis)) {
	rdb := srv.UniversalClient()
	m := newMeter(t, srv.UniversalClient(), meter.Options{MaxBatch: 50, Linger: time.Millisecond, Timeout: 50 * time.Millisecond})
	n := 0
	record := func(k int) {
		for range k {
			n++
			m.Record(n)
		}
	}
	record(120)
	flush(t, m)
	record(60) // on their way when the fault comes
	begin(srv)
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
	end(srv)
	record(10)
	flush(t, m)
	checkAll(t, batches(t, rdb), n)
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
		m.Record(i + 1)
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

func acknowledge(t *testing.T, rdb *redis.Client, r *rig, n int) {
	t.Helper()
	if err := rdb.HSet(context.Background(), contract.UsageAckedKey, r.journal.Replica(), n).Err(); err != nil {
		t.Fatal(err)
	}
}

// What Postgres has is forgotten; what it has not is kept.
func TestAcknowledgedEventsAreForgotten(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	rdb := srv.Client()
	m := newMeter(t, rdb, meter.Options{AckEvery: 5 * time.Millisecond})
	for i := range 10 {
		m.Record(i + 1)
	}
	flush(t, m)
	if n := m.Unacknowledged(); n != 10 {
		t.Errorf("%d events are unacknowledged, want 10", n)
	}
	acknowledge(t, rdb, m, 7)
	eventually(t, "seven are forgotten", func() bool { return m.journal.Forgotten() == 7 && m.Unacknowledged() == 3 })
	acknowledge(t, rdb, m, 4) // never goes back
	time.Sleep(30 * time.Millisecond)
	if m.journal.Forgotten() != 7 || m.Unacknowledged() != 3 {
		t.Errorf("forgotten up to %d, %d unacknowledged after an older acknowledgement", m.journal.Forgotten(), m.Unacknowledged())
	}
}

// What Postgres has is kept as long as the limit was not charged for it, or nobody knows.
func TestUnsettledEventsAreKept(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	rdb := srv.Client()
	m := newMeter(t, rdb, meter.Options{AckEvery: 5 * time.Millisecond})
	m.limit.set(0, errors.New("another epoch"))
	for i := range 10 {
		m.Record(i + 1)
	}
	flush(t, m)
	acknowledge(t, rdb, m, 8)
	asked := func(more int) {
		t.Helper()
		m.limit.mu.Lock()
		from := m.limit.asked
		m.limit.mu.Unlock()
		eventually(t, "the limit was asked", func() bool {
			m.limit.mu.Lock()
			defer m.limit.mu.Unlock()
			return m.limit.asked >= from+more
		})
	}
	asked(3)
	if m.journal.Forgotten() != 0 || m.Unacknowledged() != 2 {
		t.Errorf("forgotten up to %d, %d unacknowledged", m.journal.Forgotten(), m.Unacknowledged())
	}
	m.limit.set(5, nil)
	asked(3)
	if m.journal.Forgotten() != 5 {
		t.Errorf("forgotten up to %d, the limit was charged up to 5", m.journal.Forgotten())
	}
	m.limit.set(10, nil)
	eventually(t, "what is acknowledged is forgotten", func() bool { return m.journal.Forgotten() == 8 })
}

// What is acknowledged after the limit was asked may belong to another epoch.
func TestAcknowledgementsAreReadFirst(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	rdb := srv.Client()
	m := newMeter(t, rdb, meter.Options{AckEvery: 5 * time.Millisecond})
	for i := range 10 {
		m.Record(i + 1)
	}
	flush(t, m)
	m.limit.mu.Lock()
	m.limit.onAsk = func() {
		m.limit.onAsk = nil
		acknowledge(t, rdb, m, 9)
		m.limit.err = errors.New("another epoch") // from the next time on
	}
	m.limit.mu.Unlock()
	acknowledge(t, rdb, m, 4)
	eventually(t, "some are forgotten", func() bool { return m.journal.Forgotten() > 0 })
	eventually(t, "the later acknowledgement is known", func() bool { return m.Unacknowledged() == 1 })
	if m.journal.Forgotten() != 4 {
		t.Errorf("forgotten up to %d", m.journal.Forgotten())
	}
}

// A new process ships what the old one left, under the same numbers.
func TestRestartSendsWhatWasLeft(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	rdb := srv.Client()
	dir := t.TempDir()
	srv.Stop()
	m := openRig(t, srv.Client(), dir, meter.Options{Timeout: 20 * time.Millisecond})
	for i := range 5 {
		m.Record(i + 1)
	}
	name := m.journal.Replica()
	m.close()
	srv.Start()
	m = openRig(t, rdb, dir, meter.Options{})
	t.Cleanup(m.close)
	if m.journal.Replica() != name {
		t.Errorf("the journal's replica was %s and is %s", name, m.journal.Replica())
	}
	m.Record(6)
	flush(t, m)
	checkAll(t, batches(t, rdb), 6)
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
				for m.Queued() < 50 { // never empty, and never so full that the journal refuses
					n++
					m.Record(n)
				}
				time.Sleep(100 * time.Microsecond)
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
	m := openRig(t, srv.Client(), t.TempDir(), meter.Options{Timeout: 100 * time.Millisecond})
	t.Cleanup(m.close)
	srv.Pause()
	defer srv.Resume()
	m.Record(1)
	time.Sleep(30 * time.Millisecond) // the command is waiting for its answer
	start := time.Now()
	m.Close()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
}
