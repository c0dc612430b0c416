package relay_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/proxy/relay"
)

// sample is a recorded stream and what the relay must make of it.
type sample struct {
	file   string
	face   kimi.Face
	end    relay.End
	events int64 // with content, passed on
	torn   int   // bytes at the end that are no whole event
	counts kimi.Counts
	whole  bool // the usage is complete
}

func samples() []sample {
	return []sample{
		{"03_stream_usage_in_choice.sse", kimi.OpenAI, relay.Done, 7, 0, kimi.Counts{Prompt: 24, Cached: 16, Completion: 9}, true},
		{"04_stream_usage_top_level.sse", kimi.OpenAI, relay.Done, 8, 0, kimi.Counts{Prompt: 2048, Cached: 1792, Completion: 5}, true},
		{"04b_stream_usage_both_places_UNCONFIRMED.sse", kimi.OpenAI, relay.Done, 4, 0, kimi.Counts{Prompt: 300, Completion: 2}, true},
		{"05_stream_tool_calls.sse", kimi.OpenAI, relay.Done, 8, 0, kimi.Counts{Prompt: 4096, Cached: 3840, Completion: 48}, true},
		{"06_stream_reasoning_content.sse", kimi.OpenAI, relay.Done, 9, 0, kimi.Counts{Prompt: 512, Completion: 64, Reasoning: 50}, true},
		{"07a_stream_midstream_error_event_UNCONFIRMED.sse", kimi.OpenAI, relay.Failed, 2, 0, kimi.Counts{}, false},
		{"07b_stream_truncated_no_done.sse", kimi.OpenAI, relay.Open, 2, 68, kimi.Counts{}, false},
		{"07c_stream_crlf_and_comments_SYNTHETIC.sse", kimi.OpenAI, relay.Done, 3, 0, kimi.Counts{Prompt: 10, Completion: 4}, true},
		{"09c_stream_anthropic.sse", kimi.Anthropic, relay.Done, 13, 0, kimi.Counts{Prompt: 24886, Cached: 24576, Completion: 57}, true},
		{"09d_stream_anthropic_usage_only_in_delta.sse", kimi.Anthropic, relay.Done, 13, 0, kimi.Counts{Prompt: 24886, Cached: 24576, Completion: 57, Reasoning: 8}, true},
		{"10_stream_anthropic_error_event.sse", kimi.Anthropic, relay.Failed, 3, 0, kimi.Counts{Prompt: 24886, Cached: 24576}, false},
	}
}

func (s sample) read(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "internal", "kimi", "testdata", s.file))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// result is everything that can be seen of a stream at its end.
type result struct {
	out      string
	end      relay.End
	counts   kimi.Counts
	whole    bool
	output   int64
	events   int64
	buffered int
	err      error
}

// run feeds the pieces and closes the input. The pieces are overwritten behind the
// relay's back, since it promises to keep no reference to them.
func run(s *relay.Stream, o relay.Options, pieces ...[]byte) result {
	s.Reset(o)
	var r result
	var out []byte
	for _, p := range pieces {
		p = bytes.Clone(p)
		if out, r.err = s.Feed(out, p); r.err != nil {
			break
		}
		for i := range p {
			p[i] = 0xff
		}
	}
	out = s.CloseInput(out)
	r.out, r.end = string(out), s.End()
	r.counts, r.whole = s.Usage().Counts()
	r.output, r.events, r.buffered = s.OutputBytes(), s.Events(), s.Buffered()
	return r
}

// cut splits b before each of the positions.
func cut(b []byte, at ...int) [][]byte {
	var pieces [][]byte
	from := 0
	for _, i := range at {
		pieces = append(pieces, b[from:i])
		from = i
	}
	return append(pieces, b[from:])
}

func single(b []byte) [][]byte {
	pieces := make([][]byte, len(b))
	for i := range b {
		pieces[i] = b[i : i+1]
	}
	return pieces
}

