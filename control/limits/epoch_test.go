package limits_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// What Postgres knows when the first epoch begins is in the records.
func TestFirstEpoch(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a, b := e.customer(1000), e.customer(500)
	e.record(event("old", 1, a, 30), event("old", 2, b, 7), event("old", 4, a, 12))
	e.keep(e.options())
	e.awaitOpen(1)
	e.awaitUsage(a, 1000, 42, 0)
	e.awaitUsage(b, 500, 7, 0)
}

// Redis loses everything while replicas work: limits and counts come back, and no event
// is counted twice or not at all.
func TestRedisLosesEverything(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		lose func(e *env)
	}{
		{"flushed", func(e *env) { e.redis.FlushAll() }},
		{"restarted with its data", func(e *env) { e.redis.Stop(); e.redis.Start() }},
		{"restarted empty", func(e *env) {
			e.redis.FlushAll()
			e.redis.Stop()
			e.redis.Start()
		}},
		{"only the epoch's key", func(e *env) { e.client.Del(context.Background(), contract.QuotaEpochKey) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			accounts := []quota.Account{e.customer(100_000), e.customer(200_000)}
			e.keep(e.options())
			before := e.awaitOpen(1)
			r1, r2 := e.replica(nil), e.replica(nil)
			load := func(n int) {
				for range n {
					r1.use(accounts[0], 1, 10)
					r2.use(accounts[0], 1, 7)
					r2.use(accounts[1], 1, 3)
				}
			}
			load(20)
			held := r1.reserve(accounts[1], 11)
			r2.stopBilling() // Postgres hears of what r2 does only after the loss
			load(20)
			c.lose(e)
			load(20)
			after := e.awaitOpen(before.Number + 1)
			if len(after.Members) != 2 {
				t.Errorf("members %v", after.Members)
			}
			r1.spend(held, 5)
			r2.startBilling()
			load(5)
			until(t, "all is settled", func() error { return flushed(r1, r2) })
			e.awaitAgreement(accounts...)
			if got, want := e.settled(accounts[0]), int64(65*17); got != want {
				t.Errorf("Postgres has %d, want %d", got, want)
			}
			if got, want := e.settled(accounts[1]), int64(65*3+5); got != want {
				t.Errorf("Postgres has %d, want %d", got, want)
			}
		})
	}
}

func flushed(replicas ...*replica) error {
	for _, r := range replicas {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := r.Flush(ctx)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// Redis is put back to an older copy of its data, in which less was settled: nothing that
// was settled since is free again.
func TestRedisGoesBack(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	_, stop := e.keep(e.options())
	first := e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 1, 100)
	until(t, "all is settled", func() error { return flushed(r) })
	data := e.client.ConfigGet(t.Context(), "dir").Val()["dir"]
	older := t.TempDir()
	if err := os.CopyFS(older, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	r.use(a, 5, 100)
	until(t, "all is settled", func() error { return flushed(r) })
	r.stopBilling()
	r.use(a, 2, 100)
	until(t, "all is settled", func() error { return flushed(r) })

	if err := stop(); err != nil {
		t.Fatal(err)
	}
	e.redis.Stop()
	if err := os.RemoveAll(data + "/appendonlydir"); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(data+"/appendonlydir", os.DirFS(older+"/appendonlydir")); err != nil {
		t.Fatal(err)
	}
	e.redis.Start()
	if u, err := e.usage(a); err != nil || u.Settled != 100 {
		t.Fatalf("Redis went back to %+v, %v", u, err)
	}
	e.keep(e.options())
	// 200 are left, as before.
	until(t, "more is refused", func() error {
		answer, err := r.Reserve(context.Background(), a, 201)
		if err == nil && answer.Verdict != quota.Exceeds {
			t.Fatalf("verdict %d: %+v", answer.Verdict, answer)
		}
		return err
	})
	if epoch := e.awaitOpen(first.Number + 1); epoch.Number != first.Number+1 {
		t.Errorf("epoch %d\n%s", epoch.Number, e.log)
	}
	r.startBilling()
	r.use(a, 1, 200)
	until(t, "all is settled", func() error { return flushed(r) })
	e.awaitUsage(a, 1000, 1000, 0)
	until(t, "Postgres has all", func() error {
		if n := e.settled(a); n != 1000 {
			return fmt.Errorf("settled %d", n)
		}
		return nil
	})
}
