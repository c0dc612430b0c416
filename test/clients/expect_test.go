package clients_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

type expectation func(t *testing.T, s *system, c client, o *seen)

func all(es ...expectation) expectation {
	return func(t *testing.T, s *system, c client, o *seen) {
		t.Helper()
		for _, e := range es {
			e(t, s, c, o)
		}
	}
}

// metered finds the row of each answer and compares what the client, the simulator and
// Postgres counted. It returns the simulator's entries.
func metered(t *testing.T, s *system, c client, o *seen, tok stack.Token, outcome string) []kimisim.Entry {
	t.Helper()
	if len(o.IDs) == 0 {
		t.Fatal("the client saw no answer")
	}
	var entries []kimisim.Entry
	for i, id := range o.IDs {
		e, ok := s.Sim.Find(id)
		if !ok {
			t.Fatalf("the simulator did not make the answer %q", id)
		}
		entries = append(entries, e)
		r := s.rowOf(t, tok, e.ID)
		if r.Outcome != outcome || r.Face != c.face {
			t.Errorf("outcome %s of face %s in Postgres, want %s of %s", r.Outcome, r.Face, outcome, c.face)
		}
		if outcome != "ok" {
			continue
		}
		want := usage{int64(e.PromptTokens), int64(e.CompletionTokens), int64(e.CachedTokens), int64(e.ReasoningTokens)}
		if got := (usage{r.Prompt, r.Completion, r.Cached, r.Reasoning}); got != want || r.Basis != "upstream" || r.Settled != r.Prompt+r.Completion {
			t.Errorf("metered %+v (settled %d, basis %s), the upstream counted %+v", got, r.Settled, r.Basis, want)
		}
		if len(o.Usages) > 0 {
			if len(o.Usages) != len(o.IDs) {
				t.Fatalf("%d usages for %d answers", len(o.Usages), len(o.IDs))
			}
			if got := o.Usages[i]; got != want {
				t.Errorf("the client was told %+v, the upstream counted %+v", got, want)
			}
		}
	}
	return entries
}

// rowOf waits for the row of an upstream request.
func (s *system) rowOf(t *testing.T, tok stack.Token, upstreamID string) row {
	t.Helper()
	var found row
	s.Eventually("the request is in Postgres", 30*time.Second, func() bool {
		rows := s.rows(tok.Customer)
		i := slices.IndexFunc(rows, func(r row) bool { return r.UpstreamRequestID == upstreamID })
		if i >= 0 {
			found = rows[i]
		}
		return i >= 0
	})
	return found
}

func succeeded(t *testing.T, o *seen) {
	t.Helper()
	if o.Failed {
		t.Fatalf("failed with %v, status %d: %s", o.Classes, o.Status, o.Message)
	}
}

func wantAnswer(tokens int) expectation {
	return wantAnswerOf(func(s *system) stack.Token { return s.main }, tokens)
}

func wantAnswerOf(who func(*system) stack.Token, tokens int) expectation {
	return func(t *testing.T, s *system, c client, o *seen) {
		t.Helper()
		succeeded(t, o)
		metered(t, s, c, o, who(s), "ok")
		if n := kimisim.CountTokens(o.Text); n != tokens {
			t.Errorf("%d tokens of text, want %d: %q", n, tokens, o.Text)
		}
		want := map[bool]string{true: "stop", false: "end_turn"}[c.openai()]
		if !slices.Equal(o.Finish, []string{want}) {
			t.Errorf("finished with %q, want %q", o.Finish, want)
		}
	}
}

func wantCached(t *testing.T, s *system, c client, o *seen) {
	wantAnswer(5)(t, s, c, o)
	if len(o.Usages) != 1 || o.Usages[0].Cached == 0 || o.Usages[0].Cached >= o.Usages[0].Prompt {
		t.Errorf("usage %+v, want a part of the prompt to be cached", o.Usages)
	}
}

