package limits_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

type quotaAccount = quota.Account

func holdOf(a quota.Account, tokens int64) quota.Hold {
	return quota.Hold{Customer: a.Customer, PeriodID: a.Period.ID, Tokens: tokens}
}

// A record that nobody made is made when a replica misses it.
func TestMissingRecordIsMade(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.keep(e.options())
	first := e.awaitOpen(1)
	r := e.replica(nil)
	a := e.customer(10_000)
	e.record(event("gone", 1, a, 40))
	r.use(a, 3, 10)
	until(t, "all is settled", func() error { return flushed(r) })
	e.awaitAgreement(a)
	if epoch := e.awaitOpen(1); epoch.Number < first.Number {
		t.Errorf("epoch %d", epoch.Number)
	}
	// Of a customer that Postgres does not know: its grant says what it may use.
	unknown := a
	unknown.Customer = "nobody"
	r.use(unknown, 1, 10)
	until(t, "all is settled", func() error { return flushed(r) })
}

// A record that is there before anybody asks for it.
func TestEnsure(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	records := limits.NewRecords(e.store, e.client, 5*time.Second)
	a := e.customer(10_000)
	if err := records.Ensure(t.Context(), a.Customer, a.Period.ID); err != nil {
		t.Errorf("before the first epoch: %v", err)
	}
	_, stop := e.keep(e.options())
	e.awaitOpen(1)
	e.awaitUsage(a, 10_000, 0, 0)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	b := e.customer(20_000)
	for range 2 {
		if err := records.Ensure(t.Context(), b.Customer, b.Period.ID); err != nil {
			t.Fatal(err)
		}
	}
	e.awaitUsage(b, 20_000, 0, 0)
	// It is not made twice in an epoch: what was settled meanwhile would be forgotten.
	e.client.Del(t.Context(), contract.QuotaKey(b.Customer, b.Period.ID))
	if err := records.Ensure(t.Context(), b.Customer, b.Period.ID); err != nil {
		t.Fatal(err)
	}
	if u, err := e.usage(b); err == nil {
		t.Errorf("made again: %+v", u)
	}
	// Without Redis it is left to the Keeper.
	c := e.customer(30_000)
	e.redis.Stop()
	if err := records.Ensure(t.Context(), c.Customer, c.Period.ID); err == nil {
		t.Error("no error without Redis")
	}
	e.redis.Start()
	e.keep(e.options())
	e.awaitOpen(2)
	e.awaitUsage(c, 30_000, 0, 0)
}

// Whoever was to make a record died before it did.
func TestRecordThatWasNotMade(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.keep(e.options())
	epoch := e.awaitOpen(1)
	a := e.customer(10_000)
	keys := []control.QuotaKey{{CustomerID: a.Customer, PeriodID: a.Period.ID}}
	if _, err := e.store.MarkRecords(t.Context(), epoch.Number, keys, false); err != nil {
		t.Fatal(err)
	}
	e.awaitUsage(a, 10_000, 0, 0)
	until(t, "that is noted", func() error {
		made, err := e.store.MadeRecords(t.Context(), epoch.Number, keys, 0)
		if err == nil && len(made) != 1 {
			err = fmt.Errorf("made %v", made)
		}
		return err
	})
	if now := e.awaitOpen(1); now.Number != epoch.Number {
		t.Errorf("epoch %d", now.Number)
	}
}

// Redis loses a record that was in use. To make it again would forget what was settled
// and is not in Postgres: a new epoch begins.
func TestRecordThatRedisLost(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a, b := e.customer(1000), e.customer(1000)
	e.keep(e.options())
	first := e.awaitOpen(1)
	r := e.replica(nil)
	r.use(b, 1, 10)
	r.stopBilling()
	r.use(a, 9, 100)
	until(t, "all is settled", func() error { return flushed(r) })
	e.client.Del(t.Context(), contract.QuotaKey(a.Customer, a.Period.ID))
	// 100 are left. They must not become more, whatever was lost.
	until(t, "it is refused", func() error {
		answer, err := r.Reserve(context.Background(), a, 101)
		if err == nil && answer.Verdict != quota.Exceeds {
			t.Fatalf("verdict %d: %+v", answer.Verdict, answer)
		}
		return err
	})
	epoch := e.awaitOpen(first.Number + 1)
	if epoch.Number != first.Number+1 || !strings.Contains(e.log.String(), "Redis has lost the record of customer "+a.Customer) {
		t.Errorf("epoch %d\n%s", epoch.Number, e.log)
	}
	r.use(a, 1, 100)
	until(t, "all is settled", func() error { return flushed(r) })
	e.awaitUsage(a, 1000, 1000, 0)
}

