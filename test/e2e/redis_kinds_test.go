package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// settledDown waits until all is quiet, and returns the forwarded requests by the
// upstream's name for them, and the rows.
func settledDown(t *testing.T, s *stack.Stack) (chats map[string]kimisim.Entry, rows []row) {
	t.Helper()
	s.Eventually("the simulator has ended every call", 30*time.Second, func() bool { return s.Sim.InFlight() == 0 })
	chats = map[string]kimisim.Entry{}
	for _, e := range s.Sim.Ledger() {
		if e.Kind == "chat" {
			chats[e.ID] = e
		}
	}
	s.Eventually("every forwarded request has its row", time.Minute, func() bool {
		rows = readRows(t, s)
		return len(rows) >= len(chats)
	})
	rdb := s.Redis.UniversalClient()
	s.Eventually("the worker has taken every event", time.Minute, func() bool {
		n, err := rdb.XLen(t.Context(), contract.UsageStreamKey).Result()
		return err == nil && n == 0
	})
	return chats, readRows(t, s) // a row too many would have come by now
}

// The whole system on a Redis Cluster, whose slots move under load to other masters: the
// usage stream's, the feed's, and those of customers' counters.
func TestOnRedisCluster(t *testing.T) {
	t.Parallel()
	const requests = 600
	r := testenv.RedisCluster(t)
	s := stack.New(t, stack.Options{Redis: r, Replicas: 2, Sim: kimisim.Config{MaxLedger: 2 * requests}})
	tokens := newPlatform(t, s, usual).several(20)
	revoked := s.Customer("Rey", "starter")
	load := newLoad(s, tokens)
	done := make(chan struct{})
	go func() {
		defer close(done)
		load.run(requests, 60)
	}()
	moving := []string{contract.UsageStreamKey, contract.FeedStateKey}
	for _, k := range keys(t, s.Redis.UniversalClient(), contract.QuotaKey("*", "*")) {
		if len(moving) < 6 {
			moving = append(moving, k)
		}
	}
	if len(moving) < 6 {
		t.Fatalf("only %v are there to move", moving)
	}
	for _, key := range moving {
		before := r.Of(key)
		r.Move(key, nil)
		if r.Of(key) == before {
			t.Errorf("%s has not moved", key)
		}
	}
	s.Ctl(nil, "token", "revoke", revoked.ID)
	for i, p := range s.Proxies {
		s.Eventually("the revoked token is refused", 5*time.Second, func() bool { return ask(p, revoked.Raw) == http.StatusUnauthorized })
		if got := ask(s.Proxies[i], tokens[0].Raw); got != http.StatusOK && got != http.StatusTooManyRequests {
			t.Errorf("another token: status %d", got)
		}
	}
	<-done
	chats, rows := settledDown(t, s)
	if len(chats) < requests/2 {
		t.Errorf("only %d requests of %d were forwarded", len(chats), requests)
	}
	compareOnce(t, s, chats, rows)
	compareTotals(t, s, tokens, rows, true)
}

// compareOnce checks that each forwarded request is one row, and that complete ones are
// billed what the upstream counted.
func compareOnce(t *testing.T, s *stack.Stack, chats map[string]kimisim.Entry, rows []row) {
	t.Helper()
	if len(rows) != len(chats) {
		t.Errorf("%d rows for %d forwarded requests", len(rows), len(chats))
	}
	seen := map[string]bool{}
	for _, id := range strings.Fields(s.Postgres.Query("SELECT request_id FROM usage_events")) {
		if seen[id] {
			t.Errorf("request %s has two rows", id)
		}
		seen[id] = true
	}
	for _, r := range rows {
		e, ok := chats[r.UpstreamRequestID]
		if ok && r.Basis == "upstream" && r.Outcome == "ok" && (r.Prompt != int64(e.PromptTokens) || r.Completion != int64(e.CompletionTokens)) {
			t.Errorf("metered %d+%d, upstream counted %d+%d", r.Prompt, r.Completion, e.PromptTokens, e.CompletionTokens)
		}
		if r.Settled > r.Reserved {
			t.Errorf("settled %d of %d reserved", r.Settled, r.Reserved)
		}
	}
}

// The master of Redis dies under load, and its replica, which has not got the last
// writes, takes over: every event still counts once, changes go on to be published, and
// a revocation that was lost with the master holds again.
func TestSentinelFailsOver(t *testing.T) {
	t.Parallel()
	const requests = 600
	r := testenv.RedisSentinel(t)
	s := stack.New(t, stack.Options{Redis: r, Replicas: 2, Sim: kimisim.Config{MaxLedger: 4 * requests}})
	tokens := newPlatform(t, s, usual).several(20)
	early, late := s.Customer("Ada", "starter"), s.Customer("Rey", "starter")
	s.Ctl(nil, "token", "revoke", early.ID)
	load := newLoad(s, tokens)
	done := make(chan struct{})
	go func() {
		defer close(done)
		load.run(requests, 60)
	}()
	half := func() bool { return len(s.Sim.Ledger()) > requests/4 }
	s.Eventually("the load is on", time.Minute, half)

	replica := r.Replica()
	replica.Pause()
	s.Ctl(nil, "token", "revoke", late.ID) // which the replica never hears of
	created := s.Customer("Flo", "starter")
	r.Master().Stop()
	replica.Resume()
	r.FailOver()

	for i, p := range s.Proxies {
		s.Eventually("the new master is in use, and Redis is written anew", time.Minute, func() bool {
			return ask(p, created.Raw) == http.StatusOK && ask(p, late.Raw) == http.StatusUnauthorized
		})
		if got := ask(p, early.Raw); got != http.StatusUnauthorized {
			t.Errorf("proxy %d: a token that was revoked before: status %d", i, got)
		}
	}
	next := s.Customer("Gus", "starter")
	for _, p := range s.Proxies {
		if got := ask(p, next.Raw); got != http.StatusOK {
			t.Errorf("a new token: status %d", got)
		}
	}
	s.Ctl(nil, "token", "revoke", next.ID)
	for _, p := range s.Proxies {
		s.Eventually("the next revocation is heard", 5*time.Second, func() bool { return ask(p, next.Raw) == http.StatusUnauthorized })
	}
	<-done
	chats, rows := settledDown(t, s)
	if len(chats) < requests/2 {
		t.Errorf("only %d requests of %d were forwarded", len(chats), requests)
	}
	compareOnce(t, s, chats, rows)
}
