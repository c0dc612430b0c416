package kimisim_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

var oneTool = map[string]any{
	"openai": []any{map[string]any{"type": "function", "function": map[string]any{
		"name": "read", "parameters": map[string]any{"type": "object", "required": []string{"path", "lines", "mode"},
			"properties": map[string]any{"path": map[string]any{"type": "string"}, "lines": map[string]any{"type": "integer"},
				"mode": map[string]any{"type": "string", "enum": []string{"text", "hex"}}}}}}},
	"anthropic": []any{map[string]any{"name": "read", "input_schema": map[string]any{"type": "object", "required": []string{"path", "lines", "mode"},
		"properties": map[string]any{"path": map[string]any{"type": "string"}, "lines": map[string]any{"type": "integer"},
			"mode": map[string]any{"type": "string", "enum": []string{"text", "hex"}}}}}},
}

// Each case is asked for as a stream and as a whole; what a client can count, the usage it
// is told and the ledger agree.
func TestAnswersCountTheSameEverywhere(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, sim  string
		fields     map[string]any
		completion int    // -1: only the agreement counts
		finish     string // OpenAI's words
	}{
		{"derived length", `{}`, nil, -1, "stop"},
		{"chosen length", `{"output_tokens":37}`, nil, 37, "stop"},
		{"several per chunk", `{"output_tokens":37,"tokens_per_chunk":4}`, nil, 37, "stop"},
		{"nothing", `{"output_tokens":-1}`, nil, 0, "stop"},
		{"capped", `{"output_tokens":37}`, map[string]any{"max_tokens": 10}, 10, "length"},
		{"cap not reached", `{"output_tokens":37}`, map[string]any{"max_tokens": 37}, 37, "stop"},
		{"cap of one", `{"output_tokens":37}`, map[string]any{"max_tokens": 1}, 1, "length"},
		{"exceeds its cap", `{"output_tokens":37,"exceed_cap":true}`, map[string]any{"max_tokens": 10}, 37, "stop"},
		{"reasoning", `{"output_tokens":20,"reasoning_tokens":12}`, nil, 20, "stop"},
		{"reasoning capped", `{"output_tokens":20,"reasoning_tokens":12}`, map[string]any{"max_tokens": 5}, 5, "length"},
		{"cached", `{"output_tokens":3,"cached_tokens":2}`, nil, 3, "stop"},
		{"more cached than there is", `{"output_tokens":3,"cached_tokens":20000}`, nil, 3, "stop"},
		{"text of its own", `{"text":"Grüße, \"Welt\" 你好 \\ 👋\n end"}`, nil, 6, "stop"},
		{"big event", `{"output_tokens":3,"big_event":100000}`, nil, 3, "stop"},
		{"big event and text", `{"text":"one two three","big_event":5000}`, nil, 3, "stop"},
		{"small writes", `{"output_tokens":5,"chunk_bytes":7}`, nil, 5, "stop"},
		{"several events per write", `{"output_tokens":9,"events_per_write":4,"chunk_bytes":300}`, nil, 9, "stop"},
		{"gzip", `{"output_tokens":5,"gzip":true}`, nil, 5, "stop"},
		{"close delimited", `{"output_tokens":5,"close_delimited":true}`, nil, 5, "stop"},
		{"no keep-alive", `{"output_tokens":5,"no_keep_alive":true}`, nil, 5, "stop"},
		{"paced", `{"output_tokens":5,"ttft":"20ms","tokens_per_second":500}`, nil, 5, "stop"},
		{"early head", `{"output_tokens":5,"ttft":"10ms","early_head":true}`, nil, 5, "stop"},
		{"slow head", `{"output_tokens":5,"slow_headers":"1ms"}`, nil, 5, "stop"},
		{"pause in the middle", `{"output_tokens":5,"stall_after_events":2,"stall_for":"30ms"}`, nil, 5, "stop"},
	} {
		for _, f := range faces {
			for _, stream := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/stream=%v", tc.name, f.name, stream), func(t *testing.T) {
					t.Parallel()
					s := start(t, kimisim.Config{})
					fields := map[string]any{"stream": stream}
					for k, v := range tc.fields {
						fields[k] = v
					}
					r := ask(t, s, f, tc.sim, fields)
					if r.err != nil || r.status != 200 {
						t.Fatalf("status %d, %v: %s", r.status, r.err, r.raw)
					}
					e, ok := s.Find(r.header.Get("Msh-Request-Id"))
					if !ok || e.Outcome != kimisim.OutcomeComplete || !e.UsageSent || e.ProducedTokens != e.CompletionTokens {
						t.Errorf("right after the last byte the ledger has %+v", e)
					}
					if got, want := usageOf(t, f, r.lastUsage(t)), ledgerUsage(e); got != want {
						t.Errorf("usage sent %s, ledger %s", got, want)
					}
					if r.tokens() != e.CompletionTokens || tc.completion >= 0 && e.CompletionTokens != tc.completion {
						t.Errorf("%d tokens received, %d in the ledger, want %d", r.tokens(), e.CompletionTokens, tc.completion)
					}
					finish := tc.finish
					if f.name == "anthropic" {
						finish = map[string]string{"stop": "end_turn", "length": "max_tokens"}[finish]
					}
					if r.finish != finish || stream && !r.done {
						t.Errorf("finish %q, want %q; end mark %v", r.finish, finish, r.done)
					}
					if e.CachedTokens > e.PromptTokens {
						t.Errorf("%d of %d prompt tokens are cached", e.CachedTokens, e.PromptTokens)
					}
					if e.ReasoningTokens != kimisim.CountTokens(r.reasoning) {
						t.Errorf("reasoning %d, received %d", e.ReasoningTokens, kimisim.CountTokens(r.reasoning))
					}
					if e.Stream != stream || e.Face != f.name || e.Key != fakeKey || e.Status != 200 || !e.ClosedAt.IsZero() {
						t.Errorf("entry %+v", e)
					}
					if !strings.Contains(r.raw, e.BodyID) && !strings.Contains(tc.sim, "gzip") {
						t.Errorf("the answer does not name %s", e.BodyID)
					}
				})
			}
		}
	}
}

