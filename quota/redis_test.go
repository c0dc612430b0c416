package quota_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// What is particular to RedisLedger.

// A reservation whose answer never came leaves nothing behind, whether Redis executed
// it or not.
func TestRedisLedgerUnknownOutcome(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	l := newRedisLedgerWith(t, server, quota.RedisOptions{Replica: "a", Timeout: 100 * time.Millisecond})
	acct := account(t, 1000)
	l.Settle(mustReserve(t, l, acct, 100), 100)
	flush(t, l)

	server.Pause()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			start := time.Now()
			if a, err := l.Reserve(context.Background(), acct, 10); !errors.Is(err, quota.ErrUnavailable) || a.Verdict != quota.Unknown {
				t.Errorf("got %+v, %v; want ErrUnavailable", a, err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("took %v with a timeout of 100 ms", took)
			}
		})
	}
	wg.Wait()
	// By now nobody waits for Redis any more.
	refused := 0
	for range 1000 {
		if _, err := l.Reserve(context.Background(), acct, 10); err != nil {
			refused++
		}
	}
	if left := l.Pending(); left == 0 || left > 100 {
		t.Errorf("%d records wait after %d failures, want few but some", left, refused+8)
	}
	server.Resume()
	wantUsage(t, l, acct, 1000, 100, 0)
	deadline := time.Now().Add(10 * time.Second)
	for {
		a, err := l.Reserve(context.Background(), acct, 900)
		if err == nil {
			if a.Verdict != quota.Granted {
				t.Fatalf("after all: %+v", a)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("does not recover")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// While Redis refuses connections, callers fail quickly and next to nothing is
// remembered for later.
func TestRedisLedgerDown(t *testing.T) {
	t.Parallel()
	server := durable(t)
	server.Stop()
	l := newRedisLedgerWith(t, server, quota.RedisOptions{Replica: "a"})
	acct := account(t, 1000)
	start := time.Now()
	for range 2000 {
		if _, err := l.Reserve(context.Background(), acct, 1); !errors.Is(err, quota.ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
	}
	// The client hides a refused connection behind its own retries and our deadline.
	if n := l.Pending(); n > 100 {
		t.Errorf("%d records wait", n)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("2,000 failures took %v", took)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Reserve(ctx, acct, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: got %v", err)
	}
	server.Start()
	eventually(t, "usage can be read", func() bool { _, err := l.Usage(context.Background(), acct); return err == nil })
	wantUsage(t, l, acct, 1000, 0, 0)
}

// A release that overtakes its reservation wins.
func TestRedisLedgerAbandonBeforeReserve(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client := newClient(t, server)
	l := newRedisLedger(t, server, "a")
	acct := account(t, 1000)
	hold := quota.Hold{ID: "late-1", Customer: acct.Customer, PeriodID: acct.Period.ID, Tokens: 10}
	quota.Abandon(l.(*quota.RedisLedger), hold)
	flush(t, l)
	reply, err := quota.ReserveAs(context.Background(), client, acct, hold.ID, hold.Tokens)
	if err != nil || reply[0] != -1 {
		t.Fatalf("got %v, %v; want refusal", reply, err)
	}
	wantUsage(t, l, acct, 1000, 0, 0)

	// In the usual order, and repeated by the client library, it is one hold.
	for range 3 {
		if reply, err = quota.ReserveAs(context.Background(), client, acct, "late-2", 10); err != nil || reply[0] != 1 || reply[3] != 10 {
			t.Fatalf("got %v, %v; want one hold", reply, err)
		}
	}
	hold.ID = "late-2"
	quota.Abandon(l.(*quota.RedisLedger), hold)
	wantUsage(t, l, acct, 1000, 0, 0)
	if reply, err = quota.ReserveAs(context.Background(), client, acct, "late-2", 10); err != nil || reply[0] != -1 {
		t.Fatalf("got %v, %v; want refusal", reply, err)
	}
}

// The hold of a dead process is freed after its time, and can still be settled, once.
func TestRedisLedgerHoldTTL(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	dead := newRedisLedgerWith(t, server, quota.RedisOptions{Replica: "dead", HoldTTL: 50 * time.Millisecond, Timeout: 5 * time.Second})
	l := newRedisLedger(t, server, "alive")
	acct := account(t, 100)
	hold, gone := mustReserve(t, dead, acct, 60), mustReserve(t, dead, acct, 10)
	deadline := time.Now().Add(10 * time.Second)
	for {
		a := reserve(t, l, acct, 100)
		if a.Verdict == quota.Granted {
			l.Release(a.Hold)
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %+v", a)
		}
		time.Sleep(20 * time.Millisecond)
	}
	wantUsage(t, l, acct, 100, 0, 0)
	dead.Settle(hold, 1000) // clamped to the hold, purged or not
	dead.Settle(hold, 7)
	dead.Release(gone)
	dead.Settle(gone, 3)
	flush(t, dead)
	l.Settle(hold, 8)
	wantUsage(t, l, acct, 100, 60, 0)
	if n, err := newClient(t, server).HLen(context.Background(), contract.SettledKey(acct.Customer, acct.Period.ID)).Result(); err != nil || n != 0 {
		t.Errorf("%d marks are left, %v", n, err)
	}
}

// The memory in Redis does not grow with settled requests, and every key has an end.
func TestRedisLedgerKeepsNoSettledIDs(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client := newClient(t, server)
	l := newRedisLedger(t, server, "a")
	acct := account(t, 1<<40)
	for range 500 {
		l.Settle(mustReserve(t, l, acct, 10), 1)
	}
	open := mustReserve(t, l, acct, 5)
	flush(t, l)
	keys, err := client.Keys(context.Background(), "*").Result()
	if err != nil || len(keys) != 2 {
		t.Fatalf("keys %q, %v; want counters and holds", keys, err)
	}
	for _, k := range keys {
		if n := client.HLen(context.Background(), k).Val(); n > 8 {
			t.Errorf("%s has %d fields", k, n)
		}
		if ttl := client.PTTL(context.Background(), k).Val(); ttl <= 0 {
			t.Errorf("%s never expires", k)
		}
	}
	l.Release(open)
}

// Ids are not used again by a later process of the same name.
func TestRedisLedgerIDsNeverReturn(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	acct := account(t, 1<<40)
	seen := map[string]bool{}
	for range 3 {
		l := newRedisLedger(t, server, "same")
		for range 50 {
			h := mustReserve(t, l, acct, 1)
			if seen[h.ID] || !strings.HasPrefix(h.ID, "same-") {
				t.Fatalf("id %q again, or not of its replica", h.ID)
			}
			seen[h.ID] = true
		}
	}
}

// Settle neither waits for a dead Redis nor loses anything; one broken account holds
// up no other; Close says what it could not write.
func TestRedisLedgerWriter(t *testing.T) {
	t.Parallel()
	server := durable(t)
	client := newClient(t, server)
	ctx := context.Background()
	l := quota.NewRedisLedger(newClient(t, server), quota.RedisOptions{Replica: "a", Logger: slog.New(slog.DiscardHandler), Timeout: 5 * time.Second})
	good, bad := account(t, 1<<40), account(t, 1<<40)
	bad.Customer += "/bad"
	holds := make([]quota.Hold, 2000)
	var sum int64
	for i := range holds {
		holds[i] = mustReserve(t, l, good, 100)
		sum += int64(i % 100)
	}
	broken := mustReserve(t, l, bad, 100)
	key := contract.SettledKey(bad.Customer, bad.Period.ID)
	if err := client.Set(ctx, key, "not a hash", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Del(ctx, contract.HoldsKey(bad.Customer, bad.Period.ID)).Err(); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	l.Settle(broken, 1)
	start := time.Now()
	for i, h := range holds {
		l.Settle(h, int64(i%100))
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("2,000 settlements took %v with Redis away", took)
	}
	server.Start()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if u, err := l.Usage(ctx, good); err == nil && u.Settled == sum && u.Held == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("usage %+v, %v; want %d settled", u, err, sum)
		}
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := l.Close(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 settlements") {
		t.Errorf("close: %v", err)
	}
}

// After a loss the counter begins where Postgres says, counts on, and is never lowered.
func TestRedisLedgerRestore(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client := newClient(t, server)
	ctx := context.Background()
	l := newRedisLedger(t, server, "a").(*quota.RedisLedger)
	acct := account(t, 1000)
	if err := l.Restore(ctx, acct, 900); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, l, acct, 1000, 900, 0)
	if a := reserve(t, l, acct, 101); a.Verdict != quota.Exceeds {
		t.Errorf("more than what is left: %+v", a)
	}
	l.Settle(mustReserve(t, l, acct, 50), 50)
	flush(t, l)
	for _, settled := range []int64{0, 900, -5} {
		if err := l.Restore(ctx, acct, settled); err != nil {
			t.Fatal(err)
		}
		wantUsage(t, l, acct, 1000, 950, 0)
	}
	key := contract.QuotaKey(acct.Customer, acct.Period.ID)
	if ttl := client.PTTL(ctx, key).Val(); ttl <= 0 {
		t.Error("the counters never expire")
	}

	// A proxy was quicker than the restoring.
	if err := client.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	hold := mustReserve(t, l, acct, 100)
	newer := acct
	newer.Limit, newer.LimitVersion = 2000, acct.LimitVersion+1
	if err := l.Restore(ctx, newer, 950); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, l, newer, 2000, 950, 100)
	l.Settle(hold, 10)
	flush(t, l)
	wantUsage(t, l, newer, 2000, 960, 0)

	server.Stop()
	if err := l.Restore(ctx, acct, 1); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("without Redis: %v", err)
	}
}

func TestRedisLedgerWaitersDoNotLeak(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	l := newRedisLedger(t, server, "a").(*quota.RedisLedger)
	acct := account(t, 1000)
	for range 100 {
		l.Changed(acct.Customer)
	}
	if n := quota.Waiters(l); n != 1 {
		t.Errorf("%d channels for one customer", n)
	}
	l.Release(mustReserve(t, l, acct, 1))
	flush(t, l)
	if n := quota.Waiters(l); n != 0 {
		t.Errorf("%d channels after a change", n)
	}
}

func BenchmarkRedisLedger(b *testing.B) {
	server := testenv.Redis(b)
	l := quota.NewRedisLedger(redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true}), quota.RedisOptions{Replica: "a"})
	acct := account(b, 1<<50)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			a, err := l.Reserve(context.Background(), acct, 1000)
			if err != nil {
				b.Error(err)
				return
			}
			l.Settle(a.Hold, rand.Int64N(1000))
		}
	})
	if err := l.Close(context.Background()); err != nil {
		b.Error(err)
	}
}
