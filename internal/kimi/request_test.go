package kimi_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

func TestScanRequestSamples(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file         string
		face         kimi.Face
		model        string
		includeUsage bool
		maxTokens    int64
		budget       int64
		images       int
		imageBytes   int
	}{
		{"01_request_openai_openclaw.json", kimi.OpenAI, "kimi-k2.5", true, 32768, 0, 0, 0},
		{"01b_request_openai_image.json", kimi.OpenAI, "kimi-k2.5", false, 1024, 0, 1, 96},
		{"09_request_anthropic_openclaw.json", kimi.Anthropic, "kimi-for-coding", false, 32768, 1024, 0, 0},
	} {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			body := sample(t, c.file)
			r, err := kimi.ScanRequest(body, c.face)
			if err != nil {
				t.Fatal(err)
			}
			if string(r.Model) != c.model || !r.Stream || r.IncludeUsage != c.includeUsage || r.N != 1 {
				t.Errorf("model %q, stream %v, include_usage %v, n %d", r.Model, r.Stream, r.IncludeUsage, r.N)
			}
			if got := string(body[r.ModelSpan.Start:r.ModelSpan.End]); got != `"`+c.model+`"` {
				t.Errorf("model span holds %s", got)
			}
			if r.MaxTokens.Value != c.maxTokens || r.MaxCompletionTokens.Present() || r.OutputCap(7) != c.maxTokens {
				t.Errorf("caps %+v %+v", r.MaxTokens, r.MaxCompletionTokens)
			}
			if r.ThinkingBudget.Value != c.budget || r.ThinkingBudget.Present() != (c.budget > 0) {
				t.Errorf("thinking budget %+v", r.ThinkingBudget)
			}
			if r.Images != c.images || r.ImageBytes != c.imageBytes || r.Videos != 0 || r.Unbounded != "" {
				t.Errorf("images %d (%d bytes), videos %d, unbounded %q", r.Images, r.ImageBytes, r.Videos, r.Unbounded)
			}
		})
	}
}

// req wraps members into a request that is otherwise fine.
func req(members string) string {
	return `{"model":"m","messages":[]` + members + `}`
}

func TestScanRequestAccepts(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		name, body string
		check      func(r kimi.Request) bool
	}{
		{"white space everywhere", " {\n\t\"model\" : \"m\" ,\r\n \"messages\" : [ ] , \"stream\" : true } \n", func(r kimi.Request) bool { return r.Stream }},
		{"keys with escapes", `{"mod\u0065l":"m","m\u0065ssages":[],"str\u0065am":true}`, func(r kimi.Request) bool { return string(r.Model) == "m" && r.Stream }},
		{"model with escapes", `{"model":"ki\u006di\/\ud83d\udc4b","messages":[]}`, func(r kimi.Request) bool { return string(r.Model) == "kimi/👋" }},
		{"nulls", req(`,"stream":null,"stream_options":null,"max_tokens":null,"n":null,"thinking":null,"tools":null`), func(r kimi.Request) bool {
			return !r.Stream && r.MaxTokens.Null && r.MaxTokens.Present() && r.N == 1 && r.OutputCap(9) == 9
		}},
		{"larger cap wins", req(`,"max_tokens":5,"max_completion_tokens":7`), func(r kimi.Request) bool { return r.OutputCap(9) == 7 }},
		{"whole numbers as fractions and powers", req(`,"max_tokens":64.0,"max_completion_tokens":1.2E+2,"n":10e-1,"thinking":{"budget_tokens":0.300e1}`), func(r kimi.Request) bool {
			return r.MaxTokens.Value == 64 && r.MaxCompletionTokens.Value == 120 && r.N == 1 && r.ThinkingBudget.Value == 3
		}},
		{"the largest number", req(`,"max_tokens":922337203685477580.7e1,"max_completion_tokens":9.223372036854775807000e18`), func(r kimi.Request) bool {
			return r.MaxTokens.Value == math.MaxInt64 && r.MaxCompletionTokens.Value == math.MaxInt64
		}},
		{"zero in other words", req(`,"max_tokens":0e5,"max_completion_tokens":0.00`), func(r kimi.Request) bool {
			return r.MaxTokens.Value == 0 && r.MaxTokens.Present() && r.OutputCap(9) == 9
		}},
		{"zero is no cap", req(`,"max_tokens":0`), func(r kimi.Request) bool { return r.OutputCap(9) == 9 }},
		{"cap beyond belief", req(`,"max_tokens":9223372036854775807`), func(r kimi.Request) bool { return r.OutputCap(9) == kimi.MaxCount }},
		{"n", req(`,"n":3`), func(r kimi.Request) bool { return r.N == 3 }},
		{"names inside strings and schemas", req(`,"x":"\"max_tokens\":1,\"type\":\"file\"","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","model":1,"max_tokens":-1,"properties":{"type":"file","image_url":{}}}}}]`), func(r kimi.Request) bool {
			return !r.MaxTokens.Present() && r.Unbounded == "" && r.Images == 0
		}},
		{"same key at other levels", req(`,"metadata":{"model":1,"model":2,"stream":[],"messages":0}`), nil},
		{"repeated unknown key", req(`,"x":1,"x":2`), nil},
		{"messages first", `{"messages":[],"model":"m"}`, nil},
		{"depth 512", `{"model":"m","messages":[],"x":` + deep(511) + `}`, nil},
		{"numbers", req(`,"x":[0,-0,1.5,-2e10,3E+4,0.1e-7]`), nil},
		{"empty remote fields", req(`,"mcp_servers":[ ],"container":null`), func(r kimi.Request) bool { return r.Unbounded == "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, err := kimi.ScanRequest([]byte(c.body), kimi.OpenAI)
			if err != nil {
				t.Fatal(err)
			}
			if c.check != nil && !c.check(r) {
				t.Errorf("read %+v", r)
			}
		})
	}
}