func TestSamplesPassByteForByteAndAreCounted(t *testing.T) {
	t.Parallel()
	for _, c := range samples() {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			in := c.read(t)
			var s relay.Stream
			r := run(&s, relay.Options{Face: c.face}, in)
			if want := string(in[:len(in)-c.torn]); r.out != want {
				t.Errorf("passed\n%q\nwant\n%q", r.out, want)
			}
			if r.end != c.end || r.events != c.events || r.buffered != 0 || r.err != nil {
				t.Errorf("end %d, %d events, %d bytes held, error %v; want end %d, %d events", r.end, r.events, r.buffered, r.err, c.end, c.events)
			}
			if r.counts != c.counts || r.whole != c.whole {
				t.Errorf("counts %+v, whole %v; want %+v, %v", r.counts, r.whole, c.counts, c.whole)
			}
		})
	}
}

// However the bytes are dealt out, and whatever ends the lines, the client gets the same
// and the same is counted.
func TestSplitsChangeNothing(t *testing.T) {
	t.Parallel()
	for _, c := range samples() {
		testSplits(t, c.file, c.face, c.read(t))
	}
	for _, end := range []string{"\r", "\r\n"} {
		c := samples()[8]
		testSplits(t, fmt.Sprintf("%s with %q", c.file, end), c.face, bytes.ReplaceAll(c.read(t), []byte("\n"), []byte(end)))
	}
}

func testSplits(t *testing.T, name string, face kimi.Face, in []byte) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		var s relay.Stream // one for all: Reset must leave nothing behind
		o := relay.Options{Face: face}
		want := run(&s, o, in)
		check := func(pieces [][]byte, what string) {
			t.Helper()
			if got := run(&s, o, pieces...); got != want {
				t.Fatalf("%s:\n%+v\nwant\n%+v", what, got, want)
			}
		}
		for i := range in {
			check(cut(in, i), fmt.Sprintf("split before byte %d", i))
		}
		check(single(in), "byte by byte")
		rnd := rand.New(rand.NewPCG(1, uint64(len(in))))
		for range 200 {
			at := rnd.IntN(len(in))
			end := at + rnd.IntN(len(in)-at)
			check(cut(in, at, end), fmt.Sprintf("splits before bytes %d and %d", at, end))
		}
	})
}

// An event is passed on as soon as its last byte is there, and not a byte before.
func TestEventsPassWholeAndAtOnce(t *testing.T) {
	t.Parallel()
	for _, c := range samples() {
		if strings.Contains(c.file, "crlf") {
			continue // a CR that is the last byte decides nothing
		}
		in := c.read(t)
		var s relay.Stream
		s.Reset(relay.Options{Face: c.face})
		var out []byte
		for i := range in {
			var err error
			if out, err = s.Feed(out, in[i:i+1]); err != nil {
				t.Fatal(err)
			}
			end := bytes.LastIndex(in[:i+1], []byte("\n\n")) + 2
			if end == 1 {
				end = 0
			}
			if len(out) != end || s.Buffered() != i+1-end {
				t.Fatalf("%s: after %d bytes %d are passed and %d held; want %d and %d", c.file, i+1, len(out), s.Buffered(), end, i+1-end)
			}
		}
	}
}

// Of several choices each finishes by itself; what is reported before the last one has is not
// final.
func TestFinishedIsEveryChoice(t *testing.T) {
	t.Parallel()
	chunk := func(choice int) []byte {
		return fmt.Appendf(nil, "data: {\"choices\":[{\"index\":%d,\"delta\":{},\"finish_reason\":\"stop\",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}]}\n\n", choice)
	}
	for choices, want := range [][]bool{{true, true}, {true, true}, {false, true}, {false, false}} {
		var s relay.Stream
		s.Reset(relay.Options{Face: kimi.OpenAI, Choices: choices})
		for i, want := range want {
			if _, err := s.Feed(nil, chunk(i)); err != nil || s.Finished() != want {
				t.Errorf("%d choices, %d have finished: %v, %v", choices, i+1, s.Finished(), err)
			}
		}
	}
}

