// Package compare measures proxies side by side: all run at the same time. Each is under load alone, in
// turn, for what it takes and how late it answers; and together with what it is compared with, each under half
// of that load, for its processor time: a machine that others use too can be twice as fast in one half second as
// in the next, which hits both of them alike then. What counts are ratios of what was measured together.
package compare

import (
	"context"
	"fmt"
	"math"
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
	Passes        int           // in a round over all peers alone; with an even number there and back
	Together      int           // measurements of token-proxy's streams together with its baseline in a round; see times
	TogetherTime  time.Duration // of each of them; longer under the loads that swing, and of gateways
	Connections   int           // of whole answers
	BodyBytes     int           // of a request
	Warmup        time.Duration // of each phase
	Requests      time.Duration // of a closed load
	Half          time.Duration // of an open load at half of what token-proxy and nginx take
	HalfRate      float64       // instead of that, requests per second; 0: as found
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

// gatewayTimes is how many times as long gateways are measured: they answer a hundredth of the requests, so
// as short a look as at the others sees a few answers, and their processor time comes in bursts.
const gatewayTimes = 6

// swingTimes is how many times as long peers are measured together where one second's ratio is up to a fifth from the
// next one's: always busy, when it is by chance how many answers a wake-up finds, and with few streams.
const swingTimes = 3

// gatewayWarmup is for how much longer they are warmed: after a pause Node compiles again what it had. That takes it
// longest after the pause between two rounds, when the first look cost twice as much as the third one.
const (
	gatewayWarmup      = 2 * time.Second
	gatewayFirstWarmup = 20 * time.Second
)

// streamTime is how long one stream takes.
const streamTime = 10 * time.Second

// Run measures all of the lab's peers.
func Run(ctx context.Context, l *lab.Lab, c Config) ([]record.Sample, error) {
	m := &measurement{l: l, c: c, half: make(map[string]float64), last: make(map[string]time.Time)}
	for _, r := range l.Running {
		c.Say("warming %s", r.Name)
		if err := l.Warm(ctx, r); err != nil {
			return nil, err
		}
		// The first load of a process is dearer: its memory has to grow.
		if err := m.uncounted(ctx, r); err != nil {
			return nil, err
		}
	}
	for round := range c.Rounds {
		for _, phase := range []string{record.PhaseRequests, record.PhaseHalf, record.PhaseEvents, record.PhaseFew} {
			if err := m.round(ctx, round, phase); err != nil {
				return nil, err
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

// blocks divides peers into those that are measured in turns, each group with the baseline that its
// ratios are to, and what is measured alone, once in a round: nothing in between. token-proxy has a block with its baseline alone: the
// fewer there are, the less changes between two of their turns, and it is never so long without
// requests that idle customers' tokens go back.
func blocks(all []*peers.Running) (groups [][]*peers.Running, alone []*peers.Running) {
	for _, tls := range []bool{false, true} {
		var base, ours, others, gateways []*peers.Running
		for _, r := range all {
			switch {
			case r.TLS != tls:
			case r.Proc == nil:
				alone = append(alone, r)
			case r.Gateway:
				gateways = append(gateways, r)
			case r.Name == Baseline || r.Name == BaselineTLS:
				base = append(base, r)
			case r.Ours:
				ours = append(ours, r)
			default:
				others = append(others, r)
			}
		}
		if len(ours) > 0 || len(others) == 0 && len(base) > 0 {
			groups = append(groups, slices.Concat(base, ours))
		}
		if len(others) > 0 {
			groups = append(groups, slices.Concat(base, others))
		}
		if len(gateways) > 0 {
			groups = append(groups, slices.Concat(base, gateways))
		}
	}
	return groups, alone
}

// turns is the order in which a block is measured: there and back, as often as passes says, so
// that a machine that becomes slower or faster meanwhile does so for all alike. Every other
// round begins at the other end.
func turns(block []*peers.Running, passes, round int) []*peers.Running {
	order := make([]*peers.Running, 0, passes*len(block))
	for pass := range passes {
		next := slices.Clone(block)
		if (pass+round)%2 == 1 {
			slices.Reverse(next)
		}
		order = append(order, next...)
	}
	return order
}

// round measures one phase of all peers.
func (m *measurement) round(ctx context.Context, round int, phase string) error {
	groups, alone := blocks(m.l.Running)
	if phase == record.PhaseFew {
		var beside []*peers.Running
		for _, r := range m.l.Running {
			if besideGateways(r) {
				beside = append(beside, r)
			}
		}
		groups, alone = [][]*peers.Running{beside}, nil
	}
	if gateways := func(r *peers.Running) bool { return r.Gateway }; round >= m.c.ShortRounds {
		if phase == record.PhaseFew {
			return nil
		}
		groups = slices.DeleteFunc(groups, func(g []*peers.Running) bool { return slices.ContainsFunc(g, gateways) })
		alone = slices.DeleteFunc(alone, gateways)
	}
	for i := range groups {
		n := (i + round) % len(groups)
		for _, r := range turns(groups[n], m.c.Passes, round) {
			if err := m.measure(ctx, r, phase, round, n+1); err != nil {
				return err
			}
		}
	}
	for _, r := range alone {
		if err := m.measure(ctx, r, phase, round, 0); err != nil {
			return err
		}
	}
	for i, p := range pairs(groups) {
		if err := m.together(ctx, p[0], p[1], phase, round, i+1); err != nil {
			return err
		}
	}
	return nil
}

// pairs are each peer of the groups with the baseline of its group, if that has one.
func pairs(groups [][]*peers.Running) [][2]*peers.Running {
	var all [][2]*peers.Running
	for _, group := range groups {
		base := slices.IndexFunc(group, func(r *peers.Running) bool { return r.Name == Baseline || r.Name == BaselineTLS })
		for i, r := range group {
			if base >= 0 && i != base && r.Proc != nil {
				all = append(all, [2]*peers.Running{group[base], r})
			}
		}
	}
	return all
}

// besideGateways says whether a peer takes part where gateways are the subject; nothing in
// between, of which there is no process, is what latency is added to.
func besideGateways(r *peers.Running) bool {
	return r.Gateway || r.Proc == nil || r.Name == Baseline || r.Name == peers.TokenProxy
}

// measurement is one in progress.
type measurement struct {
	l       *lab.Lab
	c       Config
	samples []record.Sample
	half    map[string]float64   // requests per second, by peer
	last    map[string]time.Time // when all of a peer's customers had been heard of
}

// idleAfter is how long customers may be silent without being dearer then, with some room: token-proxy
// returns the tokens of who was silent for 5 to 8 s.
const idleAfter = 4 * time.Second

// uncounted has a peer hear of each customer, if that is long ago: whose tokens have gone back is
// dearer once, which would be in what is measured next, more or less of it by chance.
func (m *measurement) uncounted(ctx context.Context, r *peers.Running) error {
	if time.Since(m.last[r.Name]) < idleAfter {
		return nil
	}
	cfg := m.whole(r)
	cfg.Duration = time.Second
	_, err := m.l.Measure(ctx, r, record.PhaseRequests, cfg)
	m.last[r.Name] = time.Now()
	return err
}

// load is that of a phase: a part of it, as large as share says.
func (m *measurement) load(r *peers.Running, phase string, round int, share float64) load.Config {
	some := func(n int) int { return max(1, int(float64(n)*share)) }
	cfg := m.whole(r)
	cfg.Connections = some(m.c.Connections)
	switch phase {
	case record.PhaseHalf:
		cfg.Closed, cfg.Warmup, cfg.Duration = false, 2*m.c.Warmup, m.c.Half
		cfg.Connections = m.c.Connections
		cfg.Rate, cfg.Poisson, cfg.Seed = m.half[r.Name]*share, true, uint64(round+1)
	case record.PhaseEvents:
		cfg = m.streams(r, some(m.c.Streams))
	case record.PhaseFew:
		cfg = m.streams(r, some(m.c.Streams/10))
	}
	return cfg
}

// heard has peers hear of their customers before a phase of whole answers, and returns what is to be told what
// they did in it.
func (m *measurement) heard(ctx context.Context, phase string, rs ...*peers.Running) (func(...record.Sample), error) {
	if phase != record.PhaseRequests && phase != record.PhaseHalf {
		return func(...record.Sample) {}, nil
	}
	for _, r := range rs {
		if r.Tokens == nil {
			continue
		}
		if err := m.uncounted(ctx, r); err != nil {
			return nil, err
		}
	}
	return func(samples ...record.Sample) {
		for i, s := range samples {
			if s.Load.Answers >= int64(len(rs[i].Tokens)) { // they come in turn
				m.last[rs[i].Name] = time.Now()
			}
		}
	}, nil
}

func (m *measurement) measure(ctx context.Context, r *peers.Running, phase string, round, block int) error {
	cfg := m.load(r, phase, round, 1)
	if r.Gateway && phase != record.PhaseHalf {
		cfg.Duration *= gatewayTimes
	}
	done, err := m.heard(ctx, phase, r)
	if err != nil {
		return err
	}
	s, err := m.l.Measure(ctx, r, phase, cfg)
	if err != nil {
		return err
	}
	done(s)
	m.add(s, round, block)
	return nil
}

// times is how often a peer is measured together with its baseline in a round: as often as it takes for the median of
// them to be nearly the same in each round. What swings is always busy, or has few streams; what is steady and
// promises nothing is looked at less often.
func (c *Config) times(r *peers.Running, phase string) int {
	halves := 1
	switch busy := phase == record.PhaseRequests; {
	// Of few streams one look of three seconds is up to a third from the next, at the same processor clock.
	case r.Ours && phase == record.PhaseFew:
		halves = 12
	case r.Gateway && phase == record.PhaseFew:
		halves = 8
	case busy && r.Ours, r.Gateway:
		halves = 5
	case busy, r.Ours && phase == record.PhaseHalf:
		halves = 3
	case r.Ours:
		halves = 2
	}
	return max(1, c.Together*halves/2)
}

// togetherTime is how long each of these measurements takes.
func (c *Config) togetherTime(r *peers.Running, phase string) time.Duration {
	switch {
	case r.Gateway:
		return c.TogetherTime * (gatewayTimes - 1)
	case phase == record.PhaseRequests, phase == record.PhaseFew:
		return c.TogetherTime * swingTimes
	default:
		return c.TogetherTime
	}
}

// together measures a peer and its baseline at the same time.
func (m *measurement) together(ctx context.Context, base, r *peers.Running, phase string, round, block int) error {
	if phase == record.PhaseHalf && m.half[r.Name] != m.half[base.Name] {
		return nil // it cannot take that rate, and at another one there is no ratio
	}
	if phase == record.PhaseEvents && r.Gateway {
		return nil // the same: it is for what gateways cannot take that there are few streams too
	}
	pair := []*peers.Running{base, r}
	for n := range m.c.times(r, phase) {
		cfgs := []load.Config{m.load(base, phase, round, 0.5), m.load(r, phase, round, 0.5)}
		for i := range cfgs {
			cfgs[i].Duration = m.c.togetherTime(r, phase)
			switch {
			case r.Gateway && n == 0:
				cfgs[i].Warmup += gatewayFirstWarmup
			case r.Gateway:
				cfgs[i].Warmup += gatewayWarmup
			}
			cfgs[i].Seed += uint64(2*n+i) << 32 // #nosec G115 -- both are small
		}
		done, err := m.heard(ctx, phase, pair...)
		if err != nil {
			return err
		}
		samples, err := m.l.Together(ctx, pair, record.Together(phase), cfgs)
		done(samples...)
		if err != nil {
			return err
		}
		for _, s := range samples {
			m.add(s, round, block)
		}
	}
	return nil
}

func (m *measurement) add(s record.Sample, round, block int) {
	s.Round, s.Block = round, block
	m.samples = append(m.samples, s)
	m.c.Say("round %d  %-18s %-16s %s", round+1, s.Phase, s.Peer, line(&s))
}

// whole is a closed load of whole answers.
func (m *measurement) whole(r *peers.Running) load.Config {
	return load.Config{
		Closed: true, Connections: m.c.Connections, Warmup: m.c.Warmup, Duration: m.c.Requests,
		Jobs: lab.Jobs(r, load.Shape{Anthropic: m.c.Anthropic, BodyBytes: m.c.BodyBytes, OutputTokens: 16}),
	}
}

// phaseStep is by how much of the interval each stream begins later than the one before. Multiples of
// this number, (√5-1)/2 to the fifth, fall evenly between 0 and 1 however many there are: events of
// all streams are spread over the interval. With a simple fraction they come in bursts, whose lag says
// how long a burst takes and whose cost depends on how it falls into reads of the proxy.
const phaseStep = 0.0901699437494742

// streams is a load of n streams with an event each interval, out of step.
func (m *measurement) streams(r *peers.Running, n int) load.Config {
	cfg := lab.Streams(r, m.stream(), n, m.c.Interval, streamTime)
	cfg.Ramp = time.Duration(float64(n) * phaseStep * float64(m.c.Interval))
	cfg.Warmup, cfg.Duration = cfg.Ramp+m.c.Warmup/2, m.c.Events
	return cfg
}

// stream is what a stream's request has beside its pace.
func (m *measurement) stream() load.Shape {
	return load.Shape{Anthropic: m.c.Anthropic, BodyBytes: m.c.BodyBytes}
}

// halves fixes the rates of the open load.
func (m *measurement) halves() {
	most := make(map[string]float64)
	so := &record.Run{Samples: m.samples}
	for _, r := range m.l.Running {
		if rate := so.Of(r.Name, record.PhaseRequests, record.Throughput).Median; rate > 0 {
			most[r.Name] = rate
		}
	}
	m.half = halfRates(most, m.c.HalfRate)
}

// halfRates is common, for all who can take that; half of their own most for others. Without
// common it is half of what the slower of token-proxy and the baseline takes, made round: what is compared
// depends on the rate, and the next run shall have the same.
func halfRates(most map[string]float64, common float64) map[string]float64 {
	if common == 0 {
		for _, name := range []string{Baseline, peers.TokenProxy} {
			if rate := most[name] / 2; rate > 0 && (common == 0 || rate < common) {
				common = rate
			}
		}
		if common > 0 {
			digit := math.Pow(10, math.Floor(math.Log10(common)))
			common = max(1, math.Floor(common/digit)*digit)
		}
	}
	rates := make(map[string]float64)
	for name, rate := range most {
		if rates[name] = max(1, rate/2); common > 0 && common < rate*0.6 {
			rates[name] = common
		}
	}
	return rates
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
	warmup := lab.OpenTime(r, m.c.MemoryStreams) + m.c.Warmup
	// They last until the end.
	cfg := lab.Streams(r, m.stream(), m.c.MemoryStreams, time.Second, warmup+2*m.c.MemoryTime)
	cfg.Warmup, cfg.Duration = warmup, m.c.MemoryTime
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
	case slices.Contains([]string{record.PhaseEvents, record.PhaseFew, record.Together(record.PhaseEvents), record.Together(record.PhaseFew)}, s.Phase):
		text += fmt.Sprintf("  lag p50 %.0f p99 %.0f µs", s.Load.Lag.P50, s.Load.Lag.P99)
	default:
		text += fmt.Sprintf("  p50 %.0f p99 %.0f µs", s.Load.Latency.P50, s.Load.Latency.P99)
	}
	if len(s.Load.Failures) > 0 {
		text += fmt.Sprintf("  FAILURES %v", s.Load.Failures)
	}
	return text
}
