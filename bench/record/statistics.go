package record

import (
	"cmp"
	"maps"
	"math"
	"slices"
)

// Spread is what several rounds say about one figure.
type Spread struct {
	Median   float64
	Low, Top float64 // the quartiles
	N        int     // rounds
}

// IQR is the interquartile range in percent of the median.
func (s Spread) IQR() float64 {
	if s.Median == 0 {
		return 0
	}
	return 100 * (s.Top - s.Low) / math.Abs(s.Median)
}

// SpreadOf returns the spread of values; all zero without any.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	return Spread{Median: quantile(sorted, 0.5), Low: quantile(sorted, 0.25), Top: quantile(sorted, 0.75), N: len(sorted)}
}

// quantile interpolates between the two nearest of sorted.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// Value takes a figure out of a sample; ok is false where the sample has none.
type Value func(s *Sample) (v float64, ok bool)

// CPU is the processor time per operation, in µs.
func CPU(s *Sample) (float64, bool) { return s.CPUMicros, s.CPUMicros > 0 }

// Throughput is answers, or events of streams, per second.
func Throughput(s *Sample) (float64, bool) {
	return float64(s.Ops()) / s.Load.Seconds, s.Load.Seconds > 0 && s.Ops() > 0
}

// Switches is context switches per operation.
func Switches(s *Sample) (float64, bool) { return s.Switches, s.CPUMicros > 0 }

// Memory is bytes per open stream.
func Memory(s *Sample) (float64, bool) { return s.StreamBytes, s.StreamBytes > 0 }

// Of returns the spread over rounds of a figure of one peer in one phase.
func (r *Run) Of(peer, phase string, v Value) Spread {
	return SpreadOf(slices.Collect(maps.Values(r.rounds(peer, phase, anyBlock, v))))
}

// Against returns the spread of the combination of a figure of one peer with that of base in the
// same round, and in the same block of it if there are any: what the machine did to both of them
// cancels out. In a block that has as many of one as of the other, each is combined with the one
// that was measured with it, and the median of these is the round's: combining medians would
// throw away that they were measured together. A peer that was in no block is compared with base in all.
func (r *Run) Against(peer, base, phase string, v Value, combine func(peer, base float64) float64) Spread {
	var values []float64
	for _, block := range r.blocks(peer, phase) {
		within := block
		if !slices.Contains(r.blocks(base, phase), block) {
			within = anyBlock
		}
		bases := r.each(base, phase, within, v)
		for round, all := range r.each(peer, phase, block, v) {
			with, ok := bases[round]
			switch {
			case !ok:
			case block != 0 && within == block && len(with) == len(all):
				pairs := make([]float64, len(all))
				for i, x := range all {
					pairs[i] = combine(x, with[i])
				}
				values = append(values, SpreadOf(pairs).Median)
			default:
				values = append(values, combine(SpreadOf(all).Median, SpreadOf(with).Median))
			}
		}
	}
	return SpreadOf(values)
}

// anyBlock stands for all blocks together.
const anyBlock = -1

// blocks are those in which a peer was measured.
func (r *Run) blocks(peer, phase string) []int {
	var all []int
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Peer == peer && s.Phase == phase && !slices.Contains(all, s.Block) {
			all = append(all, s.Block)
		}
	}
	return all
}

// rounds is what a figure was in each round: the median, where it was measured several times.
func (r *Run) rounds(peer, phase string, block int, v Value) map[int]float64 {
	all := r.each(peer, phase, block, v)
	medians := make(map[int]float64, len(all))
	for round, values := range all {
		medians[round] = SpreadOf(values).Median
	}
	return medians
}

// each is what a figure was in each round, each time that it was measured, in the order in which it was.
func (r *Run) each(peer, phase string, block int, v Value) map[int][]float64 {
	all := make(map[int][]float64)
	for i := range r.Samples {
		s := &r.Samples[i]
		if s.Peer != peer || s.Phase != phase || block != anyBlock && s.Block != block {
			continue
		}
		if x, ok := v(s); ok {
			all[s.Round] = append(all[s.Round], x)
		}
	}
	return all
}

// Ratio of a figure to that of base in the same round.
func (r *Run) Ratio(peer, base, phase string, v Value) Spread {
	return r.Against(peer, base, phase, v, func(p, b float64) float64 { return p / b })
}

// Failures sums what went wrong with a peer over all rounds, in the phases that are given, or in
// all.
func (r *Run) Failures(peer string, phases ...string) map[string]int64 {
	sum := make(map[string]int64)
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Peer == peer && (len(phases) == 0 || slices.Contains(phases, s.Phase)) {
			for kind, n := range s.Load.Failures {
				sum[kind] += n
			}
		}
	}
	return sum
}

// Phases returns the phases that there are, in the order in which they come first.
func (r *Run) Phases() []string {
	var phases []string
	for i := range r.Samples {
		if phase := r.Samples[i].Phase; !slices.Contains(phases, phase) {
			phases = append(phases, phase)
		}
	}
	return phases
}

// Steps returns the values of Step that a phase has, ascending.
func (r *Run) Steps(phase string) []float64 {
	var steps []float64
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Phase == phase && !slices.Contains(steps, s.Step) {
			steps = append(steps, s.Step)
		}
	}
	slices.SortFunc(steps, cmp.Compare)
	return steps
}

// Only returns the run with those samples only that have a step.
func (r *Run) Only(step float64) *Run {
	part := *r
	part.Samples = nil
	for i := range r.Samples {
		if r.Samples[i].Step == step {
			part.Samples = append(part.Samples, r.Samples[i])
		}
	}
	return &part
}

// Has reports whether a peer was measured in a phase.
func (r *Run) Has(peer, phase string) bool {
	return slices.ContainsFunc(r.Samples, func(s Sample) bool { return s.Peer == peer && s.Phase == phase })
}
