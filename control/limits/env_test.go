package limits_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

func TestMain(m *testing.M) {
	redis.SetLogger(discard{}) // it has much to say about servers that tests stop
	testenv.Main(m)
}

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}

// patience is how long tests wait for what happens within a second on an idle machine.
const patience = 40 * time.Second

// until polls until check returns nil.
func until(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still not after %v: %v", what, patience, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// env is databases and customers.
type env struct {
	t       testing.TB
	redis   *testenv.RedisServer // nil with a Cluster
	cluster *testenv.ClusterServer
	pg      *testenv.PostgresServer
	store   *store.Store
	client  redis.UniversalClient
	quota   *quota.Keeper
	log     *logBuffer
	serial  int
	// postgresAway keeps the events of replicas that start from Postgres.
	postgresAway bool
}

func newEnv(t testing.TB) *env {
	t.Helper()
	e := &env{t: t, redis: testenv.Redis(t)}
	e.client = e.redis.Client()
	return e.begin()
}

func (e *env) begin() *env {
	e.t.Helper()
	e.pg, e.log = storetest.Postgres(e.t), &logBuffer{}
	e.store = e.open()
	e.quota = quota.NewKeeper(e.client, 5*time.Second)
	return e
}

// clients returns those of a replica.
func (e *env) clients() (plain, guarded redis.UniversalClient, guard *quota.Guard) {
	if e.cluster == nil {
		p := e.redis.Client()
		guard = quota.NewGuard(p)
		plain, guarded = p, redis.NewClient(&redis.Options{Addr: e.redis.Addr, ContextTimeoutEnabled: true, OnConnect: guard.Check})
	} else {
		p := e.cluster.Client()
		guard = quota.NewGuard(p)
		with := *p.Options()
		with.Addrs, with.OnConnect = slices.Clone(with.Addrs), guard.Check
		plain, guarded = p, redis.NewClusterClient(&with)
	}
	e.t.Cleanup(func() { _ = guarded.Close() })
	return plain, guarded, guard
}

func (e *env) open() *store.Store {
	e.t.Helper()
	st, err := store.Open(e.t.Context(), e.pg.URL)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(st.Close)
	return st
}

// logBuffer collects what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (e *env) options() limits.Options {
	return limits.Options{
		Every: 20 * time.Millisecond, Grace: time.Second, Timeout: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(e.log, nil)),
	}
}

// keep runs a Keeper until the returned function is called, which returns what it did.
func (e *env) keep(o limits.Options) (k *limits.Keeper, stop func() error) {
	e.t.Helper()
	k, err := limits.NewKeeper(e.store, e.client, o)
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	e.t.Cleanup(func() { _ = stop() })
	return k, stop
}

// awaitOpen waits until an epoch is open that is not older than number, and returns it.
func (e *env) awaitOpen(number int64) quota.Epoch {
	e.t.Helper()
	var epoch quota.Epoch
	until(e.t, "the epoch is open", func() (err error) {
		epoch, err = e.quota.Epoch(context.Background())
		if err == nil && (epoch.Number < number || !epoch.IsOpen()) {
			err = fmt.Errorf("epoch %d is %q, %v\n%s", epoch.Number, epoch.State, epoch.Undeclared(), e.log)
		}
		return err
	})
	return epoch
}

