package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/bench/compare"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// Peers that rows are about.
const (
	direct   = "direct"
	ours     = "token-proxy"
	oursTLS  = "token-proxy-tls"
	perMicro = "µs"
)

// base is the peer that another is compared with.
func base(p record.Peer) string {
	if p.TLS {
		return compare.BaselineTLS
	}
	return compare.Baseline
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
	p.printf("Medians over rounds. A round measures all busy connections and the streams twice, in one order and back, and takes the mean. A ratio is to nginx in the same round (with a TLS upstream, to nginx with one), with its quartiles and their distance in percent of the median. CPU is the processor time of the proxy's own processes, kernel included.\n\n")

	p.printf("### Whole answers, %s connections always busy\n\n", setting(r, "connections"))
	rows := [][]string{{"", "CPU per request, µs", "ratio to nginx", "context switches each", "requests/s", "p50 µs", "p99 µs"}}
	var chart []bar
	for _, peer := range r.Peers {
		cpu := r.Of(peer.Name, record.PhaseRequests, record.CPU)
		rows = append(rows, []string{
			peer.Title, cell(cpu), ratio(r.Ratio(peer.Name, base(peer), record.PhaseRequests, record.CPU)),
			cell(r.Of(peer.Name, record.PhaseRequests, record.Switches)), cell(r.Of(peer.Name, record.PhaseRequests, record.Throughput)),
			cell(r.Of(peer.Name, record.PhaseRequests, latP50)), cell(r.Of(peer.Name, record.PhaseRequests, latP99)),
		})
		chart = appendBar(chart, peer, cpu)
	}
	p.table(rows)
	p.plot("cpu-request.svg", "CPU per request of each proxy", bars("CPU per request (µs, less is better)", perMicro, chart, r.Of(compare.Baseline, record.PhaseRequests, record.CPU).Median))

	p.printf("### Whole answers at half load\n\nThe same rate for all that can take it: half of what the slower of nginx and token-proxy took; Poisson arrivals. CPU per request can be compared at one rate only: a proxy that is always busy hardly ever wakes a sleeping process, nor is woken, and both cost more than the work itself. Added is the difference to nothing in between in the same round.\n\n")
	rows = [][]string{{"", "CPU per request, µs", "ratio to nginx", "requests/s", "p50 µs", "p99 µs", "p99.9 µs", "added p50 µs", "added p99 µs"}}
	for _, peer := range r.Peers {
		of := func(v record.Value) string { return cell(r.Of(peer.Name, record.PhaseHalf, v)) }
		added := func(v record.Value) string {
			return cell(r.Against(peer.Name, direct, record.PhaseHalf, v, difference))
		}
		rows = append(rows, []string{peer.Title, of(record.CPU), ratio(r.Ratio(peer.Name, base(peer), record.PhaseHalf, record.CPU)), of(record.Throughput), of(latP50), of(latP99), of(latP999), added(latP50), added(latP99)})
	}
	p.table(rows)

	p.printf("### Streams: %s at a time, an event each %s\n\n", setting(r, "streams"), setting(r, "interval"))
	chart = streamTable(p, r, record.PhaseEvents)
	p.plot("cpu-event.svg", "CPU per event of each proxy", bars("CPU per relayed event (µs, less is better)", perMicro, chart, r.Of(compare.Baseline, record.PhaseEvents, record.CPU).Median))

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
		added := func(v record.Value) string { return cell(r.Against(peer.Name, direct, phase, v, difference)) }
		cpu := r.Of(peer.Name, phase, record.CPU)
		if r.Of(peer.Name, phase, record.Throughput).N == 0 {
			continue // it takes no part in this phase
		}
		rows = append(rows, []string{
			peer.Title, cell(cpu), ratio(r.Ratio(peer.Name, base(peer), phase, record.CPU)), of(record.Switches), of(record.Throughput),
			of(lagP50), of(lagP99), of(lagP999), added(lagP50), added(lagP99),
		})
		chart = appendBar(chart, peer, cpu)
	}
	p.table(rows)
	return chart
}

func appendBar(chart []bar, peer record.Peer, s record.Spread) []bar {
	if s.N == 0 || peer.Gateway {
		return chart // gateways would flatten all others; they are in the table
	}
	return append(chart, bar{label: peer.Title, value: s.Median, low: s.Low, high: s.Top, mark: isOurs(peer.Name)})
}

func memory(p *page, r *record.Run) {
	rows := [][]string{{"", "KiB per stream", "at most, while they begin"}}
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
	p.printf("### Memory of %s open streams\n\nProportional set size when the streams have been open for some seconds, less that before, of a proxy that was just started and has answered a few requests. The kernel's buffers are not in it.\n\n", setting(r, "memory-streams"))
	p.table(rows)
	p.plot("memory-stream.svg", "Memory per open stream of each proxy", bars("Memory per open stream (KiB, less is better)", "KiB", chart, 0))
}

// aroundTable shows what token-proxy costs beside its own processes.
func aroundTable(p *page, r *record.Run) {
	rows := [][]string{{"", "whole answers, µs each", "events of streams, µs each"}}
	for _, name := range []string{ours, oursTLS} {
		a, b := r.Of(name, record.PhaseRequests, around), r.Of(name, record.PhaseEvents, around)
		if a.N+b.N > 0 {
			rows = append(rows, []string{r.Peer(name).Title, cell(a), cell(b)})
		}
	}
	if len(rows) > 1 {
		p.printf("### What Redis, Postgres and the billing-worker used meanwhile\n\nEach forwarded request becomes a row in Postgres. They go on for a while after the load, which is not counted; the next measurement waits for it.\n\n")
		p.table(rows)
	}
}

// disturbed says how quiet the machine was.
func disturbed(p *page, r *record.Run) {
	var all []float64
	most := 0.0
	for i := range r.Samples {
		all = append(all, r.Samples[i].Foreign)
		most = max(most, r.Samples[i].Foreign)
	}
	p.printf("What is no part of the measurement used %s processors meanwhile (median; at most %s).\n\n", figure(record.SpreadOf(all).Median), figure(most))
}

func failures(p *page, r *record.Run) {
	rows := [][]string{{"", "what", "how often"}}
	for _, peer := range r.Peers {
		all := r.Failures(peer.Name)
		for _, kind := range slices.Sorted(maps.Keys(all)) {
			rows = append(rows, []string{peer.Title, kind, thousands(all[kind])})
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

// setting is a parameter of a run.
func setting(r *record.Run, name string) string {
	for _, s := range r.Settings {
		if s.Name == name {
			return s.Value
		}
	}
	return "?"
}
