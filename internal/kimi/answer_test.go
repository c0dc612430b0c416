package kimi_test

import (
	"errors"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

func TestScanAnswerSamples(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file     string
		face     kimi.Face
		id       string
		counts   kimi.Counts
		complete bool
		output   int64
	}{
		{"02_response_nonstream_cached.json", kimi.OpenAI, `"chatcmpl-000000000000000000000001"`, kimi.Counts{Prompt: 1536, Cached: 1280, Completion: 33, Reasoning: 17}, true, 9 + 63 + 63},
		{"02b_response_nonstream_uncached.json", kimi.OpenAI, `"chatcmpl-000000000000000000000002"`, kimi.Counts{Prompt: 41, Completion: 3}, true, 9 + 4},
		{"09e_response_anthropic_nonstream.json", kimi.Anthropic, `"msg_00000000000000000000000002"`, kimi.Counts{Prompt: 512, Cached: 512, Completion: 6}, true, 4 + 14},
		{"11_response_models.json", kimi.OpenAI, "", kimi.Counts{}, false, 261},
		{"11b_response_balance.json", kimi.OpenAI, "", kimi.Counts{}, false, 142},
		{"11c_response_estimate_token_count.json", kimi.OpenAI, "", kimi.Counts{}, false, 39},
	} {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			body := sample(t, c.file)
			var u kimi.Usage
			info, err := kimi.ScanAnswer(body, c.face, &u)
			if err != nil {
				t.Fatal(err)
			}
			counts, complete := u.Counts()
			if counts != c.counts || complete != c.complete || u.Implausible() {
				t.Errorf("counts %+v complete %v implausible %v", counts, complete, u.Implausible())
			}
			if info.Error || info.OutputBytes != c.output || string(body[info.ID.Start:info.ID.End]) != c.id {
				t.Errorf("info %+v, id %s", info, body[info.ID.Start:info.ID.End])
			}
		})
	}
}

func TestScanAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		face       kimi.Face
		output     int64
		isError    bool
	}{
		{"error", `{"error":{"message":"x","type":"y"}}`, kimi.OpenAI, 0, true},
		{"Anthropic's error", `{"type":"error","error":{"message":"x"}}`, kimi.Anthropic, 0, true},
		{"error null", `{"choices":[],"error":null}`, kimi.OpenAI, 0, false},
		{"two choices", `{"choices":[{"message":{"content":"ab"}},{"message":{"content":"cd"}}]}`, kimi.OpenAI, 4, false},
		{"tool call", `{"choices":[{"message":{"tool_calls":[{"id":"a","function":{"name":"b","arguments":"{\"c\":1}"}}]}}]}`, kimi.OpenAI, 1 + 1 + 9, false},
		{"tool use", `{"type":"message","content":[{"type":"tool_use","name":"n","input":{"a":1}}]}`, kimi.Anthropic, 8 + 1 + 7, false},
	} {
		var u kimi.Usage
		info, err := kimi.ScanAnswer([]byte(c.body), c.face, &u)
		if err != nil || info.OutputBytes != c.output || info.Error != c.isError {
			t.Errorf("%s: %+v, %v", c.name, info, err)
		}
	}
	for _, text := range invalid {
		u := usageOf(t, kimi.OpenAI, `{"usage":{"prompt_tokens":5,"completion_tokens":6}}`)
		before := *u
		_, err := kimi.ScanAnswer([]byte(text), kimi.OpenAI, u)
		var se *kimi.SyntaxError
		if !errors.As(err, &se) || *u != before {
			t.Errorf("%q: %v", text, err)
		}
	}
	var fe *kimi.FieldError
	if _, err := kimi.ScanAnswer([]byte(`[1]`), kimi.OpenAI, new(kimi.Usage)); !errors.As(err, &fe) {
		t.Errorf("an array: %v", err)
	}
	body := sample(t, "02_response_nonstream_cached.json")
	cut := body[:len(body)-5]
	var u kimi.Usage
	if _, err := kimi.ScanAnswer(cut, kimi.OpenAI, &u); err == nil || u != (kimi.Usage{}) {
		t.Errorf("a cut answer: %v, usage %+v", err, u)
	}
}

