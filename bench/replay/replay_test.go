package replay

import (
	"bytes"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/trace"
)

func TestRequestsHaveTheTracesSizes(t *testing.T) {
	t.Parallel()
	c := Config{
		Trace: []trace.Request{{At: 0, Input: 6758, Output: 500}, {At: 4 * time.Second, Input: 1000, Output: 7}, {At: 8 * time.Second, Input: 3, Output: 0}},
		Speed: 4, TokensPerSecond: 40, Spread: 0.5, TTFT: 300 * time.Millisecond, Target: "h:1", Tokens: []string{"a", "b"},
	}
	l, err := Load(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Arrivals) != 3 || l.Arrivals[1] != time.Second || l.Arrivals[2] != 2*time.Second {
		t.Errorf("arrivals %v", l.Arrivals)
	}
	for n, want := range []struct {
		token, output string
		size          int
	}{{"Bearer a\r\n", `\"output_tokens\":500,`, 6758 * 4}, {"Bearer b\r\n", `\"output_tokens\":7,`, 4000}, {"Bearer a\r\n", `\"output_tokens\":1,`, 0}} {
		j := l.Jobs(uint64(n))
		all := bytes.Join([][]byte{j.Head, j.Fill, j.Tail}, nil)
		head, body, _ := bytes.Cut(all, []byte("\r\n\r\n"))
		if !bytes.Contains(all, []byte(want.token)) || !bytes.Contains(body, []byte(want.output)) {
			t.Errorf("request %d: %s", n, head)
		}
		if !bytes.Contains(head, []byte("Content-Length: "+strconv.Itoa(len(body)))) || want.size > 0 && len(body) != want.size {
			t.Errorf("request %d has %d bytes: %s", n, len(body), head)
		}
		_, pace, _ := bytes.Cut(body, []byte(`tokens_per_second\":`))
		digits, _, _ := bytes.Cut(pace, []byte(","))
		if v, err := strconv.Atoi(string(digits)); err != nil || v < 20 || v > 60 {
			t.Errorf("request %d has pace %s", n, digits)
		}
	}
	c.Repeat = 3
	if l, err = Load(c); err != nil {
		t.Fatal(err)
	}
	if len(l.Arrivals) != 9 || l.Arrivals[8] != 6*time.Second || !slices.IsSorted(l.Arrivals) || !bytes.Equal(l.Jobs(7).Fill, l.Jobs(1).Fill) {
		t.Errorf("three times: arrivals %v", l.Arrivals)
	}
	for _, bad := range []Config{{Trace: c.Trace, TokensPerSecond: 1}, {Trace: c.Trace, Speed: 1}, {Trace: c.Trace, Speed: 1, TokensPerSecond: 1, Spread: 1}} {
		if _, err := Load(bad); err == nil {
			t.Errorf("accepted: %+v", bad)
		}
	}
}
