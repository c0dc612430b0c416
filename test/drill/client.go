package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

const (
	monthlyReached = "monthly_limit_exceeded"
	// spareOutput is how much output must be left beside the prompt for the limit not to
	// count as reached.
	spareOutput = 256
	// defaultCap is what the proxy inserts where a request has no cap.
	defaultCap = 32_768
)

// traceparent carries an attempt's number through the proxy to the upstream.
func traceparent(id int) string { return fmt.Sprintf("00-%032x-%016x-01", id, id) }

// attemptOf reads the number again.
func attemptOf(traceparent string) (id int, ok bool) {
	n, err := fmt.Sscanf(traceparent, "00-%x-", &id)
	return id, n == 1 && err == nil
}

// client speaks for customers with one token-proxy.
type client struct {
	url  string
	http *http.Client
}

func newClient(url string) *client {
	return &client{url: url, http: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 400, DisableCompression: true, IdleConnTimeout: 20 * time.Second,
		ResponseHeaderTimeout: 40 * time.Second,
	}}}
}

// words are what prompts are made of.
var words = strings.Repeat("the quick brown fox jumps over the lazy dog ", 1500)

// bodyOf is valid on both faces.
func bodyOf(a *attempt, text int) string {
	limit := ""
	if !a.kind.noCap {
		limit = fmt.Sprintf(`"max_tokens":%d,`, a.cap)
	}
	return fmt.Sprintf(`{"model":%q,%s"stream":%v,"messages":[{"role":"user","content":%q}]}`, a.model, limit, a.stream, words[:text])
}

// send sends an attempt and notes in it what comes, until the answer ends or ctx does.
// opened is called when an answer has begun to come.
func (c *client) send(ctx context.Context, a *attempt, path, token, body string, opened func()) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, strings.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Traceparent", traceparent(a.id))
	resp, err := c.http.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	a.status, a.requestID = resp.StatusCode, resp.Header.Get("X-Request-Id")
	if a.status != http.StatusOK {
		a.readRefusal(resp.Body)
		return
	}
	opened()
	if a.stream {
		a.readStream(resp.Body)
		return
	}
	b, err := io.ReadAll(resp.Body)
	a.got = len(b) > 0
	a.received = tokensIn(b)
	a.whole = err == nil && a.received >= 0 && json.Valid(b)
}

func (a *attempt) readRefusal(body io.Reader) {
	b, _ := io.ReadAll(io.LimitReader(body, 64<<10)) // what came is enough
	var e struct {
		Error struct {
			Type, Code  string
			Used, Limit int64
		}
	}
	if json.Unmarshal(b, &e) == nil {
		a.refusal, a.used, a.limit = e.Error.Type, e.Error.Used, e.Error.Limit
	}
}

func (a *attempt) readStream(body io.Reader) {
	r := bufio.NewReaderSize(body, 4096)
	for {
		line, err := r.ReadString('\n')
		if data, ok := strings.CutPrefix(line, "data:"); ok && err == nil {
			data = strings.TrimSpace(data)
			switch {
			case data == "[DONE]" || strings.Contains(data, `"message_stop"`):
				a.whole = true
			case strings.Contains(data, `"error"`):
				// Not of the answer.
			default:
				a.got = true
				a.received += tokensIn([]byte(data))
			}
		}
		if err != nil {
			a.whole = a.whole && errors.Is(err, io.EOF)
			return
		}
	}
}

// tokensIn counts the completion tokens of an event or of a whole answer. Those that
// are not counted only make the drill less strict.
func tokensIn(b []byte) int64 {
	type text struct {
		Content   string
		Reasoning string                                          `json:"reasoning_content"`
		ToolCalls []struct{ Function struct{ Arguments string } } `json:"tool_calls"`
	}
	var v struct {
		Choices []struct{ Delta, Message text }
		Delta   struct {
			Text, Thinking string
			PartialJSON    string `json:"partial_json"`
		}
		Content []struct{ Text, Thinking string }
	}
	if json.Unmarshal(b, &v) != nil {
		return 0
	}
	n := kimisim.CountTokens(v.Delta.Text) + kimisim.CountTokens(v.Delta.Thinking) + kimisim.CountTokens(v.Delta.PartialJSON)
	for _, c := range v.Choices {
		for _, t := range []text{c.Delta, c.Message} {
			n += kimisim.CountTokens(t.Content) + kimisim.CountTokens(t.Reasoning)
			for _, call := range t.ToolCalls {
				n += kimisim.CountTokens(call.Function.Arguments)
			}
		}
	}
	for _, c := range v.Content {
		n += kimisim.CountTokens(c.Text) + kimisim.CountTokens(c.Thinking)
	}
	return int64(n)
}
