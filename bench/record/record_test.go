package record

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestSpread(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values                []float64
		low, median, top, iqr float64
	}{
		{[]float64{5}, 5, 5, 5, 0},
		{[]float64{4, 1, 3, 2, 5}, 2, 3, 4, 100 * 2.0 / 3},
		{[]float64{1, 2, 3, 10}, 1.75, 2.5, 4.75, 120},
		{nil, 0, 0, 0, 0},
	} {
		s := SpreadOf(c.values)
		if !near(s.Low, c.low) || !near(s.Median, c.median) || !near(s.Top, c.top) || !near(s.IQR(), c.iqr) || s.N != len(c.values) {
			t.Errorf("%v: %+v, IQR %v", c.values, s, s.IQR())
		}
	}
}

// made is a run in which the machine is twice as slow in round 1, and the proxy costs 1.5
// times what nginx does.
func made() *Run {
	r := &Run{Kind: KindCompare, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Peers: []Peer{{Name: "nginx", Title: "nginx"}, {Name: "p", Title: "P"}}}
	for round, slow := range []float64{1, 2, 1} {
		for peer, us := range map[string]float64{"nginx": 20, "p": 30} {
			r.Samples = append(r.Samples, Sample{
				Round: round, Peer: peer, Phase: PhaseRequests, CPUMicros: us * slow,
				Load: load.Result{Seconds: 2, Answers: 1000, Failures: map[string]int64{"cut": 1}},
			})
		}
	}
	return r
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	t.Parallel()
	r := made()
	if s := r.Of("p", PhaseRequests, CPU); !near(s.Median, 30) || s.N != 3 || near(s.Top, s.Low) {
		t.Errorf("CPU %+v", s)
	}
	if s := r.Ratio("p", "nginx", PhaseRequests, CPU); !near(s.Median, 1.5) || !near(s.IQR(), 0) || s.N != 3 {
		t.Errorf("the machine's slow round shows in the ratio: %+v", s)
	}
	if s := r.Ratio("p", "nobody", PhaseRequests, CPU); s.N != 0 {
		t.Errorf("ratio to nobody: %+v", s)
	}
	if s := r.Of("p", PhaseRequests, Throughput); !near(s.Median, 500) {
		t.Errorf("throughput %+v", s)
	}
	if f := r.Failures("p"); f["cut"] != 3 {
		t.Errorf("failures %v", f)
	}
	// What was measured twice in a round counts as its median.
	twice := *r
	twice.Samples = append(slices.Clone(r.Samples), Sample{Round: 1, Peer: "p", Phase: PhaseRequests, CPUMicros: 100})
	if s := twice.Ratio("p", "nginx", PhaseRequests, CPU); s.N != 3 || !near(s.Top, (1.5+80.0/40)/2) {
		t.Errorf("with a second measurement: %+v", s)
	}
	// What was measured in turns is compared with what it took turns with.
	turns := &Run{}
	for _, x := range []Sample{{Peer: "nginx", Block: 1, CPUMicros: 10}, {Peer: "p", Block: 1, CPUMicros: 20}, {Peer: "p", Block: 1, CPUMicros: 20}, {Peer: "p", Block: 1, CPUMicros: 90},
		{Peer: "nginx", Block: 2, CPUMicros: 20}, {Peer: "q", Block: 2, CPUMicros: 20}, {Peer: "alone", CPUMicros: 30}} {
		x.Phase = PhaseRequests
		turns.Samples = append(turns.Samples, x)
	}
	for peer, want := range map[string]float64{"p": 2, "q": 1, "alone": 2} {
		if s := turns.Ratio(peer, "nginx", PhaseRequests, CPU); s.N != 1 || !near(s.Median, want) {
			t.Errorf("ratio of %s in blocks: %+v, want %v", peer, s, want)
		}
	}
	// What was measured at the same time is compared one by one: here the machine was slow for each but one.
	together := &Run{}
	for i, us := range []float64{10, 30, 40, 80, 20, 90} {
		together.Samples = append(together.Samples, Sample{Peer: []string{"nginx", "p"}[i%2], Block: 1, Phase: PhaseRequests, CPUMicros: us})
	}
	if s := together.Ratio("p", "nginx", PhaseRequests, CPU); s.N != 1 || !near(s.Median, 3) { // of 3, 2 and 4.5; that of the medians is 80 / 20
		t.Errorf("pairs: %+v", s)
	}
	// A peer that missed a round is compared in the others only.
	r.Samples = r.Samples[1:]
	if s := r.Ratio("p", "nginx", PhaseRequests, CPU); s.N != 2 {
		t.Errorf("with a round missing: %+v", s)
	}
}

func TestEventsCountWhereThereAreStreams(t *testing.T) {
	t.Parallel()
	s := Sample{Phase: PhaseEvents, Load: load.Result{Seconds: 2, Answers: 3, Events: 500}}
	if s.Ops() != 500 {
		t.Errorf("%d operations", s.Ops())
	}
	if s.Phase = PhaseHalf; s.Ops() != 3 {
		t.Errorf("%d operations", s.Ops())
	}
}

func TestSteps(t *testing.T) {
	t.Parallel()
	r := &Run{Samples: []Sample{{Step: 10, Phase: "a"}, {Step: 1, Phase: "a"}, {Step: 10, Phase: "a"}, {Step: 5, Phase: "b"}}}
	if got := r.Steps("a"); len(got) != 2 || got[0] != 1 || got[1] != 10 {
		t.Errorf("steps %v", got)
	}
	if got := r.Only(10); len(got.Samples) != 2 || len(r.Samples) != 4 {
		t.Errorf("%d samples with step 10", len(got.Samples))
	}
	if !r.Has("", "b") || r.Has("", "c") {
		t.Error("Has is wrong")
	}
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if r, err := Latest(dir, KindCompare); r != nil || err != nil {
		t.Errorf("latest of none: %v, %v", r, err)
	}
	path, err := made().Save(dir)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(path) != "compare-20260102T030405Z.json" {
		t.Errorf("saved as %s", path)
	}
	back, err := Latest(dir, KindCompare)
	if err != nil || len(back.Samples) != 6 || back.Peer("p").Title != "P" || back.Peer("q").Title != "q" {
		t.Errorf("%+v, %v", back, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), `"format": 1`, `"format": 99`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "format 99") {
		t.Errorf("a format of the future: %v", err)
	}
}
