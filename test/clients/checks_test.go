package clients_test

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// client is an SDK under test.
type client struct {
	name string
	face string // "openai" or "anthropic"
	node bool
	// run does the tasks: phases one after the other, the groups of a phase at the same
	// time, the tasks of a group in order. It calls announced for tasks that ask for it.
	run func(t *testing.T, baseURL string, phases [][][]task, announced func(check string)) map[string]seen
}

func (c client) openai() bool { return c.face == "openai" }

// sdkDefault leaves the number of retries to the SDK, which is 2 with all of them.
const sdkDefault = -1

// check is one thing that a client must be able to do, or must be told.
type check struct {
	name  string
	alone bool   // in order, before all others: their time is part of the check
	face  string // the only one that it is for
	sim   kimisim.Behavior
	task  task
	token func(*system) stack.Token // the main customer if nil
	want  func(t *testing.T, s *system, c client, o *seen)
}

// paced is an answer of four seconds.
var paced = kimisim.Behavior{OutputTokens: 96, TokensPerSecond: 24}

var toolCall = kimisim.Behavior{ToolCalls: 1, ToolArguments: `{"city": "Lisbon"}`}

func answers() []check {
	return []check{
		{name: "chat", task: task{Call: "chat"}, sim: kimisim.Behavior{OutputTokens: 12, CachedTokens: -1}, want: wantAnswer(12)},
		{name: "long prompt, cached", task: task{Call: "chat", Pad: 20_000}, sim: kimisim.Behavior{OutputTokens: 5, CachedTokens: -1}, want: wantCached},
		{name: "token in Authorization", face: "anthropic", task: task{Call: "chat", Bearer: true}, sim: kimisim.Behavior{OutputTokens: 3}, want: wantAnswer(3)},
		{name: "stream", task: task{Call: "stream"}, sim: paced, want: wantIncremental},
		{name: "stream with usage", task: task{Call: "stream", IncludeUsage: true}, sim: kimisim.Behavior{OutputTokens: 9, CachedTokens: 4}, want: wantStreamUsage},
		{name: "usage beside the finish reason", face: "openai", task: task{Call: "stream"}, sim: kimisim.Behavior{OutputTokens: 7}, want: wantAnswer(7)},
		{name: "reasoning", task: task{Call: "stream", IncludeUsage: true, Thinking: 1024}, sim: kimisim.Behavior{OutputTokens: 20, ReasoningTokens: 8}, want: wantReasoning},
		{name: "reasoning without streaming", task: task{Call: "chat", Thinking: 1024}, sim: kimisim.Behavior{OutputTokens: 20, ReasoningTokens: 8}, want: wantReasoning},
		{name: "tool call", task: task{Call: "tools"}, sim: toolCall, want: wantTool},
		{name: "tool call, streamed", task: task{Call: "tools_stream"}, sim: toolCall, want: wantTool},
		{name: "length limit", task: task{Call: "chat", MaxTokens: 6}, sim: kimisim.Behavior{OutputTokens: 50}, want: wantLength},
		{name: "models", task: task{Call: "models"}, want: wantModels},
	}
}

func refusals() []check {
	return []check{
		{name: "malformed token", task: task{Call: "chat", Token: "ocp_notatoken", Retries: sdkDefault}, want: wantRefusal(401, "authentication_error")},
		{name: "unknown token", task: task{Call: "chat", Token: "ocp_000000000000000000000000000000000000", Retries: sdkDefault}, want: wantRefusal(401, "authentication_error")},
		{name: "revoked token", task: task{Call: "stream", Retries: sdkDefault}, token: func(s *system) stack.Token { return s.revoked }, want: wantRefusal(401, "authentication_error")},
		{name: "suspended", task: task{Call: "chat", Retries: sdkDefault}, token: func(s *system) stack.Token { return s.suspended }, want: wantRefusal(403, "permission_error")},
		{name: "unknown model", task: task{Call: "stream", Model: "gpt-none", Retries: sdkDefault}, want: wantRefusal(404, "model_not_found")},
		{name: "unknown path", task: task{Call: "unknown_path", Retries: sdkDefault}, want: wantRefusal(404, "not_found_error")},
		{name: "bad request", task: task{Call: "chat", MaxTokens: -1, Retries: sdkDefault}, want: wantRefusal(400, "invalid_request_error")},
		{name: "body too large", task: task{Call: "chat", Pad: 9 << 20, Retries: sdkDefault}, want: wantRefusal(413, "request_too_large")},
		{name: "bad request, says the upstream", task: task{Call: "chat", Retries: sdkDefault}, sim: kimisim.Behavior{Error: "400 content filter"}, want: all(wantRefusal(400, "content_filter"), wantForwarded(1))},

		{name: "rate: first", alone: true, task: task{Call: "chat"}, sim: kimisim.Behavior{OutputTokens: 2}, token: slow, want: wantAnswerOf(slow, 2)},
		{name: "rate: refused", alone: true, task: task{Call: "chat"}, token: slow, want: wantRateRefused},
		{name: "rate: retried", alone: true, task: task{Call: "stream", Retries: 6}, sim: kimisim.Behavior{OutputTokens: 3}, token: slow, want: wantRetried},
		{name: "monthly limit", task: task{Call: "stream", Retries: sdkDefault}, token: exhausted, want: wantMonthly},

		{name: "upstream 429", task: task{Call: "chat"}, sim: kimisim.Behavior{Error: "429 RPM"}, want: wantUpstreamBusy},
		{name: "upstream 500, retried", task: task{Call: "chat", Retries: sdkDefault}, sim: kimisim.Behavior{Error: "500 server error"}, want: all(wantRefusal(500, "server_error"), wantForwarded(3))},
		{name: "upstream 502 in HTML", task: task{Call: "stream"}, sim: kimisim.Behavior{Non2xxHTML: true}, want: wantRefusal(503, "upstream_unavailable")},
		{name: "upstream key refused", task: task{Call: "chat"}, sim: kimisim.Behavior{Error: "401 bad key"}, want: all(wantRefusal(502, "upstream_error"), wantAlert)},
		{name: "upstream account empty", task: task{Call: "stream"}, sim: kimisim.Behavior{Error: "429 quota"}, want: all(wantRefusal(503, "upstream_unavailable"), wantAlert)},
		{name: "upstream says nothing", task: task{Call: "chat"}, sim: kimisim.Behavior{StallBeforeHead: true}, want: wantRefusal(504, "upstream_timeout")},
	}
}