// The first content comes while most of the answer is not yet made.
func wantIncremental(t *testing.T, s *system, c client, o *seen) {
	wantAnswer(paced.OutputTokens)(t, s, c, o)
	if o.Events < paced.OutputTokens-1 {
		t.Errorf("%d events, want each token in its own", o.Events)
	}
	if o.Total-o.First < 700 {
		t.Errorf("first content after %.0f ms, all after %.0f ms", o.First, o.Total)
	}
}

func wantStreamUsage(t *testing.T, s *system, c client, o *seen) {
	wantAnswer(9)(t, s, c, o)
	if len(o.Usages) != 1 || o.Usages[0].Cached != 4 {
		t.Errorf("usage %+v, want one with 4 cached tokens", o.Usages)
	}
}

func wantReasoning(t *testing.T, s *system, c client, o *seen) {
	wantAnswer(12)(t, s, c, o)
	if n := kimisim.CountTokens(o.Reasoning); n != 8 {
		t.Errorf("%d tokens of reasoning, want 8: %q", n, o.Reasoning)
	}
	if len(o.Usages) != 1 || o.Usages[0].Reasoning != 8 {
		t.Errorf("usage %+v, want 8 reasoning tokens", o.Usages)
	}
}

func wantTool(t *testing.T, s *system, c client, o *seen) {
	succeeded(t, o)
	metered(t, s, c, o, s.main, "ok")
	if o.Tool != "weather" || strings.ReplaceAll(o.Arguments, " ", "") != `{"city":"Lisbon"}` {
		t.Errorf("called %s(%s)", o.Tool, o.Arguments)
	}
	want := []string{"tool_use", "end_turn"}
	if c.openai() {
		want = []string{"tool_calls", "stop"}
	}
	if !slices.Equal(o.Finish, want) || kimisim.CountTokens(o.Text) < 16 {
		t.Errorf("finished with %q and %q, want %q and a text", o.Finish, o.Text, want)
	}
	if len(o.Usages) != 2 {
		t.Errorf("usage of %d answers, want 2", len(o.Usages))
	}
}

func wantLength(t *testing.T, s *system, c client, o *seen) {
	succeeded(t, o)
	metered(t, s, c, o, s.main, "ok")
	want := map[bool]string{true: "length", false: "max_tokens"}[c.openai()]
	if !slices.Equal(o.Finish, []string{want}) || kimisim.CountTokens(o.Text) != 6 {
		t.Errorf("finished with %q after %q, want %q after 6 tokens", o.Finish, o.Text, want)
	}
}

func wantModels(t *testing.T, _ *system, _ client, o *seen) {
	succeeded(t, o)
	for _, want := range []string{model, "kimi-k2.6", "kimi-k3", "kimi-for-coding"} {
		if !slices.Contains(o.Models, want) {
			t.Errorf("no %s among %q", want, o.Models)
		}
	}
}

// errorClass is the class that a client's users catch for a status. The Go SDKs have one
// class, with the status in it.
func errorClass(c client, status int) string {
	if !c.node {
		return "*" + c.face + ".Error"
	}
	switch status {
	case http.StatusBadRequest:
		return "BadRequestError"
	case http.StatusUnauthorized:
		return "AuthenticationError"
	case http.StatusForbidden:
		return "PermissionDeniedError"
	case http.StatusNotFound:
		return "NotFoundError"
	case http.StatusTooManyRequests:
		return "RateLimitError"
	case http.StatusRequestEntityTooLarge:
		if c.openai() {
			return "APIError" // has no class of its own
		}
		return "ContentTooLargeError"
	}
	return "InternalServerError"
}

// anthropicType is what the Anthropic face calls an error, of the proxy's or of the
// upstream's own. Kimi's 429 has the OpenAI face's type on both.
func anthropicType(typ string) string {
	switch typ {
	case "rate_limit_exceeded":
		return "rate_limit_error"
	case "model_not_found":
		return "not_found_error"
	case "content_filter":
		return "invalid_request_error"
	case "server_error":
		return "api_error"
	}
	return typ
}