func TestTheSameMessagesGetTheSameAnswer(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		a := ask(t, s, f, "", map[string]any{"max_tokens": 900})
		b := ask(t, s, f, "", map[string]any{"max_tokens": 800, "stream": false})
		c := ask(t, s, f, "", map[string]any{"messages": []any{map[string]any{"role": "user", "content": "other"}}})
		if a.text != b.text || a.text == "" {
			t.Errorf("a cap that is not reached changed the answer: %q, %q", a.text, b.text)
		}
		if a.text == c.text {
			t.Error("another prompt got the same answer")
		}
	})
}

func TestOpenAIOnlyTheLowerCapCounts(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	for _, fields := range []map[string]any{
		{"max_tokens": 5, "max_completion_tokens": 9}, {"max_tokens": 9, "max_completion_tokens": 5},
		{"max_tokens": nil, "max_completion_tokens": 5},
	} {
		if r := ask(t, s, faces[0], `{"output_tokens":20}`, fields); r.tokens() != 5 || r.finish != "length" {
			t.Errorf("%v: %d tokens, %q", fields, r.tokens(), r.finish)
		}
	}
}

func TestHiddenTokensAreInTheUsageOnly(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		r := ask(t, s, f, `{"output_tokens":10,"hidden_tokens":4}`, nil)
		e := closedEntry(t, s, "")
		if r.tokens() != 10 || e.CompletionTokens != 14 || e.ProducedTokens != 10 {
			t.Errorf("received %d, ledger %+v", r.tokens(), e)
		}
		r = ask(t, s, f, `{"output_tokens":10,"hidden_tokens":4}`, map[string]any{"max_tokens": 12})
		if e = closedEntry(t, s, ""); r.tokens() != 8 || e.CompletionTokens != 12 {
			t.Errorf("with a cap: received %d, ledger %+v", r.tokens(), e)
		}
	})
}

