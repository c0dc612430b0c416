package report

import (
	"math"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

func TestNeeds(t *testing.T) {
	t.Parallel()
	n := needs(3600, rates{perRequest: 100, events: []perEvent{{60 * 343, 10}}, around: 50, perStream: 1 << 20, redis: 4, perGrant: 1 << 20})
	for name, v := range map[string][2]float64{
		"requests": {n.requests, 60}, "events": {n.events, 60 * 343}, "streams": {n.streams, 514.5}, "cores": {n.cores, 0.006 + 0.2058},
		"around": {n.around, 0.003}, "memory": {n.memory, 514.5}, "redis": {n.redis, 240}, "in": {n.in, 60 * 48140 / 1e6}, "out": {n.out, 60 * 343 * 280 / 1e6},
		"replicas": {n.replicas, 2}, "files": {n.files, 1029}, "grants": {n.grants, 3600}, "of requests": {n.ofRequests, 0.006},
	} {
		if math.Abs(v[0]-v[1]) > 1e-9*math.Abs(v[1]) {
			t.Errorf("%s: %v instead of %v", name, v[0], v[1])
		}
	}
	r := rates{events: []perEvent{{10_000, 20}, {1000, 50}}}
	for rate, want := range map[float64]float64{1: 50, 1000: 50, 3000: 50, 3300: 20, 10_000: 20, 1e9: 20} {
		if got := r.at(rate); got != want {
			t.Errorf("at %v events per second each costs %v, want %v", rate, got, want)
		}
	}
}

// An event costs what it does at the rate of one replica: here with two of them each has 20,580 a second and
// they need 2.06 cores, so three; of these each has 13,720, so they need 4.12, which is six, with 6,860.
func TestReplicasShareTheEvents(t *testing.T) {
	t.Parallel()
	n := needs(7200, rates{events: []perEvent{{6860, 100}, {13_720, 100}, {20_580, 50}}})
	if n.replicas != 6 || math.Abs(n.cores-4.116) > 1e-9 {
		t.Errorf("%v replicas with %v cores", n.replicas, n.cores)
	}
}

// sizes are the cells of the sizing table's row of so many customers.
func sizes(t *testing.T, text, customers string) []string {
	t.Helper()
	_, text, found := strings.Cut(text, "## What that means for an installation")
	if !found {
		t.Fatal("there is no table of sizes")
	}
	return strings.Split(strings.Trim(row(t, text, customers), "| \n"), " | ")
}

// What a request needs is from one sample, the least of overload; events are from the step that has
// about as many; what was not measured is not shown.
func TestSizing(t *testing.T) {
	t.Parallel()
	ours := []record.Peer{{Name: "token-proxy", Title: "ours"}}
	text, _ := write(t, run(1))
	if got := strings.Join(sizes(t, text, "1,000,000"), " "); got != "1,000,000 16,667 142,917 285,833 5,716,667 57.4 82 1,396 - - - 16,667 802, 1,601" {
		t.Errorf("of a comparison alone: %s", got)
	}
	many := &record.Run{Kind: record.KindStreams, Peers: ours, Samples: []record.Sample{
		{Peer: "token-proxy", Phase: record.PhaseMemory, Step: 1000, StreamBytes: 1 << 10, CPUMicros: 100, Load: load.Result{Seconds: 2, Events: 12_000}},
		{Peer: "token-proxy", Phase: record.PhaseMemory, Step: 2000, StreamBytes: 512 << 10, CPUMicros: 20, Load: load.Result{Seconds: 2, Events: 120_000}},
	}}
	sample := func(phase string, step, cpu, around float64, answers, commands int64) record.Sample {
		return record.Sample{Peer: "token-proxy", Phase: phase, Step: step, CPUMicros: cpu, AroundMicros: around, Redis: commands, Load: load.Result{Seconds: 5, Answers: answers}}
	}
	over := &record.Run{Kind: record.KindOverload, Peers: ours, Settings: []record.Setting{{Name: "customers", Value: "4000"}, {Name: "body-bytes", Value: "777"}}, Samples: []record.Sample{
		sample(record.PhaseCapacity, 64, 1, 1, 90_000, 1),
		sample(record.PhaseRates, 0.1, 2, 2, 500, 2),
		sample(record.PhaseOverload, 2, 3, 3, 90_000, 3),
		sample(record.PhaseOverload, 0.1, 2000, 600, 10_000, 30_000),
	}}
	grants := &record.Run{Kind: record.KindGrants, Revision: "abc", Peers: ours}
	for step, mib := range map[float64]int64{1: 10, 1000: 60, 10_001: 110} {
		s := sample(record.PhaseRequests, step, 5, 5, 5, 5)
		s.RedisBytes = mib << 20
		grants.Samples = append(grants.Samples, s)
	}
	text, _ = write(t, run(1), many, over, grants)
	// 16.7 requests of 2 ms, and 5,717 events of 100 µs, at two replicas; 167 of 2 ms, and 57,167 events of 20 µs,
	// at three of them: 19,056 a second each are nearer to 60,000 in ratio than to 6,000. Each further stream took
	// 1,023 KiB, each further grant a hundredth of a MiB.
	for customers, want := range map[string]string{
		"1,000":  "1,000 16.7 143 286 5,717 0.61 2 143 0.01 50.0 10.0 16.7 0.80, 1.60",
		"10,000": "10,000 167 1,429 2,858 57,167 1.48 3 1,428 0.10 500 100 167 8.02, 16.0",
	} {
		if got := strings.Join(sizes(t, text, customers), " "); got != want {
			t.Errorf("%s", got)
		}
	}
	for _, want := range []string{"as in `overload` at 2,000 requests per second of 4000 customers", "100 at 6,000 per second, 20.0 at 60,000 per second", "than the 777 bytes", "(`overload`, `streams`, `grants` of revision abc, `compare`)"} {
		if !strings.Contains(text, want) {
			t.Errorf("the sizes do not say %q", want)
		}
	}
}
