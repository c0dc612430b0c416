package trace

import (
	"math"
	"math/rand/v2"
	"time"
)

// quantile is a point of a distribution: share of the requests, in percent, that have at
// most so many tokens.
type quantile struct{ percent, tokens float64 }

// Quantiles of the lengths in Mooncake's hour of conversations (12,031 requests). Prompts
// and answers hardly depend on each other there (correlation 0.07), so they are drawn
// independently.
func inputs() []quantile {
	return []quantile{
		{0, 891}, {1, 894}, {5, 901}, {10, 964}, {20, 1662}, {30, 3263}, {40, 4993}, {50, 6909}, {60, 9570}, {70, 13196}, {80, 17869},
		{90, 27367}, {95, 39550}, {98, 66449}, {99, 85400}, {99.5, 100810}, {99.9, 121301}, {100, 126195},
	}
}

func outputs() []quantile {
	return []quantile{
		{0, 1}, {1, 3}, {5, 10}, {10, 24}, {20, 100}, {30, 213}, {40, 291}, {50, 350}, {60, 399}, {70, 447}, {80, 504},
		{90, 597}, {95, 698}, {98, 892}, {99, 1119}, {99.5, 1568}, {99.9, 2000}, {100, 2000},
	}
}

// perGrid is how many requests arrive at one point of the grid, on average.
const perGrid = 10.2

// draw returns a length.
func draw(q []quantile, random *rand.Rand) int {
	p := random.Float64() * 100
	for i := 1; i < len(q); i++ {
		if p <= q[i].percent {
			share := (p - q[i-1].percent) / (q[i].percent - q[i-1].percent)
			return int(math.Round(q[i-1].tokens + share*(q[i].tokens-q[i-1].tokens)))
		}
	}
	return int(q[len(q)-1].tokens)
}

// Generate makes a trace of n requests like Mooncake's: as many at each point of the 3 s
// grid, as long prompts and answers. The same seed gives the same.
func Generate(n int, seed uint64) []Request {
	random := rand.New(rand.NewPCG(seed, 1))
	in, out := inputs(), outputs()
	var all []Request
	for at := time.Duration(0); len(all) < n; at += Grid {
		for range min(poisson(perGrid, random), n-len(all)) {
			all = append(all, Request{At: at, Input: draw(in, random), Output: draw(out, random)})
		}
	}
	return all
}

// poisson draws how many of independent arrivals fall into an interval.
func poisson(mean float64, random *rand.Rand) int {
	n := 0
	for p := random.Float64(); p > math.Exp(-mean); p *= random.Float64() {
		n++
	}
	return n
}