func TestOutputCapByFace(t *testing.T) {
	t.Parallel()
	body := []byte(req(`,"max_tokens":5,"max_completion_tokens":7`))
	only := []byte(req(`,"max_completion_tokens":7`))
	for _, c := range []struct {
		face kimi.Face
		body []byte
		want int64
	}{{kimi.OpenAI, body, 7}, {kimi.OpenAI, only, 7}, {kimi.Anthropic, body, 5}, {kimi.Anthropic, only, 99}} {
		r, err := kimi.ScanRequest(c.body, c.face)
		if got := r.OutputCap(99); err != nil || got != c.want {
			t.Errorf("face %d, %s: %d, %v", c.face, c.body, got, err)
		}
	}
}

func TestScanRequestRefusesFields(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("[", 600) + strings.Repeat("]", 600)
	for _, c := range []struct{ field, body string }{
		{"", `[]`},
		{"", `"x"`},
		{"", ` 1 `},
		{"", req(`,"x":` + long)},
		{"model", `{"messages":[]}`},
		{"model", `{"model":"","messages":[]}`},
		{"model", `{"model":null,"messages":[]}`},
		{"model", `{"model":1,"messages":[]}`},
		{"model", `{"model":["m"],"messages":[]}`},
		{"model", `{"model":"m","messages":[],"model":"m"}`},
		{"model", `{"model":"m","messages":[],"mod\u0065l":"m"}`},
		{"model", `{"model":"m","messages":[],"Model":"x"}`},
		{"messages", `{"model":"m"}`},
		{"messages", `{"model":"m","messages":null}`},
		{"messages", `{"model":"m","messages":{}}`},
		{"messages", `{"model":"m","messages":["hi"]}`},
		{"messages", req(`,"messages":[]`)},
		{"messages", req(`,"me\u017f\u017fages":[]`)},
		{"messages.content", `{"model":"m","messages":[{"content":"a","content":[]}]}`},
		{"content", `{"model":"m","messages":[{"content":"a","CONTENT":[]}]}`},
		{"messages.content.type", `{"model":"m","messages":[{"content":[{"type":"text","type":"file"}]}]}`},
		{"stream", req(`,"stream":1`)},
		{"stream", req(`,"stream":"true"`)},
		{"stream", req(`,"stream":true,"stream":false`)},
		{"stream_options", req(`,"stream_options":true`)},
		{"stream_options", req(`,"stream_options":{},"stream_options":{}`)},
		{"stream_options.include_usage", req(`,"stream_options":{"include_usage":1}`)},
		{"stream_options.include_usage", req(`,"stream_options":{"include_usage":true,"include_usage":false}`)},
		{"include_usage", req(`,"stream_options":{"Include_Usage":true}`)},
		{"max_tokens", req(`,"max_tokens":-1`)},
		{"max_tokens", req(`,"max_tokens":-0`)},
		{"max_tokens", req(`,"max_tokens":1.5`)},
		{"max_tokens", req(`,"max_tokens":15e-1`)},
		{"max_tokens", req(`,"max_tokens":1e-1`)},
		{"max_tokens", req(`,"max_tokens":1.05e1`)},
		{"max_tokens", req(`,"max_tokens":1e19`)},
		{"max_tokens", req(`,"max_tokens":9223372036854775808.0`)},
		{"max_tokens", req(`,"max_tokens":1e999999999999999999999`)},
		{"max_tokens", req(`,"max_tokens":-1.0`)},
		{"max_tokens", req(`,"max_tokens":"1"`)},
		{"max_tokens", req(`,"max_tokens":true`)},
		{"max_tokens", req(`,"max_tokens":{}`)},
		{"max_tokens", req(`,"max_tokens":9223372036854775808`)},
		{"max_tokens", req(`,"max_tokens":99999999999999999999`)},
		{"max_tokens", req(`,"max_tokens":1,"max_tokens":1`)},
		{"max_tokens", req(`,"max_tokens":1,"MAX_TOKENS":100`)},
		{"max_tokens", req(`,"max_to\u212aens":100`)},
		{"max_completion_tokens", req(`,"max_completion_tokens":[]`)},
		{"max_completion_tokens", req(`,"max_completion_tokens":null,"max_completion_tokens":1`)},
		{"n", req(`,"n":0`)},
		{"n", req(`,"n":-1`)},
		{"n", req(`,"n":129`)},
		{"n", req(`,"n":"2"`)},
		{"n", req(`,"n":1,"N":9`)},
		{"n", req(`,"n":1,"n":9`)},
		{"thinking", req(`,"thinking":true`)},
		{"thinking", req(`,"thinking":{},"thinking":{}`)},
		{"thinking.budget_tokens", req(`,"thinking":{"budget_tokens":-5}`)},
		{"thinking.budget_tokens", req(`,"thinking":{"budget_tokens":1,"budget_tokens":5}`)},
		{"tools", req(`,"tools":{}`)},
		{"tools", req(`,"tools":["x"]`)},
		{"tools", req(`,"tools":[],"tools":[]`)},
		{"tools.type", req(`,"tools":[{"type":"function","type":"builtin_function"}]`)},
		{"system", req(`,"system":"a","system":"b"`)},
	} {
		t.Run(c.field+" "+c.body[:min(len(c.body), 70)], func(t *testing.T) {
			t.Parallel()
			for _, face := range []kimi.Face{kimi.OpenAI, kimi.Anthropic} {
				_, err := kimi.ScanRequest([]byte(c.body), face)
				var fe *kimi.FieldError
				if !errors.As(err, &fe) {
					t.Fatalf("face %d: want a field error, got %v", face, err)
				}
				if fe.Field != c.field {
					t.Errorf("face %d: want field %q, got %v", face, c.field, err)
				}
			}
		})
	}
}

