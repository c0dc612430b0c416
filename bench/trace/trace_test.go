package trace

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReadMooncakesFormat(t *testing.T) {
	t.Parallel()
	got, err := Read(strings.NewReader(`{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}

{"timestamp": 2999, "input_length": 0, "output_length": 1}
`))
	want := []Request{{0, 6758, 500}, {2999 * time.Millisecond, 0, 1}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for name, text := range map[string]string{
		"empty":      "\n",
		"no JSON":    "a,b,c",
		"a field":    `{"timestamp": 0, "input_length": 5}`,
		"negative":   `{"timestamp": 0, "input_length": -5, "output_length": 1}`,
		"disorder":   `{"timestamp": 5, "input_length": 1, "output_length": 1}` + "\n" + `{"timestamp": 4, "input_length": 1, "output_length": 1}`,
		"other unit": `{"timestamp": 0, "input_length": 99999999999, "output_length": 1}`,
	} {
		if _, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPlay(t *testing.T) {
	t.Parallel()
	all := Generate(3000, 3)
	played := Play(all, Grid, 20, 5)
	if !slices.IsSortedFunc(played, func(a, b Request) int { return int(a.At - b.At) }) {
		t.Error("not in order of arrival")
	}
	a, b := Sum(all), Sum(played)
	if a.Requests != b.Requests || a.Input != b.Input || a.Output != b.Output {
		t.Errorf("%+v became %+v", a, b)
	}
	if low, high := a.Length/20, (a.Length+Grid)/20; b.Length < low || b.Length > high {
		t.Errorf("%v at 20 times the speed is %v", a.Length, b.Length)
	}
	// Without jitter a tenth of a second would hold bursts of about 10, or none.
	counts := make(map[time.Duration]int)
	for _, q := range Play(all, Grid, 1, 5) {
		counts[q.At/(100*time.Millisecond)]++
	}
	most := 0
	for _, n := range counts {
		most = max(most, n)
	}
	if most > 6 {
		t.Errorf("%d requests within 0.1 s at 3.4 per second: they are not spread", most)
	}
	if !slices.Equal(Play(all, Grid, 20, 5), played) || slices.Equal(Play(all, Grid, 20, 6), played) {
		t.Error("the seed does not decide")
	}
	if plain := Play(all, 0, 1, 5); !slices.Equal(plain, all) {
		t.Error("without jitter and at its own speed it is another trace")
	}
}

func TestGenerateHasMooncakesDistribution(t *testing.T) {
	t.Parallel()
	all := Generate(20_000, 1)
	at := func(percent int, of func(Request) int) int {
		var v []int
		for _, q := range all {
			v = append(v, of(q))
		}
		slices.Sort(v)
		return v[(len(v)-1)*percent/100]
	}
	input, output := func(q Request) int { return q.Input }, func(q Request) int { return q.Output }
	for _, c := range []struct {
		name      string
		got, want int
	}{
		{"prompt p10", at(10, input), 964}, {"prompt p50", at(50, input), 6909}, {"prompt p99", at(99, input), 85400},
		{"answer p10", at(10, output), 24}, {"answer p50", at(50, output), 350}, {"answer p99", at(99, output), 1119},
	} {
		if c.got < c.want*90/100 || c.got > c.want*110/100 {
			t.Errorf("%s: %d, in Mooncake's trace %d", c.name, c.got, c.want)
		}
	}
	sum := Sum(all)
	if rate := float64(sum.Requests) / sum.Length.Seconds(); rate < 3.2 || rate > 3.6 {
		t.Errorf("%.2f requests per second instead of 3.4", rate)
	}
	if mean := sum.Input / int64(sum.Requests); mean < 11_000 || mean > 13_000 {
		t.Errorf("prompts have %d tokens on average instead of about 12,000", mean)
	}
}

// The shipped sample is what Generate makes, so that nobody need wonder where it is from.
func TestSampleIsGenerated(t *testing.T) {
	t.Parallel()
	sample, err := os.ReadFile("sample.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var made bytes.Buffer
	if err := Write(&made, Generate(300, 1)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sample, made.Bytes()) {
		t.Error("make it anew: openclaw-bench trace --requests 300 --seed 1 > bench/trace/sample.jsonl")
	}
	back, err := Read(&made)
	if err != nil || !slices.Equal(back, Generate(300, 1)) {
		t.Errorf("what is written is read differently: %v", err)
	}
}
