package kimi_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// stream is what a whole sample must come to.
type stream struct {
	file        string
	face        kimi.Face
	kinds       string // one letter per event: other, data, end mark, error
	rest        int    // bytes that are not a whole event
	counts      kimi.Counts
	complete    bool
	finish      int // index of the event with a finish reason, -1 for none
	usageOnly   int
	outputBytes int64
}

// The output bytes are "assistant" (9) once on the OpenAI face, the text, and the
// parts of tool calls; on the Anthropic face the text and each block's type.
var streams = []stream{
	{"03_stream_usage_in_choice.sse", kimi.OpenAI, "ddddddde", 0, kimi.Counts{Prompt: 24, Cached: 16, Completion: 9}, true, 6, -1, 9 + 5 + 2 + 6 + 5 + 1},
	{"04_stream_usage_top_level.sse", kimi.OpenAI, "dddddddde", 0, kimi.Counts{Prompt: 2048, Cached: 1792, Completion: 5}, true, 6, 7, 9 + 4 + 2 + 8 + 5 + 1},
	{"04b_stream_usage_both_places_UNCONFIRMED.sse", kimi.OpenAI, "dddde", 0, kimi.Counts{Prompt: 300, Completion: 2}, true, 2, 3, 9 + 2},
	{"05_stream_tool_calls.sse", kimi.OpenAI, "dddddddde", 0, kimi.Counts{Prompt: 4096, Cached: 3840, Completion: 48}, true, 7, -1, 9 + 9 + 2*(6+8+4) + 10 + 14 + 23},
	{"06_stream_reasoning_content.sse", kimi.OpenAI, "ddddddddde", 0, kimi.Counts{Prompt: 512, Completion: 64, Reasoning: 50}, true, 7, 8, 9 + 8 + 12 + 7 + 7 + 10 + 7},
	{"07a_stream_midstream_error_event_UNCONFIRMED.sse", kimi.OpenAI, "ddE", 0, kimi.Counts{}, false, -1, -1, 9 + 11},
	{"07b_stream_truncated_no_done.sse", kimi.OpenAI, "dd", 68, kimi.Counts{}, false, -1, -1, 9 + 11},
	{"07c_stream_crlf_and_comments_SYNTHETIC.sse", kimi.OpenAI, "odddoe", 0, kimi.Counts{Prompt: 10, Completion: 4}, true, 3, -1, 9 + 11},
	{"09c_stream_anthropic.sse", kimi.Anthropic, "ddddddddddddde", 0, kimi.Counts{Prompt: 24886, Cached: 24576, Completion: 57}, true, 12, -1, 8 + 29 + 4 + 25 + 8 + 9 + 4 + 10 + 14},
	{"09d_stream_anthropic_usage_only_in_delta.sse", kimi.Anthropic, "ddddddddddddde", 0, kimi.Counts{Prompt: 24886, Cached: 24576, Completion: 57, Reasoning: 8}, true, 12, -1, 8 + 29 + 4 + 25 + 8 + 9 + 4 + 10 + 14},
	{"10_stream_anthropic_error_event.sse", kimi.Anthropic, "doddE", 0, kimi.Counts{Prompt: 24886, Cached: 24576}, false, -1, -1, 4 + 25},
}

func letter(k kimi.EventKind) byte {
	return map[kimi.EventKind]byte{kimi.EventOther: 'o', kimi.EventData: 'd', kimi.EventEndMark: 'e', kimi.EventError: 'E'}[k]
}

