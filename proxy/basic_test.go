package proxy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// The main job, on both faces, streaming and not: the answer arrives whole, the key is
// swapped, and what is metered is what the upstream counted.
func TestForwardsAndMeters(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		for _, stream := range []bool{true, false} {
			name := f.name
			if stream {
				name += "/stream"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				r := w.replica()
				tok, g := w.token(nil)
				a := r.post(f, tok, chat(stream, "hello"))
				if a.status != 200 || a.err != nil {
					t.Fatalf("status %d, %v: %s", a.status, a.err, a.body)
				}
				if stream && !strings.Contains(a.body, map[bool]string{false: "data: [DONE]", true: "message_stop"}[f.anthropic]) {
					t.Errorf("no end mark in %s", a.body)
				}
				if !stream && !json.Valid([]byte(a.body)) {
					t.Errorf("not JSON: %s", a.body)
				}
				if a.header.Get("X-Request-Id") == "" || a.header.Get("X-Ratelimit-Limit-Tokens") == "" {
					t.Errorf("headers missing: %v", a.header)
				}
				e := w.events(1)[0]
				entry := w.chats()[0]
				if e.Basis != contract.BasisUpstream || e.Outcome != contract.OutcomeOK {
					t.Errorf("basis %s, outcome %s", e.Basis, e.Outcome)
				}
				if e.Prompt != int64(entry.PromptTokens) || e.Completion != int64(entry.CompletionTokens) {
					t.Errorf("metered %d+%d, upstream counted %d+%d", e.Prompt, e.Completion, entry.PromptTokens, entry.CompletionTokens)
				}
				if e.CustomerID != g.CustomerID || e.PeriodID != "p1" || e.Settled != e.Prompt+e.Completion || e.UpstreamRequestID != entry.ID {
					t.Errorf("event %+v", e)
				}
				if strings.Contains(w.logs.String(), tok) || strings.Contains(w.logs.String(), upstreamKey) {
					t.Error("a secret is in the log")
				}
			})
		}
	}
}
