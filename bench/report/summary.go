package report

import (
	"fmt"

	"github.com/andreabadesso/openclaw-cloud/bench/compare"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// goal is one row of what is to be reached.
type goal struct {
	what, reach, measured string
	met                   string // yes, no, at worst, or not measured
}

// judge compares a figure with what is to be reached, and what is tolerated.
func judge(s record.Spread, reach, worst float64) string {
	switch {
	case s.N == 0:
		return "not measured"
	case s.Median <= reach*1.005: // the second decimal is shown
		return "yes"
	case s.Median <= worst*1.005:
		return "at worst"
	}
	return "no"
}

// summary says how the goals stand.
func (b *book) summary(p *page) {
	p.printf("## What is to be reached, and what was measured\n\n")
	var goals []goal
	if r := b.compare; r != nil {
		goals = append(goals, compareGoals(r)...)
	}
	goals = append(goals, b.scaleGoals()...)
	goals = append(goals, tested...)
	rows := [][]string{{"", "reach", "measured", "reached"}}
	for _, g := range goals {
		rows = append(rows, []string{g.what, g.reach, g.measured, g.met})
	}
	p.table(rows)
	p.printf("What is *counted by tests* has no figure here: tests run on every change, and fail where it does not hold, but for what a row names; `make promises` and `make drill` are longer, and print what they saw.\n\n")
}

// byTests is how a row stands that is asserted on every change instead of being measured here.
const byTests = "counted by tests"

// tested are the rows that tests assert. No figure of theirs is written here.
var tested = []goal{
	{"heap allocations per request in authenticate, admit and settle", "0", "`proxy` TestWarmPathAllocatesNothing; `quota` TestLeasesAllocateNothing, TestRatesAllocateNothing", byTests},
	{"tokens over a limit", "0, in every fault", "`quota` TestModel; `test/e2e` TestLimitUnderLoad; `make drill`", byTests},
	{"tokens lost or billed twice", "0, in every fault", "`test/e2e` TestLedgerEqualsTheUpstream, TestKilledProxiesLoseNothing, TestKilledControlPlaneLosesNothing; `make drill`", byTests},
	{"from the api's answer to the last byte of a revoked token, p99", "< 50 ms with pub/sub alive, < 1 s with every message dropped", "`test/e2e` TestChangesTakeEffect (the 50 ms at p99 in `make promises` only, at p50 always)", byTests},
}

func compareGoals(r *record.Run) []goal {
	request := cpuRatio(r, ours, compare.Baseline, record.PhaseRequests)
	half := atOneRate(r, ours, compare.Baseline, record.PhaseHalf)
	event := cpuRatio(r, ours, compare.Baseline, record.PhaseEvents)
	eventTLS := cpuRatio(r, oursTLS, compare.BaselineTLS, record.PhaseEvents)
	goals := []goal{
		{"CPU per request, connections always busy", "1.0 × nginx, at worst 1.15", ratio(request), judge(request, 1, 1.15)},
		{"CPU per request at half load, both at one rate", "1.0 × nginx, at worst 1.15", ratio(half), judge(half, 1, 1.15)},
		{"CPU per event of a stream", "1.0 × nginx, at worst 1.15", ratio(event), judge(event, 1, 1.15)},
		{"CPU per event, TLS upstream", "1.0 × nginx with a TLS upstream, at worst 1.15", ratio(eventTLS), judge(eventTLS, 1, 1.15)},
	}
	for _, peer := range r.Peers {
		if !peer.Gateway {
			continue
		}
		// Each was measured together with nginx, and not with the other.
		a := quotient(cpuRatio(r, peer.Name, compare.Baseline, record.PhaseRequests), request)
		e := quotient(atOneRate(r, peer.Name, compare.Baseline, record.PhaseFew), cpuRatio(r, ours, compare.Baseline, record.PhaseFew))
		met := "no"
		if a.N+e.N == 0 {
			met = "not measured"
		} else if a.Median >= 10 && e.Median >= 10 {
			met = "yes"
		}
		goals = append(goals, goal{"CPU of " + peer.Title + ", against token-proxy's", "10 × or more",
			fmt.Sprintf("%s × per request, %s × per event of few streams", cell(a), cell(e)), met})
	}
	added := r.Against(ours, direct, record.PhaseHalf, latP99, difference)
	nginx := r.Against(compare.Baseline, direct, record.PhaseHalf, latP99, difference)
	goals = append(goals, goal{"added latency p99 at half load", "≤ 300 µs, and ≤ 1.2 × nginx's",
		fmt.Sprintf("%s µs (nginx %s µs)", cell(added), cell(nginx)), both(judge(added, 300, 300), judge(added, 1.2*nginx.Median, 1.2*nginx.Median))})
	lag := r.Against(ours, direct, record.PhaseEvents, lagP99, difference)
	lagNginx := r.Against(compare.Baseline, direct, record.PhaseEvents, lagP99, difference)
	goals = append(goals, goal{"added lag p99 per event", "≤ 100 µs, and ≤ 1.2 × nginx's",
		fmt.Sprintf("%s µs (nginx %s µs)", cell(lag), cell(lagNginx)), both(judge(lag, 100, 100), judge(lag, 1.2*lagNginx.Median, 1.2*lagNginx.Median))})
	memory := r.Of(ours, record.PhaseMemory, record.Memory)
	text := "-"
	if memory.N > 0 {
		text = figure(memory.Median/1024) + " KiB"
	}
	return append(goals, goal{"memory per open stream", "≤ 8 KiB", text, judge(memory, 8<<10, 8<<10)})
}

// both is the worse of two judgements.
func both(a, b string) string {
	for _, word := range []string{"not measured", "no", "at worst"} {
		if a == word || b == word {
			return word
		}
	}
	return "yes"
}
