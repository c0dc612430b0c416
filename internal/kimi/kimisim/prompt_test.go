package kimisim_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

func estimate(t *testing.T, s *kimisim.Server, body string) int {
	t.Helper()
	res, err := post(t, s.URL()+"/v1/tokenizers/estimate-token-count", "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var v struct {
		Data struct {
			Total int `json:"total_tokens"`
		}
	}
	raw, _ := io.ReadAll(res.Body)
	if err := json.Unmarshal(raw, &v); err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, raw)
	}
	return v.Data.Total
}

func TestCountTokens(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"": 0, "tok1 ": 1, "tok1 tok2 ": 2, "tok1 tok2": 2, " ": 1, "a  b": 3, "x": 1, `{"path": "notes.md"} `: 2,
	} {
		if got := kimisim.CountTokens(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestCountText(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		ratio float64
		text  string
		want  int
	}{
		{4, "", 0}, {4, "a", 1}, {4, "abcd", 1}, {4, "abcde", 2}, {1, "abc", 3}, {0.5, "abc", 3}, {3.5, "abcdefg", 2}, {3.5, "abcdefgh", 3}, {4, "你好", 2},
	} {
		if got := kimisim.CountText(tc.ratio, tc.text); got != tc.want {
			t.Errorf("%v %q: %d, want %d", tc.ratio, tc.text, got, tc.want)
		}
	}
}

func TestPromptIsCountedAsDocumented(t *testing.T) {
	t.Parallel()
	const ratio, template = 3.5, 5
	s := start(t, kimisim.Config{TokenizerRatio: ratio, TemplateTokensPerMessage: template})
	n := func(text string) int { return kimisim.CountText(ratio, text) }
	tools := `[{"type":"function","function":{"name":"read","parameters":{"type":"object"}}}]`
	for name, tc := range map[string]struct {
		body string
		want int
	}{
		"text":    {`{"model":"kimi-k2.5","messages":[{"role":"user","content":"hello there"}]}`, template + n("hello there")},
		"two":     {`{"model":"kimi-k2.5","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hello"}]}`, 2*template + n("be brief") + n("hello")},
		"parts":   {`{"model":"kimi-k2.5","messages":[{"role":"user","content":[{"type":"text","text":"hello"},{"type":"text","text":" there"}]}]}`, template + n("hello there")},
		"escapes": {`{"model":"kimi-k2.5","messages":[{"role":"user","content":"\u4f60\ud83d\ude00\n\"\\x \ud800!"}]}`, template + n("你😀\n\"\\x \ufffd!")},
		"tools":   {`{"model":"kimi-k2.5","tools":` + tools + `,"messages":[{"role":"user","content":"hi"}]}`, template + n("hi") + n(tools)},
		"system":  {`{"model":"kimi-k2.5","system":[{"type":"text","text":"be brief","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":"hi"}]}`, template + n("be brief") + n("hi")},
		"calls": {`{"model":"kimi-k2.5","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"read:0","type":"function","function":{"name":"read","arguments":"{}"}}]},{"role":"tool","tool_call_id":"read:0","content":"milk"}]}`,
			2*template + n("read"+"{}") + n("milk")},
		"blocks": {`{"model":"kimi-k2.5","messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"read","input":{"a": 1}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"milk"}]}]}]}`,
			2*template + n(`read{"a": 1}`) + n("milk")},
		"image":   {`{"model":"kimi-k2.5","messages":[{"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("A", 9000) + `"}}]}]}`, template + n("look") + kimisim.TokensPerImage},
		"image 2": {`{"model":"kimi-k2.5","messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"` + strings.Repeat("A", 9000) + `"}}]}]}`, template + kimisim.TokensPerImage},
	} {
		if got := estimate(t, s, tc.body); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
		res, err := post(t, s.OpenAIBase()+"/chat/completions", "", tc.body)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if e := closedEntry(t, s, res.Header.Get("Msh-Request-Id")); e.PromptTokens != tc.want {
			t.Errorf("%s: chat says %d, want %d", name, e.PromptTokens, tc.want)
		}
	}
}

// A bound made from bytes is sound for any body: text bytes of the body without inline
// image data, and a fixed number per image.
func TestPromptNeverExceedsItsBytes(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	s := start(t, kimisim.Config{TokenizerRatio: 1, TemplateTokensPerMessage: 40})
	for range 100 {
		var messages []string
		images, data := 0, 0
		for range rng.IntN(6) {
			switch rng.IntN(5) {
			case 0:
				messages = append(messages, `{}`)
			case 1:
				messages = append(messages, fmt.Sprintf(`{"role":"user","content":"%s"}`, strings.Repeat(`\u0041`, rng.IntN(9))))
			case 2:
				d := "data:image/png;base64," + strings.Repeat("A", rng.IntN(3000))
				images, data = images+1, data+len(d)
				messages = append(messages, fmt.Sprintf(`{"role":"user","content":[{"type":"image_url","image_url":{"url":%q}}]}`, d))
			case 3:
				messages = append(messages, `7`)
			case 4:
				messages = append(messages, fmt.Sprintf("{\"role\":\"user\",\"content\":\"%s\xff\xfe\"}", strings.Repeat("é", rng.IntN(30))))
			}
		}
		b := `{"model":"kimi-k2.5","messages":[` + strings.Join(messages, ",") + `]}`
		if got, bound := estimate(t, s, b), len(b)-data+images*kimisim.TokensPerImage; got > bound || got < 0 {
			t.Fatalf("%d tokens, bound %d: %s", got, bound, b)
		}
	}
}

func TestEstimateCanBeBroken(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	url := s.URL() + "/v1/tokenizers/estimate-token-count"
	s.SetEstimateBehavior(kimisim.Behavior{Error: "500 server error"})
	res, err := post(t, url, "", body(t, nil))
	if err != nil || res.StatusCode != 500 {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
	s.SetEstimateBehavior(kimisim.Behavior{CutBeforeHead: true})
	if res, err = post(t, url, "", body(t, nil)); err == nil {
		t.Errorf("answered %d", res.StatusCode)
	}
	if r := ask(t, s, faces[0], "", nil); r.status != http.StatusOK {
		t.Errorf("chat suffers too: %d", r.status)
	}
	for _, e := range s.Ledger()[:2] {
		if e.Kind != kimisim.KindEstimate || e.Outcome == kimisim.OutcomeComplete {
			t.Errorf("%+v", e)
		}
	}
}
