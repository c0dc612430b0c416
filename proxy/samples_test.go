package proxy_test

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

func sampleFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "internal", "kimi", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sample is a recorded answer, and how it is metered.
type sample struct {
	file    string
	face    face
	stream  bool
	counts  kimi.Counts
	basis   contract.Basis
	outcome contract.Outcome
	torn    int // bytes at the end that are no whole event
}

func sampleAnswers() []sample {
	openai, anthropic := faces[0], faces[1]
	up, est, ok := contract.BasisUpstream, contract.BasisEstimated, contract.OutcomeOK
	return []sample{
		{"03_stream_usage_in_choice.sse", openai, true, kimi.Counts{Prompt: 24, Cached: 16, Completion: 9}, up, ok, 0},
		{"04_stream_usage_top_level.sse", openai, true, kimi.Counts{Prompt: 2048, Cached: 1792, Completion: 5}, up, ok, 0},
		{"04b_stream_usage_both_places_UNCONFIRMED.sse", openai, true, kimi.Counts{Prompt: 300, Completion: 2}, up, ok, 0},
		{"05_stream_tool_calls.sse", openai, true, kimi.Counts{Prompt: 4096, Cached: 3840, Completion: 48}, up, ok, 0},
		{"06_stream_reasoning_content.sse", openai, true, kimi.Counts{Prompt: 512, Completion: 64, Reasoning: 50}, up, ok, 0},
		{"07a_stream_midstream_error_event_UNCONFIRMED.sse", openai, true, kimi.Counts{}, est, contract.OutcomeUpstreamError, 0},
		{"07b_stream_truncated_no_done.sse", openai, true, kimi.Counts{}, est, contract.OutcomeUpstreamCut, 68},
		{"07c_stream_crlf_and_comments_SYNTHETIC.sse", openai, true, kimi.Counts{Prompt: 10, Completion: 4}, up, ok, 0},
		{"09c_stream_anthropic.sse", anthropic, true, kimi.Counts{Prompt: 24886, Cached: 24576, Completion: 57}, up, ok, 0},
		{"09d_stream_anthropic_usage_only_in_delta.sse", anthropic, true, kimi.Counts{Prompt: 24886, Cached: 24576, Completion: 57, Reasoning: 8}, up, ok, 0},
		{"10_stream_anthropic_error_event.sse", anthropic, true, kimi.Counts{}, est, contract.OutcomeUpstreamError, 0},
		{"02_response_nonstream_cached.json", openai, false, kimi.Counts{Prompt: 1536, Cached: 1280, Completion: 33, Reasoning: 17}, up, ok, 0},
		{"02b_response_nonstream_uncached.json", openai, false, kimi.Counts{Prompt: 41, Completion: 3}, up, ok, 0},
		{"09e_response_anthropic_nonstream.json", anthropic, false, kimi.Counts{Prompt: 512, Cached: 512, Completion: 6}, up, ok, 0},
	}
}

// Every recorded answer passes byte for byte, however it arrives, and is metered to the
// token.
func TestSamplesPassByteForByte(t *testing.T) {
	t.Parallel()
	for _, s := range sampleAnswers() {
		t.Run(s.file, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := newOrigin(t)
			r := w.replica(o.upstreams)
			tok, g := w.token(nil)
			raw := sampleFile(t, s.file)
			settled := int64(0)
			for i, d := range deliveries() {
				contentType := "application/json; charset=utf-8"
				if s.stream {
					contentType = "text/event-stream"
				}
				o.next(func(c net.Conn) { d.write(c, contentType, raw) })
				body := capped(chat(s.stream, "hello"), 100_000) // room for what the samples claim
				a := r.post(s.face, tok, body)
				if a.status != http.StatusOK || a.err != nil || a.header.Get("Content-Type") != contentType {
					t.Errorf("%s: status %d, %v, type %q", d.name, a.status, a.err, a.header.Get("Content-Type"))
				}
				passed := a.body
				if s.torn > 0 {
					passed = s.checkTorn(t, a, raw)
				}
				if want := raw[:len(raw)-s.torn]; passed != string(want) {
					t.Errorf("%s: the client got\n%q\nwant\n%q", d.name, passed, want)
				}
				e := w.events(i + 1)[i]
				s.checkEvent(t, d.name, e, len(body))
				settled += e.Settled
			}
			if n := r.nothingHeld(g); n != settled {
				t.Errorf("%d tokens are settled, the events say %d", n, settled)
			}
		})
	}
}

