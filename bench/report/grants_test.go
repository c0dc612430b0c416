package report

import (
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// commandsAt is a run that counted Redis' commands; each step has a rate, and what was served and executed.
func commandsAt(steps ...[3]int64) *record.Run {
	r := &record.Run{Kind: record.KindGrants, Peers: []record.Peer{{Name: "token-proxy", Title: "ours"}}, Settings: []record.Setting{{Name: "redis-customers", Value: "100"}}}
	for _, s := range steps {
		r.Samples = append(r.Samples, record.Sample{
			Peer: "token-proxy", Phase: record.PhaseRedis, Step: float64(s[0]), Redis: 2 * s[2], Load: load.Result{Seconds: 2, Answers: 2 * s[1]},
		})
	}
	return r
}

// Fewer commands at a greater rate are not what "independent" means, and a rate that was not reached is not
// judged as if it was.
func TestRedisCommandsAreJudged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		run  *record.Run
		want string
	}{
		{commandsAt([3]int64{1000, 1000, 500}, [3]int64{3000, 2990, 600}), "1.20 × (500 commands/s at 1,000, 600 at 3,000) | yes |"},
		{commandsAt([3]int64{1000, 1000, 500}, [3]int64{3000, 3000, 700}), "1.40 × (500 commands/s at 1,000, 700 at 3,000) | no |"},
		{commandsAt([3]int64{1000, 1000, 2373}, [3]int64{3000, 3000, 556}), "4.27 × (2,373 commands/s at 1,000, 556 at 3,000) | no |"},
		{commandsAt([3]int64{1000, 1000, 500}, [3]int64{3000, 3000, 900}, [3]int64{6000, 6000, 550}), "1.80 × (500 commands/s at 1,000, 900 at 3,000, 550 at 6,000) | no |"},
		{commandsAt([3]int64{1000, 1000, 500}, [3]int64{6000, 5800, 550}, [3]int64{10_000, 8970, 5000}), "1.10 × (500 commands/s at 1,000, 550 at 6,000, 10,000/s not reached, 8,970 served) | yes, up to 6,000/s |"},
		{commandsAt([3]int64{1000, 1000, 500}, [3]int64{10_000, 9000, 500}), "500 commands/s at 1,000, 10,000/s not reached, 9,000 served | not measured |"},
		{commandsAt([3]int64{1000, 1000, 500}, [3]int64{6000, 5800, 800}, [3]int64{10_000, 8970, 500}), "1.60 × (500 commands/s at 1,000, 800 at 6,000, 10,000/s not reached, 8,970 served) | no |"},
		{commandsAt([3]int64{10_000, 9000, 500}), "| - | not measured |"},
	} {
		text, _ := write(t, c.run)
		if got := row(t, text, "Redis commands per second"); !strings.HasSuffix(got, c.want+"\n") || !strings.Contains(got, "| independent of the request rate (most / least ≤ 1.25) |") {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}

func TestRatesThatWereNotReachedAreMarked(t *testing.T) {
	t.Parallel()
	const hint = "of which less than 95 % is served was not reached"
	text, _ := write(t, commandsAt([3]int64{1000, 1000, 500}, [3]int64{3000, 2850, 500}))
	if strings.Contains(text, "**not reached**") || strings.Contains(text, hint) {
		t.Errorf("a rate that was reached is marked: %s", section(t, text, "## As customers grow"))
	}
	text, _ = write(t, commandsAt([3]int64{1000, 1000, 500}, [3]int64{3000, 2849, 500}))
	for _, want := range []string{hint, "| 1,000 | 1,000 | 500 |", "| 3,000, **not reached** | 2,849 | 500 |", "For 100 customers that is 300 to 429 commands per second"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in %s", want, section(t, text, "## As customers grow"))
		}
	}
}

// What is compared varies by itself: how much is said beside it.
func TestFlatTellsTheSpread(t *testing.T) {
	t.Parallel()
	r := &record.Run{Kind: record.KindGrants, Peers: run(1).Peers}
	for round, us := range []float64{9, 10, 12} { // quartiles 9.5 and 11
		for peer, cpu := range map[string]float64{"nginx": 10, "token-proxy": us} {
			for _, step := range []float64{1, 10} {
				if step == 10 {
					cpu = 10
				}
				r.Samples = append(r.Samples, record.Sample{Round: round, Peer: peer, Phase: record.PhaseOne, Step: step, CPUMicros: cpu, Load: load.Result{Seconds: 1, Answers: 9}})
			}
		}
	}
	text, _ := write(t, r)
	if got := row(t, text, "CPU per request of one customer from 1 to 10 grants"); !strings.Contains(got, "1.00 × (ratios to nginx from 1.00 to 1.00, IQR of each at most 15.0 %) | yes |") {
		t.Error(got)
	}
}
