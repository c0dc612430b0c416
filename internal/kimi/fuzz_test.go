package kimi_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"regexp"
	"testing"
	"unicode/utf8"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

func addSamples(f *testing.F, pattern string, add func(b []byte)) {
	f.Helper()
	files, err := filepath.Glob("testdata/" + pattern)
	if err != nil || len(files) == 0 {
		f.Fatal("no samples like", pattern)
	}
	for _, file := range files {
		add(sample(f, filepath.Base(file)))
	}
}

// checkVerdict compares what a scanner said of text with encoding/json, which lets
// invalid UTF-8 pass.
func checkVerdict(t *testing.T, text []byte, err error) {
	t.Helper()
	valid := json.Valid(text) && utf8.Valid(text)
	var se *kimi.SyntaxError
	var fe *kimi.FieldError
	switch {
	case err == nil:
		if !valid {
			t.Fatalf("accepted %q", text)
		}
	case errors.As(err, &se):
		if valid {
			t.Fatalf("valid JSON %q: %v", text, err)
		}
		if se.Offset < 0 || se.Offset > len(text) {
			t.Fatalf("offset %d in %d bytes", se.Offset, len(text))
		}
	case !errors.As(err, &fe):
		t.Fatalf("error of unknown type %T", err)
	}
}

func FuzzScanRequest(f *testing.F) {
	addSamples(f, "*request*.json", func(b []byte) { f.Add(b, false, int64(10)); f.Add(b, true, int64(1)) })
	for _, text := range invalid {
		f.Add([]byte(text), false, int64(0))
	}
	for _, members := range []string{
		`,"max_tokens":0,"max_completion_tokens":null,"stream_options":{},"n":2`,
		`,"mod\u0065":1,"stream_options": { "include_usage" : null } ,"thinking":{"budget_tokens":99}`,
		`,"system":[{"type":"text"}],"tools":[{"type":"builtin_function","function":{"name":"$web_search"}}]`,
		`,"x":"\ud83d\ude00\ud83d","y":"你好 здравствуй 0123456789abcdef"`,
	} {
		f.Add([]byte(req(members)), true, int64(5))
	}
	f.Fuzz(func(t *testing.T, body []byte, anthropic bool, limit int64) {
		face := kimi.OpenAI
		if anthropic {
			face = kimi.Anthropic
		}
		r, err := kimi.ScanRequest(body, face)
		checkVerdict(t, body, err)
		if err != nil {
			return
		}
		if name := decodeTree(t, body)["model"]; name != string(r.Model) || name == "" {
			t.Fatalf("model %q, encoding/json reads %q", r.Model, name)
		}
		if r.ImageBytes < 0 || r.VideoBytes < 0 || r.ImageBytes+r.VideoBytes > len(body) || r.N < 1 {
			t.Fatalf("read %+v", r)
		}
		checkAsText(t, r, body, body, r.ImageBytes+r.VideoBytes)
		for _, field := range []string{"", "max_tokens", "max_completion_tokens"} {
			checkApply(t, body, face, kimi.Edits{Model: "other", OutputCap: limit, CapField: field, ThinkingBudget: limit, IncludeUsage: true})
		}
		checkApply(t, body, face, kimi.Edits{})
	})
}

// naiveEvents splits as the specification of server-sent events reads: lines first,
// then events at blank lines.
func naiveEvents(b []byte) (list [][]byte) {
	start, line := 0, 0
	for i := 0; i < len(b); i++ {
		end := i + 1
		switch {
		case b[i] == '\r' && end == len(b):
			return list
		case b[i] == '\r' && b[end] == '\n':
			end++
		case b[i] != '\r' && b[i] != '\n':
			continue
		}
		if i == line {
			list = append(list, b[start:end])
			start = end
		}
		line = end
		i = end - 1
	}
	return list
}

func FuzzEventEnd(f *testing.F) {
	addSamples(f, "*.sse", func(b []byte) { f.Add(b, uint16(7), uint16(300)) })
	f.Add([]byte("a\r\n\r\nb\r\rc\n\r\n\n\r"), uint16(3), uint16(4))
	f.Fuzz(func(t *testing.T, data []byte, a, b uint16) {
		first, second := min(int(a), len(data)), min(int(b), len(data))
		if first > second {
			first, second = second, first
		}
		want := naiveEvents(data)
		every := make([]int, len(data))
		for i := range every {
			every[i] = i
		}
		for _, places := range [][]int{nil, {first}, {first, second}, every} {
			if len(places) > 2000 {
				continue
			}
			if got, _ := cut(data, places...); !sameEvents(got, want) {
				t.Fatalf("%q cut at %v gives %q, want %q", data, places, got, want)
			}
		}
	})
}

