package report

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/compare"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// Peers that rows are about.
const (
	direct   = peers.Direct
	ours     = peers.TokenProxy
	oursTLS  = peers.TokenProxyTLS
	perMicro = "µs"
)

// base is the peer that another is compared with.
func base(p record.Peer) string {
	if p.TLS {
		return compare.BaselineTLS
	}
	return compare.Baseline
}

// nothing is the peer that latency is added to; none for one with a TLS upstream, since without a
// proxy the generator would have to speak TLS, and what that upstream itself needs more would
// count as added.
func nothing(p record.Peer) string {
	if p.TLS {
		return ""
	}
	return direct
}

// rateTolerance is by which part two rates may differ and still be one.
const rateTolerance = 0.05

// busy is the phase that tells of processor time in one: that in which peers were measured together, if there is any.
func busy(r *record.Run, peer, phase string) string {
	if together := record.Together(phase); r.Has(peer, together) {
		return together
	}
	return phase
}

// cpu is what an operation takes of a processor.
func cpu(r *record.Run, peer, phase string) record.Spread {
	return r.Of(peer, busy(r, peer, phase), record.CPU)
}

// cpuRatio is that in relation to another peer's.
func cpuRatio(r *record.Run, peer, base, phase string) record.Spread {
	return r.Ratio(peer, base, busy(r, peer, phase), record.CPU)
}

// quotient is a ratio of two, with the distance that their quartiles leave.
func quotient(a, b record.Spread) record.Spread {
	if a.N == 0 || b.N == 0 || b.Low <= 0 {
		return record.Spread{}
	}
	return record.Spread{N: min(a.N, b.N), Low: a.Low / b.Top, Median: a.Median / b.Median, Top: a.Top / b.Low}
}

// atOneRate is the ratio of processor time to base, without a round where they did not do equally
// many per second.
func atOneRate(r *record.Run, peer, base, phase string) record.Spread {
	phase = busy(r, peer, phase)
	rate := r.Ratio(peer, base, phase, record.Throughput)
	if rate.N == 0 || math.Abs(rate.Median-1) > rateTolerance {
		return record.Spread{}
	}
	return r.Ratio(peer, base, phase, record.CPU)
}

func isOurs(name string) bool { return strings.HasPrefix(name, ours) }

// Figures of samples.
func lagP99(s *record.Sample) (float64, bool) { return s.Load.Lag.P99, s.Load.Lag.Count > 0 }
func lagP50(s *record.Sample) (float64, bool) { return s.Load.Lag.P50, s.Load.Lag.Count > 0 }
func latP50(s *record.Sample) (float64, bool) { return s.Load.Latency.P50, s.Load.Latency.Count > 0 }
func latP99(s *record.Sample) (float64, bool) { return s.Load.Latency.P99, s.Load.Latency.Count > 0 }
func latP999(s *record.Sample) (float64, bool) {
	return s.Load.Latency.P999, s.Load.Latency.Count > 0
}
func lagP999(s *record.Sample) (float64, bool) { return s.Load.Lag.P999, s.Load.Lag.Count > 0 }
func around(s *record.Sample) (float64, bool)  { return s.AroundMicros, s.AroundMicros > 0 }

func difference(peer, base float64) float64 { return peer - base }

// cell writes a median; "-" without one.
func cell(s record.Spread) string {
	if s.N == 0 {
		return "-"
	}
	return figure(s.Median)
}

// ratio writes a median with its quartiles.
func ratio(s record.Spread) string {
	if s.N == 0 {
		return "-"
	}
	if s.N < 3 {
		return fmt.Sprintf("%s ×", figure(s.Median))
	}
	return fmt.Sprintf("**%s ×** (%s-%s, IQR %.1f %%)", figure(s.Median), figure(s.Low), figure(s.Top), s.IQR())
}

