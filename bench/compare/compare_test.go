package compare

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/proc"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// running makes peers of these names as if they ran.
func running(names ...string) []*peers.Running {
	var all []*peers.Running
	for _, p := range peers.All() {
		if !slices.Contains(names, p.Name) {
			continue
		}
		r := &peers.Running{Peer: p}
		if p.Name != "direct" {
			r.Proc = new(proc.Process)
		}
		all = append(all, r)
	}
	return all
}

func list(all []*peers.Running) string {
	var names []string
	for _, r := range all {
		names = append(names, r.Name)
	}
	return strings.Join(names, " ")
}

func TestBlocksAreMeasuredWithTheirBaseline(t *testing.T) {
	t.Parallel()
	var every []string
	for _, p := range peers.All() {
		every = append(every, p.Name)
	}
	for _, c := range []struct {
		running []string
		want    []string
		alone   string
	}{
		{every, []string{"nginx token-proxy", "nginx haproxy reverseproxy fasthttp", "nginx portkey", "nginx-tls token-proxy-tls"}, "direct"},
		{[]string{"direct", "token-proxy"}, []string{"token-proxy"}, "direct"},
		{[]string{"nginx"}, []string{"nginx"}, ""},
		{[]string{"nginx", "fasthttp"}, []string{"nginx fasthttp"}, ""},
	} {
		groups, alone := blocks(running(c.running...))
		var got []string
		for _, g := range groups {
			got = append(got, list(g))
		}
		if !slices.Equal(got, c.want) || list(alone) != c.alone {
			t.Errorf("%v: blocks %q and alone %q, want %q and %q", c.running, got, list(alone), c.want, c.alone)
		}
	}
}

func TestPairsAreEachPeerWithItsBaseline(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ groups, want [][]string }{
		{[][]string{{"direct", "nginx", "token-proxy", "portkey"}}, [][]string{{"nginx", "token-proxy"}, {"nginx", "portkey"}}},
		{[][]string{{"nginx", "haproxy", "fasthttp"}, {"nginx-tls", "token-proxy-tls"}}, [][]string{{"nginx", "haproxy"}, {"nginx", "fasthttp"}, {"nginx-tls", "token-proxy-tls"}}},
		{[][]string{{"haproxy", "fasthttp"}, {"nginx"}}, nil},
	} {
		var groups [][]*peers.Running
		for _, g := range c.groups {
			groups = append(groups, running(g...))
		}
		var got [][]string
		for _, p := range pairs(groups) {
			got = append(got, []string{p[0].Name, p[1].Name})
		}
		for _, p := range c.want {
			if !slices.ContainsFunc(got, func(g []string) bool { return slices.Equal(g, p) }) || len(got) != len(c.want) {
				t.Errorf("%v: %v, want %v", c.groups, got, c.want)
			}
		}
		if len(c.want) == 0 && len(got) > 0 {
			t.Errorf("%v: %v", c.groups, got)
		}
	}
}

func TestTurnsGoThereAndBack(t *testing.T) {
	t.Parallel()
	block := running("nginx", "haproxy")
	for _, c := range []struct {
		passes, round int
		want          string
	}{
		{4, 0, "nginx haproxy haproxy nginx nginx haproxy haproxy nginx"},
		{2, 1, "haproxy nginx nginx haproxy"},
		{1, 2, "nginx haproxy"},
	} {
		if got := list(turns(block, c.passes, c.round)); got != c.want {
			t.Errorf("%d passes in round %d: %s, want %s", c.passes, c.round, got, c.want)
		}
	}
}

// Wherever a stream's events fall in the interval, as many others fall near it.
func TestStreamsAreOutOfStep(t *testing.T) {
	t.Parallel()
	const interval = 10 * time.Millisecond
	m := &measurement{c: Config{BodyBytes: 100, Interval: interval, Events: time.Second}}
	for _, n := range []int{20, 200, 10_000} {
		cfg := m.streams(&peers.Running{}, n)
		phases := make([]int, 20)
		for i := range n {
			at := cfg.Ramp * time.Duration(i) / time.Duration(n) % interval
			phases[int(at*time.Duration(len(phases))/interval)]++
		}
		if even := n / len(phases); slices.Max(phases) > even+max(3, even/5) || slices.Min(phases) < even-max(2, even/5) {
			t.Errorf("%d streams, by when their events come: %v", n, phases)
		}
	}
}

func TestHalfRates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		most, want map[string]float64
		common     float64
	}{
		{ // made round, and for all who can take it
			most: map[string]float64{"nginx": 45000, "token-proxy": 19368, "reverseproxy": 12000, "portkey": 370},
			want: map[string]float64{"nginx": 9000, "token-proxy": 9000, "reverseproxy": 6000, "portkey": 185},
		},
		{most: map[string]float64{"nginx": 20000, "token-proxy": 60000}, want: map[string]float64{"nginx": 10000, "token-proxy": 10000}},
		{most: map[string]float64{"nginx": 45000, "token-proxy": 19368}, common: 3000, want: map[string]float64{"nginx": 3000, "token-proxy": 3000}},
		{most: map[string]float64{"fasthttp": 100}, want: map[string]float64{"fasthttp": 50}},
	} {
		if got := halfRates(c.most, c.common); !maps.Equal(got, c.want) {
			t.Errorf("%v with %v in common: %v, want %v", c.most, c.common, got, c.want)
		}
	}
}

func TestFewStreamsAreForGatewaysAndWhatTheyAreComparedWith(t *testing.T) {
	t.Parallel()
	var got []string
	for _, r := range running("direct", "nginx", "token-proxy", "haproxy", "portkey", "nginx-tls", "token-proxy-tls") {
		if besideGateways(r) {
			got = append(got, r.Name)
		}
	}
	if s := strings.Join(got, " "); s != "direct nginx token-proxy portkey" {
		t.Errorf("measured with few streams: %s", s)
	}
}

// What is promised is looked at most often, and what swings.
func TestTimesTogether(t *testing.T) {
	t.Parallel()
	c := Config{Together: 2}
	for _, want := range []struct {
		peer, phase string
		times       int
	}{
		{"token-proxy", record.PhaseRequests, 5}, {"token-proxy", record.PhaseHalf, 3}, {"token-proxy", record.PhaseEvents, 2}, {"token-proxy", record.PhaseFew, 12},
		{"token-proxy-tls", record.PhaseRequests, 5}, {"haproxy", record.PhaseRequests, 3}, {"haproxy", record.PhaseEvents, 1}, {"portkey", record.PhaseRequests, 5}, {"portkey", record.PhaseFew, 8},
	} {
		if got := c.times(running(want.peer)[0], want.phase); got != want.times {
			t.Errorf("%s, %s: %d times, want %d", want.peer, want.phase, got, want.times)
		}
	}
}
