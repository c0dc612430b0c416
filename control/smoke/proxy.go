package smoke

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

const (
	// answered is how long one completion may take.
	answered = time.Minute
	// lookEvery is how often it is looked for its usage.
	lookEvery = 200 * time.Millisecond
	// fewTokens bounds what a completion costs.
	fewTokens = 16
	// mostPaid is how many completions are charged at most: trying on for minutes shall not be dear.
	mostPaid = 3
)

// completion is one that was answered.
type completion struct {
	before int64 // what had been used before it
	tokens int64 // what its answer says that it used
}

func (s *smoker) proxyChecks() []check {
	checks := s.probes("token-proxy", s.cfg.ProxyProbes)
	if s.cfg.Proxy != "" {
		checks = append(checks, check{"token-proxy refuses strangers", "Do not let boxes use this: without a proxy token nobody may be served. Roll back.", quick, s.proxyRefuses})
	}
	if s.cfg.Token != "" {
		checks = append(checks,
			check{"token-proxy answers", "The error says who refused: the proxy (token, limit, model), or Kimi (its key, an outage; then also look at kimi_api_key in platform-secrets).", answered, s.answers},
			check{"token-proxy meters", "Usage goes from token-proxy to Redis: look at token-proxy's log, and at Redis. What it has not sent yet is in its journal.", s.cfg.Metered + quick, s.meters})
	}
	return checks
}

func (s *smoker) proxyRefuses(ctx context.Context) (string, error) {
	// One that is made up, in the shape of a token.
	for _, bearer := range []string{"", contract.TokenPrefix + strings.Repeat("0", contract.TokenLen-len(contract.TokenPrefix))} {
		r := request{method: http.MethodPost, url: s.cfg.Proxy + "/v1/chat/completions", body: `{"model":"any","messages":[]}`, bearer: bearer}
		a, err := s.ask(ctx, r)
		if err != nil {
			return "", err
		}
		var refusal struct {
			Error struct {
				Type string `json:"type"`
			} `json:"error"`
		}
		if a.status != http.StatusUnauthorized {
			return "", fmt.Errorf("%s answers a stranger with %s, not with 401", r.url, a.said())
		}
		if json.Unmarshal(a.body, &refusal) != nil || refusal.Error.Type != "authentication_error" {
			return "", fmt.Errorf("%s refuses a stranger in words that are not token-proxy's: %s", r.url, a.said())
		}
	}
	return "401 without a token, and with a made-up one", nil
}

// own asks token-proxy for something of the token's own, and decodes it.
func (s *smoker) own(ctx context.Context, path string, into any) error {
	r := request{method: http.MethodGet, url: s.cfg.Proxy + path, bearer: s.cfg.Token}
	a, err := s.ask(ctx, r)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("%s answers %s", r.url, a.said())
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return fmt.Errorf("%s answers what is not its JSON: %w", r.url, err)
	}
	return nil
}

// used returns what the token's customer has used of the limit.
func (s *smoker) used(ctx context.Context) (int64, error) {
	var usage struct {
		Object string `json:"object"`
		Used   int64  `json:"used"`
	}
	if err := s.own(ctx, "/v1/usage", &usage); err != nil {
		return 0, err
	}
	if usage.Object != "usage" {
		return 0, fmt.Errorf("%s/v1/usage answers something else: %q", s.cfg.Proxy, usage.Object)
	}
	return usage.Used, nil
}

func (s *smoker) model(ctx context.Context) (string, error) {
	if s.cfg.Model != "" {
		return s.cfg.Model, nil
	}
	var models struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := s.own(ctx, "/v1/models", &models); err != nil {
		return "", err
	}
	if len(models.Data) == 0 {
		return "", fmt.Errorf("%s/v1/models lists none for this token", s.cfg.Proxy)
	}
	return models.Data[0].ID, nil
}

