package quota_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// The conformance suite of Ledger. An implementation is tested by a ledgerMaker; the
// suite itself speaks to the interface only. Every test has a customer of its own, so
// that those that need no fault share one Redis.

// ledgerMaker returns a ledger of the named replica on the server. It ends with the test.
type ledgerMaker func(t testing.TB, server *testenv.RedisServer, replica string) quota.Ledger

func TestMain(m *testing.M) {
	redis.SetLogger(discard{}) // it has much to say about servers that tests stop
	testenv.Main(m)
}

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}

func TestRedisLedger(t *testing.T) {
	t.Parallel()
	testLedger(t, newRedisLedger)
}

func newClient(t testing.TB, server *testenv.RedisServer) *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true, DialTimeout: time.Second, PoolSize: 32})
	t.Cleanup(func() { client.Close() })
	return client
}

func newRedisLedger(t testing.TB, server *testenv.RedisServer, replica string) quota.Ledger {
	// Machines under test are slow at times; what is tested here is not the timeout.
	return newRedisLedgerWith(t, server, quota.RedisOptions{Replica: replica, Timeout: 5 * time.Second})
}

func newRedisLedgerWith(t testing.TB, server *testenv.RedisServer, opts quota.RedisOptions) *quota.RedisLedger {
	opts.Logger = slog.New(slog.DiscardHandler)
	l := quota.NewRedisLedger(newClient(t, server), opts)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

// durable makes a Redis whose acknowledged writes survive its SIGKILL. With everysec
// they need not: it delays write(2), and not only fsync(2), while an fsync is under way.
func durable(t testing.TB) *testenv.RedisServer {
	return testenv.Redis(t, testenv.RedisArgs("--appendfsync", "no"))
}

func testLedger(t *testing.T, newLedger ledgerMaker) {
	server := testenv.Redis(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *testenv.RedisServer, ledgerMaker)
	}{
		{"never over the limit", testNeverOver},
		{"verdicts", testVerdicts},
		{"settles once", testSettlesOnce},
		{"clamps what is settled", testClamps},
		{"zero and huge", testZeroAndHuge},
		{"limit lowered under what is held", testLimitLowered},
		{"limit versions", testLimitVersions},
		{"period change", testPeriodChange},
		{"wakes waiters", testWakes},
		{"as the model", testModel},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, server, newLedger)
		})
	}
	t.Run("redis restarts", func(t *testing.T) {
		t.Parallel()
		testRedisRestarts(t, durable(t), newLedger)
	})
}

// account returns an account of a customer nobody else uses.
func account(t testing.TB, limit int64) quota.Account {
	start := time.Date(2031, 5, 1, 0, 0, 0, 0, time.UTC)
	return quota.Account{
		Customer:     t.Name(),
		Period:       contract.Period{ID: "2031-05", Start: start, End: start.AddDate(0, 1, 0)},
		Limit:        limit,
		LimitVersion: 1,
	}
}

// reserve asks as the proxy does: without I/O first.
func reserve(t testing.TB, l quota.Ledger, acct quota.Account, tokens int64) quota.Answer {
	t.Helper()
	if a := l.TryReserve(acct, tokens); a.Verdict != quota.Unknown {
		return a
	}
	a, err := l.Reserve(context.Background(), acct, tokens)
	if err != nil {
		t.Fatalf("reserve %d: %v", tokens, err)
	}
	return a
}

func mustReserve(t testing.TB, l quota.Ledger, acct quota.Account, tokens int64) quota.Hold {
	t.Helper()
	a := reserve(t, l, acct, tokens)
	if a.Verdict != quota.Granted {
		t.Fatalf("reserve %d: verdict %d with limit %d, settled %d, held %d", tokens, a.Verdict, a.Limit, a.Settled, a.Held)
	}
	return a.Hold
}

func wantVerdict(t testing.TB, l quota.Ledger, acct quota.Account, tokens int64, want quota.Verdict) quota.Answer {
	t.Helper()
	a := reserve(t, l, acct, tokens)
	if a.Verdict != want {
		t.Fatalf("reserve %d: verdict %d, want %d (limit %d, settled %d, held %d)", tokens, a.Verdict, want, a.Limit, a.Settled, a.Held)
	}
	if want == quota.Granted {
		l.Release(a.Hold)
		flush(t, l)
	}
	return a
}

