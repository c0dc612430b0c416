package quota_test

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

func newRates(t testing.TB, server *testenv.RedisServer, opts quota.RateOptions) *quota.Rates {
	opts.Logger = slog.New(slog.DiscardHandler)
	r := quota.NewRates(newClient(t, server), opts)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = r.Close(ctx) // Redis may be stopped
	})
	return r
}

// A customer that stays below half its bucket costs Redis nothing; one that does not
// costs one command per interval, however many requests come.
func TestRatesRedisCommands(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client := newClient(t, server)
	r := newRates(t, server, quota.RateOptions{Replica: "a"})
	rate := quota.RequestRate{PerSecond: 10, Burst: 20}
	for i := range 10 {
		if ok, remaining, _ := r.Allow("quiet", rate, time.Now()); !ok || remaining != 19-i {
			t.Fatalf("request %d: ok %v, remaining %d", i, ok, remaining)
		}
	}
	if _, contended := r.Customers(); contended != 0 {
		t.Error("contended with half a bucket left")
	}
	measure := func(perTick int) (calls int, ok bool) {
		before, began := scriptCalls(t, client), time.Now()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for start := time.Now(); time.Since(start) < 2*time.Second; <-tick.C {
			for range perTick {
				r.Allow("busy", rate, time.Now())
			}
		}
		calls = scriptCalls(t, client) - before
		return calls, calls > 0 && calls <= int(time.Since(began)/quota.DefaultSyncInterval)+4
	}
	slow, few := measure(1)
	fast, fewToo := measure(100)
	t.Logf("script calls in 2 s: %d at 1,000 requests/s, %d at 100,000", slow, fast)
	if !few || !fewToo {
		t.Errorf("script calls in 2 s: %d and %d, want about 10 whatever the rate", slow, fast)
	}
}

func scriptCalls(t testing.TB, client *redis.Client) int {
	t.Helper()
	info, err := client.Info(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
			n, _, _ := strings.Cut(rest, ",")
			calls, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			return calls
		}
	}
	return 0
}

// Once the bucket is full again, the customer leaves Redis.
func TestRatesLeave(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client := newClient(t, server)
	r := newRates(t, server, quota.RateOptions{Replica: "a", SyncInterval: 20 * time.Millisecond})
	rate := quota.RequestRate{PerSecond: 100, Burst: 20}
	registered := func(customer string) func() bool {
		return func() bool { // it is full again after 200 ms
			for range 25 {
				r.Allow(customer, rate, time.Now())
			}
			return client.HLen(context.Background(), contract.RateKey(customer)).Val() == 1
		}
	}
	eventually(t, "a share is registered", registered("c"))
	eventually(t, "the customer has left", func() bool {
		_, contended := r.Customers()
		return contended == 0 && client.Exists(context.Background(), contract.RateKey("c")).Val() == 0
	})
	if ok, remaining, _ := r.Allow("c", rate, time.Now()); !ok || remaining != 19 {
		t.Errorf("afterwards: ok %v, remaining %d, want a full bucket", ok, remaining)
	}
	// Close gives shares back at once.
	eventually(t, "a share is registered", registered("d"))
	if err := r.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if client.Exists(context.Background(), contract.RateKey("d")).Val() != 0 {
		t.Error("the share is still registered after Close")
	}
}

func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not: %s", what)
		}
	}
}

