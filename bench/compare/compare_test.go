package compare

import (
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/proc"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

func TestTurnsGoThereAndBack(t *testing.T) {
	t.Parallel()
	var all []*peers.Running
	for _, name := range []string{"a", "b", "slow"} {
		all = append(all, &peers.Running{Peer: peers.Peer{Name: name, Gateway: name == "slow"}})
	}
	for _, c := range []struct {
		phase string
		round int
		want  string
	}{
		{record.PhaseRequests, 0, "a b b a slow"},
		{record.PhaseEvents, 1, "b a a b slow"},
		{record.PhaseHalf, 4, "b a slow"},
		{record.PhaseFew, 0, "a b slow"},
	} {
		var got []string
		for _, r := range turns(all, c.phase, c.round) {
			got = append(got, r.Name)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s in round %d: %s, want %s", c.phase, c.round, s, c.want)
		}
	}
}

func TestFewStreamsAreForGatewaysAndWhatTheyAreComparedWith(t *testing.T) {
	t.Parallel()
	var got []string
	for _, p := range peers.All() {
		r := &peers.Running{Peer: p}
		if p.Name != "direct" {
			r.Proc = new(proc.Process)
		}
		if besideGateways(r) {
			got = append(got, p.Name)
		}
	}
	if s := strings.Join(got, " "); s != "direct nginx token-proxy portkey" {
		t.Errorf("measured with few streams: %s", s)
	}
}
