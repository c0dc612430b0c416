package report

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// run is a comparison in which token-proxy costs factor times what nginx does, and 1.1 times more
// than that at half load. Peers with a TLS upstream take no part where there are few streams.
func run(factor float64) *record.Run {
	r := &record.Run{
		Kind: record.KindCompare, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Command: "openclaw-bench compare",
		Machine:  record.Machine{CPU: "a CPU", Cores: 2, Memory: 8 << 30, Kernel: "6.1", Go: "go1.26"},
		Settings: []record.Setting{{Name: "streams", Value: "200"}, {Name: "customers", Value: "77"}},
		Missing:  []string{"haproxy: not installed"},
	}
	for _, p := range []record.Peer{
		{Name: "direct", Title: "nothing"}, {Name: "nginx", Title: "nginx"}, {Name: "token-proxy", Title: "ours & all"},
		{Name: "portkey", Title: "Portkey", Gateway: true}, {Name: "nginx-tls", Title: "nginx TLS", TLS: true}, {Name: "token-proxy-tls", Title: "ours TLS", TLS: true},
	} {
		r.Peers = append(r.Peers, p)
		us := map[string]float64{"direct": 0, "nginx": 10, "token-proxy": 10 * factor, "portkey": 1000, "nginx-tls": 20, "token-proxy-tls": 20 * factor}[p.Name]
		q := load.Quantiles{Count: 100, P50: 50 + us, P99: 100 + us, P999: 200 + us}
		for round := range 3 {
			for _, phase := range []string{record.PhaseRequests, record.PhaseHalf, record.PhaseEvents, record.PhaseFew} {
				if phase == record.PhaseFew && p.TLS {
					continue
				}
				cpu := us
				if phase == record.PhaseHalf && isOurs(p.Name) {
					cpu *= 1.1
				}
				r.Samples = append(r.Samples, record.Sample{Round: round, Peer: p.Name, Phase: phase, CPUMicros: cpu,
					Load: load.Result{Seconds: 1, Answers: 5000, Events: 7000, Latency: q, Lag: q, TTFB: q}})
			}
			if p.Name != "direct" {
				r.Samples = append(r.Samples, record.Sample{Round: round, Peer: p.Name, Phase: record.PhaseMemory, StreamBytes: 1024 * us, Load: load.Result{Seconds: 1}})
			}
		}
	}
	return r
}

func write(t *testing.T, runs ...*record.Run) (string, string) {
	t.Helper()
	dir := t.TempDir()
	results := filepath.Join(dir, "results")
	for _, r := range runs {
		if _, err := r.Save(results); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "BENCHMARKS.md")
	if err := Write(results, out); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), results
}

// row returns the first row of a table that begins with name.
func row(t *testing.T, text, name string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "| "+name+" |") {
			return line
		}
	}
	t.Fatalf("no row %q in\n%s", name, text)
	return ""
}

func TestGoalsAreJudged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		factor                     float64
		cpu, half, memory, latency string
	}{
		{1, "| **1.00 ×** (1.00-1.00, IQR 0.0 %) | yes |", "**1.10 ×** (1.10-1.10, IQR 0.0 %) | at worst", "no", "yes"}, // 10 KiB
		{1.1, "| **1.10 ×** (1.10-1.10, IQR 0.0 %) | at worst |", "**1.21 ×** (1.21-1.21, IQR 0.0 %) | no", "no", "yes"},
		{0.5, "| **0.50 ×** (0.50-0.50, IQR 0.0 %) | yes |", "**0.55 ×** (0.55-0.55, IQR 0.0 %) | yes", "yes", "yes"},
		{3, "| **3.00 ×** (3.00-3.00, IQR 0.0 %) | no |", "**3.30 ×** (3.30-3.30, IQR 0.0 %) | no", "no", "no"},
	} {
		text, _ := write(t, run(c.factor))
		for _, name := range []string{"CPU per request, connections always busy", "CPU per event of a stream", "CPU per event, TLS upstream"} {
			if got := row(t, text, name); !strings.Contains(got, c.cpu) {
				t.Errorf("%v times nginx: %s", c.factor, got)
			}
		}
		if got := row(t, text, "CPU per request at half load, both at one rate"); !strings.HasSuffix(got, "| "+c.half+" |\n") {
			t.Errorf("%v times nginx: %s", c.factor, got)
		}
		if got := row(t, text, "memory per open stream"); !strings.HasSuffix(got, "| "+c.memory+" |\n") {
			t.Errorf("%v times nginx: %s", c.factor, got)
		}
		if got := row(t, text, "added latency p99 at half load"); !strings.HasSuffix(got, "| "+c.latency+" |\n") {
			t.Errorf("%v times nginx: %s", c.factor, got)
		}
	}
	text, _ := write(t, run(1))
	if got := row(t, text, "CPU of Portkey, against token-proxy's"); !strings.Contains(got, "100 × per request") || !strings.Contains(got, "yes") {
		t.Error(got)
	}
	for _, want := range []string{"2 cores of a CPU, 8 GiB, Linux 6.1, go1.26", "No request failed.", "Not measured: haproxy: not installed.", "limit of 77 customers"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q", want)
		}
	}
}

