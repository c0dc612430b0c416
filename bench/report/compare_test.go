package report

import (
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// section is the part of a report below a heading.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, text, found := strings.Cut(text, heading)
	if !found {
		t.Fatalf("there is no %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n#")
	return text
}

func TestWhoTakesNoPartIsNotShown(t *testing.T) {
	t.Parallel()
	text, _ := write(t, run(1))
	few := section(t, text, "### A tenth of those streams")
	if !strings.Contains(few, "| Portkey |") || strings.Contains(few, "TLS") {
		t.Errorf("few streams: %s", few)
	}
}

// There is no ratio of what was not measured at one rate, and no goal is reached by it.
func TestRatiosAreOfOneRate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		answers     int64 // of 5,000
		ratio, goal string
	}{
		{5000, "**1.10 ×** (1.10-1.10, IQR 0.0 %)", "| at worst |"},
		{4800, "**1.10 ×** (1.10-1.10, IQR 0.0 %)", "| at worst |"},
		{4700, "-", "| - | not measured |"},
	} {
		r := run(1)
		for i := range r.Samples {
			if s := &r.Samples[i]; s.Peer == ours && s.Phase == record.PhaseHalf {
				s.Load.Answers = c.answers
			}
		}
		text, _ := write(t, r)
		got := row(t, section(t, text, "### Whole answers at half load"), "ours & all")
		if !strings.HasPrefix(got, "| ours & all | 11.0 | "+c.ratio+" | ") {
			t.Errorf("%d answers: %s", c.answers, got)
		}
		if got := row(t, text, "CPU per request at half load, both at one rate"); !strings.Contains(got, c.goal) {
			t.Errorf("%d answers: %s", c.answers, got)
		}
	}
}

// Nothing in between speaks no TLS, so nothing is added to it.
func TestNothingIsAddedToAnotherUpstream(t *testing.T) {
	t.Parallel()
	text, _ := write(t, run(1))
	for _, heading := range []string{"### Whole answers at half load", "### Streams:"} {
		part := section(t, text, heading)
		if got := row(t, part, "ours & all"); !strings.HasSuffix(got, "| 10.0 | 10.0 |\n") {
			t.Error(got)
		}
		if got := row(t, part, "ours TLS"); !strings.HasSuffix(got, "| - | - |\n") {
			t.Error(got)
		}
	}
}

func TestFailuresAreListedByPhase(t *testing.T) {
	t.Parallel()
	r := run(1)
	for i := range r.Samples {
		switch s := &r.Samples[i]; {
		case s.Peer == oursTLS && s.Phase == record.PhaseMemory:
			s.Load.Failures = map[string]int64{"status 503": 7}
		case s.Peer == oursTLS && s.Phase == record.PhaseHalf:
			s.Load.Failures, s.Load.Backlog = map[string]int64{"cut": 1, "timeout": 2}, 100
		}
	}
	text, _ := write(t, r)
	const want = `
| ours TLS | half load | cut | 3 |
| ours TLS | half load | not sent, for want of a free connection | 300 |
| ours TLS | half load | timeout | 6 |
| ours TLS | memory of open streams | status 503 | 21 |

`
	if part := section(t, text, "### Failures"); !strings.Contains(part, want) {
		t.Error(part)
	}
}

// What older files do not have is not shown as 0.
func TestFiguresThatOlderFilesDoNotHave(t *testing.T) {
	t.Parallel()
	r := run(1)
	text, _ := write(t, r)
	const platform = "### What Redis, Postgres and the billing-worker used for it"
	if got := row(t, section(t, text, platform), "ours & all"); got != "| ours & all | - | - | - |\n" {
		t.Error(got)
	}
	if !strings.Contains(text, "its host withheld -.\n") || !strings.Contains(text, "all programs share the processors") {
		t.Error("it is said how quiet an old run was, or whose processor was whose")
	}
	r.Settings = append(r.Settings, record.Setting{Name: "apart", Value: "true"})
	for i := range r.Samples {
		s := &r.Samples[i]
		s.Tries, s.SettleSeconds, s.AroundMicros, s.Stolen = 1, 0.5, 30, 0.02
	}
	r.Samples[0].Tries, r.Samples[1].Stolen = 3, 0.3
	text, _ = write(t, r)
	if got := row(t, section(t, text, platform), "ours & all"); got != "| ours & all | 30.0 | 30.0 | 30.0 |\n" {
		t.Error(got)
	}
	for _, want := range []string{
		"its host withheld 0.02 processors (median; at most 0.30). 2 measurements were repeated. For 40 s it was waited",
		"the proxies have a processor for themselves",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q", want)
		}
	}
}

func TestOtherRevisionsAreMarked(t *testing.T) {
	t.Parallel()
	compared, grants := run(1), &record.Run{Kind: record.KindGrants, Peers: run(1).Peers}
	for _, peer := range []string{"nginx", "token-proxy"} {
		for _, step := range []float64{1, 10} {
			grants.Samples = append(grants.Samples, record.Sample{Peer: peer, Phase: record.PhaseOne, Step: step, CPUMicros: 5, Load: load.Result{Seconds: 1, Answers: 9}})
		}
	}
	for _, c := range []struct {
		compared, grants string
		marked           bool
	}{{"aaa", "aaa", false}, {"aaa", "bbb", true}, {"", "bbb", false}, {"aaa", "", false}} {
		compared.Revision, grants.Revision = c.compared, c.grants
		text, _ := write(t, compared, grants)
		if strings.Contains(text, "CPU per request of one customer from 1 to 10 grants (of revision bbb)") != c.marked ||
			strings.Contains(text, "of revision bbb, **not that of the comparison**") != c.marked {
			t.Errorf("%+v: %s", c, row(t, text, "CPU per request, connections always busy"))
		}
	}
}

// A ratio of half of the streams does not say that all of them could be followed.
func TestWhoFellBehindIsNamed(t *testing.T) {
	t.Parallel()
	for events, want := range map[int64]string{
		19_000: "has no ratio.\n",
		18_999: "has no ratio. Alone ours TLS took 18,999 of 20,000 events/s: the lag there is that of a queue, and the ratio is of half as many, which it can follow.\n",
	} {
		r := run(1)
		r.Settings = append(r.Settings, record.Setting{Name: "interval", Value: "10ms"})
		for i := range r.Samples {
			if s := &r.Samples[i]; s.Phase == record.PhaseEvents {
				s.Load.Events = 20_000
				if s.Peer == oursTLS {
					s.Load.Events = events
				}
			}
		}
		for round := range 3 {
			for _, peer := range []string{"nginx-tls", oursTLS} {
				r.Samples = append(r.Samples, record.Sample{Round: round, Peer: peer, Phase: record.Together(record.PhaseEvents), Block: 1, CPUMicros: 5, Load: load.Result{Seconds: 1, Events: 10_000}})
			}
		}
		text, _ := write(t, r)
		if part := section(t, text, "### Streams:"); !strings.Contains(part, want) {
			t.Errorf("%d events: %s", events, part)
		}
	}
}