// Without Redis the last share stays for the grace, then a careful part of the rate;
// a customer that never had a share gets its burst and later that part. With Redis
// back all is as before.
func TestRatesWithoutRedis(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	now, sleep := ownClock()
	r := newRates(t, server, quota.RateOptions{Replica: "a", Grace: 2 * time.Second, SyncInterval: 50 * time.Millisecond, Now: now})
	rate := quota.RequestRate{PerSecond: 90, Burst: 10}
	perSecond := func(customer string, seconds float64) float64 {
		n := 0
		for range int(seconds * 1000) {
			sleep(time.Millisecond)
			if ok, _, _ := r.Allow(customer, rate, now()); ok {
				n++
			}
		}
		return float64(n) / seconds
	}
	eventually(t, "the whole rate is given", func() bool { return perSecond("c", 0.3) > 70 })
	server.Stop()
	time.Sleep(2 * time.Second) // some syncs fail; the clock by which the grace passes stands still
	if got := perSecond("c", 0.5); got < 70 || got > 110 {
		t.Errorf("%.0f/s within the grace, want the share of 90", got)
	}
	if got := perSecond("new", 0.5); got > 2*10 {
		t.Errorf("%.0f/s of a new customer within the grace, want its burst of 10", got)
	}
	for _, customer := range []string{"c", "new"} {
		eventually(t, customer+" is given 30/s after the grace", func() bool {
			got := perSecond(customer, 0.5)
			return got >= 20 && got <= 45
		})
	}
	server.Start()
	eventually(t, "the whole rate is back", func() bool { return perSecond("c", 0.3) > 70 })
}

func TestRatesRateChanges(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	r := newRates(t, server, quota.RateOptions{Replica: "a", SyncInterval: 20 * time.Millisecond})
	count := func(rate quota.RequestRate, d time.Duration) (n int) {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for start := time.Now(); time.Since(start) < d; <-tick.C {
			if ok, _, _ := r.Allow("c", rate, time.Now()); ok {
				n++
			}
		}
		return n
	}
	count(quota.RequestRate{PerSecond: 200, Burst: 10}, 300*time.Millisecond)
	if n := count(quota.RequestRate{PerSecond: 10, Burst: 5}, time.Second); n > 10+5+2 {
		t.Errorf("%d admitted in a second after the rate was lowered to 10 with burst 5", n)
	}
	eventually(t, "the rate is raised to 200", func() bool {
		return count(quota.RequestRate{PerSecond: 200, Burst: 10}, 300*time.Millisecond) > 45
	})
	for _, none := range []quota.RequestRate{{}, {PerSecond: -1, Burst: 5}, {PerSecond: 5}} {
		if ok, _, retry := r.Allow("none", none, time.Now()); ok || retry <= 0 {
			t.Errorf("%+v admits", none)
		}
	}
}

// Many goroutines whose times are out of order must not refill the bucket twice.
func TestRatesTimesOutOfOrder(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	r := newRates(t, server, quota.RateOptions{Replica: "a"})
	rate := quota.RequestRate{PerSecond: 200, Burst: 10}
	var admitted atomic.Int64
	start := time.Now()
	stop := workers(8, func(w int, done <-chan struct{}) {
		lag := time.Duration(w) * 20 * time.Millisecond
		for {
			select {
			case <-done:
				return
			default:
			}
			if ok, _, _ := r.Allow("c", rate, time.Now().Add(-lag)); ok {
				admitted.Add(1)
			}
			time.Sleep(200 * time.Microsecond)
		}
	})
	<-time.After(2 * time.Second)
	stop()
	if got, most := admitted.Load(), 1.05*200*time.Since(start).Seconds()+10; float64(got) > most {
		t.Errorf("%d admitted, want at most %.0f", got, most)
	}
}

// ownClock is a clock that goes only when it is told to, and what tells it: however slow the machine
// is, a second of it is one.
func ownClock() (now func() time.Time, sleep func(time.Duration)) {
	start := time.Now()
	var ahead atomic.Int64
	return func() time.Time { return start.Add(time.Duration(ahead.Load())) }, func(d time.Duration) { ahead.Add(int64(d)) }
}

// retry is when the bucket really has a request again.
func TestRatesRetryAfter(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	clock, sleep := ownClock()
	r := newRates(t, server, quota.RateOptions{Replica: "a", Now: clock})
	rate := quota.RequestRate{PerSecond: 5, Burst: 2}
	for range 10 {
		r.Allow("c", rate, clock())
	}
	eventually(t, "a share has come", func() bool {
		sleep(10 * time.Millisecond)
		ok, _, _ := r.Allow("c", rate, clock())
		return ok
	})
	for range 3 {
		now := clock()
		ok, _, retry := r.Allow("c", rate, now)
		for ; ok; ok, _, retry = r.Allow("c", rate, now) {
		}
		if retry <= 0 || retry > 200*time.Millisecond {
			t.Fatalf("retry after %v at 5 a second", retry)
		}
		if ok, _, _ := r.Allow("c", rate, now.Add(retry-5*time.Millisecond)); ok {
			t.Error("admitted before the time to retry")
		}
		if ok, _, _ := r.Allow("c", rate, now.Add(retry+5*time.Millisecond)); !ok {
			t.Error("not admitted after the time to retry")
		}
		sleep(retry + 10*time.Millisecond)
	}
}