// Processor time is of what was measured together, if anything was; the rest is of each alone.
func TestProcessorTimeIsOfWhatRanTogether(t *testing.T) {
	t.Parallel()
	r := run(1)
	for round := range 3 {
		for _, phase := range []string{record.PhaseRequests, record.PhaseHalf, record.PhaseEvents} {
			for peer, us := range map[string]float64{"nginx": 10, "token-proxy": 14} {
				r.Samples = append(r.Samples, record.Sample{Round: round, Peer: peer, Phase: record.Together(phase), Block: 1, CPUMicros: us,
					Load: load.Result{Seconds: 1, Answers: 50, Events: 70, Latency: load.Quantiles{Count: 9, P50: 9e6}, Lag: load.Quantiles{Count: 9, P50: 9e6}}})
			}
		}
	}
	text, _ := write(t, r)
	for _, goal := range []string{"CPU per request, connections always busy", "CPU per request at half load, both at one rate", "CPU per event of a stream"} {
		if line := row(t, text, goal); !strings.Contains(line, "| **1.40 ×**") {
			t.Error(line)
		}
	}
	if line := row(t, text, "ours & all"); !strings.HasPrefix(line, "| ours & all | 14.0 | **1.40 ×** (1.40-1.40, IQR 0.0 %) |") || !strings.Contains(line, "| 5,000 | 60.0 |") {
		t.Error(line)
	}
	if strings.Contains(text, "9,000,000") {
		t.Error("it tells how late answers were while two proxies were under load")
	}
}

