package quota_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"

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

// traffic offers requests to replicas in real time, and records what was admitted.
type traffic struct {
	rate     quota.RequestRate
	replicas int
	// offered returns the requests per second that a replica is asked for.
	offered func(replica int, since time.Duration) float64
}

// run returns the sorted times of admission over all replicas, and those of a single
// ideal bucket that was asked for the same: on a busy machine requests come late and in
// heaps, of which no bucket makes up for what it could not keep.
func (tr traffic) run(t testing.TB, server *testenv.RedisServer, customer string, duration time.Duration) (admitted, ideal []time.Duration) {
	var mu sync.Mutex
	bucket := rate.NewLimiter(rate.Limit(tr.rate.PerSecond), tr.rate.Burst)
	var wg sync.WaitGroup
	rates := make([]*quota.Rates, tr.replicas)
	for i := range rates {
		rates[i] = newRates(t, server, quota.RateOptions{Replica: "r" + strconv.Itoa(i)})
	}
	start := time.Now()
	for i, r := range rates {
		wg.Go(func() {
			const step = 5 * time.Millisecond
			tick := time.NewTicker(step)
			defer tick.Stop()
			due, last := 0.0, start
			for now := range tick.C {
				since := now.Sub(start)
				if since >= duration {
					return
				}
				due += tr.offered(i, since) * now.Sub(last).Seconds()
				last = now
				for ; due >= 1; due-- {
					at := time.Now()
					ok, _, _ := r.Allow(customer, tr.rate, at)
					mu.Lock()
					if ok {
						admitted = append(admitted, at.Sub(start))
					}
					if bucket.Allow() {
						ideal = append(ideal, at.Sub(start))
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(admitted)
	slices.Sort(ideal)
	return admitted, ideal
}

// mostIn returns the most admissions in any window, however it lies.
func mostIn(admitted []time.Duration, window time.Duration) int {
	most, from := 0, 0
	for to := range admitted {
		for admitted[to]-admitted[from] >= window {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}

// leastIn returns the least part of full, or of the ideal if that is less, that was
// admitted in any window within [from, to), and how many those were.
func leastIn(admitted, ideal []time.Duration, full float64, window, from, to time.Duration) (part float64, n int) {
	in := func(times []time.Duration, start time.Duration) int {
		a, _ := slices.BinarySearch(times, start)
		b, _ := slices.BinarySearch(times, start+window)
		return b - a
	}
	part = math.Inf(1)
	for start := from; start+window <= to; start += 50 * time.Millisecond {
		got := in(admitted, start)
		if p := float64(got) / min(full, float64(in(ideal, start))); p < part {
			part, n = p, got
		}
	}
	return part, n
}

func always(rps float64) func(int, time.Duration) float64 {
	return func(int, time.Duration) float64 { return rps }
}

func only(replica int, rps float64) func(int, time.Duration) float64 {
	return func(i int, _ time.Duration) float64 {
		if i == replica {
			return rps
		}
		return 0
	}
}

type rateScenario struct {
	name string
	traffic
	least float64 // part of the rate to be admitted in any 10 s after the first second
}

func rateScenarios(period time.Duration) []rateScenario {
	usual := quota.RequestRate{PerSecond: contract.DefaultRequestsPerSecond, Burst: contract.DefaultBurst}
	fast := quota.RequestRate{PerSecond: 100, Burst: 20}
	return []rateScenario{
		{"one replica", traffic{usual, 1, always(50)}, 0.9},
		{"one replica just at the rate", traffic{fast, 1, always(102)}, 0.9},
		{"one of three gets all", traffic{usual, 3, only(1, 50)}, 0.9},
		{"one of three gets all, fast", traffic{fast, 3, only(2, 1000)}, 0.9},
		{"three evenly", traffic{usual, 3, always(20)}, 0.9},
		{"three evenly, fast", traffic{fast, 3, always(300)}, 0.9},
		{"ninety to ten", traffic{fast, 2, func(i int, _ time.Duration) float64 { return []float64{900, 100}[i] }}, 0.9},
		{"burst of one", traffic{quota.RequestRate{PerSecond: 20, Burst: 1}, 3, always(100)}, 0.7},
		{"moves from replica to replica", traffic{fast, 3, func(i int, since time.Duration) float64 {
			if int(since/period)%3 == i {
				return 400
			}
			return 0
		}}, 0.8},
		{"flickers", traffic{fast, 3, func(i int, since time.Duration) float64 {
			if int(since/(300*time.Millisecond))%3 == i {
				return 1000
			}
			return 10
		}}, 0.7},
	}
}

func (sc rateScenario) check(t testing.TB, server *testenv.RedisServer, duration time.Duration) {
	const window = 10 * time.Second
	admitted, ideal := sc.run(t, server, sc.name, duration)
	perWindow := sc.rate.PerSecond * window.Seconds()
	most := mostIn(admitted, window)
	part, least := leastIn(admitted, ideal, perWindow, window, time.Second, duration)
	bound := 1.1*perWindow + float64(sc.rate.Burst*sc.replicas)
	t.Logf("%s: %d (%.0f %%) to %d admitted in any 10 s; rate×10 is %.0f, bound %.0f", sc.name, least, 100*part, most, perWindow, bound)
	if float64(most) > bound {
		t.Errorf("%s: %d admitted within 10 s, bound %.0f", sc.name, most, bound)
	}
	if part < sc.least {
		t.Errorf("%s: only %d admitted within 10 s, %.0f %% of what one bucket would", sc.name, least, 100*part)
	}
	// Shorter windows show shares above one that a long one averages out.
	for _, w := range []time.Duration{2 * time.Second, 5 * time.Second} {
		bound := sc.rate.PerSecond*(1.1*w.Seconds()+0.5) + float64(sc.rate.Burst*sc.replicas)
		if most := mostIn(admitted, w); float64(most) > bound {
			t.Errorf("%s: %d admitted within %v, want at most %.0f", sc.name, most, w, bound)
		}
	}
}

// The promise of RateLimiter, in real time over real replicas. The long variant is
// BenchmarkRatesBounds.
func TestRatesBounds(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	// Not as subtests: only a few of those run at the same time.
	var wg sync.WaitGroup
	for _, sc := range rateScenarios(2 * time.Second) {
		wg.Go(func() { sc.check(t, server, 12*time.Second) })
	}
	wg.Wait()
}

// BenchmarkRatesBounds checks the promise for a minute; run it by
// go test ./quota -run '^$' -bench RatesBounds -benchtime 1x -timeout 20m.
func BenchmarkRatesBounds(b *testing.B) {
	server := testenv.Redis(b)
	for b.Loop() {
		var wg sync.WaitGroup
		for _, sc := range rateScenarios(7 * time.Second) {
			wg.Go(func() { sc.check(b, server, time.Minute) })
		}
		wg.Wait()
	}
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
	measure := func(perTick int) int {
		before := scriptCalls(t, client)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for start := time.Now(); time.Since(start) < 2*time.Second; <-tick.C {
			for range perTick {
				r.Allow("busy", rate, time.Now())
			}
		}
		return scriptCalls(t, client) - before
	}
	slow, fast := measure(1), measure(100)
	t.Logf("script calls in 2 s: %d at 1,000 requests/s, %d at 100,000", slow, fast)
	if slow < 5 || slow > 15 || fast < 5 || fast > 15 {
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
	for range 25 {
		r.Allow("c", rate, time.Now())
	}
	eventually(t, "a share is registered", func() bool { return client.HLen(context.Background(), contract.RateKey("c")).Val() == 1 })
	eventually(t, "the customer has left", func() bool {
		_, contended := r.Customers()
		return contended == 0 && client.Exists(context.Background(), contract.RateKey("c")).Val() == 0
	})
	if ok, remaining, _ := r.Allow("c", rate, time.Now()); !ok || remaining != 19 {
		t.Errorf("afterwards: ok %v, remaining %d, want a full bucket", ok, remaining)
	}
	// Close gives shares back at once.
	for range 25 {
		r.Allow("d", rate, time.Now())
	}
	eventually(t, "a share is registered", func() bool { return client.HLen(context.Background(), contract.RateKey("d")).Val() == 1 })
	if err := r.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if client.Exists(context.Background(), contract.RateKey("d")).Val() != 0 {
		t.Error("the share is still registered after Close")
	}
}

func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !check(); time.Sleep(5 * time.Millisecond) {
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
	r := newRates(t, server, quota.RateOptions{Replica: "a", Grace: 2 * time.Second, SyncInterval: 50 * time.Millisecond})
	rate := quota.RequestRate{PerSecond: 90, Burst: 10}
	perSecond := func(customer string, seconds float64) float64 {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		n, start := 0, time.Now()
		for ; time.Since(start).Seconds() < seconds; <-tick.C {
			if ok, _, _ := r.Allow(customer, rate, time.Now()); ok {
				n++
			}
		}
		return float64(n) / time.Since(start).Seconds()
	}
	eventually(t, "the whole rate is given", func() bool { return perSecond("c", 0.3) > 70 })
	server.Stop()
	if got := perSecond("c", 1); got < 70 || got > 110 {
		t.Errorf("%.0f/s within the grace, want the share of 90", got)
	}
	if got := perSecond("new", 0.5); got > 2*10 {
		t.Errorf("%.0f/s of a new customer within the grace, want its burst of 10", got)
	}
	perSecond("c", 1.5)
	if got := perSecond("c", 1); got < 20 || got > 45 {
		t.Errorf("%.0f/s after the grace, want 30", got)
	}
	perSecond("new", 1)
	if got := perSecond("new", 1); got < 20 || got > 45 {
		t.Errorf("%.0f/s of a new customer after the grace, want 30", got)
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
	count(quota.RequestRate{PerSecond: 200, Burst: 10}, 300*time.Millisecond)
	if n := count(quota.RequestRate{PerSecond: 200, Burst: 10}, time.Second); n < 150 {
		t.Errorf("%d admitted in a second after the rate was raised to 200", n)
	}
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

// retry is when the bucket really has a request again.
func TestRatesRetryAfter(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	r := newRates(t, server, quota.RateOptions{Replica: "a"})
	rate := quota.RequestRate{PerSecond: 5, Burst: 2}
	for range 10 {
		r.Allow("c", rate, time.Now())
	}
	time.Sleep(300 * time.Millisecond) // a share has come by then
	for range 3 {
		now := time.Now()
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
		time.Sleep(retry + 10*time.Millisecond)
	}
}

// A leftover or foreign entry in Redis never gives more than the rate, and is gone
// after a second.
func TestRatesDeadReplica(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client := newClient(t, server)
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
	if n := count(500 * time.Millisecond); n != 10 {
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
