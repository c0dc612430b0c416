package quota

import (
	"math"
	"time"
)

// demand is how much an account is asked for on this replica.
type demand struct {
	consumed int64 // settled since the last call
	peak     int64 // most that was held since the last call
	largest  int64 // largest reservation since the last call

	planned int64 // the part of spare that is for requests in flight

	recent float64       // settled lately: what is older than the horizon weighs less and less
	weight float64       // of all the time that recent knows, 1 in the end
	at     time.Duration // when that was last worked out
}

// plan works out, before a call, what is best kept idle: what the account will settle within
// the horizon if it goes on as it does, so that Redis may be away for so long, and beside
// it as much as its requests in flight hold, so that as many more can begin. What
// others need meanwhile, they ask back.
func (a *account) plan(now, horizon time.Duration) {
	d := &a.demand
	if d.at == 0 || now-d.at > horizon {
		*d = demand{consumed: d.consumed, peak: d.peak, largest: d.largest, at: now} // it begins anew
	}
	faded := math.Exp(-float64(now-d.at) / float64(horizon))
	d.recent = d.recent*faded + float64(d.consumed)
	d.weight = 1 - (1-d.weight)*faded
	d.at = now
	// A customer that has just begun is taken to go on, but one request is no stream of them.
	const leastWeight = 0.1
	d.planned = max(d.peak, d.largest)
	a.spare = int64(min(d.recent/max(d.weight, leastWeight), maxTokens)) + d.planned
	d.consumed, d.peak, d.largest = 0, a.held, 0
}