// answers has one small completion streamed.
func (s *smoker) answers(ctx context.Context) (string, error) {
	model, err := s.model(ctx)
	if err != nil {
		return "", err
	}
	before, err := s.used(ctx)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(map[string]any{
		"model": model, "stream": true, "stream_options": map[string]bool{"include_usage": true}, "max_tokens": fewTokens,
		"messages": []map[string]string{{"role": "user", "content": "Say hello."}},
	})
	if err != nil {
		return "", fmt.Errorf("write a request: %w", err)
	}
	if s.paid >= mostPaid {
		return "", fmt.Errorf("%d completions were answered, and none as it should be; the last: %w", s.paid, s.amiss)
	}
	r := request{method: http.MethodPost, url: s.cfg.Proxy + "/v1/chat/completions", body: string(body), bearer: s.cfg.Token}
	began := time.Now()
	res, err := s.send(ctx, r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		s.paid++
	}
	if media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); res.StatusCode != http.StatusOK || media != "text/event-stream" {
		a, err := read(r.url, res)
		if err != nil {
			return "", err
		}
		s.amiss = fmt.Errorf("%s answers %s instead of a stream", r.url, a.said())
		return "", s.amiss
	}
	st := stream{began: began}
	if err := st.read(bufio.NewScanner(res.Body)); err != nil {
		s.amiss = fmt.Errorf("the stream of %s: %w", r.url, err)
		return "", s.amiss
	}
	s.sent = &completion{before: before, tokens: st.tokens}
	return fmt.Sprintf("%s, %d tokens in %d events, the first after %d ms", model, st.tokens, st.events, st.first.Milliseconds()), nil
}

// meters waits until the completion shows in what its customer has used. Other requests of this
// customer would hide that it does not.
func (s *smoker) meters(ctx context.Context) (string, error) {
	if s.sent == nil {
		return "", errors.New("there is no completion yet that could show")
	}
	for deadline, looked := time.Now().Add(s.cfg.Metered), false; ; looked = true {
		used, err := s.used(ctx)
		switch {
		case err != nil && (ctx.Err() == nil || !looked):
			return "", err
		case err == nil && used > s.sent.before:
			return fmt.Sprintf("used grew by %d, from %d", used-s.sent.before, s.sent.before), nil
		case err != nil || time.Now().After(deadline) || !pause(ctx, lookEvery):
			return "", fmt.Errorf("a completion of %d tokens does not show in what is used, which is %d as before", s.sent.tokens, s.sent.before)
		}
	}
}

// stream is what a streamed completion consists of.
type stream struct {
	began  time.Time
	first  time.Duration // until the first event
	events int
	tokens int64
}

// read reads a whole stream: without its end it was cut off.
func (st *stream) read(lines *bufio.Scanner) error {
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok {
			continue
		}
		data = bytes.TrimSpace(data)
		if string(data) == "[DONE]" {
			return st.whole()
		}
		var event struct {
			Choices []json.RawMessage `json:"choices"`
			Usage   *struct {
				Total int64 `json:"total_tokens"`
			} `json:"usage"`
			Error json.RawMessage `json:"error"`
		}
		if err := json.Unmarshal(data, &event); err != nil {
			return fmt.Errorf("an event is no JSON: %w", err)
		}
		if len(event.Error) > 0 && string(event.Error) != "null" {
			return fmt.Errorf("it ends with the error %.300s", event.Error)
		}
		if event.Usage != nil {
			st.tokens = event.Usage.Total
		}
		if len(event.Choices) > 0 {
			if st.events == 0 {
				st.first = time.Since(st.began)
			}
			st.events++
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("it broke off after %d events: %w", st.events, err)
	}
	return fmt.Errorf("it ended after %d events, without [DONE]", st.events)
}

func (st *stream) whole() error {
	switch {
	case st.events == 0:
		return errors.New("it holds no answer")
	case st.tokens == 0:
		return errors.New("it does not say how many tokens it used")
	}
	return nil
}
