package billing_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func (e *env) books() *billing.Books { return &billing.Books{Store: e.store, Redis: e.client} }

// waiting returns the dead letters that wait, oldest first.
func (e *env) waiting() []control.DeadLetter {
	e.t.Helper()
	list, err := e.store.WaitingDeadLetters(context.Background(), 100)
	if err != nil {
		e.t.Fatal(err)
	}
	for i := range len(list) / 2 {
		list[i], list[len(list)-1-i] = list[len(list)-1-i], list[i]
	}
	return list
}

func (e *env) addCustomer(id string) {
	e.t.Helper()
	err := e.store.InTx(context.Background(), func(tx *store.Tx) error {
		return tx.InsertCustomer(context.Background(), control.Customer{ID: id, Name: "x", Tier: "starter", Status: control.CustomerActive, CreatedAt: time.Now()})
	})
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) audit(action string) string {
	return strings.TrimSpace(e.pg.Query("SELECT count(*) FROM audit_log WHERE actor = 'ada' AND action = '" + action + "'"))
}

func TestReplayRecordsOnce(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	books, ctx := e.books(), t.Context()
	e.start(e.options())
	early := e.event()
	early.CustomerID = "c1" // whom nobody knows yet
	e.add(e.encode(early))
	e.await("the dead letter", func() bool { return len(e.waiting()) == 1 && e.acked("r1") == 1 })
	id := e.waiting()[0].ID
	if _, err := books.Replay(ctx, "ada", id); !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "unknown customer") {
		t.Errorf("too early: %v", err)
	}
	if len(e.waiting()) != 1 || e.audit("ledger.replay") != "0" {
		t.Error("a replay that was refused changed something")
	}
	e.addCustomer("c1")
	// Several at once: one does it, the others find it done.
	done := make(chan error, 4)
	for range cap(done) {
		go func() {
			r, err := books.Replay(context.Background(), "ada", id)
			if err == nil && r.Inserted != 1 {
				err = errors.New("nothing was inserted")
			}
			done <- err
		}()
	}
	succeeded := 0
	for range cap(done) {
		if err := <-done; err == nil {
			succeeded++
		} else if !errors.Is(err, control.ErrInvalid) {
			t.Error(err)
		}
	}
	periods, err := e.store.Periods(ctx, "c1", 10)
	if err != nil || len(periods) != 1 || periods[0].Totals.Requests != 1 || succeeded != 1 || e.audit("ledger.replay") != "1" {
		t.Errorf("periods %+v, %v; %d replays succeeded, %s in the audit log", periods, err, succeeded, e.audit("ledger.replay"))
	}
	// Sent again by its replica, it is a duplicate.
	e.add(e.encode(early))
	e.await("an empty stream", func() bool { return e.streamLen() == 0 })
	if len(e.waiting()) != 0 {
		t.Errorf("waiting %+v", e.waiting())
	}
	if periods, _ := e.store.Periods(ctx, "c1", 10); periods[0].Totals.Requests != 1 {
		t.Errorf("periods %+v", periods)
	}
	if _, err := books.Replay(ctx, "ada", 999); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("an unknown one: %v", err)
	}
	if err := books.Drop(ctx, "ada", id, "x"); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("drop after replay: %v", err)
	}
}

// An event that was parked and has been recorded meanwhile is not counted again.
func TestReplayOfWhatIsThere(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	ev := e.event()
	payload := string(e.encode(ev))
	payload = payload[strings.Index(payload, "[")+1 : strings.LastIndex(payload, "]")]
	d := control.DeadLetter{StreamID: "1-1", Replica: "r1", Seq: ev.Seq, Payload: []byte(payload), Reason: "x"}
	if _, err := e.store.RecordUsage(t.Context(), []control.Delivery{{StreamID: "2-1", Event: ev, Payload: []byte(payload)}}, []control.DeadLetter{d}); err != nil {
		t.Fatal(err)
	}
	r, err := e.books().Replay(t.Context(), "ada", e.waiting()[0].ID)
	if err != nil || r.Duplicates != 1 || r.Inserted != 0 || e.totals().Requests != 1 || len(e.waiting()) != 0 {
		t.Errorf("recorded %+v, %v; totals %+v", r, err, e.totals())
	}
	// Another event with its number stays parked.
	d.Payload = []byte(strings.Replace(payload, `"settled":`, `"settled":1`, 1))
	d.Payload = []byte(strings.Replace(string(d.Payload), `"reserved":`, `"reserved":9`, 1))
	if _, err := e.store.RecordUsage(t.Context(), nil, []control.DeadLetter{d}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.books().Replay(t.Context(), "ada", e.waiting()[0].ID); !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "another event") {
		t.Errorf("replay: %v", err)
	}
}

