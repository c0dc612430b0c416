// Package replay turns a trace into load: each of its requests arrives at its time, with a
// prompt of its size, and wants an answer of its length at the pace of a model.
package replay

import (
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/trace"
)

// BytesPerToken is how large a prompt is made, as kimisim and most texts have it.
const BytesPerToken = 4

// Config says how a trace is played. Arrivals are Speed times as fast; answers keep their
// own pace, so that there are as many more of them at a time.
type Config struct {
	Trace           []trace.Request
	Jitter          time.Duration // over which arrivals are spread; trace.Grid for Mooncake's
	Speed           float64       // 1 is the trace's own
	TokensPerSecond float64       // of an answer, on average
	Spread          float64       // answers are up to this share slower or faster, 0 to 0.9
	TTFT            time.Duration // of the upstream
	Seed            uint64
	Repeat          int // how often it is played, once after the other; 1 if 0
	Anthropic       bool
	Target, Header  string
	Tokens          []string // credentials, used in turn
	Connections     int
	Timeout         time.Duration // of one answer
}

// Load returns the load that plays the trace.
func Load(c Config) (load.Config, error) {
	if c.Speed <= 0 || c.TokensPerSecond <= 0 || c.Spread < 0 || c.Spread > 0.9 {
		return load.Config{}, errors.New("replay: speed and pace must be positive, and the spread from 0 to 0.9")
	}
	played := trace.Play(c.Trace, c.Jitter, c.Speed, c.Seed)
	length := trace.Sum(played).Length
	var arrivals []time.Duration
	most := 0
	for pass := range max(c.Repeat, 1) {
		for _, q := range played {
			arrivals = append(arrivals, q.At+time.Duration(pass)*length)
			most = max(most, q.Input)
		}
	}
	fill := load.Filling(most * BytesPerToken)
	return load.Config{
		Target: c.Target, Connections: c.Connections, Arrivals: arrivals, Timeout: c.Timeout,
		Jobs: func(n uint64) load.Job {
			token := ""
			if len(c.Tokens) > 0 {
				token = c.Tokens[n%uint64(len(c.Tokens))]
			}
			s := c.shape(played[n%uint64(len(played))], n)
			return s.Job(c.Target, c.Header, token, fill)
		},
	}, nil
}

// shape is the n-th request's. It depends on nothing but the configuration.
func (c *Config) shape(q trace.Request, n uint64) load.Shape {
	random := rand.New(rand.NewPCG(c.Seed, n))
	pace := c.TokensPerSecond * (1 + c.Spread*(2*random.Float64()-1))
	return load.Shape{
		Anthropic: c.Anthropic, Stream: true, Stamp: true, TTFT: c.TTFT,
		BodyBytes: q.Input * BytesPerToken, OutputTokens: max(1, q.Output), TokensPerSecond: max(1, math.Round(pace)),
	}
}