func TestStreamSamples(t *testing.T) {
	t.Parallel()
	for _, c := range streams {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			list, rest := events(sample(t, c.file))
			if len(rest) != c.rest {
				t.Errorf("rest has %d bytes, want %d: %q", len(rest), c.rest, rest)
			}
			var u kimi.Usage
			var kinds []byte
			finish, usageOnly, output := -1, -1, int64(0)
			for i, ev := range list {
				info := kimi.InspectEvent(ev, c.face, &u)
				kinds = append(kinds, letter(info.Kind))
				output += info.OutputBytes
				if info.Finish {
					finish = i
				}
				if info.UsageOnly {
					usageOnly = i
				}
				if alone := kimi.InspectEvent(ev, c.face, new(kimi.Usage)); alone != info {
					t.Errorf("event %d: %+v within the stream, %+v alone", i, info, alone)
				}
			}
			if string(kinds) != c.kinds || finish != c.finish || usageOnly != c.usageOnly {
				t.Errorf("kinds %s, finish %d, usage only %d; want %s, %d, %d", kinds, finish, usageOnly, c.kinds, c.finish, c.usageOnly)
			}
			if output != c.outputBytes {
				t.Errorf("output bytes %d, want %d", output, c.outputBytes)
			}
			counts, complete := u.Counts()
			if counts != c.counts || complete != c.complete || u.Implausible() {
				t.Errorf("counts %+v complete %v implausible %v, want %+v %v", counts, complete, u.Implausible(), c.counts, c.complete)
			}
			// The numbers of 06 are invented: 64 tokens out of 60 bytes.
			if complete && output < c.counts.Completion && !strings.HasPrefix(c.file, "06") {
				t.Errorf("output bytes %d do not bound %d tokens", output, c.counts.Completion)
			}
		})
	}
}

// cut deals data out in pieces that end at the given places and returns the events
// found, searching again after each piece from where the last search ended.
func cut(data []byte, places ...int) (list [][]byte, rest []byte) {
	start, from := 0, 0
	for _, have := range append(places, len(data)) {
		for {
			end := kimi.EventEnd(data[start:have], from)
			if end < 0 {
				from = have - start
				break
			}
			list = append(list, data[start:start+end])
			start, from = start+end, 0
		}
	}
	return list, data[start:]
}

func sameEvents(a, b [][]byte) bool {
	return bytes.Equal(bytes.Join(a, []byte("|")), bytes.Join(b, []byte("|"))) && len(a) == len(b)
}

func TestEventEndSplitAnywhere(t *testing.T) {
	t.Parallel()
	for _, c := range streams {
		data := sample(t, c.file)
		for name, data := range map[string][]byte{
			"as is": data,
			"LF":    bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")),
			"CRLF":  bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n")),
			"CR":    append(bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r")), ':'),
			"BOM":   append([]byte("\xef\xbb\xbf"), data...),
		} {
			t.Run(c.file+" "+name, func(t *testing.T) {
				t.Parallel()
				want, wantRest := cut(data)
				if len(want) != len(c.kinds) {
					t.Errorf("%d events, want %d", len(want), len(c.kinds))
				}
				for i := 1; i < len(data); i++ {
					if got, rest := cut(data, i); !sameEvents(got, want) || !bytes.Equal(rest, wantRest) {
						t.Fatalf("split at %d gives %d events, want %d", i, len(got), len(want))
					}
				}
				every := make([]int, len(data))
				for i := range every {
					every[i] = i
				}
				if got, _ := cut(data, every...); !sameEvents(got, want) {
					t.Fatalf("byte by byte gives %d events, want %d", len(got), len(want))
				}
				var u kimi.Usage
				for i, ev := range want {
					if got := letter(kimi.InspectEvent(ev, c.face, &u).Kind); got != c.kinds[i] {
						t.Errorf("event %d is %c, want %c", i, got, c.kinds[i])
					}
				}
				if counts, complete := u.Counts(); counts != c.counts || complete != c.complete {
					t.Errorf("counts %+v %v", counts, complete)
				}
			})
		}
	}
}

func TestEventEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		want int
	}{
		{"", -1}, {"\n", 1}, {"\r\n", 2}, {"\r", -1}, {"\rx", 1},
		{"a", -1}, {"a\n", -1}, {"a\n\n", 3}, {"a\r\n\r\n", 5}, {"a\r\r", -1}, {"a\r\rb", 3},
		{"a\r\n\r", -1}, {"a\n\r\n", 4}, {"a\r\n\n", 4}, {"a\n\r", -1}, {"a\n\rb", 3}, {"a\r\r\n", 4},
		{"a\nb\n\nc\n\n", 5}, {"a\r\nb\r\n", -1}, {"a\rb\r\r\r", 5},
	} {
		for from := 0; from <= len(c.in); from++ {
			// Resuming is only allowed behind what was searched in vain.
			if from > 0 && kimi.EventEnd([]byte(c.in[:from]), 0) >= 0 {
				break
			}
			if got := kimi.EventEnd([]byte(c.in), from); got != c.want {
				t.Errorf("%q from %d: %d, want %d", c.in, from, got, c.want)
			}
		}
	}
	for _, from := range []int{-5, 99} {
		if got := kimi.EventEnd([]byte("a"), from); got != -1 {
			t.Errorf("from %d: %d", from, got)
		}
	}
}

