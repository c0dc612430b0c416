package kimi_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
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
		{"max_tokens", req(`,"max_tokens":1e3`)},
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

func TestScanRequestParts(t *testing.T) {
	t.Parallel()
	const png = `"data:image/png;base64,QUJD"` // 4 bytes of data
	for _, c := range []struct {
		name, content              string // of one message
		face                       kimi.Face
		images, imageBytes, videos int
		videoBytes                 int
		unbounded                  string
	}{
		{"text", `[{"type":"text","text":"{\"type\":\"file\"}"}]`, kimi.OpenAI, 0, 0, 0, 0, ""},
		{"bare strings", `["a","b",null]`, kimi.OpenAI, 0, 0, 0, 0, ""},
		{"image", `[{"type":"image_url","image_url":{"url":` + png + `,"detail":"low"}}]`, kimi.OpenAI, 1, 4, 0, 0, ""},
		{"image before its type", `[{"image_url":{"url":` + png + `},"type":"image_url"}]`, kimi.OpenAI, 1, 4, 0, 0, ""},
		{"image as a bare URL", `[{"type":"image_url","image_url":` + png + `}]`, kimi.OpenAI, 1, 4, 0, 0, ""},
		{"image reference", `[{"type":"image_url","image_url":{"url":"ms://file-1"}}]`, kimi.OpenAI, 1, 0, 0, 0, ""},
		{"image elsewhere", `[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]`, kimi.OpenAI, 1, 0, 0, 0, ""},
		{"image type with escapes", `[{"type":"image\u005furl","image_url":{"url":` + png + `}}]`, kimi.OpenAI, 1, 4, 0, 0, ""},
		{"data with an escaped scheme counts as text", `[{"type":"image_url","image_url":{"url":"d\u0061ta:image/png;base64,QUJD"}}]`, kimi.OpenAI, 1, 0, 0, 0, ""},
		{"video", `[{"type":"video_url","video_url":{"url":"DATA:video/mp4;base64,QUJDRA=="}}]`, kimi.OpenAI, 0, 0, 1, 8, ""},
		{"image data on a text part is text", `[{"type":"text","text":"x","image_url":{"url":` + png + `}}]`, kimi.OpenAI, 0, 0, 0, 0, ""},
		{"two of each", `[{"type":"image_url","image_url":` + png + `},{"type":"image_url","image_url":` + png + `},{"type":"video_url","video_url":"ms://a"},{"type":"video_url","video_url":"ms://b"}]`, kimi.OpenAI, 2, 8, 2, 0, ""},
		{"pdf as image", `[{"type":"image_url","image_url":"data:application/pdf;base64,QUJD"}]`, kimi.OpenAI, 1, 4, 0, 0, "image_url part that is not an image"},
		{"video as image", `[{"type":"image_url","image_url":"data:video/mp4;base64,QUJD"}]`, kimi.OpenAI, 1, 4, 0, 0, "image_url part that is not an image"},
		{"file", `[{"type":"file","file":{"file_id":"x"}}]`, kimi.OpenAI, 0, 0, 0, 0, "file part"},
		{"audio", `[{"type":"input_audio","input_audio":{"data":"x"}}]`, kimi.OpenAI, 0, 0, 0, 0, "input_audio part"},
		{"no type", `[{"text":"x"}]`, kimi.OpenAI, 0, 0, 0, 0, "content part without a type"},
		{"type is no string", `[{"type":7}]`, kimi.OpenAI, 0, 0, 0, 0, "content part without a type"},
		{"odd type", `[{"type":"a\u0007é"}]`, kimi.OpenAI, 0, 0, 0, 0, "a??? part"},
		{"object", `{"type":"text"}`, kimi.OpenAI, 0, 0, 0, 0, "content that is an object"},
		{"nested array", `[[{"type":"image_url"}]]`, kimi.OpenAI, 0, 0, 0, 0, "content that is an array of arrays"},
		{"Anthropic's image on the other face", `[{"type":"image","source":{"type":"base64"}}]`, kimi.OpenAI, 0, 0, 0, 0, "image part"},

		{"all blocks", `[{"type":"text","text":"a"},{"type":"thinking","thinking":"b","signature":"c"},{"type":"redacted_thinking","data":"d"},{"type":"tool_use","id":"i","name":"n","input":{"type":"document","content":[{"type":"file"}]}}]`, kimi.Anthropic, 0, 0, 0, 0, ""},
		{"base64 image", `[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"QUJDRA=="}}]`, kimi.Anthropic, 1, 8, 0, 0, ""},
		{"image by URL", `[{"type":"image","source":{"type":"url","url":"https://example.com/x.png"}}]`, kimi.Anthropic, 1, 0, 0, 0, ""},
		{"image that is none", `[{"type":"image","source":{"type":"base64","media_type":"application/pdf","data":"QUJD"}}]`, kimi.Anthropic, 1, 4, 0, 0, "image part that is not an image"},
		{"tool result text", `[{"type":"tool_result","tool_use_id":"t","content":"plain"}]`, kimi.Anthropic, 0, 0, 0, 0, ""},
		{"tool result parts", `[{"content":[{"type":"text","text":"a"},{"type":"image","source":{"media_type":"image/png","data":"QUJD","type":"base64"}}],"type":"tool_result","tool_use_id":"t"}]`, kimi.Anthropic, 1, 4, 0, 0, ""},
		{"document in a tool result", `[{"type":"tool_result","content":[{"type":"document"}]}]`, kimi.Anthropic, 0, 0, 0, 0, "document part"},
		{"document", `[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"QUJD"}}]`, kimi.Anthropic, 0, 0, 0, 0, "document part"},
		{"search result", `[{"type":"search_result"}]`, kimi.Anthropic, 0, 0, 0, 0, "search_result part"},
		{"server tool use", `[{"type":"server_tool_use"}]`, kimi.Anthropic, 0, 0, 0, 0, "server_tool_use part"},
		{"result within result", `[{"type":"tool_result","content":[{"type":"tool_result","content":[{"type":"text"}]}]}]`, kimi.Anthropic, 0, 0, 0, 0, "nested content"},
		{"OpenAI's image on the other face", `[{"type":"image_url","image_url":{"url":` + png + `}}]`, kimi.Anthropic, 0, 0, 0, 0, "image_url part"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			body := []byte(`{"messages":[{"role":"user","content":` + c.content + `}],"model":"m"}`)
			r, err := kimi.ScanRequest(body, c.face)
			if err != nil {
				t.Fatal(err)
			}
			checkAsText(t, r, body, []byte(strings.NewReplacer("QUJDRA==", "", "QUJD", "").Replace(string(body))), c.imageBytes+c.videoBytes)
			if r.Images != c.images || r.ImageBytes != c.imageBytes || r.Videos != c.videos || r.VideoBytes != c.videoBytes {
				t.Errorf("images %d (%d bytes), videos %d (%d bytes)", r.Images, r.ImageBytes, r.Videos, r.VideoBytes)
			}
			if r.Unbounded != c.unbounded {
				t.Errorf("unbounded %q, want %q", r.Unbounded, c.unbounded)
			}
		})
	}
}

func TestScanRequestUnboundedElsewhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		members string
		face    kimi.Face
		want    string
	}{
		{`,"tools":[{"type":"function","function":{"name":"builtin_function"}}]`, kimi.OpenAI, ""},
		{`,"tools":[{"type":"builtin_function","function":{"name":"$web_search"}}]`, kimi.OpenAI, "builtin tool $web_search"},
		{`,"tools":[{"function":{"name":"$web\u005fsearch"},"type":"builtin\u005ffunction"}]`, kimi.OpenAI, "builtin tool $web_search"},
		{`,"tools":[{"type":"web_search"}]`, kimi.OpenAI, "server tool web_search"},
		{`,"tools":[{"name":"a","input_schema":{"type":"object"}},{"type":"custom","name":"b"},{"type":null,"name":"c"}]`, kimi.Anthropic, ""},
		{`,"tools":[{"type":"web_search_20250305","name":"web_search"}]`, kimi.Anthropic, "server tool web_search_20250305"},
		{`,"tools":[{"type":"code_execution_20250522","name":"x"}]`, kimi.Anthropic, "server tool code_execution_20250522"},
		{`,"tools":[{"type":{"a":1}}]`, kimi.Anthropic, "tool of unknown type"},
		{`,"mcp_servers":[{"url":"https://example.com"}]`, kimi.Anthropic, "MCP servers"},
		{`,"web_search_options":{}`, kimi.OpenAI, "web search"},
		{`,"previous_response_id":"r"`, kimi.OpenAI, "previous response"},
		{`,"system":[{"type":"text","text":"a"}]`, kimi.Anthropic, ""},
		{`,"system":"plain"`, kimi.Anthropic, ""},
		{`,"system":[{"type":"document"}]`, kimi.Anthropic, "document part"},
		{`,"system":[{"type":"document"}]`, kimi.OpenAI, ""},
	} {
		r, err := kimi.ScanRequest([]byte(req(c.members)), c.face)
		if err != nil || r.Unbounded != c.want {
			t.Errorf("%s: unbounded %q, err %v, want %q", c.members, r.Unbounded, err, c.want)
		}
	}
}

