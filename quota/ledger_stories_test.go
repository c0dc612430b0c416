package quota_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// The long stories of the conformance suite.

// testModel runs random operations on two ledgers and compares every answer with
// plain arithmetic.
func testModel(t *testing.T, server *testenv.RedisServer, newLedger ledgerMaker) {
	type open struct {
		hold  quota.Hold
		model *quota.Usage
	}
	ls := []quota.Ledger{newLedger(t, server, "model-a"), newLedger(t, server, "model-b")}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	base := account(t, 2000)
	version := int64(1)
	models := []*quota.Usage{{PeriodID: "p0", Limit: 2000}, {PeriodID: "p1", Limit: 2000}}
	versions := []int64{1, 1}
	for i, m := range models { // Redis must have seen the first version before others come
		acct := base
		acct.Period.ID = m.PeriodID
		wantVerdict(t, ls[i], acct, 1, quota.Granted)
	}
	var opens, closed []open
	for step := range 1500 {
		l := ls[rng.IntN(len(ls))]
		p := rng.IntN(len(models))
		m := models[p]
		acct := base
		acct.Period.ID = m.PeriodID
		acct.Limit, acct.LimitVersion = m.Limit, versions[p]
		switch op := rng.IntN(10); {
		case op < 5:
			tokens := rng.Int64N(500)
			want := quota.Granted
			switch {
			case tokens > max(m.Limit-m.Settled, 0):
				want = quota.Exceeds
			case tokens > 0 && m.Settled+m.Held+tokens > m.Limit:
				want = quota.Held
			}
			a := reserve(t, l, acct, tokens)
			if want == quota.Granted {
				m.Held += tokens
				opens = append(opens, open{a.Hold, m})
			}
			if a.Verdict != want || a.Limit != m.Limit || a.Settled != m.Settled || a.Held != m.Held {
				t.Fatalf("step %d: reserve %d: got %+v, want verdict %d of %+v", step, tokens, a, want, *m)
			}
		case op < 8 && len(opens) > 0:
			i := rng.IntN(len(opens))
			o := opens[i]
			opens[i] = opens[len(opens)-1]
			opens = opens[:len(opens)-1]
			closed = append(closed, o)
			o.model.Held -= o.hold.Tokens
			if rng.IntN(3) == 0 {
				l.Release(o.hold)
			} else {
				used := rng.Int64N(o.hold.Tokens + 20)
				o.model.Settled += min(used, o.hold.Tokens)
				l.Settle(o.hold, used)
			}
		case op == 8 && len(closed) > 0:
			l.Settle(closed[rng.IntN(len(closed))].hold, rng.Int64N(100))
		default:
			limit, v := rng.Int64N(40_000), version+rng.Int64N(3)-1
			acct.Limit, acct.LimitVersion = limit, v
			if err := l.SetLimit(context.Background(), acct); err != nil {
				t.Fatal(err)
			}
			if v > versions[p] {
				m.Limit, versions[p] = limit, v
			}
			version = max(version, v)
		}
		flush(t, ls...)
	}
	for i, m := range models {
		acct := base
		acct.Period.ID, acct.Limit, acct.LimitVersion = m.PeriodID, m.Limit, versions[i]
		wantUsage(t, ls[i], acct, m.Limit, m.Settled, m.Held)
	}
}

// testRedisRestarts kills Redis under load. Nothing that was granted may be lost or
// charged twice, and no reservation of which nobody learnt may stay.
func testRedisRestarts(t *testing.T, server *testenv.RedisServer, newLedger ledgerMaker) {
	const limit = 1 << 40
	acct := account(t, limit)
	ls := []quota.Ledger{newLedger(t, server, "restart-a"), newLedger(t, server, "restart-b")}
	var charged, granted, failed atomic.Int64
	stop := workers(16, func(w int, done <-chan struct{}) {
		l := ls[w%len(ls)]
		rng := rand.New(rand.NewPCG(uint64(w), 3))
		for {
			select {
			case <-done:
				return
			default:
			}
			tokens := 1 + rng.Int64N(1000)
			a, err := l.Reserve(context.Background(), acct, tokens)
			if err != nil {
				if !errors.Is(err, quota.ErrUnavailable) {
					t.Errorf("reserve: %v", err)
				}
				failed.Add(1)
				time.Sleep(time.Millisecond)
				continue
			}
			granted.Add(1)
			used := rng.Int64N(tokens + 1)
			charged.Add(used)
			l.Settle(a.Hold, used)
		}
	})
	await := func(what string, n *atomic.Int64, more int64) {
		t.Helper()
		for target, deadline := n.Load()+more, time.Now().Add(30*time.Second); n.Load() < target; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %s", what)
			}
		}
	}
	for range 3 {
		await("reservation", &granted, 300)
		server.Stop()
		await("failure", &failed, 20)
		server.Start()
	}
	await("reservation", &granted, 300)
	stop()
	flush(t, ls...)
	// A pool that could not dial says so for up to a second more.
	eventually(t, "usage can be read", func() bool { _, err := ls[0].Usage(context.Background(), acct); return err == nil })
	wantUsage(t, ls[0], acct, limit, charged.Load(), 0)
}

// workers runs n workers until the returned function is called, which waits for them.
func workers(n int, work func(w int, done <-chan struct{})) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() { work(w, done) })
	}
	return func() {
		close(done)
		wg.Wait()
	}
}