func flush(t testing.TB, ls ...quota.Ledger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, l := range ls {
		if err := l.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func wantUsage(t testing.TB, l quota.Ledger, acct quota.Account, limit, settled, held int64) {
	t.Helper()
	flush(t, l)
	u, err := l.Usage(context.Background(), acct)
	if err != nil {
		t.Fatal(err)
	}
	if u.Limit != limit || u.Settled != settled || u.Held != held {
		t.Fatalf("usage: limit %d, settled %d, held %d; want %d, %d, %d", u.Limit, u.Settled, u.Held, limit, settled, held)
	}
}

func testNeverOver(t *testing.T, server *testenv.RedisServer, newLedger ledgerMaker) {
	const replicas, each, limit = 3, 64, 60_000
	acct := account(t, limit)
	ls := [replicas]quota.Ledger{}
	for i := range ls {
		ls[i] = newLedger(t, server, fmt.Sprintf("never%d", i))
	}
	var charged atomic.Int64
	var wg sync.WaitGroup
	for w := range each * replicas {
		l := ls[w%replicas]
		rng := rand.New(rand.NewPCG(uint64(w), 7))
		wg.Go(func() {
			for {
				tokens := 1 + rng.Int64N(400)
				a := reserve(t, l, acct, tokens)
				if a.Settled+a.Held > limit || a.Settled < 0 || a.Held < 0 {
					t.Errorf("settled %d + held %d is over the limit", a.Settled, a.Held)
				}
				switch a.Verdict {
				case quota.Granted:
					used := rng.Int64N(tokens + 1)
					if rng.IntN(10) == 0 {
						l.Release(a.Hold)
					} else {
						charged.Add(used)
						l.Settle(a.Hold, used)
					}
				case quota.Held:
					select {
					case <-l.Changed(acct.Customer):
					case <-time.After(20 * time.Millisecond):
					}
				case quota.Exceeds:
					if tokens <= a.Left() {
						t.Errorf("%d exceed although %d are left", tokens, a.Left())
					}
					return
				default:
					t.Errorf("verdict %d", a.Verdict)
					return
				}
			}
		})
	}
	wg.Wait()
	flush(t, ls[:]...)
	wantUsage(t, ls[0], acct, limit, charged.Load(), 0)
	// What is left can be had, to the last token, and no token more.
	left := limit - charged.Load()
	wantVerdict(t, ls[1], acct, left+1, quota.Exceeds)
	h := mustReserve(t, ls[2], acct, left)
	ls[2].Settle(h, left)
	wantUsage(t, ls[2], acct, limit, limit, 0)
	wantVerdict(t, ls[0], acct, 1, quota.Exceeds)
}

func testVerdicts(t *testing.T, server *testenv.RedisServer, newLedger ledgerMaker) {
	l, acct := newLedger(t, server, "verdicts"), account(t, 100)
	a := mustReserve(t, l, acct, 60)
	wantVerdict(t, l, acct, 101, quota.Exceeds)
	got := wantVerdict(t, l, acct, 41, quota.Held)
	if got.Limit != 100 || got.Settled != 0 || got.Held != 60 || got.Left() != 100 {
		t.Errorf("answer %+v", got)
	}
	b := mustReserve(t, l, acct, 40)
	wantUsage(t, l, acct, 100, 0, 100)
	l.Settle(a, 10)
	flush(t, l)
	wantVerdict(t, l, acct, 91, quota.Exceeds)
	wantVerdict(t, l, acct, 51, quota.Held)
	wantVerdict(t, l, acct, 50, quota.Granted)
	l.Release(b)
	wantUsage(t, l, acct, 100, 10, 0)
	if a.ID == b.ID || a.ID == "" || a.Tokens != 60 || a.Customer != acct.Customer || a.PeriodID != acct.Period.ID {
		t.Errorf("holds %+v and %+v", a, b)
	}
	l.Settle(quota.Hold{}, 5) // reserves nothing, changes nothing
	l.Release(quota.Hold{})
	wantUsage(t, l, acct, 100, 10, 0)
}

func testSettlesOnce(t *testing.T, server *testenv.RedisServer, newLedger ledgerMaker) {
	l, other, acct := newLedger(t, server, "once"), newLedger(t, server, "once-too"), account(t, 1000)
	a, b, c := mustReserve(t, l, acct, 100), mustReserve(t, l, acct, 100), mustReserve(t, l, acct, 100)
	l.Settle(a, 30)
	l.Settle(a, 30) // in the same batch
	l.Release(b)
	l.Settle(b, 40)
	l.Settle(c, 50)
	l.Release(c)
	wantUsage(t, l, acct, 1000, 80, 0)
	for _, h := range []quota.Hold{a, b, c} { // in later batches, and from elsewhere
		l.Settle(h, 30)
		other.Settle(h, 30)
		other.Release(h)
	}
	flush(t, l, other)
	wantUsage(t, l, acct, 1000, 80, 0)
}

func testClamps(t *testing.T, server *testenv.RedisServer, newLedger ledgerMaker) {
	l, acct := newLedger(t, server, "clamps"), account(t, 1000)
	l.Settle(mustReserve(t, l, acct, 100), 101)
	l.Settle(mustReserve(t, l, acct, 100), math.MaxInt64)
	l.Settle(mustReserve(t, l, acct, 100), -7)
	wantUsage(t, l, acct, 1000, 200, 0)
}

func testZeroAndHuge(t *testing.T, server *testenv.RedisServer, newLedger ledgerMaker) {
	l, acct := newLedger(t, server, "zero"), account(t, 10)
	l.Settle(mustReserve(t, l, acct, 10), 10)
	flush(t, l)
	wantVerdict(t, l, acct, 1, quota.Exceeds)
	wantVerdict(t, l, acct, math.MaxInt64, quota.Exceeds)
	wantVerdict(t, l, acct, 0, quota.Granted)
	acct.Limit, acct.LimitVersion = math.MaxInt64, 2
	wantVerdict(t, l, acct, math.MaxInt64, quota.Exceeds)
	acct.Limit, acct.LimitVersion = 0, 3
	wantVerdict(t, l, acct, 1, quota.Exceeds)
	wantVerdict(t, l, acct, 0, quota.Granted)
	wantUsage(t, l, acct, 0, 10, 0)
}

func testLimitLowered(t *testing.T, server *testenv.RedisServer, newLedger ledgerMaker) {
	l, acct := newLedger(t, server, "lowered"), account(t, 1000)
	l.Settle(mustReserve(t, l, acct, 300), 300)
	a, b := mustReserve(t, l, acct, 200), mustReserve(t, l, acct, 200)
	flush(t, l)
	acct.Limit, acct.LimitVersion = 400, 2
	if err := l.SetLimit(context.Background(), acct); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, l, acct, 1, quota.Held)
	wantVerdict(t, l, acct, 101, quota.Exceeds)
	l.Settle(a, 150)
	flush(t, l)
	wantVerdict(t, l, acct, 1, quota.Exceeds) // 450 settled
	l.Settle(b, 200)
	wantUsage(t, l, acct, 400, 650, 0) // what was held when it was lowered stays promised
	wantVerdict(t, l, acct, 1, quota.Exceeds)
	acct.Limit, acct.LimitVersion = 700, 3
	wantVerdict(t, l, acct, 51, quota.Exceeds)
	wantVerdict(t, l, acct, 50, quota.Granted)
}

func testLimitVersions(t *testing.T, server *testenv.RedisServer, newLedger ledgerMaker) {
	ctx := context.Background()
	l, other, acct := newLedger(t, server, "versions"), newLedger(t, server, "versions-too"), account(t, 100)
	at := func(limit, version int64) quota.Account {
		a := acct
		a.Limit, a.LimitVersion = limit, version
		return a
	}
	set := func(limit, version int64) {
		t.Helper()
		if err := l.SetLimit(ctx, at(limit, version)); err != nil {
			t.Fatal(err)
		}
	}
	wantUsage(t, l, at(100, 1), 100, 0, 0) // Redis knows nothing yet
	set(50, 9)
	wantUsage(t, other, at(100, 1), 50, 0, 0)
	wantVerdict(t, other, at(100, 8), 51, quota.Exceeds)
	wantVerdict(t, other, at(100, 9), 51, quota.Exceeds) // equal: the first seen stays
	set(70, 3)
	wantVerdict(t, other, at(0, 0), 51, quota.Exceeds)
	wantVerdict(t, other, at(60, 10), 60, quota.Granted) // 10 is more than 9, as text it is not
	wantVerdict(t, l, at(50, 9), 60, quota.Granted)
	// Neighbours that a double cannot tell apart.
	set(80, math.MaxInt64-1)
	set(90, math.MaxInt64)
	set(10, math.MaxInt64-1)
	wantUsage(t, l, at(1, 1), 90, 0, 0)
}

func testPeriodChange(t *testing.T, server *testenv.RedisServer, newLedger ledgerMaker) {
	l, may := newLedger(t, server, "period"), account(t, 100)
	june := may
	june.Period = contract.Period{ID: "2031-06", Start: may.Period.End, End: may.Period.End.AddDate(0, 1, 0)}
	june.Limit, june.LimitVersion = 200, 2
	a := mustReserve(t, l, may, 100)
	wantVerdict(t, l, may, 1, quota.Held)
	b := mustReserve(t, l, june, 200)
	l.Settle(a, 90)
	l.Settle(b, 1)
	flush(t, l)
	wantUsage(t, l, may, 100, 90, 0)
	wantUsage(t, l, june, 200, 1, 0)
	// A period that is long over still takes settlements and keeps its limit.
	past := may
	past.Period = contract.Period{ID: "2001-01", Start: time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), End: time.Date(2001, 2, 1, 0, 0, 0, 0, time.UTC)}
	l.Settle(mustReserve(t, l, past, 100), 100)
	flush(t, l)
	wantVerdict(t, l, past, 1, quota.Exceeds)
}

func testWakes(t *testing.T, server *testenv.RedisServer, newLedger ledgerMaker) {
	l, acct := newLedger(t, server, "wakes"), account(t, 100)
	h := mustReserve(t, l, acct, 100)
	changed, same := l.Changed(acct.Customer), l.Changed(acct.Customer)
	select {
	case <-changed:
		t.Fatal("woken by nothing")
	default:
	}
	l.Settle(h, 40)
	for _, c := range []<-chan struct{}{changed, same} {
		select {
		case <-c:
		case <-time.After(10 * time.Second):
			t.Fatal("not woken by a settlement")
		}
	}
	// Who is woken finds the tokens free.
	wantVerdict(t, l, acct, 60, quota.Granted)
	changed = l.Changed(acct.Customer)
	l.Release(mustReserve(t, l, acct, 10))
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Fatal("not woken by a release")
	}
}