// compared writes the tables of a comparison.
func compared(p *page, r *record.Run) {
	p.printf("## Side by side\n\n")
	about(p, r)
	p.printf("Medians over rounds. CPU, the processor time of the proxy's own processes, kernel included, context switches and ratios are of measurements in which a proxy and nginx (with a TLS upstream, nginx with one) were under load at the same time, on the same processor, each under half of it: whatever else the machine does, it does to both. What nginx takes is the median beside all of them; gateways and token-proxy are compared by what each takes beside nginx. A ratio has its quartiles over the rounds and their distance in percent of the median. All else is of each proxy alone, in turn. Added is the difference to nothing in between in the same round; with a TLS upstream there is no such thing.\n\n")

	p.printf("### Whole answers, %s connections always busy\n\nEach at the rate that it takes. A proxy that is always busy hardly ever wakes a sleeping process, nor is woken, and both cost more than the work itself: at less than full load a request is dearer, as the next table shows.\n\n", setting(r, "connections"))
	rows := [][]string{{"", "CPU per request, µs", "ratio to nginx", "context switches each", "requests/s", "p50 µs", "p99 µs"}}
	var chart []bar
	for _, peer := range r.Peers {
		each := cpu(r, peer.Name, record.PhaseRequests)
		rows = append(rows, []string{
			peer.Title, cell(each), ratio(cpuRatio(r, peer.Name, base(peer), record.PhaseRequests)),
			cell(r.Of(peer.Name, busy(r, peer.Name, record.PhaseRequests), record.Switches)), cell(r.Of(peer.Name, record.PhaseRequests, record.Throughput)),
			cell(r.Of(peer.Name, record.PhaseRequests, latP50)), cell(r.Of(peer.Name, record.PhaseRequests, latP99)),
		})
		chart = appendBar(chart, peer, each)
	}
	p.table(rows)
	p.plot("cpu-request.svg", "CPU per request of each proxy", bars("CPU per request (µs, less is better)", perMicro, chart, cpu(r, compare.Baseline, record.PhaseRequests).Median))

	p.printf("### Whole answers at half load\n\nThe same rate for all that can take it, with Poisson arrivals: half of what the slower of nginx and token-proxy took, so it is less than half of what the others take. One that cannot take it has half of what it takes, and no ratio: CPU per request can be compared at one rate only. CPU and ratio are of a proxy and nginx at the same time, each at half of that rate (without a ratio, of each alone).\n\n")
	rows = [][]string{{"", "CPU per request, µs", "ratio to nginx", "requests/s", "p50 µs", "p99 µs", "p99.9 µs", "added p50 µs", "added p99 µs"}}
	for _, peer := range r.Peers {
		of := func(v record.Value) string { return cell(r.Of(peer.Name, record.PhaseHalf, v)) }
		added := func(v record.Value) string {
			return cell(r.Against(peer.Name, nothing(peer), record.PhaseHalf, v, difference))
		}
		rows = append(rows, []string{peer.Title, cell(cpu(r, peer.Name, record.PhaseHalf)), ratio(atOneRate(r, peer.Name, base(peer), record.PhaseHalf)), of(record.Throughput), of(latP50), of(latP99), of(latP999), added(latP50), added(latP99)})
	}
	p.table(rows)

	p.printf("### Streams: %s at a time, an event each %s\n\nStreams last longer than they are measured: no more than a few begin or end meanwhile, so what that costs is not in it. CPU, context switches and ratio are of a proxy and nginx at the same time, each with half of the streams; all else is of each alone, with all of them. One that cannot follow with its half has no ratio.%s\n\n", setting(r, "streams"), setting(r, "interval"), behind(r))
	chart = streamTable(p, r, record.PhaseEvents)
	p.plot("cpu-event.svg", "CPU per event of each proxy", bars("CPU per relayed event (µs, less is better)", perMicro, chart, cpu(r, compare.Baseline, record.PhaseEvents).Median))

	if len(r.Steps(record.PhaseFew)) > 0 {
		p.printf("### A tenth of those streams\n\nLess to do at a time costs more per event. Gateways beside what they are compared with: one that cannot follow above sends several events at once there, which makes each look cheap, and late; here it can.\n\n")
		streamTable(p, r, record.PhaseFew)
	}

	memory(p, r)
	disturbed(p, r)
	aroundTable(p, r)
	failures(p, r)
}