// usageOf reads bodies, each one an answer, one after the other into one Usage.
func usageOf(t *testing.T, face kimi.Face, bodies ...string) *kimi.Usage {
	t.Helper()
	u := new(kimi.Usage)
	for _, b := range bodies {
		if _, err := kimi.ScanAnswer([]byte(b), face, u); err != nil {
			t.Fatalf("%v in %s", err, b)
		}
	}
	return u
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		face        kimi.Face
		bodies      []string
		want        kimi.Counts
		complete    bool
		implausible bool
	}{
		{"nothing", kimi.OpenAI, nil, kimi.Counts{}, false, false},
		{"empty", kimi.OpenAI, []string{`{"usage":{}}`}, kimi.Counts{}, false, false},
		{"null", kimi.OpenAI, []string{`{"usage":null}`}, kimi.Counts{}, false, false},
		{"half", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":5}}`}, kimi.Counts{Prompt: 5}, false, false},
		{"other half", kimi.OpenAI, []string{`{"usage":{"completion_tokens":5}}`}, kimi.Counts{Completion: 5}, false, false},
		{"flat cached count first", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":50,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":7},"cached_tokens":3}}`}, kimi.Counts{Prompt: 50, Cached: 3, Completion: 1}, true, false},
		{"cached in the details", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":50,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":7},"cached_tokens":null}}`}, kimi.Counts{Prompt: 50, Cached: 7, Completion: 1}, true, false},
		{"null never unsets", kimi.OpenAI, []string{`{"choices":[{"usage":{"prompt_tokens":50,"completion_tokens":4}}],"usage":{"prompt_tokens":null,"completion_tokens":9}}`}, kimi.Counts{Prompt: 50, Completion: 9}, true, false},
		{"last wins, zero too", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":50,"completion_tokens":4}}`, `{"usage":{"prompt_tokens":51,"completion_tokens":0}}`}, kimi.Counts{Prompt: 51}, true, false},
		{"usage in a delta is content", kimi.OpenAI, []string{`{"choices":[{"message":{"usage":{"prompt_tokens":1,"completion_tokens":1},"tool_calls":[{"usage":{"prompt_tokens":1}}]}}],"x":{"usage":{"prompt_tokens":9}}}`}, kimi.Counts{}, false, false},
		{"Anthropic's names do not count", kimi.OpenAI, []string{`{"usage":{"input_tokens":1,"output_tokens":1}}`}, kimi.Counts{}, false, false},
		{"keys with escapes", kimi.OpenAI, []string{`{"us\u0061ge":{"prompt\u005ftokens":4,"completion_tokens":5}}`}, kimi.Counts{Prompt: 4, Completion: 5}, true, false},
		{"negative", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":-4,"completion_tokens":5}}`}, kimi.Counts{Completion: 5}, false, true},
		{"fraction", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":4.5,"completion_tokens":5}}`}, kimi.Counts{Completion: 5}, false, true},
		{"text", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":"4","completion_tokens":5}}`}, kimi.Counts{Completion: 5}, false, true},
		{"huge", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":1099511627777,"completion_tokens":5}}`}, kimi.Counts{Completion: 5}, false, true},
		{"largest", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":1099511627776,"completion_tokens":5}}`}, kimi.Counts{Prompt: kimi.MaxCount, Completion: 5}, true, false},
		{"more cached than prompt", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":4,"completion_tokens":5,"cached_tokens":6}}`}, kimi.Counts{Prompt: 4, Cached: 4, Completion: 5}, true, true},
		{"more reasoning than output", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":4,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":6}}}`}, kimi.Counts{Prompt: 4, Completion: 5, Reasoning: 5}, true, true},
		{"output from nothing", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":0,"completion_tokens":5}}`}, kimi.Counts{Completion: 5}, true, true},
		{"zeros", kimi.OpenAI, []string{`{"usage":{"prompt_tokens":0,"completion_tokens":0}}`}, kimi.Counts{}, true, false},

		{"input and both caches", kimi.Anthropic, []string{`{"usage":{"input_tokens":1,"cache_read_input_tokens":20,"cache_creation_input_tokens":300,"output_tokens":4,"output_tokens_details":{"thinking_tokens":3}}}`}, kimi.Counts{Prompt: 321, Cached: 20, Completion: 4, Reasoning: 3}, true, false},
		{"start with zeros alone", kimi.Anthropic, []string{`{"type":"message_start","message":{"usage":{"input_tokens":0,"output_tokens":0}}}`}, kimi.Counts{}, false, false},
		{"start alone", kimi.Anthropic, []string{`{"message":{"usage":{"input_tokens":7,"output_tokens":1}}}`}, kimi.Counts{Prompt: 7, Completion: 1}, false, false},
		{"zeros at the start, then output only", kimi.Anthropic, []string{`{"message":{"usage":{"input_tokens":0,"output_tokens":0}}}`, `{"type":"message_delta","usage":{"output_tokens":9}}`}, kimi.Counts{Completion: 9}, false, true},
		{"start, then output only", kimi.Anthropic, []string{`{"message":{"usage":{"input_tokens":7,"output_tokens":1}}}`, `{"type":"message_delta","usage":{"output_tokens":9}}`}, kimi.Counts{Prompt: 7, Completion: 9}, true, false},
		{"nulls in the delta", kimi.Anthropic, []string{`{"message":{"usage":{"input_tokens":7,"cache_read_input_tokens":2}}}`, `{"type":"message_delta","usage":{"input_tokens":null,"cache_read_input_tokens":null,"output_tokens":9}}`}, kimi.Counts{Prompt: 9, Cached: 2, Completion: 9}, true, false},
		{"cumulative", kimi.Anthropic, []string{`{"message":{"usage":{"input_tokens":7}}}`, `{"usage":{"output_tokens":3}}`, `{"usage":{"output_tokens":9}}`}, kimi.Counts{Prompt: 7, Completion: 9}, true, false},
		{"sum above what is believed", kimi.Anthropic, []string{`{"usage":{"input_tokens":1099511627776,"cache_read_input_tokens":1,"output_tokens":1}}`}, kimi.Counts{Prompt: kimi.MaxCount, Cached: 1, Completion: 1}, true, true},
		{"OpenAI's names do not count", kimi.Anthropic, []string{`{"usage":{"prompt_tokens":1,"completion_tokens":1}}`}, kimi.Counts{}, false, false},
		{"usage in content", kimi.Anthropic, []string{`{"content":[{"type":"tool_use","input":{"usage":{"input_tokens":1,"output_tokens":2}}}],"delta":{"usage":{"output_tokens":3}}}`}, kimi.Counts{}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := usageOf(t, c.face, c.bodies...)
			got, complete := u.Counts()
			if got != c.want || complete != c.complete || u.Implausible() != c.implausible {
				t.Errorf("%+v, complete %v, implausible %v; want %+v, %v, %v", got, complete, u.Implausible(), c.want, c.complete, c.implausible)
			}
		})
	}
}

func TestScanAnswerAllocatesNothing(t *testing.T) {
	body := sample(t, "02_response_nonstream_cached.json")
	if n := testing.AllocsPerRun(100, func() {
		var u kimi.Usage
		if _, err := kimi.ScanAnswer(body, kimi.OpenAI, &u); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