func TestHideUsageDropsTheExtraChunkAlone(t *testing.T) {
	t.Parallel()
	for _, c := range samples() {
		in := c.read(t)
		var s relay.Stream
		shown := run(&s, relay.Options{Face: c.face}, in)
		var want strings.Builder
		hidden := int64(0)
		for _, ev := range strings.SplitAfter(shown.out, "\n\n") {
			if strings.Contains(ev, `"choices":[],`) {
				hidden++
				continue
			}
			want.WriteString(ev)
		}
		if wantHidden := c.file[:2] == "04" || c.file[:2] == "06"; wantHidden != (hidden == 1) {
			t.Fatalf("%s: %d chunks to hide", c.file, hidden)
		}
		o := relay.Options{Face: c.face, HideUsage: true}
		for _, pieces := range [][][]byte{{in}, single(in)} {
			r := run(&s, o, pieces...)
			if r.out != want.String() {
				t.Errorf("%s: passed\n%q\nwant\n%q", c.file, r.out, want.String())
			}
			if r.counts != shown.counts || r.whole != shown.whole || r.end != shown.end || r.events != shown.events-hidden {
				t.Errorf("%s: counted %+v, want as in %+v", c.file, r, shown)
			}
		}
	}
}

func TestErrorEventIsRedactedAndTheLast(t *testing.T) {
	t.Parallel()
	const (
		start     = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n"
		failure   = "data: {\"error\":{\"message\":\"Your account org-EXAMPLE<ak-EXAMPLE> request reached organization max RPM: 3\",\"type\":\"rate_limit_reached_error\"}}\n\n"
		redacted  = "data: {\"error\":{\"message\":\"Your account [redacted] request reached organization max RPM: 3\",\"type\":\"rate_limit_reached_error\"}}\n\n"
		anthropic = "event: error\r\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"ak-EXAMPLE is suspended\"}}\r\n\r\n"
		after     = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"}}]}\n\ndata: [DONE]\n\n"
	)
	for _, c := range []struct {
		face     kimi.Face
		in, want string
		events   int64
	}{
		{kimi.OpenAI, start + failure + after, start + redacted, 1},
		{kimi.OpenAI, failure, redacted, 0},
		{kimi.Anthropic, anthropic + "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", strings.ReplaceAll(anthropic, "ak-EXAMPLE", "[redacted]"), 0},
	} {
		var s relay.Stream
		for i := range c.in {
			r := run(&s, relay.Options{Face: c.face}, cut([]byte(c.in), i)...)
			if r.out != c.want || r.end != relay.Failed || r.events != c.events || r.err != nil {
				t.Fatalf("split before byte %d: %+v\nwant %q", i, r, c.want)
			}
		}
	}
}

func TestBytesAfterTheEndMarkPassUnread(t *testing.T) {
	t.Parallel()
	const mark, rest = "data: [DONE]\n\n", ": bye\n\ndata: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata: {\"error\":{}}\n\ndata: torn"
	var s relay.Stream
	for i := range mark + rest {
		r := run(&s, relay.Options{Face: kimi.OpenAI}, cut([]byte(mark+rest), i)...)
		if r.out != mark+rest || r.end != relay.Done || r.whole || r.events != 0 || r.buffered != 0 {
			t.Fatalf("split before byte %d: %+v", i, r)
		}
	}
}

func TestCloseInput(t *testing.T) {
	t.Parallel()
	const content = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n"
	const stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}"
	for _, c := range []struct {
		name string
		face kimi.Face
		tail string
		end  relay.End
	}{
		{"end mark without its blank line", kimi.OpenAI, "data: [DONE]\n", relay.Done},
		{"end mark without a line end", kimi.OpenAI, "data: [DONE]", relay.Done},
		{"end mark with half of a CRLF", kimi.OpenAI, "data: [DONE]\r", relay.Done},
		{"end mark with one and a half CRLF", kimi.OpenAI, "data:[DONE]\r\n\r", relay.Done},
		{"torn end mark", kimi.OpenAI, "data: [DON", relay.Open},
		{"message_stop without its blank line", kimi.Anthropic, stop + "\n", relay.Done},
		{"message_stop without a line end", kimi.Anthropic, stop, relay.Done},
		{"torn message_stop", kimi.Anthropic, stop[:len(stop)-1], relay.Open},
		{"whole line, no blank line", kimi.OpenAI, content[:len(content)-1], relay.Open},
		{"torn event", kimi.OpenAI, content[:20], relay.Open},
		{"torn error event", kimi.OpenAI, "data: {\"error\":{\"message\":\"org-EXAMPLE\"}}\n", relay.Open},
		{"comment", kimi.OpenAI, ": ping\n", relay.Open},
		{"nothing", kimi.OpenAI, "", relay.Open},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			want := content
			if c.end == relay.Done {
				want += c.tail
			}
			var s relay.Stream
			in := []byte(content + c.tail)
			for i := range len(in) + 1 {
				r := run(&s, relay.Options{Face: c.face}, cut(in, i)...)
				if r.out != want || r.end != c.end || r.buffered != 0 {
					t.Fatalf("split before byte %d: %+v\nwant end %d and %q", i, r, c.end, want)
				}
			}
		})
	}
}