// A whole entry that this build could not read: the next one can, and the replica may
// then forget what was in it. What is still unreadable is parked by itself.
func TestReplayOfAWholeEntry(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	books, ctx := e.books(), t.Context()
	entry := string(e.encode(e.event(), e.event()))
	e.seq++
	entry = strings.TrimSuffix(entry, "]}") + `,{"replica":"r1","seq":3},null]}`
	for i, payload := range []string{entry, "not JSON"} {
		d := control.DeadLetter{StreamID: "1-" + strconv.Itoa(i), Index: -1, Payload: []byte(payload), Reason: "format 9 is not supported"}
		if _, err := e.store.RecordUsage(ctx, nil, []control.DeadLetter{d}); err != nil {
			t.Fatal(err)
		}
	}
	list := e.waiting()
	r, err := books.Replay(ctx, "ada", list[0].ID)
	if err != nil || r.Inserted != 2 || len(r.Parked) != 2 || e.acked("r1") != 3 {
		t.Errorf("recorded %+v, %v; acked %d", r, err, e.acked("r1"))
	}
	if _, err := books.Replay(ctx, "ada", list[1].ID); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("unreadable: %v", err)
	}
	if got := e.waiting(); len(got) != 3 || got[0].Payload == nil || string(got[0].Payload) != "not JSON" {
		t.Errorf("waiting %+v", got)
	}
	if e.totals().Requests != 2 {
		t.Errorf("totals %+v", e.totals())
	}
}

func TestReplayWithoutRedis(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	ev := e.event()
	ev.CustomerID = "c1"
	payload := string(e.encode(ev))
	d := control.DeadLetter{StreamID: "1-1", Index: -1, Payload: []byte(payload), Reason: "x"}
	if _, err := e.store.RecordUsage(t.Context(), nil, []control.DeadLetter{d}); err != nil {
		t.Fatal(err)
	}
	e.addCustomer("c1")
	away := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1})
	defer away.Close()
	books := &billing.Books{Store: e.store, Redis: away}
	if r, err := books.Replay(t.Context(), "ada", e.waiting()[0].ID); !errors.Is(err, billing.ErrUnacknowledged) || r.Inserted != 1 {
		t.Errorf("recorded %+v, %v", r, err)
	}
	e.start(e.options())
	e.await("the acknowledgement", func() bool { return e.acked("r1") == 1 })
}