// checkTorn fails unless a ends with an error event of ours, and returns what is before it.
func (s sample) checkTorn(t *testing.T, a answer, raw []byte) string {
	t.Helper()
	whole := len(raw) - s.torn
	if len(a.body) < whole {
		t.Fatalf("the client got only %q", a.body)
	}
	data, ok := strings.CutPrefix(a.body[whole:], "data: ")
	if !ok || !strings.HasSuffix(data, "\n\n") {
		t.Errorf("the stream ends with %q", a.body[whole:])
	}
	cut := answer{status: 502, header: a.header, body: strings.TrimSpace(data)}
	cut.header = cut.header.Clone()
	cut.header.Set("Content-Type", "application/json")
	refusal{status: 502, typ: "upstream_error"}.check(t, s.face, cut)
	return a.body[:whole]
}

func (s sample) checkEvent(t *testing.T, delivery string, e contract.Event, bodyLen int) {
	t.Helper()
	if e.Basis != s.basis || e.Outcome != s.outcome || e.Status != http.StatusOK || e.UpstreamRequestID != "00000000-0000-4000-8000-000000000042" {
		t.Errorf("%s: basis %s, outcome %s, status %d, upstream id %q; want %s, %s", delivery, e.Basis, e.Outcome, e.Status, e.UpstreamRequestID, s.basis, s.outcome)
	}
	got := kimi.Counts{Prompt: e.Prompt, Cached: e.Cached, Completion: e.Completion, Reasoning: e.Reasoning}
	if s.basis == contract.BasisUpstream {
		if got != s.counts || e.Settled != got.Prompt+got.Completion || e.Unbilled != 0 {
			t.Errorf("%s: metered %+v, settled %d, unbilled %d; want %+v", delivery, got, e.Settled, e.Unbilled, s.counts)
		}
		return
	}
	// Estimated: at least the text that came (11 bytes or more), at most what was reserved.
	if got.Prompt != int64(bodyLen) || got.Completion < 11 || got.Completion > 100 || e.Settled > e.Reserved || e.Settled != got.Prompt+got.Completion {
		t.Errorf("%s: metered %+v, settled %d of %d", delivery, got, e.Settled, e.Reserved)
	}
}

// Where the upstream reports usage only when asked to, the proxy asks; a client that did
// not ask sees nothing of it.
func TestIncludeUsageIsInjected(t *testing.T) {
	t.Parallel()
	raw := sampleFile(t, "04_stream_usage_top_level.sse")
	i := bytes.Index(raw, []byte(`"choices":[]`))
	from := bytes.LastIndex(raw[:i], []byte("\n\n")) + 2
	to := i + bytes.Index(raw[i:], []byte("\n\n")) + 2
	hidden := string(raw[:from]) + string(raw[to:])
	base := func(more string) string {
		return `{"model":"` + model + `","max_tokens":4000,` + more + `"messages":[{"role":"user","content":"x"}]}`
	}
	const on = `"stream_options":{"include_usage":true},`
	w := newWorld(t)
	o := newOrigin(t)
	r := w.replica(o.upstreams, func(c *proxy.Config) {
		for i := range c.Upstreams {
			c.Upstreams[i].NeedsIncludeUsage = true
		}
	})
	tok, _ := w.token(nil)
	ways := deliveries()
	for n, c := range []struct{ name, asked, sent, shown string }{
		{"absent", base(`"stream":true,`), strings.Replace(base(`"stream":true,`), "{", "{"+on, 1), hidden},
		{"null", base(`"stream":true,"stream_options":null,`), base(`"stream":true,` + on), hidden},
		{"empty", base(`"stream":true,"stream_options":{ },`), base(`"stream":true,"stream_options":{"include_usage":true },`), hidden},
		{"false", base(`"stream":true,"stream_options":{"include_usage": false},`), base(`"stream":true,"stream_options":{"include_usage": true},`), hidden},
		{"other options", base(`"stream":true,"stream_options":{"include_obfuscation":true},`), base(`"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":true},`), hidden},
		{"asked", base(`"stream":true,"stream_options": {"include_usage" :true},`), base(`"stream":true,"stream_options": {"include_usage" :true},`), string(raw)},
	} {
		for k, d := range ways {
			o.next(func(c net.Conn) { d.write(c, "text/event-stream", raw) })
			a := r.post(faces[0], tok, c.asked)
			if a.status != http.StatusOK || a.body != c.shown {
				t.Errorf("%s, %s: status %d, the client got\n%q\nwant\n%q", c.name, d.name, a.status, a.body, c.shown)
			}
			if got, _ := o.last(); got.body != c.sent {
				t.Errorf("%s: sent\n%s\nwant\n%s", c.name, got.body, c.sent)
			}
			count := n*len(ways) + k + 1
			e := w.events(count)[count-1]
			if e.Prompt != 2048 || e.Cached != 1792 || e.Completion != 5 || e.Basis != contract.BasisUpstream || e.Outcome != contract.OutcomeOK {
				t.Errorf("%s, %s: event %+v", c.name, d.name, e)
			}
		}
	}

	// Not for answers that are no streams, and not on the other face.
	for _, c := range []struct {
		f    face
		file string
		body string
	}{
		{faces[0], "02_response_nonstream_cached.json", base("")},
		{faces[1], "09c_stream_anthropic.sse", base(`"stream":true,`)},
	} {
		body := sampleFile(t, c.file)
		ct := map[bool]string{false: "application/json", true: "text/event-stream"}[strings.HasSuffix(c.file, "sse")]
		o.next(func(conn net.Conn) { ways[1].write(conn, ct, body) })
		if a := r.post(c.f, tok, c.body); a.body != string(body) {
			t.Errorf("%s: the client got %q", c.file, a.body)
		}
		if got, _ := o.last(); got.body != c.body {
			t.Errorf("%s: sent %s", c.file, got.body)
		}
	}
}