// wantRefusal wants the SDK's error class of a status, and the error's type.
func wantRefusal(status int, typ string) expectation {
	return func(t *testing.T, _ *system, c client, o *seen) {
		t.Helper()
		if !o.Failed || o.Status != status || !slices.Contains(o.Classes, errorClass(c, status)) {
			t.Errorf("failed %v with status %d, %v; want status %d, %s", o.Failed, o.Status, o.Classes, status, errorClass(c, status))
		}
		if status != http.StatusUnauthorized && slices.Contains(o.Classes, "AuthenticationError") {
			t.Error("the caller is told that its token is wrong")
		}
		want := typ
		if !c.openai() {
			want = anthropicType(typ)
		}
		if got := o.fields(); got.Type != want || got.Message == "" {
			t.Errorf("error of type %q, want %q, with a message: %q", got.Type, want, got.Message)
		}
		if o.RequestID == "" {
			t.Error("the error does not name the request")
		}
		for _, secret := range []string{"org-EXAMPLE", "ak-EXAMPLE", "sk-fake"} {
			if strings.Contains(o.Body+o.Message, secret) {
				t.Errorf("the error shows %s of the platform's account", secret)
			}
		}
	}
}

// wantForwarded wants so many attempts to have reached the upstream.
func wantForwarded(attempts int) expectation {
	return func(t *testing.T, s *system, _ client, o *seen) {
		t.Helper()
		if got := len(s.tagged(o.Check)); got != attempts {
			t.Errorf("the upstream was asked %d times, want %d", got, attempts)
		}
	}
}

func wantRateRefused(t *testing.T, s *system, c client, o *seen) {
	wantRefusal(http.StatusTooManyRequests, "rate_limit_exceeded")(t, s, c, o)
	if o.RetryAfter != "1" || o.ShouldRetry == "false" {
		t.Errorf("Retry-After %q, x-should-retry %q; want 1 and none", o.RetryAfter, o.ShouldRetry)
	}
}

// The SDK is refused, waits for the second that it is told, as often as it must, and is answered: its user
// notices nothing but the time.
func wantRetried(t *testing.T, s *system, c client, o *seen) {
	wantAnswerOf(slow, 3)(t, s, c, o)
	var got []int // of the first request, of the one that was refused, and of this one's attempts
	s.Eventually("it was answered in the end", 20*time.Second, func() bool {
		got = nil
		for _, l := range s.requests(s.slow.Customer) {
			got = append(got, l.Status)
		}
		return len(got) >= 4 && got[len(got)-1] == http.StatusOK
	})
	if got[0] != http.StatusOK || slices.ContainsFunc(got[1:len(got)-1], func(n int) bool { return n != http.StatusTooManyRequests }) {
		t.Errorf("answered %v", got)
	}
	if o.Total < 900 {
		t.Errorf("took %.0f ms, want the second of Retry-After", o.Total)
	}
	wantForwarded(1)(t, s, c, o)
}

// The limit is told at once: an SDK that waited and asked again would only be told the
// same.
func wantMonthly(t *testing.T, s *system, c client, o *seen) {
	wantRefusal(http.StatusTooManyRequests, "monthly_limit_exceeded")(t, s, c, o)
	s.wantStatuses(s.exhausted.Customer, 429)
	f := o.fields()
	if f.Limit == nil || *f.Limit != 0 || f.Used == nil {
		t.Errorf("the error lacks used and limit: %s", o.Body)
	}
	resets, err := time.Parse(time.RFC3339, f.ResetsAt)
	if err != nil || time.Until(resets) <= 0 || time.Until(resets) > 32*24*time.Hour {
		t.Errorf("resets at %q", f.ResetsAt)
	}
	var seconds int
	_, err = fmt.Sscan(o.RetryAfter, &seconds)
	if off := time.Until(resets) - time.Duration(seconds)*time.Second; err != nil || off.Abs() > time.Minute {
		t.Errorf("Retry-After %q, but it resets at %s", o.RetryAfter, f.ResetsAt)
	}
	if o.ShouldRetry != "false" {
		t.Errorf("x-should-retry %q, want false", o.ShouldRetry)
	}
	wantForwarded(0)(t, s, c, o)
}

