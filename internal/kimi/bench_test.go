package kimi_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// events splits a stream into its whole events and the rest.
func events(b []byte) (list [][]byte, rest []byte) {
	for {
		end := kimi.EventEnd(b, 0)
		if end < 0 {
			return list, b
		}
		list = append(list, b[:end:end])
		b = b[end:]
	}
}

// agentBody is a request of about 60 KB as an OpenClaw gateway sends it: a long
// system prompt, tools with schemas, a conversation. text is what its long strings
// are made of.
func agentBody(text string) []byte {
	var b bytes.Buffer
	b.WriteString(`{"model":"kimi-k2.5","messages":[{"role":"system","content":"`)
	b.WriteString(strings.Repeat(text, 27_000/len(text)))
	b.WriteString(`"}`)
	for i := range 8 {
		fmt.Fprintf(&b, `,{"role":"user","content":[{"type":"text","text":"%s"}]}`, strings.Repeat(text, 2_000/len(text)))
		fmt.Fprintf(&b, `,{"role":"assistant","content":"","tool_calls":[{"id":"read:%d","type":"function","function":{"name":"read","arguments":"{\"path\": \"notes.md\"}"}}]}`, i)
	}
	b.WriteString(`],"tools":[`)
	for i := range 20 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"type":"function","function":{"name":"tool_%d","description":"%s","parameters":{"type":"object","properties":{"path":{"type":"string","description":"File path"},"limit":{"type":"integer","minimum":1,"maximum":2000}},"required":["path"]},"strict":false}}`, i, strings.Repeat(text, 500/len(text)))
	}
	b.WriteString(`],"stream":true,"stream_options":{"include_usage":true},"max_completion_tokens":32768}`)
	return b.Bytes()
}

func agentBodies() map[string][]byte {
	return map[string][]byte{
		"ascii":   agentBody("You are a personal assistant running inside a gateway. "),
		"escapes": agentBody(`Keep replies short.\nUse \"tools\" when they help, and say so.\n\n`),
		"chinese": agentBody("你是一个运行在网关中的个人助理。"),
	}
}

func BenchmarkScanRequest(b *testing.B) {
	bodies := agentBodies()
	bodies["small"] = sample(b, "01_request_openai_openclaw.json")
	for _, name := range []string{"ascii", "escapes", "chinese", "small"} {
		body := bodies[name]
		b.Run(fmt.Sprintf("body=%s/bytes=%d", name, len(body)), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := kimi.ScanRequest(body, kimi.OpenAI); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	body := agentBodies()["ascii"]
	r, err := kimi.ScanRequest(body, kimi.OpenAI)
	if err != nil {
		b.Fatal(err)
	}
	e := kimi.Edits{Model: "kimi-k2.6", OutputCap: 1000, IncludeUsage: true}
	b.ReportAllocs()
	var segs [][]byte
	var scratch []byte
	for b.Loop() {
		segs, scratch = r.Apply(segs[:0], scratch[:0], body, e)
	}
}

func BenchmarkInspectEvent(b *testing.B) {
	for _, c := range []struct {
		name, file string
		face       kimi.Face
		at         int
	}{
		{"openai-delta", "03_stream_usage_in_choice.sse", kimi.OpenAI, 1},
		{"openai-usage", "04_stream_usage_top_level.sse", kimi.OpenAI, 7},
		{"anthropic-delta", "09c_stream_anthropic.sse", kimi.Anthropic, 2},
	} {
		list, _ := events(sample(b, c.file))
		ev := list[c.at]
		b.Run(fmt.Sprintf("event=%s/bytes=%d", c.name, len(ev)), func(b *testing.B) {
			b.SetBytes(int64(len(ev)))
			b.ReportAllocs()
			var u kimi.Usage
			for b.Loop() {
				kimi.InspectEvent(ev, c.face, &u)
			}
		})
	}
}

func BenchmarkEventEnd(b *testing.B) {
	list, _ := events(sample(b, "03_stream_usage_in_choice.sse"))
	ev := list[1]
	b.SetBytes(int64(len(ev)))
	b.ReportAllocs()
	for b.Loop() {
		kimi.EventEnd(ev, 0)
	}
}

func BenchmarkScanAnswer(b *testing.B) {
	body := sample(b, "02_response_nonstream_cached.json")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var u kimi.Usage
		if _, err := kimi.ScanAnswer(body, kimi.OpenAI, &u); err != nil {
			b.Fatal(err)
		}
	}
}
