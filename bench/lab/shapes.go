package lab

import (
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
)

// Whole makes requests of so many bytes for a peer, for answers of 16 tokens in one piece.
func Whole(r *peers.Running, body int) func(uint64) load.Job {
	return Jobs(r, load.Shape{BodyBytes: body, OutputTokens: 16})
}

// Streams is a load of n open streams with an event each interval, which begin in the course of
// OpenTime and last for lasting. The shape has what else there is to say of their requests.
func Streams(r *peers.Running, s load.Shape, n int, interval, lasting time.Duration) load.Config {
	s.Stream, s.Stamp = true, true
	s.TokensPerSecond = float64(time.Second) / float64(interval)
	s.OutputTokens = max(2, int(lasting/interval))
	return load.Config{Closed: true, Connections: n, Ramp: OpenTime(r, n), Jobs: Jobs(r, s)}
}