// decodeTree decodes with numbers kept as they are written.
func decodeTree(t testing.TB, body []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var tree map[string]any
	if err := d.Decode(&tree); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	return tree
}

// checkApply compares Apply with the same edits made on the decoded tree.
func checkApply(t testing.TB, body []byte, face kimi.Face, e kimi.Edits) {
	t.Helper()
	r, err := kimi.ScanRequest(body, face)
	if err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	got := r.Apply([]byte("kept"), body, e)
	if !bytes.HasPrefix(got, []byte("kept")) {
		t.Fatalf("Apply touched dst: %q", got)
	}
	got = got[len("kept"):]
	segs, _ := r.ApplySegments(nil, nil, body, e)
	if joined := bytes.Join(segs, nil); !bytes.Equal(joined, got) {
		t.Errorf("segments %q, copy %q", joined, got)
	}
	want := decodeTree(t, body)
	if e.Model != "" {
		want["model"] = strings.ToValidUTF8(e.Model, "\ufffd")
	}
	if e.OutputCap > 0 {
		limit := json.Number(fmt.Sprint(e.OutputCap))
		target := "max_tokens"
		if face == kimi.OpenAI && e.CapField != "" {
			target = e.CapField
		}
		for name, f := range map[string]kimi.IntField{"max_tokens": r.MaxTokens, "max_completion_tokens": r.MaxCompletionTokens} {
			zero := f.Present() && !f.Null && f.Value == 0
			if f.Value > e.OutputCap || zero || name == target && f.Value == 0 {
				want[name] = limit
			}
		}
	}
	if e.ThinkingBudget > 0 && r.ThinkingBudget.Value > e.ThinkingBudget {
		want["thinking"].(map[string]any)["budget_tokens"] = json.Number(fmt.Sprint(e.ThinkingBudget))
	}
	if e.IncludeUsage {
		options, _ := want["stream_options"].(map[string]any)
		options = maps.Clone(options)
		if options == nil {
			options = map[string]any{}
		}
		options["include_usage"] = true
		want["stream_options"] = options
	}
	if tree := decodeTree(t, got); !reflect.DeepEqual(tree, want) {
		t.Errorf("edits %+v of %s\ngave %s\nwant %v", e, body, got, want)
	}
	if (e == kimi.Edits{}) && !bytes.Equal(got, body) {
		t.Errorf("no edits changed %s to %s", body, got)
	}
	again, err := kimi.ScanRequest(got, face)
	if err != nil {
		t.Errorf("the edited body is refused: %v", err)
	} else if e.OutputCap > 0 && again.OutputCap(1<<50) > e.OutputCap {
		t.Errorf("cap %d after lowering it to %d", again.OutputCap(1<<50), e.OutputCap)
	}
}