func TestDrop(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	books, ctx := e.books(), t.Context()
	e.start(e.options())
	ev := e.event()
	ev.CustomerID = "nobody"
	e.add(e.encode(ev))
	e.await("the dead letter", func() bool { return len(e.waiting()) == 1 })
	id := e.waiting()[0].ID
	if err := books.Drop(ctx, "ada", id, ""); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("without a reason: %v", err)
	}
	if err := books.Drop(ctx, "ada", id, "test traffic"); err != nil {
		t.Fatal(err)
	}
	if err := books.Drop(ctx, "ada", id, "test traffic"); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("dropped twice: %v", err)
	}
	if _, err := books.Replay(ctx, "ada", id); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("replayed after that: %v", err)
	}
	if err := books.Drop(ctx, "ada", 999, "x"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("an unknown one: %v", err)
	}
	// Sent again, it is not parked again; and it stays accounted for.
	e.add(e.encode(ev))
	e.add(e.batch(1))
	e.await("an empty stream", func() bool { return e.streamLen() == 0 })
	all, err := e.store.DeadLetters(ctx, 10)
	if err != nil || len(all) != 1 || all[0].DroppedAt.IsZero() || len(e.waiting()) != 0 || e.acked("r1") != 2 {
		t.Errorf("dead letters %+v, %v; acked %d", all, err, e.acked("r1"))
	}
	// Nor billed, should the customer turn up after all.
	e.pg.Query("INSERT INTO customers (id, name, tier) VALUES ('nobody', 'x', 'starter')")
	e.add(e.encode(ev))
	e.add(e.batch(1))
	e.await("an empty stream", func() bool { return e.streamLen() == 0 })
	if n := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM usage_events WHERE customer_id = 'nobody'")); n != "0" || len(e.waiting()) != 0 {
		t.Errorf("%s rows of an event that was dropped, %d wait", n, len(e.waiting()))
	}
	if e.audit("ledger.drop") != "1" {
		t.Errorf("%s drops in the audit log", e.audit("ledger.drop"))
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	books, ctx := e.books(), t.Context()
	e.start(e.options())
	e.add(e.batch(5))
	e.await("the events", func() bool { return e.totals().Requests == 5 })
	key := contract.QuotaKey(e.customer, e.period)
	set := func(n int64) { e.client.HSet(context.Background(), key, "settled", n) }
	verify := func(o billing.VerifyOptions) billing.Verified {
		t.Helper()
		v, err := books.Verify(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := verify(billing.VerifyOptions{}); len(v.Different) != 1 || v.Different[0].Redis != nil || v.Different[0].TotalsDiffer() {
		t.Errorf("unknown to Redis: %+v", v)
	}
	set(e.settled)
	e.addCustomer("c2")
	if v := verify(billing.VerifyOptions{}); len(v.Different) != 0 || v.Periods != 1 || v.NotKept != 0 {
		t.Errorf("all agree: %+v", v)
	}
	set(e.settled + 1)
	if v := verify(billing.VerifyOptions{Customer: e.customer}); len(v.Different) != 1 || *v.Different[0].Redis != e.settled+1 {
		t.Errorf("Redis ahead: %+v", v)
	}
	if v := verify(billing.VerifyOptions{Customer: "c2"}); len(v.Different) != 0 || v.Periods != 0 {
		t.Errorf("another customer: %+v", v)
	}
	if v := verify(billing.VerifyOptions{Period: "p9"}); len(v.Different) != 0 || v.Periods != 0 {
		t.Errorf("another period: %+v", v)
	}
	if _, err := books.Verify(ctx, billing.VerifyOptions{Customer: "nobody"}); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("unknown customer: %v", err)
	}
	// Given time, it sees that the event arrives. It must look at least twice.
	catchUp := time.AfterFunc(300*time.Millisecond, func() { set(e.settled) })
	defer catchUp.Stop()
	if v := verify(billing.VerifyOptions{Wait: 20 * time.Second}); len(v.Different) != 0 {
		t.Errorf("after a while: %+v", v)
	}

	// The sums by day are part of the ledger.
	e.pg.Query("UPDATE usage_days SET settled_tokens = settled_tokens + 1")
	if v := verify(billing.VerifyOptions{}); len(v.Different) != 1 || !v.Different[0].TotalsDiffer() || v.Different[0].WrongDays != 1 || v.Different[0].RedisDiffers() {
		t.Errorf("a day differs: %+v", v)
	} else if n, err := books.RepairTotals(ctx, "eve", v.Different); err != nil || n != 1 {
		t.Errorf("repaired %d days, %v", n, err)
	}
	if v := verify(billing.VerifyOptions{}); len(v.Different) != 0 {
		t.Errorf("after the repair of a day: %+v", v)
	}

	e.pg.Query("UPDATE usage_periods SET prompt_tokens = prompt_tokens + 1")
	set(e.settled + 1)
	v := verify(billing.VerifyOptions{Wait: 300 * time.Millisecond})
	if len(v.Different) != 1 || !v.Different[0].TotalsDiffer() || !v.Different[0].RedisDiffers() {
		t.Fatalf("both: %+v", v)
	}
	if n, err := books.RepairTotals(ctx, "ada", v.Different); err != nil || n != 1 || e.audit("ledger.repair_totals") != "1" {
		t.Errorf("repaired %d, %v", n, err)
	}
	if v := verify(billing.VerifyOptions{}); len(v.Different) != 1 || v.Different[0].TotalsDiffer() {
		t.Errorf("after the repair: %+v", v)
	}
	e.redis.Stop()
	if _, err := books.Verify(ctx, billing.VerifyOptions{}); err == nil {
		t.Error("no error without Redis")
	}
}

type leases struct {
	calls int
	err   error
}

func (l *leases) GiveUp(_ context.Context, replica string) ([]control.Released, error) {
	l.calls++
	return []control.Released{{CustomerID: "c1", Settled: 7, Freed: 40}, {CustomerID: "c2", Freed: 2}}, l.err
}

func TestDeclareLost(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	books, ctx := e.books(), t.Context()
	e.start(e.options())
	e.add(e.batch(3))
	e.await("the events", func() bool { return e.acked("r1") == 3 })
	if _, err := books.DeclareLost(ctx, "ada", "r1", ""); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("without a reason: %v", err)
	}
	if _, err := books.DeclareLost(ctx, "ada", "r9", "x"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("an unknown one: %v", err)
	}
	first, err := books.DeclareLost(ctx, "ada", "r1", "node burnt down")
	if err != nil || first.Status != control.ReplicaLost || first.Acked != 3 || first.Released != nil || first.LostReason != "node burnt down" {
		t.Errorf("declared %+v, %v", first, err)
	}
	// What it held is freed by whoever can, again after a failure.
	l := &leases{err: errors.New("away")}
	books.Leases = l
	if _, err := books.DeclareLost(ctx, "ada", "r1", "again"); err == nil || l.calls != 1 {
		t.Errorf("leases not freed: %v", err)
	}
	l.err = nil
	again, err := books.DeclareLost(ctx, "ada", "r1", "again")
	if err != nil || *again.Released != 42 || again.Settled != 7 || len(again.Leases) != 2 || again.LostReason != "node burnt down" || !again.LostAt.Equal(first.LostAt) {
		t.Errorf("declared again: %+v, %v", again, err)
	}
	if e.audit("ledger.declare_lost") != "1" {
		t.Errorf("%s in the audit log", e.audit("ledger.declare_lost"))
	}
	// Should it come back all the same, nothing it sends is lost.
	e.add(e.batch(2))
	e.await("its events", func() bool { return e.acked("r1") == 5 })
	e.settledDown()
}