// Requests pass byte for byte; what the proxy changes are splices at known places.
func TestRequestBodiesPassByteForByte(t *testing.T) {
	t.Parallel()
	const messages = `"messages":[{"role":"user","content":"caf\u00e9 \ud83d\ude00 \"q\" \\ \/ \t\u0000"}]`
	read := func(name string) string { return string(sampleFile(t, name)) }
	same := func(s string) string { return s }
	// renamed is with the alias in place of the model's name.
	renamed := func(s string) string { return strings.Replace(s, `"alias/k2p5"`, `"`+model+`"`, 1) }
	// uncapped is with the default cap behind the first brace.
	uncapped := func(s string) string { return strings.Replace(s, "{", `{"max_tokens":32768,`, 1) }
	both := func(s string) string { return uncapped(renamed(s)) }
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	rows := []struct {
		name      string
		body      string
		sent      func(string) string
		openai    bool
		anthropic bool
	}{
		{"recorded, tools", read("01_request_openai_openclaw.json"), same, true, false},
		{"recorded, image", read("01b_request_openai_image.json"), same, true, false},
		{"recorded, Anthropic", read("09_request_anthropic_openclaw.json"), same, false, true},
		{"whole numbers", `{"model":"` + model + `","max_tokens":64.0,"n":1.0,` + messages + `}`, same, true, true},
		{"powers of ten", `{"model":"` + model + `","max_tokens":1.2e1,"n":10e-1,` + messages + `}`, same, true, true},
		{"unknown fields", `{"model":"` + model + `","max_tokens":9,"x":{"y":[1,2.50,-0,1e+05,true,null]},` + messages + `,"store":false,"z":""}`, same, true, true},
		{"odd white space", "\r\n\t {\n\"model\" \t:\r\n \"" + model + "\" ,\"max_tokens\" : 9 , " + messages + " \n} \r\n\t", same, true, true},
		{"escapes in names of fields", `{"mod\u0065l":"` + model + `","max_tokens":9,"\u0078":1,` + messages + `}`, same, true, true},
		{"escapes in the model", `{"model":"kimi-k2\u002e5","max_tokens":9,` + messages + `}`, same, true, true},
		{"text that looks like fields", `{"model":"` + model + `","max_tokens":9,"messages":[{"role":"user","content":"\"model\":\"x\",\"max_tokens\":1"}]}`, same, true, true},
		{"fields of the same name deeper", `{"metadata":{"model":"a","max_tokens":1,"stream":true},"max_tokens":9,"model":"` + model + `",` + messages + `}`, same, true, true},
		{"alias", `{"model":"alias/k2p5","max_tokens":9,` + messages + `}`, renamed, true, true},
		{"alias with an escape", `{"model":"alias\/k2p5","max_tokens":9,` + messages + `}`, replace(`"alias\/k2p5"`, `"`+model+`"`), true, true},
		{"alias that is also text", `{"x":["alias/k2p5"],"messages":[],"max_tokens":9,"model" : "alias/k2p5"}`, replace(`: "alias/k2p5"`, `: "`+model+`"`), true, true},
		{"no cap", `{"model":"` + model + `",` + messages + `}`, uncapped, true, true},
		{"no cap, odd white space", "{\n  \"model\": \"" + model + "\",\n  " + messages + "\n}", uncapped, true, true},
		{"no cap and an alias", `{"model":"alias/k2p5",` + messages + `}`, both, true, true},
		{"null cap", `{"model":"` + model + `","max_tokens": null ,` + messages + `}`, replace("null", "32768"), true, true},
		{"zero cap", `{"model":"` + model + `","max_tokens":0,` + messages + `}`, replace(":0,", ":32768,"), true, true},
		{"the newer cap beside the upstream's own", `{"model":"` + model + `","max_completion_tokens":77,` + messages + `}`, replace(`{"model"`, `{"max_tokens":77,"model"`), true, false},
		{"the newer cap means nothing there", `{"model":"` + model + `","max_completion_tokens":77,` + messages + `}`, uncapped, false, true},
		{"both caps", `{"model":"` + model + `","max_completion_tokens":77,"max_tokens":99999,` + messages + `}`, same, true, false},
		{"thinking", `{"model":"` + model + `","max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":8999},` + messages + `}`, same, true, true},
	}
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorldWith(t, kimisim.Config{KeepBodies: true})
			r := w.replica()
			tok, _ := w.token(nil)
			for _, c := range rows {
				if f.anthropic && !c.anthropic || !f.anthropic && !c.openai {
					continue
				}
				a := r.post(f, tok, c.body)
				if a.status != http.StatusOK {
					t.Errorf("%s: status %d: %s", c.name, a.status, a.body)
					continue
				}
				chats := w.chats()
				if got, want := chats[len(chats)-1].Body, c.sent(c.body); got != want {
					t.Errorf("%s: sent\n%q\nwant\n%q", c.name, got, want)
				}
			}
		})
	}
}

