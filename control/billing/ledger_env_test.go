package billing_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// env is a Redis, a Postgres with one customer, and the truth: what was put on the
// stream.
type env struct {
	t        *testing.T
	redis    testenv.AnyRedis
	client   redis.UniversalClient
	pg       *testenv.PostgresServer
	store    *store.Store
	customer string
	period   string
	sent     int64 // distinct valid events
	settled  int64
	seq      int64
}

func newEnv(t *testing.T, pg *testenv.PostgresServer) *env {
	t.Helper()
	return newEnvOn(t, testenv.Redis(t), pg)
}

func newEnvOn(t *testing.T, r testenv.AnyRedis, pg *testenv.PostgresServer) *env {
	t.Helper()
	e := &env{t: t, redis: r, client: r.UniversalClient(), pg: pg}
	st, err := store.Open(t.Context(), pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	e.store = st
	id, now := control.NewID(control.CustomerID), time.Now().UTC()
	p := control.FirstPeriod(id, now, 1_000_000)
	e.customer, e.period = id, p.ID
	err = st.InTx(t.Context(), func(tx *store.Tx) error {
		c := control.Customer{ID: id, Name: "Test", Tier: "starter", Status: control.CustomerActive, CreatedAt: now}
		if err := tx.InsertCustomer(t.Context(), c); err != nil {
			return err
		}
		_, err := tx.OpenPeriod(t.Context(), p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// event makes a valid event that was never made before.
func (e *env) event() contract.Event {
	e.seq++
	return contract.Event{
		Replica: "r1", Seq: e.seq, AdmittedAt: time.Now().UTC().Truncate(time.Microsecond), PeriodID: e.period,
		RequestID: fmt.Sprintf("req-%d", e.seq), CustomerID: e.customer, BoxID: "b1", TokenID: "t1", Tier: "starter",
		ModelAsked: "k2", ModelServed: "k2", Face: contract.FaceOpenAI, Upstream: "sim", Prompt: 10, Completion: e.seq,
		Settled: 10 + e.seq, Reserved: 10 + 2*e.seq, Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK, Status: 200,
	}
}

// batch encodes n new events as one entry, and counts them as sent.
func (e *env) batch(n int) []byte {
	e.t.Helper()
	b := contract.Batch{Replica: "r1"}
	for range n {
		ev := e.event()
		e.sent++
		e.settled += ev.Settled
		b.Events = append(b.Events, ev)
	}
	encoded, err := contract.EncodeBatch(b)
	if err != nil {
		e.t.Fatal(err)
	}
	return encoded
}

// add puts an entry onto the stream.
func (e *env) add(payload any) string {
	e.t.Helper()
	id, err := e.client.XAdd(context.Background(), &redis.XAddArgs{
		Stream: contract.UsageStreamKey, Values: []any{contract.UsageField, payload},
	}).Result()
	if err != nil {
		e.t.Fatal(err)
	}
	return id
}

// options are quick ones, whose log goes to the test's output.
func (e *env) options() billing.Options {
	return billing.Options{
		Block: 50 * time.Millisecond, ClaimIdle: 300 * time.Millisecond, RetryMax: 100 * time.Millisecond,
		CommitTimeout: 5 * time.Second, FinishWithin: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(e.t.Output(), nil)),
	}
}

// worker is a running ledger.
type worker struct {
	*billing.Ledger
	stop func() error // ends it in order and returns what Run returned
	done chan error   // what Run returned, if it ends by itself
}

func (e *env) start(o billing.Options) *worker {
	e.t.Helper()
	return e.startOn(e.reader(), o)
}

// reader returns a client such as a ledger is given.
func (e *env) reader() redis.UniversalClient {
	e.t.Helper()
	target, err := redisclient.Parse(e.redis.RedisURL())
	if err != nil {
		e.t.Fatal(err)
	}
	client := target.Open(redisclient.Options{MaxRetries: -1, DialerRetries: 1})
	e.t.Cleanup(func() { _ = client.Close() })
	return client
}

func (e *env) startOn(client redis.UniversalClient, o billing.Options) *worker {
	e.t.Helper()
	l, err := billing.NewLedger(client, e.store, o)
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &worker{Ledger: l, done: make(chan error, 1)}
	go func() { w.done <- l.Run(ctx) }()
	stopped := false
	w.stop = func() error {
		cancel()
		if stopped {
			return nil
		}
		stopped = true
		select {
		case err := <-w.done:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("the ledger does not end")
		}
	}
	e.t.Cleanup(func() {
		cancel()
		if !stopped {
			_ = w.stop()
		}
	})
	return w
}

// errKilled stands for a kill -9.
var errKilled = errors.New("killed")

// killAt makes o die when it comes to the nth call of step.
func killAt(o billing.Options, step string, nth int) billing.Options {
	return billing.WithStep(o, func(name string) error {
		if name == step {
			if nth--; nth == 0 {
				return errKilled
			}
		}
		return nil
	})
}

// await polls until ok says yes.
func (e *env) await(what string, ok func() bool) {
	e.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			e.t.Fatalf("timed out waiting for %s", what)
		}
	}
}

func (e *env) totals() control.UsageTotals {
	e.t.Helper()
	list, err := e.store.Periods(context.Background(), e.customer, 10)
	if err != nil {
		e.t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(p control.UsagePeriod) bool { return p.ID == e.period })
	if i < 0 {
		return control.UsageTotals{}
	}
	return list[i].Totals
}

func (e *env) streamLen() int64 {
	n, err := e.client.XLen(context.Background(), contract.UsageStreamKey).Result()
	if err != nil {
		return -1
	}
	return n
}

// settledDown waits until the stream is empty, and checks that each event that was
// sent is one row and counted once.
func (e *env) settledDown() {
	e.t.Helper()
	e.await("an empty stream", func() bool { return e.streamLen() == 0 })
	got := e.totals()
	if got.Requests != e.sent || got.Settled != e.settled {
		e.t.Errorf("totals: %d requests, %d settled; sent %d, %d", got.Requests, got.Settled, e.sent, e.settled)
	}
	events, err := e.store.Events(context.Background(), e.customer, 1_000_000)
	if err != nil {
		e.t.Fatal(err)
	}
	if int64(len(events)) != e.sent {
		e.t.Errorf("%d rows, sent %d", len(events), e.sent)
	}
	pending, err := e.client.XPending(context.Background(), contract.UsageStreamKey, contract.UsageGroup).Result()
	if err != nil {
		e.t.Fatal(err)
	}
	if pending.Count != 0 {
		e.t.Errorf("%d entries are pending on an empty stream", pending.Count)
	}
}
