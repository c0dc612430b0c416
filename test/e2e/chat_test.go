package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// monthly is the code of a refusal for good.
const monthly = "monthly_limit_exceeded"

// chat is one request for a completion.
type chat struct {
	token     string
	anthropic bool
	stream    bool
	body      string
	number    int // that the upstream is told; see numberOf
}

// numberOf returns the number of a chat of which the simulator tells.
func numberOf(r *kimisim.RequestInfo) (n int, ok bool) {
	found, err := fmt.Sscanf(r.Header.Get("Traceparent"), "00-%x-", &n)
	return n, found == 1 && err == nil
}

// reply is what came of a chat.
type reply struct {
	status      int    // 0 if there was no answer
	code        string // of a refusal, or of the error that ended a stream
	used, limit int64  // with code monthly
	retryAfter  string
	tokens      int           // of the completion, that were received
	whole       bool          // a stream came to its end mark
	first       time.Duration // from sending to the first byte of the body
}

// lorem is what prompts are made of.
var lorem = strings.Repeat("the quick brown fox jumps over the lazy dog ", 1500)

// chatBody returns a body, valid on both faces, of size bytes in all, or a little more if
// they do not hold what it has to say. Without a cap, limit is 0.
func chatBody(size int, limit int64, stream bool, sim kimisim.Behavior) string {
	raw, _ := json.Marshal(sim)
	capped := ""
	if limit > 0 {
		capped = fmt.Sprintf(`"max_tokens":%d,`, limit)
	}
	format := `{"model":"kimi-k2.5",%s"stream":%v,"messages":[{"role":"user","content":%q}]}`
	content := "[[sim:" + string(raw) + "]]"
	fill := max(size-len(fmt.Sprintf(format, capped, stream, content)), 0)
	return fmt.Sprintf(format, capped, stream, content+lorem[:fill])
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}}
}

// send sends a chat to a proxy. got is called as the tokens of a stream come; it may be nil.
func send(ctx context.Context, client *http.Client, p *stack.Proxy, c chat, got func(tokens int)) (r reply) {
	path := "/v1/chat/completions"
	if c.anthropic {
		path = "/v1/messages"
	}
	req, err := http.NewRequestWithContext(ctx, "POST", p.URL+path, strings.NewReader(c.body))
	if err != nil {
		return r
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Traceparent", fmt.Sprintf("00-%032x-%016x-01", c.number, c.number+1))
	sent := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return r
	}
	defer resp.Body.Close()
	r.status, r.retryAfter = resp.StatusCode, resp.Header.Get("Retry-After")
	if r.status != http.StatusOK || !c.stream {
		body := bufio.NewReader(resp.Body)
		_, _ = body.Peek(1) // an empty body has no first byte either way
		r.first = time.Since(sent)
		b, err := io.ReadAll(body)
		r.whole = err == nil
		r.tokens = contentTokens(b)
		if r.status != http.StatusOK {
			r.refused(b)
		}
		return r
	}
	sc := bufio.NewScanner(resp.Body)
	for sc.Scan() {
		if r.first == 0 {
			r.first = time.Since(sent)
		}
		data, ok := strings.CutPrefix(sc.Text(), "data:")
		switch data = strings.TrimSpace(data); {
		case !ok:
		case data == "[DONE]" || strings.Contains(data, `"message_stop"`):
			r.whole = true
		case strings.Contains(data, `"error"`):
			r.refused([]byte(data))
		default:
			n := contentTokens([]byte(data))
			r.tokens += n
			if got != nil {
				got(n)
			}
		}
	}
	return r
}

// refused reads an error of either face.
func (r *reply) refused(b []byte) {
	var e struct {
		Error struct {
			Type, Code  string
			Used, Limit int64
		}
	}
	if json.Unmarshal(b, &e) != nil {
		return
	}
	r.code, r.used, r.limit = e.Error.Code, e.Error.Used, e.Error.Limit
	if r.code == "" {
		r.code = e.Error.Type
	}
}
