package limits_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// steps are all steps of a Keeper that may be its last.
func steps() []string {
	return []string{
		"taken", "begun", "based", "marked", "put", "limits", "declared", "opened",
		"registered", "joined", "retiring", "retired", "restored",
	}
}

var errKill = errors.New("killed")

// once returns a function that is called as a step, and does do at the first one of that
// name after it was armed.
func once(name string, do func() error) (step func(string) error, arm func(), done <-chan struct{}) {
	var mu sync.Mutex
	armed, fired := false, make(chan struct{})
	step = func(at string) error {
		mu.Lock()
		now := armed && at == name
		if now {
			armed = false
			close(fired)
		}
		mu.Unlock()
		if !now {
			return nil
		}
		return do()
	}
	return step, func() { mu.Lock(); armed = true; mu.Unlock() }, fired
}

// life is a scenario that takes a Keeper through all its steps. It arms the trap after the
// first epoch, and checks that in the end, and after it was sprung, all is as it must be.
func (e *env) life(arm func(), sprung <-chan struct{}) {
	t := e.t
	a, b := e.customer(100_000), e.customer(100_000)
	e.awaitOpen(1)
	stays := e.replica(nil)
	stays.use(a, 5, 10)
	goes := e.replica(nil)
	goes.use(b, 5, 10)
	arm()
	late := e.customer(100_000) // nobody has made its record
	stays.use(late, 3, 9)
	comes := e.replica(nil)
	comes.use(a, 5, 3)
	goes.retire()
	until(t, "the replica is off the register", func() error {
		members, err := e.store.Members(context.Background(), 0)
		if err == nil && slices.ContainsFunc(members, func(m control.Member) bool { return m.ID == goes.name }) {
			err = fmt.Errorf("members %+v\n%s", members, e.log)
		}
		return err
	})
	before, err := e.quota.Epoch(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	e.redis.FlushAll()
	stays.use(a, 5, 10)
	comes.use(b, 2, 1)
	e.awaitOpen(before.Number + 1)
	select {
	case <-sprung:
	case <-time.After(patience):
		t.Fatalf("the trap was not sprung\n%s", e.log)
	}
	stays.use(late, 3, 9)
	comes.use(b, 2, 1)
	until(t, "all is settled", func() error { return flushed(stays, comes) })
	e.awaitAgreement(a, b, late)
	for _, c := range []struct {
		a    quota.Account
		want int64
	}{{a, 115}, {b, 54}, {late, 54}} {
		if got := e.settled(c.a); got != c.want {
			t.Errorf("customer %s: Postgres has %d, want %d", c.a.Customer, got, c.want)
		}
	}
	epoch := e.awaitOpen(before.Number + 1)
	if _, there := epoch.Members[goes.name]; there || len(epoch.Members) != 2 {
		t.Errorf("members %v", epoch.Members)
	}
}

// A Keeper is killed at each of its steps; the next one ends what it began.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	for _, name := range steps() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			step, arm, sprung := once(name, func() error { return errKill })
			k, err := limits.NewKeeper(e.store, e.client, e.options().WithStep(step))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 2)
			go func() {
				err := k.Run(ctx)
				if errors.Is(err, errKill) {
					next, nerr := limits.NewKeeper(e.store, e.client, e.options())
					if nerr != nil {
						ended <- nerr
						return
					}
					err = next.Run(ctx)
				}
				ended <- err
			}()
			t.Cleanup(func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
			e.life(arm, sprung)
		})
	}
}

// The connection of a leader breaks while it is in the middle of each of its steps. It
// goes on only when another one has taken over, and does no harm.
func TestTwoLeadersOverlap(t *testing.T) {
	t.Parallel()
	for _, name := range steps() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			second, goesOn := make(chan struct{}, 1), make(chan struct{})
			step, arm, _ := once(name, func() error {
				e.pg.Query(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
					AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
				select {
				case <-second:
				case <-time.After(patience):
					return errors.New("nobody has taken over")
				}
				close(goesOn)
				return nil
			})
			e.keep(e.options().WithStep(step))
			e.awaitOpen(1)
			o := e.options()
			looks := 0
			_, _ = e.keepWith(o, func() {
				// It leads. The first one goes on after some of its looks.
				if looks++; looks == 3 {
					second <- struct{}{}
				}
			})
			// Not before the first one goes on: after the last steps nothing else in a life
			// waits for another leader.
			e.life(arm, goesOn)
			if n := strings.Count(e.log.String(), "keeps the limits in Redis from now on"); n < 2 {
				t.Errorf("%d leaders\n%s", n, e.log)
			}
		})
	}
}

