package origin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// directive is what a request asks for.
type directive struct {
	OutputTokens    int     `json:"output_tokens"`     // 16 if 0
	TokensPerSecond float64 `json:"tokens_per_second"` // 0 is as fast as the socket takes it
	TTFT            string  `json:"ttft"`              // a duration
	Stamp           bool    `json:"stamp"`
}

// plan is a directive, ready to be played.
type plan struct {
	tokens   int
	interval time.Duration // between events
	ttft     time.Duration
	stamp    bool
}

const marker = "[[sim:"

// planner finds the plan of a body. It remembers plans, since the requests of one
// measurement have few.
type planner struct {
	known map[string]plan
}

// maxKnown bounds what planner remembers; above it begins anew.
const maxKnown = 10_000

// plan reads the directive of a body; without one it is the default.
func (p *planner) plan(body []byte) (plan, error) {
	from := bytes.LastIndex(body, []byte(marker))
	if from < 0 {
		return plan{tokens: 16}, nil
	}
	text := body[from+len(marker):]
	end := bytes.Index(text, []byte("]]"))
	if end < 0 {
		return plan{}, fmt.Errorf("origin: %s has no end", marker)
	}
	text = text[:end]
	if known, ok := p.known[string(text)]; ok {
		return known, nil
	}
	var d directive
	// Inside of a JSON string the quotes are escaped.
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(text), `\"`, `"`)), &d); err != nil {
		return plan{}, fmt.Errorf("origin: directive %s: %w", text, err)
	}
	made := plan{tokens: d.OutputTokens, stamp: d.Stamp}
	if made.tokens == 0 {
		made.tokens = 16
	}
	if d.TokensPerSecond > 0 {
		made.interval = time.Duration(float64(time.Second) / d.TokensPerSecond)
	}
	if d.TTFT != "" {
		var err error
		if made.ttft, err = time.ParseDuration(d.TTFT); err != nil {
			return plan{}, fmt.Errorf("origin: directive: %w", err)
		}
	}
	if p.known == nil || len(p.known) >= maxKnown {
		p.known = make(map[string]plan)
	}
	p.known[string(text)] = made
	return made, nil
}

// usage is what an answer reports. The prompt is a quarter of the body's bytes, so that a
// bound made from bytes covers it.
type usage struct{ prompt, completion int }

// The parts of answers, as kimisim writes them.
const (
	wholeHead = "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nMsh-Request-Id: 00000000-0000-0000-0000-000000000000\r\nServer-Timing: inner; dur=0\r\nVary: Origin\r\nContent-Length: "
	eventHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nMsh-Request-Id: 00000000-0000-0000-0000-000000000000\r\nServer-Timing: inner; dur=0\r\nVary: Origin\r\nTransfer-Encoding: chunked\r\n\r\n"

	chunkID     = `{"id":"chatcmpl-00000000000000000000000000000000","object":"chat.completion.chunk","created":1769000000,"model":"kimi-k2.6","choices":[{"index":0,"delta":{`
	chunkTail   = `,"system_fingerprint":"fpv0_00000000"`
	messageID   = `"id":"msg_00000000000000000000000000000000","type":"message","role":"assistant","model":"kimi-k2.6"`
	deltaHead   = `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"token "`
	stampHere   = "@" // where the stamp goes in an event, if not at its end
	stampDigits = 19  // of Unix nanoseconds, until the year 2286
)

// scripts are the events of both faces: fixed text with room for the stamp.
type scripts struct {
	openAI, anthropic script
}

// script makes the chunks of one face's streams.
type script struct {
	first, token template
	last         func(b []byte, u usage, stamp int64) []byte // appends the chunks that end a stream
}

// template is one HTTP chunk with one event, or more, and where the stamps belong in it.
type template struct {
	bytes  []byte
	stamps []int
}

// makeTemplate frames events (each "name", "data"); a data that ends with "}" gets a stamp
// before it, or where stampHere is, if stamped. That is in the delta of those that are most of a
// stream: Kimi's differ in nothing else, and a proxy may make use of that.
func makeTemplate(stamped bool, events ...[2]string) template {
	var body []byte
	var stamps []int
	for _, e := range events {
		if e[0] != "" {
			body = append(body, "event: "+e[0]+"\n"...)
		}
		body = append(body, "data: "...)
		data, rest, stampable := strings.Cut(e[1], stampHere)
		if !stampable {
			if data, stampable = strings.CutSuffix(e[1], "}"); stampable {
				rest = "}"
			}
		}
		body = append(body, data...)
		if stamped && stampable {
			body = append(body, `,"t":`...)
			stamps = append(stamps, len(body))
			body = append(body, strings.Repeat("0", stampDigits)...)
		}
		body = append(append(body, rest...), "\n\n"...)
	}
	head := strconv.FormatInt(int64(len(body)), 16) + "\r\n"
	for i := range stamps {
		stamps[i] += len(head)
	}
	return template{bytes: append(append([]byte(head), body...), "\r\n"...), stamps: stamps}
}