func TestInspectEvent(t *testing.T) {
	t.Parallel()
	const chunk = `{"choices":[{"index":0,"delta":{"content":"ab"},"finish_reason":null}]}`
	for _, c := range []struct {
		name, ev string
		face     kimi.Face
		want     kimi.EventInfo
	}{
		{"comment", ": keep-alive\n\n", kimi.OpenAI, kimi.EventInfo{}},
		{"nothing", "", kimi.OpenAI, kimi.EventInfo{}},
		{"blank line", "\n", kimi.OpenAI, kimi.EventInfo{}},
		{"empty data", "data:\n\n", kimi.OpenAI, kimi.EventInfo{}},
		{"id and retry", "id: 1\nretry: 5\n\n", kimi.OpenAI, kimi.EventInfo{}},
		{"field that begins with data", "database: {}\n\n", kimi.OpenAI, kimi.EventInfo{}},
		{"chunk", "data: " + chunk + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 2}},
		{"chunk without a space", "data:" + chunk + "\r\n\r\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 2}},
		{"chunk with id and event", "id: 7\nevent: message\ndata: " + chunk + "\n: c\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 2}},
		{"data in two lines", "data: {\"choices\":\ndata: [{\"delta\":{\"content\":\"ab\"}}]}\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 2}},
		{"data in three lines", "data: {\"choices\":\r\ndata:[{\"delta\":\rdata: {\"content\":\"ab\"}}]}\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 2}},
		{"two choices", `data: {"choices":[{"delta":{"content":"ab"}},{"delta":{"content":"cde"}}]}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 5}},
		{"done", "data: [DONE]\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventEndMark}},
		{"done with blanks", "data:  \t[DONE] \r\n\r\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventEndMark}},
		{"done without blanks and end", "data:[DONE]", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventEndMark}},
		{"done is not Anthropic's", "data: [DONE]\n\n", kimi.Anthropic, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 6}},
		{"done in content", `data: {"choices":[{"delta":{"content":"[DONE]"}}]}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 6}},
		{"BOM", "\xef\xbb\xbfdata: [DONE]\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventEndMark}},
		{"error object", `data: {"error":{"message":"x"}}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventError}},
		{"error text", `data: {"error":"x"}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventError}},
		{"error event", "event: error\ndata: {\"message\":\"x\"}\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventError}},
		{"error event that is no JSON", "event:error\ndata: sorry\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventError}},
		{"error event without data", "event: error\n\n", kimi.Anthropic, kimi.EventInfo{Kind: kimi.EventError}},
		{"error by type alone", `data: {"type":"error"}` + "\n\n", kimi.Anthropic, kimi.EventInfo{Kind: kimi.EventError}},
		{"no error", `data: {"choices":[],"error":null}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData}},
		{"error in content", `data: {"choices":[{"delta":{"content":"{\"error\":1}","error":{}}}]}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 13}},
		{"usage only", `data: {"choices":[],"usage":{"prompt_tokens":1}}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, UsageOnly: true}},
		{"usage only, usage first", `data: {"usage":{"prompt_tokens":1},"choices":[ ]}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, UsageOnly: true}},
		{"usage null", `data: {"choices":[],"usage":null}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData}},
		{"usage with a choice", `data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, Finish: true}},
		{"broken JSON", `data: {"choices":[{"delta":{"content":"ab"}}]` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 39}},
		{"not an object", "data: 12345\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 5}},
		{"unknown shape", `data: {"tokens":"abc"}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 16}},
		{"choice of unknown shape", `data: {"choices":[{"words":"abc"}]}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 15}},
		{"ping", "event: ping\ndata: {\"type\": \"ping\"}\n\n", kimi.Anthropic, kimi.EventInfo{}},
		{"stop by name", "event: message_stop\ndata: {}\n\n", kimi.Anthropic, kimi.EventInfo{Kind: kimi.EventEndMark}},
		{"stop by type", `data: {"type":"message_stop"}` + "\n\n", kimi.Anthropic, kimi.EventInfo{Kind: kimi.EventEndMark}},
		{"stop is not OpenAI's", `data: {"type":"message_stop"}` + "\n\n", kimi.OpenAI, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 23}},
		{"delta, type last", `data: {"delta":{"text":"abc","type":"text_delta"},"index":0,"type":"content_block_delta"}` + "\n\n", kimi.Anthropic, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 3}},
		{"whole tool use", `data: {"type":"content_block_start","content_block":{"type":"tool_use","id":"i","name":"n","input":{"k":12}}}` + "\n\n", kimi.Anthropic, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 8 + 1 + 1 + 8}},
		{"stop reason", `data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}` + "\n\n", kimi.Anthropic, kimi.EventInfo{Kind: kimi.EventData, Finish: true}},
		{"unknown type", `data: {"type":"new","x":1}` + "\n\n", kimi.Anthropic, kimi.EventInfo{Kind: kimi.EventData, OutputBytes: 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var u kimi.Usage
			for range 2 { // the second time with the frame of the first
				if got := kimi.InspectEvent([]byte(c.ev), c.face, &u); got != c.want {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
			}
		})
	}
}