func TestEveryKindOfRunIsShown(t *testing.T) {
	t.Parallel()
	streams := &record.Run{Kind: record.KindStreams, Peers: []record.Peer{{Name: "direct", Title: "nothing"}, {Name: "token-proxy", Title: "ours"}}}
	overload := &record.Run{Kind: record.KindOverload, Peers: streams.Peers}
	grants := &record.Run{Kind: record.KindGrants, Peers: []record.Peer{{Name: "nginx", Title: "nginx"}, {Name: "token-proxy", Title: "ours"}}}
	for _, step := range []float64{100, 10_000} {
		q := load.Quantiles{Count: 9, P50: 10, P99: 20 + step/100}
		streams.Samples = append(streams.Samples,
			record.Sample{Peer: "direct", Phase: record.PhaseMemory, Step: step, Load: load.Result{Seconds: 1, Events: 50, Lag: load.Quantiles{Count: 9, P99: 15}}},
			record.Sample{Peer: "token-proxy", Phase: record.PhaseMemory, Step: step, StreamBytes: 5 << 10, Load: load.Result{Seconds: 1, Events: 50, Lag: q}})
		for _, peer := range grants.Peers {
			some := 12.
			if peer.Name == "token-proxy" && step > 100 {
				some = 15
			}
			answers := load.Result{Seconds: 1, Answers: 9}
			// What was measured alone does not count for processor time.
			grants.Samples = append(grants.Samples, record.Sample{Peer: peer.Name, Phase: record.PhaseOne, Step: step, CPUMicros: 5 * some, Load: answers},
				record.Sample{Peer: peer.Name, Phase: record.Together(record.PhaseOne), Step: step, CPUMicros: 12, Load: answers},
				record.Sample{Peer: peer.Name, Phase: record.PhaseRequests, Step: step, CPUMicros: 99, RedisBytes: 3 << 20, Load: answers},
				record.Sample{Peer: peer.Name, Phase: record.Together(record.PhaseRequests), Step: step, CPUMicros: some, Load: answers})
		}
	}
	for _, step := range []float64{0.1, 1, 2} {
		for _, phase := range []string{record.PhaseOverload, record.PhaseRates} {
			overload.Samples = append(overload.Samples, record.Sample{Peer: "token-proxy", Phase: phase, Step: step, Offered: 1000 * step, Redis: 70,
				Load: load.Result{Seconds: 1, Answers: int64(1000 * min(step, 1)), Refused: int64(1000 * max(0, step-1)), Failures: map[string]int64{"status 429": int64(1000 * max(0, step-1))}}})
		}
	}
	for _, rate := range []float64{100, 1000} {
		grants.Samples = append(grants.Samples, record.Sample{Peer: "token-proxy", Phase: record.PhaseRedis, Step: rate, Redis: 70, Load: load.Result{Seconds: 1, Answers: int64(rate)}})
	}
	replay := &record.Run{Kind: record.KindReplay, Samples: []record.Sample{{Peer: "token-proxy", Phase: record.PhaseReplay, Load: load.Result{Seconds: 9, Answers: 300}}},
		Series: []record.Point{{Seconds: 0, PSS: 50 << 20, Goroutines: 40, Files: 20}, {Seconds: 5, PSS: 60 << 20, Goroutines: 41, Files: 21, Streams: 7}}}
	calls := &record.Run{Kind: record.KindSyscalls, Peers: []record.Peer{{Name: "token-proxy", Title: "counted"}}, Samples: []record.Sample{
		{Peer: "token-proxy", Phase: record.PhaseRequests, Syscalls: map[string]float64{"read": 2.5, "write": 2}},
		{Peer: "token-proxy", Phase: record.PhaseEvents, Syscalls: map[string]float64{"read": 1.5, "futex": 0.01}},
	}}
	text, results := write(t, run(1), streams, overload, grants, replay, calls)
	if got := row(t, text, "counted"); got != "| counted | 4.50 | 1.51 | read 1.50 |\n" {
		t.Error(got)
	}
	for name, want := range map[string]string{
		"memory per stream with 10,000 open":                             "5.00 KiB (each further one 5.00) | yes",
		"Redis commands per second":                                      "1.00 × (70.0 commands/s at 100, 70.0 at 1,000) | yes |",
		"CPU per request of one customer from 100 to 10,000 grants":      "1.00 × (ratios to nginx from 1.00 to 1.00, IQR of each at most 0.0 %) | yes",
		"CPU per request of up to ? customers from 100 to 10,000 grants": "1.25 × (ratios to nginx from 1.00 to 1.25, IQR of each at most 0.0 %) | no",
		"10,000": "| 5.00 | 5.00 | - |", // memory per stream and per further stream; the most was not seen
	} {
		line := row(t, text, name)
		if name == "10,000" {
			line = text[strings.Index(text, "| 10,000 | ours |"):]
			line = line[:strings.IndexByte(line, '\n')+1]
		}
		if !strings.Contains(line, want) {
			t.Errorf("want %q in %s", want, line)
		}
	}
	if line := text[strings.Index(text, "| 10,000 | ours |"):]; !strings.Contains(line[:strings.IndexByte(line, '\n')], "| 105 |") { // lag added: 120 - 15
		t.Errorf("%s", line)
	}
	if !strings.Contains(text, "50 → 50 → 60 → 60 MiB, 40 → 40 → 41 → 41 goroutines, 20 → 20 → 21 → 21 open files") || !strings.Contains(text, "| ours | 2 | 2,000 | 1,000 | 1,000 | 0 | 0 |") {
		t.Errorf("series or overload are missing:\n%s", text)
	}
	plots, err := filepath.Glob(filepath.Join(results, "plots", "*.svg"))
	if err != nil || len(plots) < 8 {
		t.Errorf("%d plots, %v", len(plots), err)
	}
	for _, name := range plots {
		wellFormed(t, name)
		if !strings.Contains(text, "/"+filepath.Base(name)+")") {
			t.Errorf("%s is not shown", name)
		}
	}
}

// wellFormed checks that a drawing is XML without numbers that are none.
func wellFormed(t *testing.T, name string) {
	t.Helper()
	svg, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if strings.Contains(string(svg), "NaN") || strings.Contains(string(svg), "Inf") {
		t.Errorf("%s has numbers that are none", name)
	}
}

func TestFigures(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 0.034: "0.03", 1.5: "1.50", 17.26: "17.3", 123.4: "123", 12345.6: "12,346", -1234567: "-1,234,567"} {
		if got := figure(v); got != want {
			t.Errorf("%v is written %q", v, got)
		}
	}
}

func TestNoResults(t *testing.T) {
	t.Parallel()
	if err := Write(t.TempDir(), filepath.Join(t.TempDir(), "x.md")); err == nil {
		t.Error("a report of nothing was written")
	}
}