// append adds the chunk, stamped with the time t.
func (t *template) append(b []byte, at int64) []byte {
	start := len(b)
	b = append(b, t.bytes...)
	for _, pos := range t.stamps {
		n := at
		for i := stampDigits - 1; i >= 0; i-- {
			b[start+pos+i] = byte('0' + n%10)
			n /= 10
		}
	}
	return b
}

func makeScripts(stamped bool) *scripts {
	return &scripts{
		openAI: script{
			first: makeTemplate(stamped, [2]string{"", chunkID + `"role":"assistant","content":""},"finish_reason":null}]` + chunkTail + `}`}),
			token: makeTemplate(stamped, [2]string{"", chunkID + `"content":"token "` + stampHere + `},"finish_reason":null}]` + chunkTail + `}`}),
			last: func(b []byte, u usage, at int64) []byte {
				final := chunkID + `},"finish_reason":"stop","usage":` + u.openAI() + `}]` + chunkTail + `}`
				for _, data := range []string{final, "[DONE]"} {
					t := makeTemplate(stamped, [2]string{"", data})
					b = t.append(b, at)
				}
				return append(b, "0\r\n\r\n"...)
			},
		},
		anthropic: script{
			first: makeTemplate(stamped,
				[2]string{"message_start", `{"type":"message_start","message":{` + messageID + `,"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":0}}}`},
				[2]string{"content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`}),
			token: makeTemplate(stamped, [2]string{"content_block_delta", deltaHead + stampHere + `}}`}),
			last: func(b []byte, u usage, at int64) []byte {
				for _, e := range [][2]string{
					{"content_block_stop", `{"type":"content_block_stop","index":0}`},
					{"message_delta", `{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":` + u.anthropic() + `}`},
					{"message_stop", `{"type":"message_stop"}`},
				} {
					t := makeTemplate(stamped, e)
					b = t.append(b, at)
				}
				return append(b, "0\r\n\r\n"...)
			},
		},
	}
}

func (u usage) openAI() string {
	return fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, u.prompt, u.completion, u.prompt+u.completion)
}

func (u usage) anthropic() string {
	return fmt.Sprintf(`{"input_tokens":%d,"output_tokens":%d}`, u.prompt, u.completion)
}

// appendWhole adds an answer without streaming.
func appendWhole(b []byte, anthropic bool, u usage) []byte {
	body := make([]byte, 0, 1024)
	if anthropic {
		body = append(body, `{`+messageID+`,"content":[{"type":"text","text":"`...)
		body = appendTokens(body, u.completion)
		body = append(body, `"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":`...)
		body = strconv.AppendInt(body, int64(u.prompt), 10)
		body = append(body, `,"output_tokens":`...)
	} else {
		body = append(body, `{"id":"chatcmpl-00000000000000000000000000000000","object":"chat.completion","created":1769000000,"model":"kimi-k2.6","choices":[{"index":0,"message":{"role":"assistant","content":"`...)
		body = appendTokens(body, u.completion)
		body = append(body, `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":`...)
		body = strconv.AppendInt(body, int64(u.prompt), 10)
		body = append(body, `,"total_tokens":`...)
		body = strconv.AppendInt(body, int64(u.prompt+u.completion), 10)
		body = append(body, `,"completion_tokens":`...)
	}
	body = append(strconv.AppendInt(body, int64(u.completion), 10), "}}"...)
	b = append(b, wholeHead...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n\r\n"...)
	return append(b, body...)
}

func appendTokens(b []byte, n int) []byte {
	for range n {
		b = append(b, "token "...)
	}
	return b
}

func appendError(b []byte, message string) []byte {
	body, err := json.Marshal(map[string]any{"error": map[string]string{"type": "invalid_request_error", "message": message}})
	if err != nil {
		body = []byte("{}") // a map of strings always has a form
	}
	b = append(b, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	return append(append(b, "\r\n\r\n"...), body...)
}
