package limits_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// declareLost does in Postgres what an operator does first.
func (e *env) declareLost(replica string) {
	e.t.Helper()
	err := e.store.InTx(context.Background(), func(tx *store.Tx) error {
		return tx.SetReplicaLost(context.Background(), replica, "its node burnt down", time.Now().UTC())
	})
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) records() *limits.Records {
	return limits.NewRecords(e.open(), e.client, 5*time.Second)
}

// A replica dies with its journal. What it had used is settled as far as Postgres knows
// of it, and the rest of its leases freed, without anybody else being disturbed.
func TestGiveUp(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a, b, c := e.customer(1000), e.customer(1000), e.customer(1000)
	e.keep(e.options())
	first := e.awaitOpen(1)
	dies, stays := e.replica(nil), e.replica(nil)
	dies.use(a, 3, 10)
	stays.use(c, 1, 10)
	until(t, "all is settled", func() error { return flushed(dies, stays) })
	unsettled, open := dies.reserve(a, 100), dies.reserve(b, 200)
	_ = open
	_ = dies.guarded.Close() // from now on it tells Redis of nothing that it uses
	dies.spend(unsettled, 90)
	until(t, "Postgres has the events", func() error {
		if n := e.settled(a); n != 120 {
			return fmt.Errorf("settled %d", n)
		}
		return nil
	})
	dies.kill()
	leasedA, leasedB := e.held(a), e.held(b)
	if leasedA < 100 || leasedB < 200 {
		t.Fatalf("leased %d and %d", leasedA, leasedB)
	}

	e.declareLost(dies.name)
	freed, err := e.records().GiveUp(t.Context(), dies.name, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	want := []control.Released{
		{CustomerID: a.Customer, PeriodID: a.Period.ID, Settled: 90, Freed: leasedA - 90},
		{CustomerID: b.Customer, PeriodID: b.Period.ID, Freed: leasedB},
	}
	slices.SortFunc(want, func(x, y control.Released) int { return strings.Compare(x.CustomerID, y.CustomerID) })
	if !slices.Equal(freed, want) {
		t.Errorf("freed %+v, want %+v", freed, want)
	}
	e.awaitUsage(a, 1000, 120, 0)
	e.awaitUsage(b, 1000, 0, 0)
	e.awaitAgreement(a, b, c)
	e.awaitOff(dies.name)
	stays.use(b, 1, 1000)
	// Once more changes nothing.
	if again, err := e.records().GiveUp(t.Context(), dies.name, 0); err != nil || !slices.Equal(again, want) {
		t.Errorf("again: %+v, %v", again, err)
	}
	if epoch := e.awaitOpen(1); epoch.Number != first.Number {
		t.Errorf("epoch %d\n%s", epoch.Number, e.log)
	}

	// What comes of it later is counted too.
	e.record(event(dies.name, 5, a, 7))
	e.awaitOpen(first.Number + 1)
	e.awaitUsage(a, 1000, 127, 0)
	// It comes back, which it must not.
	back := e.replicaSoon(dies.journal)
	until(t, "it knows that it is lost", func() error {
		if err := back.Ready(); err == nil || !strings.Contains(err.Error(), "declared lost") {
			return fmt.Errorf("ready: %w", err)
		}
		return nil
	})
}

// Of many records only those are looked at twice with which the replica has to do: that it
// has called for, or that lack an event of it.
func TestGiveUpAmongMany(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	const many = 1200
	e.pg.Query(fmt.Sprintf("INSERT INTO customers (id, name, tier) SELECT 'c' || n, 'x', 'starter' FROM generate_series(1, %d) AS n", many))
	e.pg.Query(fmt.Sprintf(`INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version)
		SELECT 'c' || n, 'p', now() - interval '1 day', now() + interval '20 days', 1000, 1 FROM generate_series(1, %d) AS n`, many))
	a, b := e.customer(1000), e.customer(1000)
	e.keep(e.options())
	epoch := e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 2, 10)
	until(t, "all is settled", func() error { return flushed(r) })
	r.reserve(a, 100)
	r.kill()
	held := e.held(a)
	m, _ := e.member(r.name)
	if n, err := limits.Owes(t.Context(), e.records(), epoch.Number, m); err != nil || n != 1 {
		t.Errorf("%d records, %v", n, err)
	}
	e.record(event(r.name, m.Base+50, b, 7)) // nobody has told Redis of it
	e.declareLost(r.name)
	freed, err := e.records().GiveUp(t.Context(), r.name, 0)
	want := []control.Released{
		{CustomerID: a.Customer, PeriodID: a.Period.ID, Freed: held},
		{CustomerID: b.Customer, PeriodID: b.Period.ID, Settled: 7},
	}
	slices.SortFunc(want, func(x, y control.Released) int { return strings.Compare(x.CustomerID, y.CustomerID) })
	if err != nil || !slices.Equal(freed, want) {
		t.Errorf("freed %+v, %v, want %+v", freed, err, want)
	}
	e.awaitUsage(a, 1000, 20, 0)
	e.awaitUsage(b, 1000, 7, 0)
}