// streamTable writes what streams cost, and returns the bars of that.
func streamTable(p *page, r *record.Run, phase string) []bar {
	rows := [][]string{{"", "CPU per event, µs", "ratio to nginx", "context switches each", "events/s", "lag p50 µs", "lag p99 µs", "lag p99.9 µs", "added p50 µs", "added p99 µs"}}
	var chart []bar
	for _, peer := range r.Peers {
		of := func(v record.Value) string { return cell(r.Of(peer.Name, phase, v)) }
		added := func(v record.Value) string { return cell(r.Against(peer.Name, nothing(peer), phase, v, difference)) }
		each := cpu(r, peer.Name, phase)
		if r.Of(peer.Name, phase, record.Throughput).N == 0 {
			continue // it takes no part in this phase
		}
		rows = append(rows, []string{
			peer.Title, cell(each), ratio(atOneRate(r, peer.Name, base(peer), phase)), cell(r.Of(peer.Name, busy(r, peer.Name, phase), record.Switches)), of(record.Throughput),
			of(lagP50), of(lagP99), of(lagP999), added(lagP50), added(lagP99),
		})
		chart = appendBar(chart, peer, each)
	}
	p.table(rows)
	return chart
}

// behind names those that have a ratio although alone, with all streams, they took fewer events than came.
func behind(r *record.Run) string {
	streams, err := strconv.Atoi(setting(r, "streams"))
	interval, err2 := time.ParseDuration(setting(r, "interval"))
	if err != nil || err2 != nil || interval <= 0 {
		return ""
	}
	sent := float64(streams) / interval.Seconds()
	var slow []string
	for _, peer := range r.Peers {
		took := r.Of(peer.Name, record.PhaseEvents, record.Throughput)
		if took.N == 0 || took.Median >= (1-rateTolerance)*sent || atOneRate(r, peer.Name, base(peer), record.PhaseEvents).N == 0 {
			continue
		}
		slow = append(slow, fmt.Sprintf("%s took %s of %s events/s", peer.Title, figure(took.Median), figure(sent)))
	}
	if len(slow) == 0 {
		return ""
	}
	return " Alone " + strings.Join(slow, ", ") + ": the lag there is that of a queue, and the ratio is of half as many, which it can follow."
}

func appendBar(chart []bar, peer record.Peer, s record.Spread) []bar {
	if s.N == 0 || peer.Gateway {
		return chart // gateways would flatten all others; they are in the table
	}
	return append(chart, bar{label: peer.Title, value: s.Median, low: s.Low, high: s.Top, mark: isOurs(peer.Name)})
}

func memory(p *page, r *record.Run) {
	rows := [][]string{{"", "KiB per stream", "the most that was seen"}}
	var chart []bar
	for _, peer := range r.Peers {
		if s := r.Of(peer.Name, record.PhaseMemory, kib); s.N > 0 {
			rows = append(rows, []string{peer.Title, cell(s), cell(r.Of(peer.Name, record.PhaseMemory, peakKiB))})
			chart = append(chart, bar{label: peer.Title, value: s.Median, low: s.Low, high: s.Top, mark: isOurs(peer.Name)})
		}
	}
	if len(chart) == 0 {
		return
	}
	p.printf("### Memory of %s open streams\n\nProportional set size when the streams have been open for some seconds, less that before, of a proxy that was just started and has answered a few requests: their mean, so what the process had to spare makes it less, and what it takes at once makes it more (`openclaw-bench streams` shows what a further one takes). It was looked at once a second, so it may have been more for a moment while they began. The kernel's buffers are not in it.\n\n", setting(r, "memory-streams"))
	p.table(rows)
	p.plot("memory-stream.svg", "Memory per open stream of each proxy", bars("Memory per open stream (KiB, less is better)", "KiB", chart, 0))
}