// Near the limit the caps are lowered in place, thinking.budget_tokens with them.
func TestLoweredCapsAreSpliced(t *testing.T) {
	t.Parallel()
	const messages = `"messages":[{"role":"user","content":"hello"}]`
	const left = 300
	for _, c := range []struct {
		f          face
		body, sent string // # stands for what is left, and @ for one less
	}{
		{faces[0], `{"model":"kimi-k2.5","max_tokens":5000,` + messages + `}`, `{"model":"kimi-k2.5","max_tokens":#,` + messages + `}`},
		{faces[0], `{"max_completion_tokens": 5000 ,"model":"kimi-k2.5",` + messages + `}`, `{"max_tokens":#,"max_completion_tokens": # ,"model":"kimi-k2.5",` + messages + `}`},
		{faces[0], `{"model":"kimi-k2.5","max_tokens":5000,"max_completion_tokens":4000,` + messages + `}`, `{"model":"kimi-k2.5","max_tokens":#,"max_completion_tokens":#,` + messages + `}`},
		{faces[0], `{"model":"kimi-k2.5","max_tokens":9,"max_completion_tokens":4000,` + messages + `}`, `{"model":"kimi-k2.5","max_tokens":9,"max_completion_tokens":#,` + messages + `}`},
		{faces[0], `{"model":"kimi-k2.5",` + messages + `}`, `{"max_tokens":#,"model":"kimi-k2.5",` + messages + `}`},
		{faces[1], `{"model":"kimi-k2.5",` + messages + `}`, `{"max_tokens":#,"model":"kimi-k2.5",` + messages + `}`},
		{faces[1], `{"model":"kimi-k2.5","max_tokens":5000,"thinking":{"type":"enabled","budget_tokens":4000},` + messages + `}`,
			`{"model":"kimi-k2.5","max_tokens":#,"thinking":{"type":"enabled","budget_tokens":@},` + messages + `}`},
		{faces[1], `{"model":"kimi-k2.5","max_tokens":5000,"thinking":{"type":"enabled","budget_tokens":100},` + messages + `}`,
			`{"model":"kimi-k2.5","max_tokens":#,"thinking":{"type":"enabled","budget_tokens":100},` + messages + `}`},
	} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			w := newWorldWith(t, kimisim.Config{KeepBodies: true})
			r := w.replica()
			const counted = 5 // by the simulator: 3 for the message, 2 for "hello"
			tok, _ := w.token(func(g *contract.Grant) { g.MonthlyLimit = int64(exactPrompt(c.f, c.body, counted) + left) })
			if a := r.post(c.f, tok, c.body); a.status != http.StatusOK {
				t.Fatalf("status %d: %s", a.status, a.body)
			}
			want := strings.NewReplacer("#", "300", "@", "299").Replace(c.sent)
			if got := w.chats()[0].Body; got != want {
				t.Errorf("sent\n%s\nwant\n%s", got, want)
			}
			w.events(1)
		})
	}
}

// What goes upstream is the client's bytes themselves: a copy of a large body would be
// memory that no budget counts.
func TestBodiesAreNotCopied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	for i, f := range []kimi.Face{kimi.OpenAI, kimi.Anthropic} {
		body := []byte(strings.Replace(chat(true, strings.Repeat("hello ", 1000)+"end"), model, "alias/k2p5", 1))
		pieces, err := r.Sent(f, body)
		if err != nil {
			t.Fatal(err)
		}
		copy(body[bytes.Index(body, []byte("end")):], "END")
		if got, want := string(bytes.Join(pieces, nil)), strings.Replace(string(body), "alias/k2p5", model, 1); got != want {
			t.Errorf("%s: sent %.100s…, want %.100s…", faces[i].name, got, want)
		}
	}
}
