package e2e_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// token-proxies are killed, with streams open, and started again over their journals:
// still one row per forwarded request, recovered ones within their bounds, and Redis,
// Postgres and the rows agree.
func TestKilledProxiesLoseNothing(t *testing.T) {
	t.Log("drawn at random, so no run is like another")
	beside(t)
	requests, kills := full(1_000, 2_000), full(3, 6)
	s := stack.New(t, stack.Options{Replicas: 2, Sim: kimisim.Config{MaxLedger: 4 * requests}})
	s.Sim.SetDefaults(kimisim.Behavior{OutputTokens: 40, TokensPerSecond: 60})
	tokens := newPlatform(t, s, usual).several(40)
	load := newLoad(s, tokens)
	done := make(chan struct{})
	go func() {
		defer close(done)
		load.run(requests, 120)
	}()
	for k := range kills {
		time.Sleep(time.Duration(800+rand.IntN(800)) * time.Millisecond)
		open := s.Sim.InFlight()
		s.Proxies[k%2].Kill()
		s.Restart(k % 2)
		t.Logf("kill %d with %d calls open upstream", k+1, open)
	}
	<-done

	s.Eventually("the simulator has ended every call", 30*time.Second, func() bool { return s.Sim.InFlight() == 0 })
	chats := map[string]kimisim.Entry{}
	for _, e := range s.Sim.Ledger() {
		// Only calls whose request arrived whole were forwarded as far as anyone can tell.
		if e.Kind == "chat" {
			chats[e.ID] = e
		}
	}
	var rows []row
	s.Eventually("every forwarded request has its row", 30*time.Second, func() bool {
		rows = readRows(t, s)
		return len(rows) >= len(chats)
	})
	s.Eventually("the worker has taken every event", 30*time.Second, func() bool {
		return s.Redis.UniversalClient().XLen(t.Context(), contract.UsageStreamKey).Val() == 0
	})
	rows = readRows(t, s)
	var recovered int
	for _, r := range rows {
		if r.Settled > r.Reserved {
			t.Errorf("settled %d of %d reserved", r.Settled, r.Reserved)
		}
		if r.Basis == "recovered" {
			recovered++
			if r.Settled == 0 {
				t.Errorf("a recovered request is billed nothing: %+v", r)
			}
		}
		if e, ok := chats[r.UpstreamRequestID]; ok && r.Basis == "upstream" && r.Outcome == "ok" {
			if r.Prompt != int64(e.PromptTokens) || r.Completion != int64(e.CompletionTokens) {
				t.Errorf("metered %d+%d, upstream counted %d+%d", r.Prompt, r.Completion, e.PromptTokens, e.CompletionTokens)
			}
		}
	}
	t.Logf("%d rows for %d forwarded requests, %d of them recovered", len(rows), len(chats), recovered)
	if len(rows) < len(chats) || recovered == 0 {
		t.Errorf("%d rows for %d forwarded requests, %d recovered", len(rows), len(chats), recovered)
	}
	// A request that was journalled and killed before its first byte went out has a row
	// as well: at most the requests open at a kill.
	if most := len(chats) + kills*120; len(rows) > most {
		t.Errorf("%d rows for %d forwarded requests", len(rows), len(chats))
	}
	seen := map[string]bool{}
	for _, id := range strings.Fields(s.Postgres.Query("SELECT request_id FROM usage_events")) {
		if seen[id] {
			t.Errorf("request %s has two rows", id)
		}
		seen[id] = true
	}
	// What was reserved and not yet journalled at a kill stays held until it expires.
	compareTotals(t, s, tokens, rows, false)
}
