// Package compare measures proxies side by side: all run at the same time, and rounds are
// interleaved, so that whatever else the machine does hits all of them. What counts are
// ratios within a round.
package compare

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/lab"
	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// Baseline is the peer that others are compared with, and BaselineTLS the one for those
// with a TLS upstream.
const (
	Baseline    = "nginx"
	BaselineTLS = "nginx-tls"
)

// Config of a comparison. All fields are required.
type Config struct {
	Rounds        int           // of what is compared by its processor time
	ShortRounds   int           // of gateways, whose distance few show, and of few streams
	Connections   int           // of whole answers
	BodyBytes     int           // of a request
	Warmup        time.Duration // of each phase
	Requests      time.Duration // of a closed load
	Half          time.Duration // of an open load at half of what token-proxy and nginx take
	Events        time.Duration // of streams
	Streams       int           // at a time
	Interval      time.Duration // between the events of a stream
	MemoryStreams int           // open ones for the memory of one
	MemoryRounds  int           // 0 leaves it out
	// MemoryTime is for how long streams are open whose memory is measured: what their beginning
	// took shall have been given back, by whoever does that. 3 s or more.
	MemoryTime time.Duration
	Anthropic  bool // the face
	Say        func(format string, args ...any)
}

// streamTime is how long one stream takes.
const streamTime = 10 * time.Second

// Run measures all of the lab's peers.
func Run(ctx context.Context, l *lab.Lab, c Config) ([]record.Sample, error) {
	m := &measurement{l: l, c: c, half: make(map[string]float64)}
	for _, r := range l.Running {
		c.Say("warming %s", r.Name)
		if err := l.Warm(ctx, r); err != nil {
			return nil, err
		}
		// The first load of a process is dearer: its memory has to grow.
		if _, err := l.Measure(ctx, r, record.PhaseRequests, m.whole(r)); err != nil {
			return nil, err
		}
	}
	for round := range c.Rounds {
		for _, phase := range []string{record.PhaseRequests, record.PhaseHalf, record.PhaseEvents, record.PhaseFew} {
			for _, r := range turns(l.Running, phase, round) {
				short := r.Gateway || phase == record.PhaseFew
				if short && round >= c.ShortRounds || phase == record.PhaseFew && !besideGateways(r) {
					continue
				}
				if err := m.measure(ctx, r, phase, round); err != nil {
					return nil, err
				}
			}
			if phase == record.PhaseRequests && round == 0 {
				m.halves()
			}
		}
	}
	for round := range c.MemoryRounds {
		for _, r := range l.Running {
			if r.Proc == nil || r.Gateway && round > 0 {
				continue
			}
			if err := m.memory(ctx, r.Peer, round); err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				// The rest need not be lost for it.
				c.Say("round %d  NO memory of %s: %v", round+1, r.Name, err)
			}
		}
	}
	return m.samples, nil
}

// besideGateways says whether a peer takes part where gateways are the subject; nothing in
// between, of which there is no process, is what latency is added to.
func besideGateways(r *peers.Running) bool {
	return r.Gateway || r.Proc == nil || r.Name == Baseline || r.Name == "token-proxy"
}

// turns is the order in which peers are measured: another one begins in each round. Where
// processor time is compared it goes there and back, so that a machine that becomes slower or
// faster meanwhile does so for all alike. Gateways, which take long, come once, at the end.
func turns(all []*peers.Running, phase string, round int) []*peers.Running {
	var order, gateways []*peers.Running
	for i := range all {
		if r := all[(i+round)%len(all)]; r.Gateway {
			gateways = append(gateways, r)
		} else {
			order = append(order, r)
		}
	}
	if phase == record.PhaseRequests || phase == record.PhaseEvents {
		for _, r := range slices.Backward(order) {
			order = append(order, r)
		}
	}
	return append(order, gateways...)
}

// measurement is one in progress.
type measurement struct {
	l       *lab.Lab
	c       Config
	samples []record.Sample
	half    map[string]float64 // requests per second, by peer
}

func (m *measurement) measure(ctx context.Context, r *peers.Running, phase string, round int) error {
	cfg := m.whole(r)
	switch phase {
	case record.PhaseHalf:
		// Long enough to hear of each customer: who was silent for long is dearer once.
		cfg.Closed, cfg.Warmup, cfg.Duration = false, max(time.Second, m.c.Warmup), m.c.Half
		cfg.Rate, cfg.Poisson, cfg.Seed = m.half[r.Name], true, uint64(round+1)
	case record.PhaseEvents:
		cfg = m.streams(r, m.c.Streams, m.c.Interval, m.c.Events)
	case record.PhaseFew:
		cfg = m.streams(r, max(1, m.c.Streams/10), m.c.Interval, m.c.Events)
	}
	s, err := m.l.Measure(ctx, r, phase, cfg)
	if err != nil {
		return err
	}
	s.Round = round
	m.samples = append(m.samples, s)
	m.c.Say("round %d  %-9s %-16s %s", round+1, phase, r.Name, line(&s))
	return nil
}

