package lab

import (
	"math"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
)

// Whole makes requests of so many bytes for a peer, for answers of 16 tokens in one piece.
func Whole(r *peers.Running, body int) func(uint64) load.Job {
	return Jobs(r, load.Shape{BodyBytes: body, OutputTokens: 16})
}

// Streams is a load of n open streams with an event each interval, which begin out of step, in the
// course of OpenTime or a little more, and last for lasting. The shape has what else there is to say
// of their requests.
func Streams(r *peers.Running, s load.Shape, n int, interval, lasting time.Duration) load.Config {
	s.Stream, s.Stamp = true, true
	s.TokensPerSecond = float64(time.Second) / float64(interval)
	s.OutputTokens = max(2, int(lasting/interval))
	return load.Config{Closed: true, Patient: true, Connections: n, Ramp: outOfStep(OpenTime(r, n), n, interval), Jobs: Jobs(r, s)}
}

// outOfStep returns over how long, at least ramp, n streams have to begin one after the other so
// that their events are spread over the interval. As many begin within an interval as a whole number
// and the golden ratio's fraction: so those of the next interval begin between those of the last
// ones, however many intervals it takes. With a simple fraction some begin at the same moment of it.
func outOfStep(ramp time.Duration, n int, interval time.Duration) time.Duration {
	within := float64(interval) * float64(n) / float64(ramp) // that begin within an interval
	whole := math.Floor(within - (math.Phi - 1))
	if whole < 0 || n == 0 {
		return ramp // two of them or fewer
	}
	return time.Duration(float64(interval) * float64(n) / (whole + math.Phi - 1))
}