func TestThinkingSettingsAreObeyed(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		r := ask(t, s, f, `{"reasoning_tokens":20}`, map[string]any{"thinking": map[string]any{"type": "enabled", "budget_tokens": 7}})
		if n := kimisim.CountTokens(r.reasoning); n != 7 {
			t.Errorf("%d reasoning tokens with a budget of 7", n)
		}
		r = ask(t, s, f, `{"reasoning_tokens":20}`, map[string]any{"thinking": map[string]any{"type": "disabled"}})
		if r.reasoning != "" {
			t.Errorf("reasoning %q although disabled", r.reasoning)
		}
	})
}

func TestToolCalls(t *testing.T) {
	t.Parallel()
	asked := []any{map[string]any{"role": "user", "content": "please call the tool now"}}
	answered := map[string][]any{
		"openai": {asked[0], map[string]any{"role": "assistant", "content": ""}, map[string]any{"role": "tool", "tool_call_id": "read:0", "content": "milk"}},
		"anthropic": {asked[0], map[string]any{"role": "assistant", "content": []any{map[string]any{"type": "tool_use", "id": "t", "name": "read", "input": map[string]any{}}}},
			map[string]any{"role": "user", "content": []any{map[string]any{"type": "tool_result", "tool_use_id": "t", "content": "milk"}}}},
	}
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		toolFinish := map[string]string{"openai": "tool_calls", "anthropic": "tool_use"}[f.name]
		for _, stream := range []bool{true, false} {
			for name, fields := range map[string]map[string]any{
				"asked for in the text": {"messages": asked},
				"required":              {"tool_choice": map[string]any{"openai": any("required"), "anthropic": map[string]any{"type": "any"}}[f.name]},
				"behaviour":             {},
			} {
				fields["tools"], fields["stream"] = oneTool[f.name], stream
				sim := `{}`
				if name == "behaviour" {
					sim = `{"tool_calls":2}`
				}
				r := ask(t, s, f, sim, fields)
				e := closedEntry(t, s, r.header.Get("Msh-Request-Id"))
				want := 1 + strings.Count(sim, "2")
				if len(r.args) != want || r.finish != toolFinish {
					t.Errorf("%s: %d calls, finish %q: %s", name, len(r.args), r.finish, r.raw)
				}
				for _, a := range r.args {
					var args struct {
						Path  string
						Lines int
						Mode  string
					}
					if err := json.Unmarshal([]byte(a), &args); err != nil || args.Path == "" || args.Lines != 1 || args.Mode != "text" {
						t.Errorf("%s: arguments %q: %v", name, a, err)
					}
				}
				// A whole Anthropic answer holds the arguments as an object, whose spaces are
				// not part of it.
				if (stream || f.name == "openai") && r.tokens() != e.CompletionTokens {
					t.Errorf("%s: received %d tokens, ledger %d", name, r.tokens(), e.CompletionTokens)
				}
			}
			r := ask(t, s, f, `{"tool_calls":1}`, map[string]any{"tools": oneTool[f.name], "stream": stream, "messages": answered[f.name]})
			if len(r.args) != 0 || r.text == "" {
				t.Errorf("after the tool's result: %s", r.raw)
			}
			r = ask(t, s, f, "", map[string]any{"messages": asked, "stream": stream})
			if len(r.args) != 0 {
				t.Errorf("called a tool that the request does not have: %s", r.raw)
			}
		}
		r := ask(t, s, f, `{"tool_calls":1,"tool_name":"weather","tool_arguments":"{\"city\": \"Oslo\"}"}`, nil)
		if !strings.Contains(r.raw, `"weather"`) {
			t.Errorf("no weather in %s", r.raw)
		}
		for _, a := range r.args {
			if a != `{"city": "Oslo"}` {
				t.Errorf("arguments %q", a)
			}
		}
		r = ask(t, s, f, "", map[string]any{"messages": asked, "tools": oneTool[f.name], "max_tokens": 3})
		if r.tokens() != 3 || r.finish == toolFinish {
			t.Errorf("capped: %d tokens, %q", r.tokens(), r.finish)
		}
	})
}