// customer makes one with a present period.
func (e *env) customer(limit int64) quota.Account {
	e.t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	id := control.NewID(control.CustomerID)
	p := control.FirstPeriod(id, now.Add(-time.Hour), limit)
	err := e.store.InTx(context.Background(), func(tx *store.Tx) error {
		err := tx.InsertCustomer(context.Background(), control.Customer{ID: id, Name: "x", Tier: "starter", Status: control.CustomerActive, CreatedAt: now})
		if err == nil {
			p, err = tx.OpenPeriod(context.Background(), p)
		}
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return quota.Account{Customer: id, Period: p.Period(), Limit: p.LimitTokens, LimitVersion: p.LimitVersion}
}

// setLimit changes the limit of a, as an operator does: first in Postgres, then in Redis.
func (e *env) setLimit(r *limits.Records, a *quota.Account, limit int64) {
	e.t.Helper()
	err := e.store.InTx(context.Background(), func(tx *store.Tx) error {
		p, err := tx.SetLimit(context.Background(), a.Customer, a.Period.ID, limit, control.PeriodOverage{})
		a.Limit, a.LimitVersion = p.LimitTokens, p.LimitVersion
		return err
	})
	if err == nil {
		err = r.SetLimit(context.Background(), *a)
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

// event returns an event of a.
func event(replica string, seq int64, a quota.Account, settled int64) contract.Event {
	return contract.Event{
		Replica: replica, Seq: seq, AdmittedAt: time.Now().UTC().Truncate(time.Microsecond), PeriodID: a.Period.ID,
		RequestID: fmt.Sprintf("req-%s-%d", replica, seq), CustomerID: a.Customer, BoxID: "b1", TokenID: "t1", Face: contract.FaceOpenAI,
		Prompt: settled, Settled: settled, Reserved: settled, Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK, Status: 200,
	}
}

// record writes events to Postgres, as the ledger would.
func (e *env) record(events ...contract.Event) {
	e.t.Helper()
	list := make([]control.Delivery, len(events))
	for i := range events {
		list[i] = control.Delivery{StreamID: "1-1", Index: i, Payload: []byte("x"), Event: events[i]}
	}
	if _, err := e.store.RecordUsage(context.Background(), list, nil); err != nil {
		e.t.Fatal(err)
	}
}

// usage reads the record of a, which must be there in the epoch that holds.
func (e *env) usage(a quota.Account) (quota.Usage, error) {
	epoch, err := e.quota.Epoch(context.Background())
	if err != nil {
		return quota.Usage{}, err
	}
	have, err := e.client.HGet(context.Background(), contract.QuotaKey(a.Customer, a.Period.ID), "epoch").Int64()
	if err != nil || have != epoch.Number {
		return quota.Usage{}, fmt.Errorf("the record is of epoch %d instead of %d, %w", have, epoch.Number, err)
	}
	// Without the limit that is known here: it would be taken for Redis'.
	return e.quota.Usage(context.Background(), quota.Account{Customer: a.Customer, Period: a.Period})
}

// awaitUsage waits until Redis has that of a.
func (e *env) awaitUsage(a quota.Account, limit, settled, held int64) {
	e.t.Helper()
	until(e.t, "Redis is right", func() error {
		u, err := e.usage(a)
		if err == nil && (u.Limit != limit || u.Settled != settled || u.Held != held) {
			err = fmt.Errorf("limit %d, settled %d, held %d; want %d, %d, %d\n%s", u.Limit, u.Settled, u.Held, limit, settled, held, e.log)
		}
		return err
	})
}

// awaitSettled waits until Redis has a limit and what is settled, whatever is leased.
func (e *env) awaitSettled(a quota.Account, limit, settled int64) {
	e.t.Helper()
	until(e.t, "Redis is right", func() error {
		u, err := e.usage(a)
		if err == nil && (u.Limit != limit || u.Settled != settled) {
			err = fmt.Errorf("limit %d, settled %d; want %d, %d\n%s", u.Limit, u.Settled, limit, settled, e.log)
		}
		return err
	})
}

// settled is what Postgres has of a.
func (e *env) settled(a quota.Account) int64 {
	e.t.Helper()
	periods, err := e.store.Periods(context.Background(), a.Customer, 10)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, p := range periods {
		if p.ID == a.Period.ID {
			return p.Totals.Settled
		}
	}
	return 0
}

// awaitAgreement waits until Redis and Postgres have the same of all accounts.
func (e *env) awaitAgreement(accounts ...quota.Account) {
	e.t.Helper()
	until(e.t, "Redis and Postgres agree", func() error {
		for _, a := range accounts {
			u, err := e.usage(a)
			if err != nil {
				return err
			}
			if want := e.settled(a); u.Settled != want || u.Limit != a.Limit {
				return fmt.Errorf("customer %s: Redis has settled %d and limit %d, Postgres %d and %d\n%s", a.Customer, u.Settled, u.Limit, want, a.Limit, e.log)
			}
		}
		return nil
	})
}

// replica is a token-proxy's side of the limit, with its journal and its way to Postgres.
type replica struct {
	*quota.Leases
	*journal
	e       *env
	plain   redis.UniversalClient
	guarded redis.UniversalClient
	billing context.Context
	unbill  context.CancelFunc
	billed  chan struct{}
}

// replica starts one, with a new journal unless there is one, and waits until it serves.
func (e *env) replica(j *journal) *replica {
	e.t.Helper()
	r := e.replicaSoon(j)
	until(e.t, "the replica is ready", func() error {
		if err := r.Ready(); err != nil {
			return fmt.Errorf("%w\n%s", err, e.log)
		}
		return nil
	})
	return r
}

func (e *env) replicaSoon(j *journal) *replica {
	if j == nil {
		e.serial++
		j = &journal{name: fmt.Sprintf("r%d", e.serial), changed: make(chan struct{})}
	}
	j = j.reopen()
	r := &replica{journal: j, e: e}
	var guard *quota.Guard
	r.plain, r.guarded, guard = e.clients()
	r.Leases = quota.NewLeases(r.plain, r.guarded, j, quota.Options{
		Timeout: 5 * time.Second, SettleEvery: 10 * time.Millisecond, FollowEvery: 20 * time.Millisecond, ReturnAfter: 200 * time.Millisecond,
		Grace: time.Minute, Logger: slog.New(slog.NewTextHandler(e.log, nil)), Guard: guard,
	})
	r.startBilling()
	if e.postgresAway {
		r.unbill()
	}
	e.t.Cleanup(r.kill)
	return r
}

func (r *replica) startBilling() {
	r.billing, r.unbill = context.WithCancel(context.Background())
	r.billed = make(chan struct{})
	go r.bill(r.billing)
}

// bill carries events to Postgres, and has the journal forget what is there.
func (r *replica) bill(ctx context.Context) {
	defer close(r.billed)
	var sent int64
	for ctx.Err() == nil && !r.e.postgresAway {
		events, err := r.Next(max(sent, r.Forgotten()), 100)
		if err != nil {
			return
		}
		if len(events) > 0 {
			list := make([]control.Delivery, len(events))
			for i := range events {
				list[i] = control.Delivery{StreamID: "1-1", Index: i, Payload: []byte("x"), Event: events[i]}
			}
			if _, err := r.e.store.RecordUsage(ctx, list, nil); err == nil {
				sent = events[len(events)-1].Seq
			}
		}
		// In this order: see Forgettable.
		acked, err := r.e.store.Acked(ctx)
		if err == nil {
			if settled, err := r.Forgettable(ctx); err == nil {
				r.forget(min(acked[r.name], settled))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stopBilling keeps events from Postgres.
func (r *replica) stopBilling() {
	r.unbill()
	<-r.billed
}

// use makes requests that reserve and use tokens each, one after the other.
func (r *replica) use(a quota.Account, n int, tokens int64) {
	r.e.t.Helper()
	for range n {
		r.spend(r.reserve(a, tokens), tokens)
	}
}

// reserve holds tokens.
func (r *replica) reserve(a quota.Account, tokens int64) quota.Hold {
	r.e.t.Helper()
	var hold quota.Hold
	until(r.e.t, "tokens are reserved", func() error {
		answer := r.TryReserve(a, tokens)
		if answer.Verdict == quota.Unknown {
			var err error
			if answer, err = r.Reserve(context.Background(), a, tokens); err != nil {
				return fmt.Errorf("%w\n%s", err, r.e.log)
			}
		}
		if answer.Verdict != quota.Granted {
			return fmt.Errorf("verdict %d: %+v\n%s", answer.Verdict, answer, r.e.log)
		}
		hold = answer.Hold
		return nil
	})
	return hold
}

// retire ends the replica as SIGTERM would.
func (r *replica) retire() {
	r.e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		r.e.t.Errorf("close: %v", err)
	}
	if r.billing.Err() == nil {
		until(r.e.t, "Postgres has all events", func() error {
			acked, err := r.e.store.Acked(ctx)
			if err == nil && acked[r.name] != r.Last() {
				err = fmt.Errorf("%d of %d", acked[r.name], r.Last())
			}
			return err
		})
	}
	r.kill()
}

// kill ends it as SIGKILL would: nothing reaches Redis or Postgres any more.
func (r *replica) kill() {
	r.unbill()
	_ = r.plain.Close()
	_ = r.guarded.Close()
	r.journal.close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = r.Close(ctx)
	<-r.billed
}
