package quota_test

import (
	"math"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

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
