package kimi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

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

// applied returns the edited body in one piece.
func applied(r *kimi.Request, body []byte, e kimi.Edits) []byte {
	segs, _ := r.Apply(nil, nil, body, e)
	return bytes.Join(segs, nil)
}

// checkApply compares Apply with the same edits made on the decoded tree.
func checkApply(t testing.TB, body []byte, face kimi.Face, e kimi.Edits) {
	t.Helper()
	r, err := kimi.ScanRequest(body, face)
	if err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	segs, scratch := r.Apply([][]byte{[]byte("first")}, []byte("kept"), body, e)
	if !bytes.HasPrefix(scratch, []byte("kept")) || string(segs[0]) != "first" {
		t.Fatalf("Apply touched what was there: %q, %q", scratch, segs[0])
	}
	got := bytes.Join(segs[1:], nil)
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
		if got := string(applied(&r, body, e)); got != c.want {
			t.Errorf("cap_field %q: %s gave %s, want %s", c.field, body, got, c.want)
		}
	}
}

func TestScanAndApplyAllocateNothing(t *testing.T) {
	body := agentBodies()["escapes"]
	segs, scratch := make([][]byte, 0, 20), make([]byte, 0, 1024)
	e := kimi.Edits{Model: "kimi-k2.6", OutputCap: 10, IncludeUsage: true, ThinkingBudget: 5}
	for _, b := range [][]byte{body, sample(t, "01b_request_openai_image.json"), []byte(`{"mod\u0065l":"m","messages":[{"content":[{"type":"im\u0061ge_url"}]}]}`)} {
		if n := testing.AllocsPerRun(100, func() {
			r, err := kimi.ScanRequest(b, kimi.OpenAI)
			if err != nil {
				t.Fatal(err)
			}
			segs, scratch = r.Apply(segs[:0], scratch[:0], b, e)
		}); n != 0 {
			t.Errorf("%v allocations for %.60s", n, b)
		}
	}
}