// Whoever makes a record dies when Redis has it, and Redis loses it: in the same epoch it is
// not made again, since replicas may have leased of it.
func TestRecordIsNotMadeTwice(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	_, stop := e.keep(e.options())
	first := e.awaitOpen(1)
	r1, r2 := e.replica(nil), e.replica(nil)
	r1.use(e.customer(1000), 1, 10)
	r2.use(e.customer(1000), 1, 10)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	a := e.customer(1000)
	ctx, kill := context.WithCancel(t.Context())
	client := e.redis.Client()
	key := contract.QuotaKey(a.Customer, a.Period.ID)
	client.AddHook(afterCommands(func() {
		if n, _ := e.client.HGet(t.Context(), key, "epoch").Int64(); n == first.Number { // it is there, and not sealed
			kill()
		}
	}))
	// Whether it notices its death is not ours to say.
	_ = limits.NewRecords(e.store, client, 5*time.Second).Ensure(ctx, a.Customer, a.Period.ID)
	if ctx.Err() == nil {
		t.Fatal("nothing was made")
	}
	r1.reserve(a, 700)
	e.client.Del(t.Context(), key)
	e.keep(e.options())
	until(t, "it is known of the first 700", func() error {
		answer, err := r2.Reserve(context.Background(), a, 700)
		if err != nil {
			return err
		}
		if answer.Verdict == quota.Granted {
			t.Fatalf("both hold 700 of 1000\n%s", e.log)
		}
		return nil
	})
	if epoch := e.awaitOpen(first.Number + 1); epoch.Number != first.Number+1 {
		t.Errorf("epoch %d\n%s", epoch.Number, e.log)
	}
}

// afterCommands is called after each exchange with Redis.
type afterCommands func()

func (afterCommands) DialHook(next redis.DialHook) redis.DialHook { return next }

func (f afterCommands) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		defer f()
		return next(ctx, cmd)
	}
}

func (f afterCommands) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		defer f()
		return next(ctx, cmds)
	}
}

// The records of many customers are made page by page.
func TestManyCustomers(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	const customers = 2000
	e.pg.Query(fmt.Sprintf(`INSERT INTO customers (id, name, tier) SELECT 'c' || n, 'x', 'starter' FROM generate_series(1, %d) AS n`, customers))
	e.pg.Query(fmt.Sprintf(`INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version, settled_tokens)
		SELECT 'c' || n, p.id, now() + p.starts, now() + p.starts + '30 days', n, 1, n %% 1000
		FROM generate_series(1, %d) AS n, (VALUES ('old', interval '-90 days'), ('last', interval '-31 days'), ('now', interval '-1 day')) AS p (id, starts)`, customers))
	var pages atomic.Int64
	e.keep(e.options().WithStep(func(name string) error {
		if name == "put" {
			pages.Add(1)
		}
		return nil
	}))
	begin := time.Now()
	e.awaitOpen(1)
	t.Logf("%d records after %v", customers*2, time.Since(begin).Round(time.Millisecond))
	keys := e.client.Keys(t.Context(), contract.QuotaPattern).Val()
	if len(keys) != 2*customers { // those of the oldest period can wait until they are missed
		t.Errorf("%d records", len(keys))
	}
	if n := pages.Load(); n != 2*customers/500 && n != 2*customers/500+1 {
		t.Errorf("%d pages", n)
	}
	for n := range customers {
		u, err := e.quota.Usage(t.Context(), quota.Account{Customer: "c" + strconv.Itoa(n+1), Period: contract.Period{ID: "now"}})
		if err != nil || u.Limit != int64(n+1) || u.Settled != int64((n+1)%1000) {
			t.Fatalf("%+v, %v", u, err)
		}
	}
	// One each; those of one page that Redis did not know the script for count twice.
	if commands := e.commands("evalsha"); commands > 2*customers+600 {
		t.Errorf("%d calls of scripts", commands)
	}
}

// commands returns how often Redis has executed a command.
func (e *env) commands(name string) int {
	e.t.Helper()
	info, err := e.client.Info(context.Background(), "commandstats").Result()
	if err != nil {
		e.t.Fatal(err)
	}
	_, rest, ok := strings.Cut(info, "cmdstat_"+name+":calls=")
	if !ok {
		return 0
	}
	count, _, _ := strings.Cut(rest, ",")
	n, err := strconv.Atoi(count)
	if err != nil {
		e.t.Fatal(err)
	}
	return n
}