// invalid are texts that are not JSON; a %s-less prefix and suffix make them values.
var invalid = []string{
	``, ` `, `{`, `}`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{"a" 1}`, `{a:1}`, `{'a':1}`,
	`{"a":1 "b":2}`, `{"a":1,,"b":2}`, `{1:2}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":[1}`, `{"a":{]}`,
	`{"a":01}`, `{"a":+1}`, `{"a":.5}`, `{"a":1.}`, `{"a":1e}`, `{"a":1e+}`, `{"a":-}`, `{"a":0x1}`, `{"a":NaN}`, `{"a":Infinity}`,
	`{"a":tru}`, `{"a":True}`, `{"a":nul}`, `{"a":nulll}`, `{"a":false1}`,
	`{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"\`, `{"a":"\u`, `{"a":"b`,
	"{\"a\":\"\x00\"}", "{\"a\":\"\n\"}", "{\"a\":\"0123456789abcdef0123456789abcdef0123\t\"}", "{\"a\x1f\":1}",
	"{\"a\":\"\xff\"}", "{\"a\":\"\xc3\"}", "{\"a\":\"\xed\xa0\x80\"}", "{\"a\":\"\xe0\x80\x80\"}", "{\"a\":\"\xf4\x90\x80\x80\"}", "{\"a\":\"\xc0\xaf\"}",
	"{\"a\":\"01234567你好你好\xe4\xbd\"}", "{\"\xff\":1}", "{\"a\":\xa0 1}", "\xef\xbb\xbf{}",
	`{} {}`, `{}x`, `{}]`, "{}\x00", `{"a":1}}`, `{/**/}`, "{\v}", "{\"a\":1\u00a0}",
}

func TestScanRequestRefusesSyntax(t *testing.T) {
	t.Parallel()
	for _, text := range invalid {
		if json.Valid([]byte(text)) && utf8.ValidString(text) {
			t.Fatalf("%q is valid JSON", text)
		}
		for _, body := range []string{text, strings.Replace(text, "{", `{"model":"m","messages":[],`, 1)} {
			_, err := kimi.ScanRequest([]byte(body), kimi.OpenAI)
			var se *kimi.SyntaxError
			if !errors.As(err, &se) {
				t.Errorf("%q: want a syntax error, got %v", body, err)
			} else if se.Offset < 0 || se.Offset > len(body) {
				t.Errorf("%q: offset %d", body, se.Offset)
			}
		}
	}
}

// TestScanRequestStringsAtEveryOffset puts each kind of byte that matters in a string
// at every place relative to the words that are looked at together.
func TestScanRequestStringsAtEveryOffset(t *testing.T) {
	t.Parallel()
	bits := []string{
		"", `"`, `\`, `\"`, `\\`, `\u00e9`, `\u00g9`, `\x`, "\x00", "\x1f", "\x20", "\x21", "\x23", "\x5b", "\x5d", "\x7f", "\x80", "\xff", "é", "你", "你好世界", "👋", "\ud7ff", "\ue000", "\uffff",
		"\xed\xa0\x80", "\xed\x9f\xbf", "\xe0\x80\x80", "\xe0\xa0\x80", "\xe1\x80", "\xe4\xbd", "\xe4\xbd\xc0", "\xe4\xe4\xbd\xa0", "\xc0\xaf", "\xf4\x90\x80\x80", "\xf4\x8f\xbf\xbf", "\xa0",
	}
	for _, filler := range []string{"a", "你"} {
		for before := range 45 {
			for _, after := range []int{0, 1, 7, 8, 31, 32, 40} {
				for _, bit := range bits {
					body := []byte(`{"model":"m","messages":[],"x":"` + strings.Repeat(filler, before) + bit + strings.Repeat(filler, after) + `"}`)
					_, err := kimi.ScanRequest(body, kimi.OpenAI)
					if want := json.Valid(body) && utf8.Valid(body); want != (err == nil) {
						t.Fatalf("%q: valid %v, got %v", body, want, err)
					}
				}
			}
		}
	}
}

func TestScanRequestDepthIsCheap(t *testing.T) {
	t.Parallel()
	for _, open := range []string{`[`, `{"a":`} {
		body := []byte(`{"model":"m","messages":[{"content":` + strings.Repeat(open, 1_000_000))
		if _, err := kimi.ScanRequest(body, kimi.OpenAI); err == nil {
			t.Errorf("a million of %q: accepted", open)
		}
	}
}