// aroundTable shows what token-proxy costs beside its own processes.
func aroundTable(p *page, r *record.Run) {
	rows := [][]string{{"", "whole answers, always busy, µs each", "at half load, µs each", "events of streams, µs each"}}
	for _, name := range []string{ours, oursTLS} {
		if !r.Has(name, record.PhaseRequests) {
			continue
		}
		of := func(phase string) string { return cell(r.Of(name, phase, around)) }
		rows = append(rows, []string{r.Peer(name).Title, of(record.PhaseRequests), of(record.PhaseHalf), of(record.PhaseEvents)})
	}
	if len(rows) > 1 {
		p.printf("### What Redis, Postgres and the billing-worker used for it\n\nEach forwarded request becomes a row in Postgres. They do a part of that after the load, which is waited for and counted: from its beginning until they are at rest, for each answer or event of that time. The end of the streams is in what an event costs.\n\n")
		p.table(rows)
	}
}

// disturbed says how quiet the machine was.
func disturbed(p *page, r *record.Run) {
	var foreign, stolen []float64
	tries, waited := 0, 0.0
	for i := range r.Samples {
		s := &r.Samples[i]
		foreign = append(foreign, s.Foreign)
		if s.Tries > 0 {
			stolen = append(stolen, s.Stolen)
			tries, waited = tries+s.Tries-1, waited+s.SettleSeconds
		}
	}
	use := func(all []float64) string {
		if len(all) == 0 {
			return "-"
		}
		return fmt.Sprintf("%s processors (median; at most %s)", figure(record.SpreadOf(all).Median), figure(slices.Max(all)))
	}
	p.printf("What is no part of the measurement used %s meanwhile; its host withheld %s.", use(foreign), use(stolen))
	if len(stolen) > 0 {
		p.printf(" %d measurements were repeated. For %.0f s it was waited until what requests leave to others was done.", tries, waited)
	}
	p.printf("\n\n")
}

// phases are the names of phases for readers.
var phases = map[string]string{
	record.PhaseRequests: "always busy", record.PhaseHalf: "half load", record.PhaseEvents: "streams", record.PhaseFew: "a tenth of the streams",
	record.PhaseMemory: "memory of open streams", record.Together(record.PhaseRequests): "always busy, together", record.Together(record.PhaseHalf): "half load, together",
	record.Together(record.PhaseEvents): "streams, together", record.Together(record.PhaseFew): "a tenth of the streams, together",
}

// failures lists what went wrong, and where.
func failures(p *page, r *record.Run) {
	rows := [][]string{{"", "when", "what", "how often"}}
	for _, peer := range r.Peers {
		for _, phase := range r.Phases() {
			all := r.Failures(peer.Name, phase)
			if n := unsent(r, peer.Name, phase); n > 0 {
				all["not sent, for want of a free connection"] = n
			}
			for _, kind := range slices.Sorted(maps.Keys(all)) {
				rows = append(rows, []string{peer.Title, cmp.Or(phases[phase], phase), kind, thousands(all[kind])})
			}
		}
	}
	if len(rows) > 1 {
		p.printf("### Failures\n\n")
		p.table(rows)
	} else {
		p.printf("No request failed.\n\n")
	}
	for _, m := range r.Missing {
		p.printf("Not measured: %s.\n\n", m)
	}
}

// unsent is how many requests of an open load were left when it ended.
func unsent(r *record.Run, peer, phase string) int64 {
	n := int64(0)
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Peer == peer && s.Phase == phase {
			n += s.Load.Backlog
		}
	}
	return n
}

// setting is a parameter of a run.
func setting(r *record.Run, name string) string {
	for _, s := range r.Settings {
		if s.Name == name {
			return s.Value
		}
	}
	return "?"
}
