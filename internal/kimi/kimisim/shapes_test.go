package kimisim_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

// paths collects the path and the JSON type of each leaf.
func paths(into map[string]bool, at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			into[at+"{}"] = true
		}
		for k, e := range v {
			paths(into, at+"."+k, e)
		}
	case []any:
		if len(v) == 0 {
			into[at+"[]"] = true
		}
		for _, e := range v {
			paths(into, at+"[]", e)
		}
	default:
		into[fmt.Sprintf("%s %T", at, v)] = true
	}
}

func sampleStream(t *testing.T, name string) *result {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "samples", name))
	if err != nil {
		t.Fatal(err)
	}
	r := &result{raw: string(raw), args: map[int]string{}}
	r.readEvents(t)
	return r
}

// What the simulator sends has exactly the fields that the recorded samples have, with
// the same types: none missing, none invented.
func TestStreamsHaveTheFieldsOfTheSamples(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	type run struct {
		sim    string
		fields map[string]any
	}
	prompt := map[string]any{"messages": []any{map[string]any{"role": "user", "content": strings.Repeat("word ", 2000)}}}
	with := func(extra map[string]any) map[string]any {
		m := maps.Clone(prompt)
		maps.Copy(m, extra)
		return m
	}
	usage := map[string]any{"stream_options": map[string]any{"include_usage": true}}
	for _, tc := range []struct {
		face    face
		samples []string
		runs    []run
	}{
		{faces[0], []string{
			"03_stream_usage_in_choice.sse", "04_stream_usage_top_level.sse", "05_stream_tool_calls.sse",
			"06_stream_reasoning_content.sse", "07a_stream_midstream_error_event_UNCONFIRMED.sse",
		}, []run{
			{`{"cached_tokens":-1}`, prompt}, {`{"cached_tokens":-1,"reasoning_tokens":3}`, with(usage)},
			{`{"tool_calls":2}`, with(map[string]any{"tools": oneTool["openai"]})}, {`{"error_after_events":2}`, prompt},
		}},
		{faces[1], []string{
			"09c_stream_anthropic.sse", "09d_stream_anthropic_usage_only_in_delta.sse", "10_stream_anthropic_error_event.sse",
		}, []run{
			{`{"cached_tokens":-1,"reasoning_tokens":3,"tool_calls":1}`, with(map[string]any{"tools": oneTool["anthropic"]})},
			{`{"usage_place":"delta","reasoning_tokens":3}`, prompt}, {`{"error_after_events":4,"ping":1}`, prompt},
		}},
	} {
		want, got := map[string]bool{}, map[string]bool{}
		for _, name := range tc.samples {
			for _, ev := range sampleStream(t, name).events {
				paths(want, fmt.Sprint(ev["type"]), ev)
			}
		}
		for _, r := range tc.runs {
			for _, ev := range ask(t, s, tc.face, r.sim, r.fields).events {
				paths(got, fmt.Sprint(ev["type"]), ev)
			}
		}
		// The two known liberties: both cached fields come together, and a finish chunk in
		// choices tells the reasoning share as the top-level usage does.
		for p := range got {
			if !want[p] && !strings.Contains(p, "choices[].usage.completion_tokens_details") {
				t.Errorf("%s: sent %q, which no sample has", tc.face.name, p)
			}
		}
		for p := range want {
			if !got[p] {
				t.Errorf("%s: never sent %q, which a sample has", tc.face.name, p)
			}
		}
	}
}

