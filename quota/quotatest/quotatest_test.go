package quotatest_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
	"github.com/andreabadesso/openclaw-cloud/quota/quotatest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// journal is one in which nothing ever happens.
type journal struct{ name string }

func (j journal) Replica() string                           { return j.name }
func (journal) Life() uint64                                { return 1 }
func (journal) Last() int64                                 { return 0 }
func (journal) Forgotten() int64                            { return 0 }
func (journal) Next(int64, int) ([]contract.Event, error)   { return nil, nil }
func (journal) Wait(ctx context.Context, after int64) error { <-ctx.Done(); return ctx.Err() }

func replica(t *testing.T, srv *testenv.RedisServer, name string) *quota.Leases {
	guarded := redis.NewClient(&redis.Options{Addr: srv.Addr, ContextTimeoutEnabled: true, OnConnect: quota.NewGuard(srv.Client()).Check})
	l := quota.NewLeases(srv.Client(), guarded, journal{name}, quota.Options{
		Timeout: 5 * time.Second, SettleEvery: 10 * time.Millisecond, FollowEvery: 20 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = l.Close(ctx)
		_ = guarded.Close()
	})
	return l
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// reserves waits until tokens of acct were reserved.
func reserves(t *testing.T, l *quota.Leases, acct quota.Account, tokens int64) {
	t.Helper()
	eventually(t, "tokens are reserved", func() bool {
		a, err := l.Reserve(t.Context(), acct, tokens)
		return err == nil && a.Verdict == quota.Granted
	})
}

// The plane registers replicas, makes records that were put and others that are missed,
// and begins an epoch after each loss, in which old leases still count.
func TestPlane(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	plane := quotatest.New(t, srv.Client())
	a, b := replica(t, srv, "a"), replica(t, srv, "b")
	put := quota.Account{Customer: "put", Period: contract.Period{ID: "p"}, Limit: 1000, LimitVersion: 1}
	missed := quota.Account{Customer: "missed", Period: contract.Period{ID: "p"}, Limit: 500, LimitVersion: 3}
	plane.Put(put)
	reserves(t, a, put, 600)
	reserves(t, b, missed, 400)
	if u := plane.Usage(put); u.Limit != 1000 || u.Held < 600 || u.Settled != 0 {
		t.Errorf("%+v", u)
	}
	for _, lose := range []func(){srv.FlushAll, func() { srv.Stop(); srv.Start() }} {
		before := plane.Await("an epoch is open", func(e quota.Epoch) bool { return e.IsOpen() }).Number
		lose()
		plane.Await("the next epoch is open", func(e quota.Epoch) bool { return e.IsOpen() && e.Number > before && len(e.Members) == 2 })
		eventually(t, "the leases are there again", func() bool { return plane.Usage(put).Held >= 600 && plane.Usage(missed).Held >= 400 })
		if u := plane.Usage(put); u.Limit != 1000 {
			t.Errorf("%+v", u)
		}
	}
}

// What is billed counts once, is acknowledged, and is in the records of the next epoch.
func TestBill(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	rdb := srv.Client()
	plane := quotatest.New(t, rdb)
	acct := quota.Account{Customer: "c", Period: contract.Period{ID: "p"}, Limit: 1000, LimitVersion: 1}
	plane.Put(acct)
	event := func(n, settled int64) contract.Event {
		return contract.Event{Replica: "gone", Seq: n, CustomerID: "c", PeriodID: "p", Settled: settled}
	}
	plane.Bill([]contract.Event{event(1, 10), event(2, 20)})
	plane.Bill([]contract.Event{event(2, 20), event(4, 40)})
	if n, err := rdb.HGet(t.Context(), contract.UsageAckedKey, "gone").Int64(); err != nil || n != 2 {
		t.Errorf("acknowledged up to %d, %v", n, err)
	}
	srv.FlushAll()
	eventually(t, "the record says what is billed", func() bool { return plane.Usage(acct).Settled == 70 })
}

// A lost replica is shut out, and its tokens are free.
func TestLose(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	plane := quotatest.New(t, srv.Client())
	l := replica(t, srv, "a")
	acct := quota.Account{Customer: "c", Period: contract.Period{ID: "p"}, Limit: 1000, LimitVersion: 1}
	plane.Put(acct)
	reserves(t, l, acct, 600)
	if n := plane.Lose("a"); n < 600 {
		t.Errorf("%d tokens came free", n)
	}
	eventually(t, "it knows", func() bool { return l.TryReserve(acct, 1).Verdict == quota.Unknown })
	if u := plane.Usage(acct); u.Held != 0 {
		t.Errorf("%+v", u)
	}
}
