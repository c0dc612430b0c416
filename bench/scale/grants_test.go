package scale

import (
	"testing"

	"github.com/andreabadesso/openclaw-cloud/bench/peers"
)

func TestTurnsGoThereAndBackAndChangeWhoBegins(t *testing.T) {
	t.Parallel()
	a, b := &peers.Running{Peer: peers.Peer{Name: "a"}}, &peers.Running{Peer: peers.Peer{Name: "b"}}
	for round, want := range []string{"abba", "baab", "abba"} {
		got := ""
		for _, r := range turns(round, a, b) {
			got += r.Name
		}
		if got != want {
			t.Errorf("round %d: %s, want %s", round, got, want)
		}
	}
}