func FuzzInspectEvent(f *testing.F) {
	addSamples(f, "*.sse", func(b []byte) {
		list, _ := events(b)
		for i, ev := range list[1:] {
			f.Add(list[i], ev, i%2 == 0)
			f.Add(list[i], ev, i%2 == 1)
		}
	})
	other := []byte("data: {\"choices\":[{\"delta\":\"\",\"other\":0}]}\n\n")
	f.Fuzz(func(t *testing.T, before, ev []byte, anthropic bool) {
		face := kimi.OpenAI
		if anthropic {
			face = kimi.Anthropic
		}
		var alone, framed, unframed kimi.Usage
		info := kimi.InspectEvent(ev, face, &alone)
		if info.OutputBytes < 0 || info.OutputBytes > int64(len(ev)) || info.Kind.String() == "invalid" {
			t.Fatalf("%+v for %q", info, ev)
		}
		kimi.InspectEvent(before, face, &framed)
		kimi.InspectEvent(before, face, &unframed)
		kimi.InspectEvent(other, face, &unframed)
		for range 2 {
			if got := kimi.InspectEvent(ev, face, &framed); got != info {
				t.Fatalf("%q after %q: %+v, alone %+v", ev, before, got, info)
			}
		}
		kimi.InspectEvent(ev, face, &unframed)
		got, complete := framed.Counts()
		if want, wantComplete := unframed.Counts(); got != want || complete != wantComplete {
			t.Fatalf("%q after %q: %+v %v, without a frame %+v %v", ev, before, got, complete, want, wantComplete)
		}
		checkCounts(t, got)
	})
}

func checkCounts(t *testing.T, c kimi.Counts) {
	t.Helper()
	if c.Prompt < 0 || c.Prompt > kimi.MaxCount || c.Cached < 0 || c.Cached > c.Prompt ||
		c.Completion < 0 || c.Completion > kimi.MaxCount || c.Reasoning < 0 || c.Reasoning > c.Completion {
		t.Fatalf("counts %+v", c)
	}
}

func FuzzScanAnswer(f *testing.F) {
	addSamples(f, "*response*.json", func(b []byte) { f.Add(b, false); f.Add(b, true) })
	for _, text := range invalid {
		f.Add([]byte(text), false)
	}
	f.Add([]byte(`{"usage":{"prompt_tokens":-1,"cached_tokens":1e9},"choices":[{"usage":{}},1],"error":0}`), false)
	f.Fuzz(func(t *testing.T, body []byte, anthropic bool) {
		face := kimi.OpenAI
		if anthropic {
			face = kimi.Anthropic
		}
		var u kimi.Usage
		info, err := kimi.ScanAnswer(body, face, &u)
		checkVerdict(t, body, err)
		if err != nil {
			if u != (kimi.Usage{}) {
				t.Fatal("usage taken from a bad body")
			}
			return
		}
		if info.OutputBytes < 0 || info.OutputBytes > int64(len(body)) || info.ID.End > len(body) {
			t.Fatalf("%+v", info)
		}
		c, _ := u.Counts()
		checkCounts(t, c)
	})
}

// secrets spells both cases: (?i) would take the long s and the Kelvin sign for s and k.
var secrets = regexp.MustCompile(`(^|[^0-9A-Za-z])([oO][rR][gG]-|[aAsS][kK]-|[pP][rR][oO][jJ][-_]|[oO][cC][pP]_)[0-9A-Za-z_-]`)

func FuzzRedact(f *testing.F) {
	addSamples(f, "08_errors.json", func(b []byte) { f.Add(b) })
	f.Add([]byte(`x%3Csk-fake\u003cak-1\u003eorg-2<ak-3>sk-4`))
	f.Add([]byte("SK-fake-1 \u017fk-1 s\u212a-2 \u00e9Org-3 oCp_4 PROJ-5"))
	f.Fuzz(func(t *testing.T, b []byte) {
		once := kimi.Redact(nil, b)
		if m := secrets.Find(once); m != nil {
			t.Fatalf("%q still holds %q: %q", b, m, once)
		}
		if twice := kimi.Redact(nil, once); !bytes.Equal(once, twice) {
			t.Fatalf("%q, then %q, then %q", b, once, twice)
		}
	})
}

func FuzzParseError(f *testing.F) {
	addSamples(f, "*.json", func(b []byte) { f.Add(b) })
	f.Add([]byte(`{"type":"error","error":{"type":"a","message":"b","code":1}}`))
	f.Add([]byte(`{"error":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		fields, ok := kimi.ParseError(body)
		if !ok {
			return
		}
		if !json.Valid(body) {
			t.Fatalf("read %+v from %q", fields, body)
		}
		for _, face := range []kimi.Face{kimi.OpenAI, kimi.Anthropic} {
			r := kimi.Refusal{Type: fields.Type, Message: fields.Message, Code: fields.Code}
			out := kimi.AppendError(nil, face, r)
			back, ok := kimi.ParseError(out)
			if face == kimi.Anthropic {
				back.Code = fields.Code
			}
			if !ok || back != fields {
				t.Fatalf("%+v came back from %s as %+v", fields, out, back)
			}
			if info := kimi.InspectEvent(kimi.AppendErrorEvent(nil, face, r), face, new(kimi.Usage)); info.Kind != kimi.EventError {
				t.Fatalf("not an error event: %+v", info)
			}
		}
	})
}