// whole is a closed load of whole answers.
func (m *measurement) whole(r *peers.Running) load.Config {
	return load.Config{
		Closed: true, Connections: m.c.Connections, Warmup: m.c.Warmup, Duration: m.c.Requests,
		Jobs: lab.Jobs(r, load.Shape{Anthropic: m.c.Anthropic, BodyBytes: m.c.BodyBytes, OutputTokens: 16}),
	}
}

func (m *measurement) streams(r *peers.Running, n int, interval, length time.Duration) load.Config {
	perSecond := float64(time.Second) / float64(interval)
	return load.Config{
		Closed: true, Connections: n, Warmup: m.c.Warmup + m.c.Warmup/2, Ramp: m.c.Warmup, Duration: length,
		Jobs: lab.Jobs(r, load.Shape{
			Anthropic: m.c.Anthropic, Stream: true, BodyBytes: m.c.BodyBytes, Stamp: true,
			TokensPerSecond: perSecond, OutputTokens: max(2, int(perSecond*streamTime.Seconds())),
		}),
	}
}

// halves fixes the rates of the open load: half of what the slower of token-proxy and the
// baseline took, for all who can take that; half of their own for others.
func (m *measurement) halves() {
	own := make(map[string]float64)
	common := 0.0
	so := &record.Run{Samples: m.samples}
	for _, r := range m.l.Running {
		rate := so.Of(r.Name, record.PhaseRequests, record.Throughput).Median
		if rate <= 0 {
			continue
		}
		own[r.Name] = rate
		if (r.Name == Baseline || r.Name == "token-proxy") && (common == 0 || rate < common) {
			common = rate
		}
	}
	for name, rate := range own {
		m.half[name] = max(1, rate/2)
		if common > 0 && common < rate*1.2 {
			m.half[name] = common / 2
		}
	}
}

// memory opens streams at a new instance, since what an old one has kept of earlier work
// would hide what they need.
func (m *measurement) memory(ctx context.Context, p peers.Peer, round int) error {
	if err := m.l.Settle(ctx); err != nil {
		return err
	}
	r, err := m.l.Fresh(ctx, p, fmt.Sprintf("-memory%d", round))
	if err != nil {
		return err
	}
	defer r.Close()
	if err := m.l.Warm(ctx, r); err != nil {
		return err
	}
	cfg := m.streams(r, m.c.MemoryStreams, time.Second, m.c.MemoryTime)
	cfg.Jobs = lab.Jobs(r, load.Shape{
		Anthropic: m.c.Anthropic, Stream: true, BodyBytes: m.c.BodyBytes, Stamp: true,
		TokensPerSecond: 1, OutputTokens: int((2*m.c.MemoryTime + cfg.Warmup).Seconds()), // they last until the end
	})
	s, err := m.l.Memory(ctx, r, cfg)
	if err != nil {
		return err
	}
	s.Round = round
	m.samples = append(m.samples, s)
	m.c.Say("round %d  %-9s %-16s %s", round+1, s.Phase, r.Name, line(&s))
	return nil
}

// line says what a sample is about.
func line(s *record.Sample) string {
	text := fmt.Sprintf("%8.0f/s", float64(s.Ops())/s.Load.Seconds)
	if s.CPUMicros > 0 {
		text += fmt.Sprintf("  %7.2f µs CPU each", s.CPUMicros)
	}
	switch {
	case s.StreamBytes > 0:
		text += fmt.Sprintf("  %.1f KiB per stream", s.StreamBytes/1024)
	case s.Phase == record.PhaseEvents, s.Phase == record.PhaseFew:
		text += fmt.Sprintf("  lag p50 %.0f p99 %.0f µs", s.Load.Lag.P50, s.Load.Lag.P99)
	default:
		text += fmt.Sprintf("  p50 %.0f p99 %.0f µs", s.Load.Latency.P50, s.Load.Latency.P99)
	}
	if len(s.Load.Failures) > 0 {
		text += fmt.Sprintf("  FAILURES %v", s.Load.Failures)
	}
	return text
}