func TestMaxEventBytesBoundsWhatIsHeld(t *testing.T) {
	t.Parallel()
	const limit = 100
	whole := "data: {\"choices\":[]}\n\n"
	var s relay.Stream
	s.Reset(relay.Options{Face: kimi.OpenAI, MaxEventBytes: limit})
	out, err := s.Feed(nil, []byte(whole+"data: "+strings.Repeat("x", limit-len("data: "))))
	if err != nil || string(out) != whole || s.Buffered() != limit {
		t.Fatalf("passed %q, %d held, error %v", out, s.Buffered(), err)
	}
	out, err = s.Feed(out, []byte("x"))
	if !errors.Is(err, relay.ErrEventTooLarge) || string(out) != whole {
		t.Fatalf("error %v after one byte too many, passed %q", err, out)
	}
	if out = s.CloseInput(out); string(out) != whole || s.End() != relay.Open || s.Buffered() != 0 {
		t.Errorf("passed %q, end %d, %d held", out, s.End(), s.Buffered())
	}

	// The limit is on what is held, not on the stream.
	s.Reset(relay.Options{Face: kimi.OpenAI, MaxEventBytes: limit})
	for range 1000 {
		for i := range whole {
			if _, err := s.Feed(nil, []byte(whole[i:i+1])); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.Events() != 1000 {
		t.Errorf("%d events", s.Events())
	}
}

// Output that is not billed yet is bounded by the bytes of its text.
func TestOutputBytesBoundTheText(t *testing.T) {
	t.Parallel()
	var s relay.Stream
	in := "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"abc\"}},{\"index\":1,\"delta\":{\"reasoning_content\":\"defg\"}}]}\n\n"
	if r := run(&s, relay.Options{Face: kimi.OpenAI}, []byte(in), []byte(in)); r.output != 14 {
		t.Errorf("bound %d for 14 bytes of text", r.output)
	}
}

func FuzzSplitInvariance(f *testing.F) {
	for _, c := range samples() {
		f.Add(c.read(f), uint64(len(c.file)), c.face == kimi.Anthropic, false)
		f.Add(c.read(f), uint64(len(c.file)), c.face == kimi.Anthropic, true)
	}
	f.Add([]byte("data: [DONE]\r\r\n\ndata:{}\n\r\n"), uint64(1), false, false)
	f.Add([]byte("\ufeffdata: {\"a\":\ndata: 1}\n\n: c\n\nevent: error\n\n"), uint64(2), true, false)
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, anthropic, hide bool) {
		o := relay.Options{Face: kimi.OpenAI, HideUsage: hide}
		if anthropic {
			o.Face = kimi.Anthropic
		}
		var s relay.Stream
		whole := run(&s, o, in)
		if whole.end != relay.Failed && !hide && !strings.HasPrefix(string(in), whole.out) {
			t.Fatalf("passed %q of %q", whole.out, in)
		}
		rnd := rand.New(rand.NewPCG(seed, 0))
		var at []int
		for i := 0; len(in) > 0 && len(at) < 64; {
			if i += rnd.IntN(1 + len(in)/4); i > len(in) {
				break
			}
			at = append(at, i)
			i++
		}
		at = at[:max(len(at)-1, 0)]
		for _, pieces := range [][][]byte{cut(in, at...), single(in)} {
			if got := run(&s, o, pieces...); got != whole {
				t.Fatalf("in pieces %q:\n%+v\nwant\n%+v", pieces, got, whole)
			}
		}
	})
}