// keepWith is keep; look is called when the Keeper, as the leader, has looked.
func (e *env) keepWith(o limits.Options, look func()) (*limits.Keeper, func() error) {
	return e.keep(o.WithLook(look))
}

// Two Keepers run, one leads. When that one ends, the other one does.
func TestTheOtherLeads(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	_, stop := e.keep(e.options())
	first := e.awaitOpen(1)
	e.keep(e.options())
	e.redis.FlushAll()
	e.awaitOpen(first.Number + 1)
	if n := strings.Count(e.log.String(), "from now on"); n != 1 {
		t.Errorf("%d leaders\n%s", n, e.log)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	e.redis.FlushAll()
	e.awaitOpen(first.Number + 2)
	e.awaitUsage(a, 1000, 0, 0)
}

// A limit is changed while the records are made: before its own is, and after.
func TestLimitChangesDuringTheRebuild(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"based", "marked", "put", "declared"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			a := e.customer(1000)
			records := limits.NewRecords(e.open(), e.client, 5*time.Second)
			step, arm, sprung := once(at, func() error {
				e.setLimit(records, &a, 77)
				return nil
			})
			e.keep(e.options().WithStep(step))
			first := e.awaitOpen(1)
			arm()
			e.redis.FlushAll()
			e.awaitOpen(first.Number + 1)
			<-sprung
			e.awaitUsage(a, 77, 0, 0)
		})
	}
}

// Limits that were set lately are told in a few exchanges with Redis, however many they
// are, and missing records are made and forgotten in a few: who says nothing to Postgres
// for long leads no more.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	const many = 1200
	e.pg.Query(fmt.Sprintf("INSERT INTO customers (id, name, tier) SELECT 'c' || n, 'x', 'starter' FROM generate_series(1, %d) AS n", many))
	e.pg.Query(fmt.Sprintf(`INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version, limit_set_at)
		SELECT 'c' || n, 'p', now() - interval '1 day', now() + interval '20 days', 1000, 2, now() FROM generate_series(1, %d) AS n`, many))
	// It knows the scripts, which costs some exchanges.
	a := quota.Account{Customer: "c1", Period: contract.Period{ID: "p"}, Limit: 1, LimitVersion: 1}
	if err := e.quota.SetLimit(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	var exchanges atomic.Int64
	e.client.AddHook(afterCommands(func() { exchanges.Add(1) }))
	var from, took int64
	e.keep(e.options().WithStep(func(name string) error {
		switch name {
		case "put":
			from = exchanges.Load()
		case "limits":
			took = exchanges.Load() - from
		}
		return nil
	}))
	e.awaitOpen(1)
	if took == 0 || took >= many { // those of the test's own polling among them
		t.Errorf("%d exchanges for %d limits", took, many)
	}
	names := make([]any, many)
	for n := range names {
		names[n] = fmt.Sprintf("nobody%d p", n)
	}
	before := e.commands("srem")
	e.client.SAdd(t.Context(), contract.QuotaMissingKey, names...)
	until(t, "none is missing", func() error {
		if n := e.client.SCard(t.Context(), contract.QuotaMissingKey).Val(); n > 0 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	if n := e.commands("srem") - before; n > 10 {
		t.Errorf("%d commands to forget %d names", n, many)
	}
	for _, customer := range []string{"c1", "c1200", "nobody0", "nobody1199"} {
		a.Customer = customer
		if u, err := e.usage(a); err != nil || u.Limit != 1000 && customer[0] == 'c' {
			t.Errorf("%s: %+v, %v", customer, u, err)
		}
	}
}

// What an older epoch's leader still writes is void.
func TestRecordsOfAnOlderEpoch(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	e.keep(e.options())
	epoch := e.awaitOpen(1)
	if _, err := e.quota.Put(t.Context(), epoch.Number-1, []quota.Record{{Account: a, Settled: 999}}); err == nil {
		t.Error("a record of an older epoch was made")
	}
	e.awaitUsage(a, 1000, 0, 0)
	if n, err := e.client.HGet(t.Context(), contract.QuotaKey(a.Customer, a.Period.ID), "epoch").Int64(); n != epoch.Number {
		t.Errorf("epoch %d, %v", n, err)
	}
}