// Nothing is freed before a replica that lives in spite of all has stopped to use it.
func TestGiveUpWaitsForTheGrace(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	const grace = 2 * time.Second
	o := e.options()
	o.Grace = grace
	e.keep(o)
	e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 1, 10)
	_ = r.plain.Close() // it hears of nothing any more
	e.declareLost(r.name)
	if _, err := e.records().GiveUp(t.Context(), r.name, grace); err != nil {
		t.Fatal(err)
	}
	// It was noted that it beat for the last time, or else when it was told.
	waited := strings.TrimSpace(e.pg.Query(fmt.Sprintf(`
		SELECT released_at >= free_at AND free_at - interval '%d seconds' IN (shut_at, (SELECT seen_at FROM replica_beats WHERE replica = id))
		FROM replicas WHERE id = '%s'`, (grace+limits.GraceMargin)/time.Second, r.name)))
	if waited != "t" {
		t.Errorf("freed too early: %s", e.pg.Query("SELECT shut_at, free_at, released_at FROM replicas"))
	}
	// One that has been silent for long cannot use anything: there is nothing to wait for.
	silent := e.replica(nil)
	silent.use(a, 1, 10)
	silent.kill()
	until(t, "its last beat is noted for long", func() error {
		n := strings.TrimSpace(e.pg.Query(fmt.Sprintf(`SELECT count(*) FROM replica_beats WHERE replica = '%s' AND seen_at < now() - interval '7 seconds'`, silent.name)))
		if n != "1" {
			return errors.New("not yet")
		}
		return nil
	})
	e.declareLost(silent.name)
	begin := time.Now()
	if _, err := e.records().GiveUp(t.Context(), silent.name, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("freed after %v", took)
	}
}

// An epoch waits for a dead replica, says so, and opens when it is declared lost, but not
// before what it leased cannot be used any more.
func TestEpochWaitsForALostReplica(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	registry := prometheus.NewRegistry()
	o := e.options()
	o.Grace, o.Registerer = 2*time.Second, registry
	k, _ := e.keep(o)
	first := e.awaitOpen(1)
	dies, stays := e.replica(nil), e.replica(nil)
	dies.use(a, 3, 10)
	stays.use(a, 1, 10)
	until(t, "Postgres has all", func() error {
		if n := e.settled(a); n != 40 {
			return fmt.Errorf("settled %d", n)
		}
		return nil
	})
	dies.kill()
	e.redis.FlushAll()
	until(t, "it says what it waits for", func() error {
		if note := k.Note(); !strings.Contains(note, dies.name) || strings.Contains(note, stays.name) {
			return fmt.Errorf("note %q\n%s", note, e.log)
		}
		if n := gauge(t, registry, "control_quota_undeclared_replicas"); n != 1 {
			return fmt.Errorf("%v undeclared replicas", n)
		}
		return nil
	})
	if !strings.Contains(e.log.String(), "ALERT: no lease can grow") || strings.Contains(k.Note(), stays.name) {
		t.Errorf("note %q\n%s", k.Note(), e.log)
	}
	epoch, err := e.quota.Epoch(t.Context())
	if err != nil || epoch.IsOpen() || epoch.Number <= first.Number {
		t.Errorf("%+v, %v", epoch, err)
	}
	begin := time.Now()
	e.declareLost(dies.name)
	e.awaitOpen(epoch.Number)
	if took := time.Since(begin); took < o.Grace {
		t.Errorf("open after %v", took)
	}
	until(t, "the note is gone", func() error {
		if note := k.Note(); note != "" {
			return errors.New(note)
		}
		return nil
	})
	stays.use(a, 1, 960)
	until(t, "all is settled", func() error { return flushed(stays) })
	e.awaitUsage(a, 1000, 1000, 0)
	if freed, err := e.records().GiveUp(t.Context(), dies.name, 0); err != nil || len(freed) != 0 {
		t.Errorf("freed %+v, %v", freed, err)
	}
}

