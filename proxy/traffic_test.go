package proxy_test

import (
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// A replica says what passes through it now, and what has, refusals by their classes.
func TestTraffic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(patientUpstream)
	if v := r.Traffic(); v.Started == 0 || v.InFlight != 0 || v.Answered != 0 || v.Tokens != 0 || len(v.Refused) != 0 {
		t.Errorf("at the beginning %+v", v)
	}
	tok, _ := w.token(nil)
	r.served(faces[0], tok)
	if a := r.post(faces[1], tok, chat(true, "hello")); a.status != http.StatusOK {
		t.Fatal(a.status)
	}
	slow, _ := w.token(func(g *contract.Grant) { g.RequestsPerSecond, g.Burst = 0.001, 1 })
	r.served(faces[0], slow)
	over, _ := w.token(func(g *contract.Grant) { g.MonthlyLimit = 1 })
	for token, body := range map[string]string{slow: chat(false, "x"), over: chat(false, "x"), "ocp_unknown": chat(false, "x"), tok: "no JSON"} {
		if a := r.post(faces[0], token, body); a.status < 400 {
			t.Errorf("%s was served", token)
		}
	}
	tokens := int64(0)
	for _, e := range w.chats() {
		tokens += int64(e.PromptTokens + e.ProducedTokens)
	}
	want := map[contract.RefusalClass]int64{contract.RefusedRate: 1, contract.RefusedQuota: 1, contract.RefusedAuth: 1, contract.RefusedRequest: 1}
	eventually(t, "all are counted and over", func() bool { now := r.Traffic(); return now.Answered == 3 && now.InFlight == 0 && now.Streams == 0 })
	v := r.Traffic()
	if v.Tokens != tokens || tokens == 0 || !maps.Equal(v.Refused, want) {
		t.Errorf("%+v, want %d tokens and %v", v, tokens, want)
	}

	l, arrived := r.leaver(faces[0], tok, chat(true, sim(kimisim.Behavior{StallAfterEvents: 4})), 2)
	<-arrived
	if now := r.Traffic(); now.InFlight != 1 || now.Streams != 1 || now.Started != v.Started || now.Uptime < v.Uptime {
		t.Errorf("with a stream %+v", now)
	}
	l.leave()
	eventually(t, "it has left", func() bool { now := r.Traffic(); return now.InFlight == 0 && now.Streams == 0 })
}

// Each reason to refuse is of a class that is announced, and each class has reasons.
func TestEachRefusalHasAClass(t *testing.T) {
	t.Parallel()
	seen := map[contract.RefusalClass]bool{}
	for reason, class := range proxy.RefusalClasses() {
		if !slices.Contains(contract.RefusalClasses(), class) {
			t.Errorf("%s is of class %q", reason, class)
		}
		seen[class] = true
	}
	if len(seen) != len(contract.RefusalClasses()) {
		t.Errorf("only %v have reasons", slices.Collect(maps.Keys(seen)))
	}
}