func TestApplyEqualsEditedTree(t *testing.T) {
	t.Parallel()
	var bodies []string
	for _, f := range []string{"01_request_openai_openclaw.json", "01b_request_openai_image.json", "09_request_anthropic_openclaw.json"} {
		bodies = append(bodies, string(sample(t, f)))
	}
	caps := []string{``, `,"max_tokens":50`, `,"max_tokens":5000`, `,"max_tokens":null`, `,"max_tokens":0`, `,"max_completion_tokens":5000`,
		`,"max_tokens":null , "max_completion_tokens" : null`, `,"max_tokens":5000,"max_completion_tokens":50`, `,"max_completion_tokens":null,"max_tokens":5000`}
	options := []string{``, `,"stream_options":null`, `,"stream_options":{}`, `,"stream_options": { } `, `,"stream_options":{"a":1}`,
		`,"stream_options":{"include_usage":true}`, `,"stream_options":{ "include_usage" : false }`, `,"stream_options":{"b":{},"include_usage":null,"c":[]}`}
	thinking := []string{``, `,"thinking":{"type":"enabled","budget_tokens":9000}`, `,"thinking":{"budget_tokens":10}`, `,"thinking":{"budget_tokens":null}`}
	for _, c := range caps {
		for _, o := range options {
			for _, th := range thinking {
				bodies = append(bodies, "{ \"mod\\u0065l\" :\t\"m\" "+c+` , "messages":[{"content":"x\"\\u00e9é"}]`+o+th+" }\n",
					`{"messages":[]`+th+o+c+`,"model":"m"}`)
			}
		}
	}
	edits := []kimi.Edits{
		{},
		{Model: "kimi-k2.6"},
		{Model: "odd \"name\"\\\n\x01é\xff"},
		{OutputCap: 100},
		{OutputCap: 100, CapField: "max_completion_tokens"},
		{ThinkingBudget: 64},
		{IncludeUsage: true},
		{Model: "x", OutputCap: 1, CapField: "max_tokens", ThinkingBudget: 1, IncludeUsage: true},
	}
	for _, body := range bodies {
		for _, e := range edits {
			for _, face := range []kimi.Face{kimi.OpenAI, kimi.Anthropic} {
				checkApply(t, []byte(body), face, e)
			}
		}
	}
}

// An upstream that knows only one of the fields is bound whatever the client named.
func TestCapFieldIsSentBesideTheOther(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ field, members, want string }{
		{"max_tokens", `,"max_completion_tokens":1`, `{"max_tokens":1,"model":"m","messages":[],"max_completion_tokens":1}`},
		{"", `,"max_completion_tokens":1`, `{"max_tokens":1,"model":"m","messages":[],"max_completion_tokens":1}`},
		{"max_tokens", `,"max_tokens":null,"max_completion_tokens":1`, `{"model":"m","messages":[],"max_tokens":1,"max_completion_tokens":1}`},
		{"max_tokens", `,"max_tokens":0,"max_completion_tokens":1`, `{"model":"m","messages":[],"max_tokens":1,"max_completion_tokens":1}`},
		{"max_completion_tokens", `,"max_tokens":1`, `{"max_completion_tokens":1,"model":"m","messages":[],"max_tokens":1}`},
		{"max_tokens", `,"max_tokens":1`, `{"model":"m","messages":[],"max_tokens":1}`},
	} {
		body := []byte(`{"model":"m","messages":[]` + c.members + `}`)
		r, err := kimi.ScanRequest(body, kimi.OpenAI)
		if err != nil {
			t.Fatal(err)
		}
		e := kimi.Edits{OutputCap: r.OutputCap(9), CapField: c.field}
		if got := string(r.Apply(nil, body, e)); got != c.want {
			t.Errorf("cap_field %q: %s gave %s, want %s", c.field, body, got, c.want)
		}
	}
}

func TestScanAndApplyAllocateNothing(t *testing.T) {
	body := agentBodies()["escapes"]
	dst := make([]byte, 0, 2*len(body))
	segs, scratch := make([][]byte, 0, 20), make([]byte, 0, 1024)
	e := kimi.Edits{Model: "kimi-k2.6", OutputCap: 10, IncludeUsage: true, ThinkingBudget: 5}
	for _, b := range [][]byte{body, sample(t, "01b_request_openai_image.json"), []byte(`{"mod\u0065l":"m","messages":[{"content":[{"type":"im\u0061ge_url"}]}]}`)} {
		if n := testing.AllocsPerRun(100, func() {
			r, err := kimi.ScanRequest(b, kimi.OpenAI)
			if err != nil {
				t.Fatal(err)
			}
			dst = r.Apply(dst[:0], b, e)
			segs, scratch = r.ApplySegments(segs[:0], scratch[:0], b, e)
		}); n != 0 {
			t.Errorf("%v allocations for %.60s", n, b)
		}
	}
}
