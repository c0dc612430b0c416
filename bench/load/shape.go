package load

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Shape says what requests look like. They mean the same to kimisim, bench/origin, and,
// but for pace and length, to the real Kimi.
type Shape struct {
	Anthropic       bool // the face: /v1/messages instead of /v1/chat/completions
	Stream          bool
	BodyBytes       int           // of the whole body, about; what is needed at least if less
	OutputTokens    int           // of the answer
	TokensPerSecond float64       // of the answer; 0 is as fast as possible
	TTFT            time.Duration // of the upstream
	Stamp           bool          // the upstream writes its time into each event
}

// outputCap is what OpenClaw asks for, and is reserved by a proxy that limits tokens.
const outputCap = 32_768

// body returns what is before and behind the filling of a body, and its length.
func (s *Shape) body() (before, behind string, filling int) {
	directive := fmt.Sprintf(`{"output_tokens":%d`, max(s.OutputTokens, 1))
	if s.TokensPerSecond > 0 {
		directive += `,"tokens_per_second":` + strconv.FormatFloat(s.TokensPerSecond, 'f', -1, 64)
	}
	if s.TTFT > 0 {
		directive += `,"ttft":"` + s.TTFT.String() + `"`
	}
	if s.Stamp {
		directive += `,"stamp":true`
	}
	before = `{"model":"kimi-k2.6","max_tokens":` + strconv.Itoa(outputCap) + `,"stream":` + strconv.FormatBool(s.Stream) + `,"messages":[{"role":"user","content":"`
	behind = `[[sim:` + strings.ReplaceAll(directive+"}", `"`, `\"`) + `]]"}]}`
	return before, behind, max(0, s.BodyBytes-len(before)-len(behind))
}

// Filling returns n bytes of a prompt.
func Filling(n int) []byte {
	const text = "The quick brown fox jumps over the lazy dog. "
	return bytes.Repeat([]byte(text), n/len(text)+1)[:n]
}

// head returns a request's head.
func (s *Shape) head(host, header, token string, length int) []byte {
	path := "/v1/chat/completions"
	if s.Anthropic {
		path, header = "/v1/messages", header+"anthropic-version: 2023-06-01\r\n"
	}
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nUser-Agent: openclaw-bench\r\nAccept: */*\r\n%sContent-Length: %d\r\n\r\n",
		path, host, token, header, length)
}

// anyToken is sent where nobody checks it.
const anyToken = "sk-fake-bench"

// Jobs makes requests of one shape, with tokens in turn (any if there are none). header are
// further lines, each with its CRLF.
func (s Shape) Jobs(host, header string, tokens []string) func(n uint64) Job {
	before, behind, filling := s.body()
	body := append(append([]byte(before), Filling(filling)...), behind...)
	if len(tokens) == 0 {
		tokens = []string{anyToken}
	}
	jobs := make([]Job, len(tokens))
	for i, token := range tokens {
		if len(body) > 8<<10 {
			jobs[i] = Job{Head: s.head(host, header, token, len(body)), Tail: body}
		} else { // one write
			jobs[i] = Job{Head: append(s.head(host, header, token, len(body)), body...)}
		}
	}
	return func(n uint64) Job { return jobs[n%uint64(len(jobs))] }
}

// Job makes one request of the shape, whose filling is taken from fill.
func (s Shape) Job(host, header, token string, fill []byte) Job {
	before, behind, filling := s.body()
	filling = min(filling, len(fill))
	if token == "" {
		token = anyToken
	}
	head := s.head(host, header, token, len(before)+filling+len(behind))
	return Job{Head: append(head, before...), Fill: fill[:filling], Tail: []byte(behind)}
}