func TestUsagePlaces(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	include := map[string]any{"stream_options": map[string]any{"include_usage": true}}
	for _, tc := range []struct {
		place       string
		fields      map[string]any
		choice, top int
	}{
		{"auto", nil, 1, 0}, {"auto", include, 0, 1}, {"choice", include, 1, 0}, {"top", nil, 0, 1},
		{"both", nil, 1, 1}, {"none", include, 0, 0},
	} {
		r := ask(t, s, faces[0], `{"output_tokens":2,"usage_place":"`+tc.place+`"}`, tc.fields)
		choice, top := 0, 0
		for _, ev := range r.events {
			choices := ev["choices"].([]any)
			if _, ok := ev["usage"].(map[string]any); ok {
				top++
				if len(choices) != 0 {
					t.Errorf("top-level usage beside choices: %v", ev)
				}
			}
			if len(choices) > 0 && choices[0].(map[string]any)["usage"] != nil {
				choice++
			}
		}
		if choice != tc.choice || top != tc.top || !r.done {
			t.Errorf("%s with %v: %d in choices, %d on top: %s", tc.place, tc.fields, choice, top, r.raw)
		}
		if e := closedEntry(t, s, r.header.Get("Msh-Request-Id")); e.UsageSent != (tc.place != "none") {
			t.Errorf("%s: ledger says sent=%v", tc.place, e.UsageSent)
		}
	}
	for place, want := range map[string]string{
		"auto": "5 0 0|5 0 2", "start+delta": "5 0 0|5 0 2", "delta": "0 0 0|5 0 2", "none": "0 0 0",
	} {
		r := ask(t, s, faces[1], `{"output_tokens":2,"usage_place":"`+place+`"}`, nil)
		var got []string
		for _, u := range r.usages {
			got = append(got, usageOf(t, faces[1], u))
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%s: usage %v, want %s", place, got, want)
		}
	}
}

func TestNonsenseUsage(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		for sim, want := range map[string]string{
			`{"negative_usage":true}`: "-7 0 -7", `{"absurd_usage":true}`: "1000000000000000 0 1000000000000000",
		} {
			if r := ask(t, s, f, sim, nil); usageOf(t, f, r.lastUsage(t)) != want {
				t.Errorf("%s: %v", sim, r.lastUsage(t))
			}
		}
		if r := ask(t, s, f, `{"raw_usage":{"odd":[1]}}`, nil); r.lastUsage(t)["odd"] == nil {
			t.Errorf("raw usage: %s", r.raw)
		}
	})
}

func TestSeveralChoices(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	for _, stream := range []bool{true, false} {
		r := ask(t, s, faces[0], `{"output_tokens":4}`, map[string]any{"n": 3, "max_tokens": 2, "stream": stream})
		if n := number(t, r.lastUsage(t), "completion_tokens"); n != 6 || r.tokens() != 6 {
			t.Errorf("stream=%v: usage %d, received %d", stream, n, r.tokens())
		}
		if stream && !strings.Contains(r.raw[strings.LastIndex(r.raw, "finish_reason"):], `"usage"`) {
			t.Errorf("usage before the last choice has ended: %s", r.raw)
		}
	}
}

func TestPacing(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		begin := time.Now()
		r := ask(t, s, f, `{"ttft":"100ms","tokens_per_second":100,"output_tokens":21,"stamp":true}`, nil)
		took := time.Since(begin)
		if took < 290*time.Millisecond || took > 30*time.Second {
			t.Errorf("21 tokens at 100/s after 100 ms took %v", took)
		}
		last := int64(0)
		for _, ev := range r.events {
			at := int64(ev["t"].(float64))
			if at < last || at < begin.UnixNano()-1e6 {
				t.Errorf("stamps go backwards: %v", ev)
			}
			last = at
		}
		// The last token is stamped when it is sent, not when it is made and waits.
		behind := map[string]int{"openai": 1, "anthropic": 3}[f.name]
		token := r.events[len(r.events)-1-behind]
		if at := time.Unix(0, int64(token["t"].(float64))); at.Sub(begin) < 299*time.Millisecond {
			t.Errorf("a token that is due after 300 ms has the stamp of %v: %v", at.Sub(begin), token)
		}
	})
}