// A leftover or foreign entry in Redis never gives more than the rate, and is gone
// after a second.
func TestRatesDeadReplica(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client := newClient(t, server)
	began := time.Now()
	now := client.Time(context.Background()).Val().UnixMilli()
	rate := quota.RequestRate{PerSecond: 100, Burst: 10}
	client.HSet(context.Background(), contract.RateKey("c"), "dead", fmt.Sprintf("1000 100 %d", now))
	r := newRates(t, server, quota.RateOptions{Replica: "a", SyncInterval: 50 * time.Millisecond})
	count := func(d time.Duration) (n int) {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for start := time.Now(); time.Since(start) < d; <-tick.C {
			if ok, _, _ := r.Allow("c", rate, time.Now()); ok {
				n++
			}
		}
		return n
	}
	if n := count(500 * time.Millisecond); n != 10 && time.Since(began) < time.Second {
		t.Errorf("%d admitted while another replica holds the whole rate, want the burst", n)
	}
	eventually(t, "the rate of the dead replica is taken over", func() bool { return count(300*time.Millisecond) > 20 })
}

func TestRatesEvict(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	r := newRates(t, server, quota.RateOptions{Replica: "a"})
	rate := quota.RequestRate{PerSecond: 1, Burst: 200}
	start := time.Now()
	for i := range 1000 {
		r.Allow("c"+strconv.Itoa(i), rate, start)
	}
	quota.Evict(r, start.Add(100*time.Second)) // would not have filled by then
	if n, _ := r.Customers(); n != 1000 {
		t.Errorf("%d buckets, want all", n)
	}
	quota.Evict(r, start.Add(201*time.Second))
	if n, _ := r.Customers(); n != 0 {
		t.Errorf("%d buckets, want none", n)
	}
}

func BenchmarkRatesAllow(b *testing.B) {
	server := testenv.Redis(b)
	r := newRates(b, server, quota.RateOptions{Replica: "a"})
	rate := quota.RequestRate{PerSecond: 1e6, Burst: 1e6}
	customers := make([]string, 1024)
	for i := range customers {
		customers[i] = "customer-" + strconv.Itoa(i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			r.Allow(customers[i%len(customers)], rate, time.Now())
		}
	})
}

func TestRemainingTakesNothing(t *testing.T) {
	t.Parallel()
	r := quota.NewRates(testenv.Redis(t).Client(), quota.RateOptions{Replica: "r"})
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	want := quota.RequestRate{PerSecond: 0.001, Burst: 5}
	now := time.Now()
	for left := 5; left >= 0; left-- {
		for range 3 {
			if got := r.Remaining("c", want, now); got != left {
				t.Fatalf("%d remain, want %d", got, left)
			}
		}
		if ok, remaining, _ := r.Allow("c", want, now); ok != (left > 0) || remaining != max(left-1, 0) {
			t.Fatalf("allowed %v, %d remain", ok, remaining)
		}
	}
	if got := r.Remaining("c", want, now.Add(-time.Hour)); got != 0 {
		t.Errorf("%d remain an hour ago", got)
	}
	if buckets, _ := r.Customers(); buckets != 1 {
		t.Errorf("%d buckets", buckets)
	}
	if got := r.Remaining("stranger", want, now); got != 5 {
		t.Errorf("a stranger has %d", got)
	}
	if buckets, _ := r.Customers(); buckets != 1 {
		t.Errorf("asking made a bucket: %d", buckets)
	}
}