// TestFrameNeverHides feeds events that differ from the one before in every way that
// matters, so that a frame remembered too loosely would show.
func TestFrameNeverHides(t *testing.T) {
	t.Parallel()
	openAI := []string{
		`{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}`,
		`{"choices":[{"delta":{"content":"abc"},"finish_reason":null}]}`,
		`{"choices":[{"delta":{},"finish_reason":null}]}`,
		`{"choices":[{"delta":null,"finish_reason":null}]}`,
		`{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}`,
		`{"choices":[{"delta":{"content":"a"},"finish_reason":"st"}]}`, // as long as null
		`{"choices":[{"delta":{"content":"a"},"finish_reason":null,"message":{"content":"b"}}]}`,
		`{"choices":[{"delta":{"content":"a"},"finish_reason":null},{"words":"b"}]}`,
		`{"choices":[{"delta":{"content":"a"},"finish_reason":null}],"usage":{"prompt_tokens":7,"completion_tokens":3}}`,
		`{"choices":[{"delta":{"content":"a"},"finish_reason":null},{"delta":{"content":"a"},"finish_reason":null}]}`,
		`{"choices":[{"delta":{"content":"a"},"x":{"delta":1},"finish_reason":null}]}`,
		`{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"x"},"finish_reason":null}]}`,
		`{"choices":[{"delta":{"content":"a},"finish_reason":null}]}`,
		`{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}]}`,
		`{"choices":[{"delta":1,"usage":{"prompt_tokens":9,"completion_tokens":1},"finish_reason":null}]}`,
		`{"choices":[{"delta":{},"finish_reason":null}],"error":{"message":"x"},"y":[{"finish_reason":null}]}`,
		`{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}`,
	}
	anthropic := []string{
		`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"abcd"}}`,
		`{"type":"content_block_delta","index":0,"delta":{"stop_reason":"end_turn"}}`,
		`{"type":"message_delta","index":0,"delta":{"type":"text_delta","text":"a"}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"},"usage":{"input_tokens":4,"output_tokens":5}}`,
		`{"type":"content_block_delta","index":0,"delta":{},"delta":{"text":"xy"}}`,
		`{"index":0,"delta":{"text":"xy"}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}}`,
	}
	for face, list := range map[kimi.Face][]string{kimi.OpenAI: openAI, kimi.Anthropic: anthropic} {
		for i, before := range list {
			for j, after := range list {
				for _, name := range []string{"", "event: error\n", "event: message_stop\n", "event: ping\n"} {
					ev := []byte(name + "data: " + after + "\n\n")
					var alone, both kimi.Usage
					want := kimi.InspectEvent(ev, face, &alone)
					kimi.InspectEvent([]byte("data: "+before+"\n\n"), face, &both)
					if got := kimi.InspectEvent(ev, face, &both); got != want {
						t.Errorf("face %d, %d after %d %q: %+v, alone %+v", face, j, i, name, got, want)
					}
				}
			}
		}
	}
}