func wantUpstreamBusy(t *testing.T, s *system, c client, o *seen) {
	wantRefusal(http.StatusTooManyRequests, "rate_limit_reached_error")(t, s, c, o)
	if o.RetryAfter != "1" {
		t.Errorf("Retry-After %q, want the upstream's 1", o.RetryAfter)
	}
	wantForwarded(1)(t, s, c, o)
}

func wantAlert(t *testing.T, s *system, _ client, _ *seen) {
	if !strings.Contains(s.Proxies[0].FullLog(), "ALERT: the upstream refuses our key or account") {
		t.Error("the operators were not alerted")
	}
}

// wantBroken wants a stream that began, and ended with an error that the caller cannot
// take for the end of the answer. An empty typ is whatever the upstream said.
func wantBroken(typ, outcome string) expectation {
	return func(t *testing.T, s *system, c client, o *seen) {
		t.Helper()
		tok := s.main
		if outcome == "revoked" {
			tok = s.cut
		}
		class := "APIError"
		if !c.node {
			class = map[bool]string{true: "*ssestream.StreamError", false: "*anthropic.Error"}[c.openai()]
		}
		if o.Events == 0 || !o.Failed || !slices.Contains(o.Classes, class) {
			t.Errorf("after %d events failed %v with %v: %s; want %s", o.Events, o.Failed, o.Classes, o.Message, class)
		}
		if got := o.fields().Type; got == "" || typ != "" && got != typ {
			t.Errorf("error of type %q, want %q", got, typ)
		}
		metered(t, s, c, o, tok, outcome)
		wantForwarded(1)(t, s, c, o)
	}
}

// The upstream stops when the client does.
func wantAborted(t *testing.T, s *system, c client, o *seen) {
	if o.At == 0 {
		t.Fatal("the client did not abort")
	}
	e := metered(t, s, c, o, s.main, "client_gone")[0]
	e, err := s.Sim.WaitClosed(e.ID, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if took := e.EndedAt.Sub(time.UnixMilli(o.At)); took > 5*time.Second {
		t.Errorf("the upstream call ended %v after the abort", took)
	}
}

// A client that stops waiting is a client that has gone.
func wantClientTimeout(t *testing.T, s *system, c client, o *seen) {
	class := "APIConnectionTimeoutError"
	if !c.node {
		class = "context.DeadlineExceeded"
	}
	if !o.Failed || !slices.Contains(o.Classes, class) {
		t.Errorf("failed with %v, want %s: %s", o.Classes, class, o.Message)
	}
	entries := s.tagged(o.Check)
	if len(entries) != 1 {
		t.Fatalf("the upstream was asked %d times, want 1", len(entries))
	}
	if e, err := s.Sim.WaitClosed(entries[0].ID, 10*time.Second); err != nil || e.Outcome != kimisim.OutcomeStalled && e.Outcome != kimisim.OutcomeClientGone {
		t.Errorf("the upstream call: %s, %v", e.Outcome, err)
	}
	// Without an answer there is no id to find the row by; no other check ends so.
	var got []string
	s.Eventually("the request is in Postgres", 30*time.Second, func() bool {
		got = nil
		for _, r := range s.rows(s.main.Customer) {
			if r.UpstreamRequestID == "" && r.Outcome != "upstream_timeout" {
				got = append(got, r.Outcome)
			}
		}
		return len(got) > 0
	})
	if !slices.Equal(got, []string{"client_gone"}) {
		t.Errorf("rows without an upstream id have outcomes %q, want one client_gone", got)
	}
}