// The order of event kinds is that of the samples.
func TestStreamsHaveTheOrderOfTheSamples(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	kinds := func(r *result) string {
		var out []string
		for _, ev := range r.events {
			kind := fmt.Sprint(ev["type"])
			for _, inner := range []string{"delta", "content_block"} {
				if d, ok := ev[inner].(map[string]any); ok {
					kind += fmt.Sprint(" ", d["type"])
				}
			}
			choices, _ := ev["choices"].([]any)
			for _, c := range choices {
				d := c.(map[string]any)["delta"].(map[string]any)
				kind += fmt.Sprint(slices.Sorted(maps.Keys(d)), c.(map[string]any)["finish_reason"])
			}
			if len(out) == 0 || out[len(out)-1] != kind {
				out = append(out, kind)
			}
		}
		return strings.Join(out, "\n") + fmt.Sprint("\nend mark ", r.done)
	}
	include := map[string]any{"stream_options": map[string]any{"include_usage": true}}
	for _, tc := range []struct {
		face   face
		sample string
		sim    string
		fields map[string]any
	}{
		{faces[0], "03_stream_usage_in_choice.sse", `{}`, nil},
		{faces[0], "04_stream_usage_top_level.sse", `{}`, include},
		{faces[0], "05_stream_tool_calls.sse", `{"tool_calls":1}`, nil},
		{faces[0], "06_stream_reasoning_content.sse", `{"reasoning_tokens":4}`, include},
		{faces[0], "07a_stream_midstream_error_event_UNCONFIRMED.sse", `{"error_after_events":2}`, nil},
		{faces[1], "09c_stream_anthropic.sse", `{"reasoning_tokens":2,"tool_calls":1}`, nil},
		{faces[1], "09d_stream_anthropic_usage_only_in_delta.sse", `{"reasoning_tokens":2,"tool_calls":1,"usage_place":"delta"}`, nil},
	} {
		if got, want := kinds(ask(t, s, tc.face, tc.sim, tc.fields)), kinds(sampleStream(t, tc.sample)); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.sample, got, want)
		}
	}
}

func TestWholeAnswersHaveTheFieldsOfTheSamples(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	for _, tc := range []struct {
		face        face
		sample, sim string
	}{
		{faces[0], "02_response_nonstream_cached.json", `{"cached_tokens":3,"reasoning_tokens":2}`},
		{faces[0], "02b_response_nonstream_uncached.json", `{}`},
		{faces[1], "09e_response_anthropic_nonstream.json", `{"cached_tokens":3}`},
	} {
		want, got := map[string]bool{}, map[string]bool{}
		paths(want, "", sampleJSON(t, tc.sample))
		paths(got, "", any(ask(t, s, tc.face, tc.sim, map[string]any{"stream": false}).events[0]))
		if !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", tc.sample, got, want)
		}
	}
}

func sampleJSON(t *testing.T, name string) any {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "samples", name))
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOtherEndpointsHaveTheFieldsOfTheSamples(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	for _, tc := range []struct{ sample, method, path, body string }{
		{"11_response_models.json", "GET", "/v1/models", ""},
		{"11_response_models.json", "GET", "/coding/v1/models", ""},
		{"11b_response_balance.json", "GET", "/v1/users/me/balance", ""},
		{"11c_response_estimate_token_count.json", "POST", "/v1/tokenizers/estimate-token-count", body(t, nil)},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), tc.method, s.URL()+tc.path, strings.NewReader(tc.body))
		req.Header.Set("Authorization", "Bearer "+fakeKey)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		err = json.NewDecoder(res.Body).Decode(&v)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%s: %d %v", tc.path, res.StatusCode, err)
		}
		want, got := map[string]bool{}, map[string]bool{}
		paths(want, "", sampleJSON(t, tc.sample))
		paths(got, "", v)
		if !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", tc.path, got, want)
		}
	}
}

// The recorded requests are understood, whatever else is in them.
func TestSampleRequestsAreAnswered(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	for sample, path := range map[string]string{
		"01_request_openai_openclaw.json": "/v1/chat/completions", "01b_request_openai_image.json": "/v1/chat/completions",
		"09_request_anthropic_openclaw.json": "/coding/v1/messages",
	} {
		raw, err := os.ReadFile(filepath.Join("testdata", "samples", sample))
		if err != nil {
			t.Fatal(err)
		}
		res, err := post(t, s.URL()+path, "", string(raw))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		e, _ := s.Find(res.Header.Get("Msh-Request-Id"))
		if res.StatusCode != 200 || e.PromptTokens == 0 || e.OutputCap <= 0 || !e.Stream || e.BodySize != len(raw) {
			t.Errorf("%s: %d %+v", sample, res.StatusCode, e)
		}
		if strings.Contains(sample, "image") && (e.PromptTokens < kimisim.TokensPerImage || e.UserID != "agent-0001") {
			t.Errorf("%s: %+v", sample, e)
		}
	}
}