func TestInspectEventKeepsUsageStraight(t *testing.T) {
	t.Parallel()
	const (
		withDelta = `{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":7,"completion_tokens":3}}`
		alone     = `{"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":4}}`
		broken    = `{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":-5,"cached_tokens":1}`
	)
	for _, c := range []struct {
		name   string
		events []string
		want   kimi.Counts
	}{
		{"the last one wins, also when it repeats", []string{withDelta, alone, withDelta}, kimi.Counts{Prompt: 7, Completion: 3}},
		{"broken events report nothing", []string{withDelta, broken}, kimi.Counts{Prompt: 7, Completion: 3}},
		{"not even at first", []string{broken}, kimi.Counts{}},
	} {
		var u kimi.Usage
		for _, data := range c.events {
			kimi.InspectEvent([]byte("data: "+data+"\n\n"), kimi.OpenAI, &u)
		}
		if got, complete := u.Counts(); got != c.want || complete != (c.want != kimi.Counts{}) || u.Implausible() {
			t.Errorf("%s: %+v, complete %v, implausible %v", c.name, got, complete, u.Implausible())
		}
	}
	// One Usage for two faces is a mistake, but even then no frame may mislead.
	both := []byte(`data: {"type":"content_block_delta","delta":{"text":"a"},"choices":[{"delta":{"content":"bcd"}}]}` + "\n\n")
	var u kimi.Usage
	for range 2 {
		for face, want := range map[kimi.Face]int64{kimi.OpenAI: 3, kimi.Anthropic: 1} {
			if got := kimi.InspectEvent(both, face, &u).OutputBytes; got != want {
				t.Errorf("face %d: %d output bytes, want %d", face, got, want)
			}
		}
	}
}

func TestInspectEventAllocatesNothing(t *testing.T) {
	for _, c := range streams {
		list, _ := events(sample(t, c.file))
		var u kimi.Usage
		if n := testing.AllocsPerRun(20, func() {
			for _, ev := range list {
				kimi.InspectEvent(ev, c.face, &u)
				u.Counts()
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", c.file, n)
		}
	}
}

// TestSamplesAreAllUsed keeps a sample that is added later from being forgotten.
func TestSamplesAreAllUsed(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, c := range streams {
		used[c.file] = true
	}
	files, err := filepath.Glob("testdata/*.sse")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if !used[strings.TrimPrefix(f, "testdata/")] {
			t.Errorf("%s is in no table", f)
		}
	}
}

func ExampleInspectEvent() {
	stream := []byte("data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n" +
		"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\",\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":1}}]}\n\n" +
		"data: [DONE]\n\n")
	var u kimi.Usage
	for {
		end := kimi.EventEnd(stream, 0)
		if end < 0 {
			break
		}
		fmt.Println(kimi.InspectEvent(stream[:end], kimi.OpenAI, &u).Kind)
		stream = stream[end:]
	}
	fmt.Println(u.Counts())
	// Output:
	// data
	// data
	// end
	// {8 0 1 0} true
}

// TestCRLinesAreCheap would take minutes if each CR were paid for with a search for
// an LF that never comes.
func TestCRLinesAreCheap(t *testing.T) {
	t.Parallel()
	ev := append(bytes.Repeat([]byte(":\r"), 4<<20), "\r:"...)
	if end := kimi.EventEnd(ev, 0); end != len(ev)-1 {
		t.Errorf("ends at %d of %d", end, len(ev))
	}
	if info := kimi.InspectEvent(ev, kimi.OpenAI, new(kimi.Usage)); info != (kimi.EventInfo{}) {
		t.Errorf("%+v", info)
	}
}