// Who declares a replica lost dies before it has freed the leases: the Keeper does it.
func TestKeeperFreesWhatNobodyDid(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	e.keep(e.options())
	e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 3, 10)
	until(t, "all is settled", func() error { return flushed(r) })
	r.reserve(a, 500)
	r.kill()
	e.declareLost(r.name)
	until(t, "it is shut out", func() error {
		if m, _ := e.member(r.name); !m.Shut {
			return errors.New(e.log.String())
		}
		return nil
	})
	e.pg.Query("UPDATE replicas SET free_at = now() - interval '1 minute' WHERE id = '" + r.name + "'")
	e.awaitOff(r.name)
	e.awaitUsage(a, 1000, 30, 0)
}

// That takes its time, which nobody else has to wait for.
func TestLeasesAreFreedBesideTheLooks(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	const name = "r1" // of the first one
	begun, goOn := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	e.client.AddHook(beforePipelines(func(ctx context.Context, cmds []redis.Cmder) {
		for _, cmd := range cmds {
			if cmd.Name() == "hmget" && slices.Contains(cmd.Args(), any("l:"+name)) {
				begin()
				<-goOn
				return
			}
		}
	}))
	e.keep(e.options())
	e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 3, 10)
	until(t, "all is settled", func() error { return flushed(r) })
	r.reserve(a, 500)
	r.kill()
	e.declareLost(name)
	until(t, "it is shut out", func() error {
		if m, _ := e.member(name); !m.Shut {
			return errors.New(e.log.String())
		}
		return nil
	})
	e.pg.Query("UPDATE replicas SET free_at = now() - interval '1 minute' WHERE id = '" + name + "'")
	<-begun
	func() {
		defer close(goOn)
		e.replica(nil).use(a, 1, 10)
	}()
	e.awaitOff(name)
	if n := strings.Count(e.log.String(), "keeps the limits in Redis from now on"); n != 1 {
		t.Errorf("%d leaders\n%s", n, e.log)
	}
}

// beforePipelines is called before each pipeline of commands.
type beforePipelines func(context.Context, []redis.Cmder)

func (beforePipelines) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (beforePipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (f beforePipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		f(ctx, cmds)
		return next(ctx, cmds)
	}
}

// A replica that was declared lost while an epoch is being built is not waited for.
func TestLostWhileTheRecordsAreMade(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"taken", "based", "limits", "declared"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			a := e.customer(1000)
			e.record(event("old", 1, a, 3))
			var name string
			step, arm, _ := once(at, func() error { e.declareLost(name); return nil })
			e.keep(e.options().WithStep(step))
			first := e.awaitOpen(1)
			dies, stays := e.replica(nil), e.replica(nil)
			dies.use(a, 2, 10)
			stays.use(a, 1, 10)
			until(t, "Postgres has all", func() error {
				if n := e.settled(a); n != 33 {
					return fmt.Errorf("settled %d", n)
				}
				return nil
			})
			name = dies.name
			dies.kill()
			arm()
			e.redis.FlushAll()
			e.awaitOpen(first.Number + 1)
			if _, err := e.records().GiveUp(t.Context(), name, 0); err != nil {
				t.Error(err)
			}
			e.awaitSettled(a, 1000, 33)
			if state := e.client.HGet(t.Context(), contract.QuotaEpochKey, "m:"+name).Val(); state != "lost" {
				t.Errorf("Redis says %q of the replica", state)
			}
		})
	}
}

// Alive tells a replica that beats from one that once did.
func TestAlive(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.keep(e.options())
	e.awaitOpen(1)
	r := e.replica(nil)
	until(t, "it is alive", func() error {
		if alive, err := e.records().Alive(t.Context(), r.name); err != nil || !alive {
			return fmt.Errorf("alive: %v, %w", alive, err)
		}
		return nil
	})
	r.kill()
	for _, name := range []string{r.name, "nobody"} {
		if alive, err := e.records().Alive(t.Context(), name); err != nil || alive {
			t.Errorf("%s: %v, %v", name, alive, err)
		}
	}
}