func slow(s *system) stack.Token      { return s.slow }
func exhausted(s *system) stack.Token { return s.exhausted }

func endings() []check {
	return []check{
		{name: "error event", task: task{Call: "stream"}, sim: kimisim.Behavior{ErrorAfterEvents: 6}, want: wantBroken("", "upstream_error")},
		{name: "cut in mid-event", task: task{Call: "stream"}, sim: kimisim.Behavior{CutMidEvent: 6}, want: wantBroken("upstream_error", "upstream_cut")},
		{name: "cut between events", task: task{Call: "stream"}, sim: kimisim.Behavior{CutAfterEvents: 6}, want: wantBroken("upstream_error", "upstream_cut")},
		{name: "ends without its end mark", task: task{Call: "stream"}, sim: kimisim.Behavior{NoEndMark: true, NoFinish: true}, want: wantBroken("upstream_error", "upstream_cut")},
		{name: "silence in the answer", task: task{Call: "stream"}, sim: kimisim.Behavior{StallAfterEvents: 6}, want: wantBroken("upstream_timeout", "upstream_timeout")},
		{
			name: "revoked while streaming", task: task{Call: "stream", Announce: true, Retries: sdkDefault}, sim: kimisim.Behavior{OutputTokens: 200, TokensPerSecond: 20},
			token: func(s *system) stack.Token { return s.cut }, want: wantBroken("authentication_error", "revoked"),
		},
		{name: "abort", task: task{Call: "stream", AbortAfter: 3}, sim: kimisim.Behavior{OutputTokens: 200, TokensPerSecond: 20}, want: wantAborted},
		{name: "abort in silence", task: task{Call: "stream", AbortAfter: 2}, sim: kimisim.Behavior{StallAfterEvents: 6}, want: wantAborted},
		{name: "timeout of the client", task: task{Call: "chat", TimeoutMS: 3000}, sim: kimisim.Behavior{StallBeforeHead: true}, want: wantClientTimeout},
	}
}

// testClient runs all checks with one client against a system of its own.
func testClient(t *testing.T, c client) {
	t.Helper()
	s := newSystem(t)
	checks := slices.Concat(answers(), refusals(), endings())
	var alone []task
	var together [][]task
	kept := checks[:0]
	for _, ch := range checks {
		if ch.face != "" && ch.face != c.face {
			continue
		}
		kept = append(kept, ch)
		tk := s.task(ch)
		if ch.alone {
			alone = append(alone, tk)
		} else {
			together = append(together, []task{tk})
		}
	}
	phases := [][][]task{{alone}, together}
	var wg sync.WaitGroup
	results := c.run(t, s.Proxies[0].URL, phases, func(string) {
		wg.Go(func() { s.Ctl(nil, "token", "revoke", s.cut.ID) })
	})
	wg.Wait()
	for _, ch := range kept {
		t.Run(ch.name, func(t *testing.T) {
			o, ok := results[ch.name]
			if !ok {
				t.Fatal("the client did not report it")
			}
			s.t = t
			ch.want(t, s, c, &o)
			if t.Failed() {
				shown, _ := json.MarshalIndent(o, "", "  ")
				t.Logf("%s saw: %s", c.name, clip(string(shown), 3000))
			}
		})
	}
	s.t = t
	t.Run("one row per forwarded request", func(t *testing.T) { s.checkRows(t) })
}

func (s *system) task(ch check) task {
	tk := ch.task
	tk.Check = ch.name
	if tk.Token == "" {
		tk.Token = s.main.Raw
		if ch.token != nil {
			tk.Token = ch.token(s).Raw
		}
	}
	if tk.Model == "" {
		tk.Model = model
	}
	ch.sim.Tag = ch.name
	marker, err := json.Marshal(ch.sim)
	if err != nil {
		s.t.Fatal(err)
	}
	tk.Prompt = "How is the weather? [[sim:" + string(marker) + "]]"
	return tk
}

// checkRows compares the number of rows with what the simulator was asked.
func (s *system) checkRows(t *testing.T) {
	s.Eventually("the simulator has ended every call", 5*time.Second, func() bool { return s.Sim.InFlight() == 0 })
	asked := 0
	for _, e := range s.Sim.Ledger() {
		if e.Kind == kimisim.KindChat {
			asked++
		}
	}
	var n int
	s.Eventually("every forwarded request has its row", 5*time.Second, func() bool {
		n = len(strings.Fields(s.Postgres.Query("SELECT request_id FROM usage_events")))
		return n >= asked
	})
	if n != asked {
		t.Errorf("%d rows for %d forwarded requests", n, asked)
	}
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
