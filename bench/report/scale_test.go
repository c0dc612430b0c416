package report

import (
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// What a process has to spare hides what few streams take, so a further one is shown too.
func TestFurtherStreams(t *testing.T) {
	t.Parallel()
	r := &record.Run{Kind: record.KindStreams, Peers: []record.Peer{{Name: "nginx", Title: "nginx"}, {Name: "token-proxy", Title: "ours"}}}
	for step, kib := range map[float64]float64{1000: 2, 5000: 10, 9000: 11} {
		r.Samples = append(r.Samples, record.Sample{Peer: "token-proxy", Phase: record.PhaseMemory, Step: step, StreamBytes: kib * 1024, PeakBytes: 30 << 10, Load: load.Result{Seconds: 1, Events: 1}})
	}
	// nginx lacks a step: its next is compared with the one before.
	for step, kib := range map[float64]float64{1000: 17, 9000: 17} {
		r.Samples = append(r.Samples, record.Sample{Peer: "nginx", Phase: record.PhaseMemory, Step: step, StreamBytes: kib * 1024, Load: load.Result{Seconds: 1, Events: 1}})
	}
	text, _ := write(t, r)
	for _, want := range []string{
		"| 1,000 | ours | 2.00 | - | 30.0 |", "| 5,000 | ours | 10.0 | 12.0 | 30.0 |", "| 9,000 | ours | 11.0 | 12.2 | 30.0 |", "| 9,000 | nginx | 17.0 | 17.0 | - |",
		"| memory per stream with 9,000 open | ≤ 8 KiB | 11.0 KiB (each further one 12.2) | no |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in %s", want, text)
		}
	}
}

func TestCapacityAndOverload(t *testing.T) {
	t.Parallel()
	r := &record.Run{Kind: record.KindOverload, Peers: []record.Peer{{Name: "nginx", Title: "nginx"}, {Name: "token-proxy", Title: "ours"}}, Samples: []record.Sample{
		{Peer: "nginx", Phase: record.PhaseCapacity, CPUMicros: 20, Load: load.Result{Seconds: 2, Answers: 100_000}}, // of an older file
		{Peer: "token-proxy", Phase: record.PhaseCapacity, Step: 64, CPUMicros: 50, Load: load.Result{Seconds: 2, Answers: 40_000}},
		{Peer: "token-proxy", Phase: record.PhaseCapacity, Step: 4000, CPUMicros: 70, Load: load.Result{Seconds: 2, Answers: 28_000, Refused: 200}},
		{Peer: "token-proxy", Phase: record.PhaseOverload, Step: 2, Offered: 28_000, CPUMicros: 80, Tries: 1, Load: load.Result{
			Seconds: 2, Answers: 26_000, Refused: 20_000, Withheld: 4000, Backlog: 9_000, Failures: map[string]int64{"status 503": 20_000, "timeout": 1000},
			Latency: load.Quantiles{Count: 1, P50: 300, P99: 700}, Refusing: load.Quantiles{Count: 1, P99: 99},
		}},
	}}
	old := r.Samples[3]
	old.Step, old.Tries, old.Load.Withheld = 3, 0, 0
	r.Samples = append(r.Samples, old, record.Sample{Peer: "token-proxy", Phase: record.PhaseStorm, Step: 4000, CPUMicros: 90, Tries: 1, Load: load.Result{
		Seconds: 2, Answers: 22_000, Refused: 4000, Failures: map[string]int64{"status 503 overloaded_error": 4000}, Latency: load.Quantiles{Count: 1, P50: 30, P99: 70},
	}})
	text, _ := write(t, r)
	for _, want := range []string{
		"| ours | 3 | 28,000 | 13,000 | 10,000 | 0 | - | 300 |",
		"| nginx | 64 | 50,000 | 0 | 20.0 | - |", "| ours | 64 | 20,000 | 0 | 50.0 | - |", "| ours | 4,000 | 14,000 | 100 | 70.0 | - |",
		"| ours | 4,000 | 11,000 | 2,000 | 4,000 status 503 overloaded_error | 30.0 | 70.0 | 90.0 |",
		"| ours | 2 | 28,000 | 13,000 | 10,000 | 2,000 | 5,000 | 300 | 700 | 99.0 | 80.0 | - |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in %s", want, text)
		}
	}
}

// Where there are fewer streams than there are to be, it is said why.
func TestFewerStreamsAreExplained(t *testing.T) {
	t.Parallel()
	const why = "Not 10,000 but 9,600 at most: a proxy needs two descriptors for each, and a step is lowered to what the limit of open files (here 20000) of a process leaves"
	for step, want := range map[float64]bool{9600: true, 10_000: false} {
		r := &record.Run{Kind: record.KindStreams, Peers: []record.Peer{{Name: "token-proxy", Title: "ours"}}, Settings: []record.Setting{{Name: "open files", Value: "20000"}}}
		for _, n := range []float64{1000, step} {
			r.Samples = append(r.Samples, record.Sample{Peer: "token-proxy", Phase: record.PhaseMemory, Step: n, StreamBytes: 1, Load: load.Result{Seconds: 1, Events: 1}})
		}
		text, _ := write(t, r)
		if part := section(t, text, "## Thousands of open streams"); strings.Contains(part, why) != want || strings.Contains(part, "Not 10,000") != want {
			t.Errorf("%v streams: %s", step, part)
		}
	}
}

// Redis commands that grow with the load are explained by how rarely each customer sends.
func TestGrowingCommandsAreExplained(t *testing.T) {
	t.Parallel()
	r := &record.Run{Kind: record.KindOverload, Peers: []record.Peer{{Name: "token-proxy", Title: "ours"}}, Settings: []record.Setting{{Name: "customers", Value: "4000"}}}
	for step, answers := range map[float64]int64{0.1: 1000, 2: 8000} {
		r.Samples = append(r.Samples, record.Sample{Peer: "token-proxy", Phase: record.PhaseOverload, Step: step, Redis: 7, Load: load.Result{Seconds: 2, Answers: answers}})
	}
	text, _ := write(t, r)
	if want := "4,000 customers share it, of whom each is served so rarely, once in 8.00 s at the least load and in 1.00 s at the greatest,"; !strings.Contains(text, want) {
		t.Errorf("there is no %q in %s", want, section(t, text, "## More load than fits"))
	}
}
