package kimisim_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

const fakeKey = "sk-fake-1"

func start(t *testing.T, cfg kimisim.Config) *kimisim.Server {
	t.Helper()
	s, err := kimisim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if n := s.OpenConns(); n != 0 {
			t.Errorf("%d connections are open after Close", n)
		}
	})
	return s
}

// face is one of the two wire formats as a client sees it.
type face struct {
	name string
	path string
}

var faces = []face{{"openai", "/v1/chat/completions"}, {"anthropic", "/anthropic/v1/messages"}}

// onFaces runs a test on both faces, with a server of its own.
func onFaces(t *testing.T, test func(t *testing.T, s *kimisim.Server, f face)) {
	t.Helper()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t, kimisim.Config{}), f)
		})
	}
}

// body is a request body; fields are laid over a small default.
func body(t *testing.T, fields map[string]any) string {
	t.Helper()
	m := map[string]any{
		"model": "kimi-k2.5", "max_tokens": 1000, "stream": true,
		"messages": []any{map[string]any{"role": "user", "content": "hello"}},
	}
	for k, v := range fields {
		if v == nil {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// post sends a request on a connection of its own and returns without reading the body.
func post(t *testing.T, url, sim, body string, header ...string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+fakeKey)
	req.Header.Set("Content-Type", "application/json")
	if sim != "" {
		req.Header.Set("X-Sim", sim)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	c := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	return c.Do(req)
}

// result is a whole answer, read by plain means.
type result struct {
	status    int
	header    http.Header
	raw       string
	err       error // of reading the body
	events    []map[string]any
	names     []string // Anthropic's event fields
	done      bool     // the end mark was there
	text      string
	reasoning string
	args      map[int]string
	finish    string
	usages    []map[string]any
}

func (r *result) tokens() int {
	n := kimisim.CountTokens(r.text) + kimisim.CountTokens(r.reasoning)
	for _, a := range r.args {
		n += kimisim.CountTokens(a)
	}
	return n
}

func (r *result) lastUsage(t *testing.T) map[string]any {
	t.Helper()
	if len(r.usages) == 0 {
		t.Fatalf("no usage in %q", r.raw)
	}
	return r.usages[len(r.usages)-1]
}

// ask sends a request and reads the answer to its end.
func ask(t *testing.T, s *kimisim.Server, f face, sim string, fields map[string]any, header ...string) *result {
	t.Helper()
	res, err := post(t, s.URL()+f.path, sim, body(t, fields), header...)
	if err != nil {
		return &result{err: err}
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	r := &result{status: res.StatusCode, header: res.Header, raw: string(raw), err: err, args: map[int]string{}}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		r.readEvents(t)
	} else if json.Valid(raw) {
		r.readWhole(t)
	}
	return r
}

func (r *result) readEvents(t *testing.T) {
	t.Helper()
	text := strings.TrimPrefix(r.raw, "\xef\xbb\xbf")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	for block := range strings.SplitSeq(text, "\n\n") {
		var name string
		var data []string
		for line := range strings.SplitSeq(block, "\n") {
			field, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch field {
			case "event":
				name = value
			case "data":
				data = append(data, value)
			}
		}
		payload := strings.Join(data, "\n")
		if payload == "" {
			continue
		}
		if payload == "[DONE]" {
			r.done = true
			continue
		}
		var ev map[string]any
		if err := json.Unmarshal([]byte(payload), &ev); err != nil {
			if r.err != nil { // cut, so the last event may be broken
				continue
			}
			t.Fatalf("event %q: %v", payload, err)
		}
		r.events = append(r.events, ev)
		if name != "" {
			r.names = append(r.names, name)
		}
		r.fold(ev)
	}
}

// fold adds one event of either face to the result.
func (r *result) fold(ev map[string]any) {
	str := func(v any) string { s, _ := v.(string); return s }
	if u, ok := ev["usage"].(map[string]any); ok {
		r.usages = append(r.usages, u)
	}
	choices, _ := ev["choices"].([]any)
	for _, c := range choices {
		c := c.(map[string]any)
		if u, ok := c["usage"].(map[string]any); ok {
			r.usages = append(r.usages, u)
		}
		if s := str(c["finish_reason"]); s != "" {
			r.finish = s
		}
		d, _ := c["delta"].(map[string]any)
		r.text += str(d["content"])
		r.reasoning += str(d["reasoning_content"])
		calls, _ := d["tool_calls"].([]any)
		for _, tc := range calls {
			tc := tc.(map[string]any)
			r.args[int(tc["index"].(float64))] += str(tc["function"].(map[string]any)["arguments"])
		}
	}
	switch ev["type"] {
	case "message_start":
		if u, ok := ev["message"].(map[string]any)["usage"].(map[string]any); ok {
			r.usages = append(r.usages, u)
		}
	case "content_block_delta":
		d := ev["delta"].(map[string]any)
		r.text += str(d["text"])
		r.reasoning += str(d["thinking"])
		if p := str(d["partial_json"]); p != "" {
			r.args[int(ev["index"].(float64))] += p
		}
	case "message_delta":
		r.finish = str(ev["delta"].(map[string]any)["stop_reason"])
	case "message_stop":
		r.done = true
	}
}

func (r *result) readWhole(t *testing.T) {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(r.raw), &m); err != nil {
		t.Fatal(err)
	}
	r.events = []map[string]any{m}
	if u, ok := m["usage"].(map[string]any); ok {
		r.usages = append(r.usages, u)
	}
	choices, _ := m["choices"].([]any)
	for _, c := range choices {
		c := c.(map[string]any)
		msg := c["message"].(map[string]any)
		r.finish = c["finish_reason"].(string)
		r.text += msg["content"].(string)
		if s, ok := msg["reasoning_content"].(string); ok {
			r.reasoning += s
		}
		calls, _ := msg["tool_calls"].([]any)
		for i, tc := range calls {
			r.args[i] = tc.(map[string]any)["function"].(map[string]any)["arguments"].(string)
		}
	}
	content, _ := m["content"].([]any)
	for i, c := range content {
		c := c.(map[string]any)
		switch c["type"] {
		case "text":
			r.text += c["text"].(string)
		case "thinking":
			r.reasoning += c["thinking"].(string)
		case "tool_use":
			b, _ := json.Marshal(c["input"])
			r.args[i] = string(b)
		}
	}
	if s, ok := m["stop_reason"].(string); ok {
		r.finish = s
	}
}

// closedEntry waits for the only (or the named) request to end.
func closedEntry(t *testing.T, s *kimisim.Server, id string) kimisim.Entry {
	t.Helper()
	if id == "" {
		entries, err := s.WaitLedger(time.Minute, func(e []kimisim.Entry) bool { return len(e) > 0 })
		if err != nil {
			t.Fatal(err)
		}
		id = entries[len(entries)-1].ID
	}
	e, err := s.WaitClosed(id, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// firstEvents opens a stream and reads n events of it; stop closes the connection.
func firstEvents(t *testing.T, s *kimisim.Server, f face, sim string, n int, fields map[string]any) (read string, id string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+f.path, strings.NewReader(body(t, fields)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", fakeKey)
	req.Header.Set("X-Sim", sim)
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(req)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	in := bufio.NewReader(res.Body)
	var buf bytes.Buffer
	for range n {
		for {
			line, err := in.ReadString('\n')
			buf.WriteString(line)
			if err != nil {
				cancel()
				t.Fatalf("after %q: %v", buf.String(), err)
			}
			if line == "\n" {
				break
			}
		}
	}
	return buf.String(), res.Header.Get("Msh-Request-Id"), func() {
		cancel()
		_ = res.Body.Close()
	}
}

func number(t *testing.T, m map[string]any, path ...string) int {
	t.Helper()
	var v any = m
	for _, p := range path {
		o, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("no %v in %v", path, m)
		}
		v = o[p]
	}
	n, ok := v.(float64)
	if !ok {
		t.Fatalf("%v in %v is %T", path, m, v)
	}
	return int(n)
}

// usageOf returns prompt (cached included), cached, completion of a face's usage.
func usageOf(t *testing.T, f face, u map[string]any) string {
	t.Helper()
	opt := func(k string) int {
		if _, ok := u[k]; !ok {
			return 0
		}
		return number(t, u, k)
	}
	if f.name == "openai" {
		if number(t, u, "total_tokens") != number(t, u, "prompt_tokens")+number(t, u, "completion_tokens") {
			t.Errorf("total is no sum: %v", u)
		}
		return fmt.Sprint(opt("prompt_tokens"), opt("cached_tokens"), opt("completion_tokens"))
	}
	cached := opt("cache_read_input_tokens")
	return fmt.Sprint(opt("input_tokens")+cached, cached, opt("output_tokens"))
}

func ledgerUsage(e kimisim.Entry) string {
	return fmt.Sprint(e.PromptTokens, e.CachedTokens, e.CompletionTokens)
}
