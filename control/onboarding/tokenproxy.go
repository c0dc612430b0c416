package onboarding

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// ProxyModel is a model behind token-proxy, which is paid for by a grant of the platform's own.
type ProxyModel struct {
	URL   string      // with /v1, such as http://token-proxy:8080/v1
	Token secret.Text // a proxy token
	Name  string      // of the model
	// MaxTokens bounds an answer. Defaults to 400.
	MaxTokens int
	// NoThinking is for models that can be told not to think: a short sentence needs none.
	NoThinking bool
	Client     *http.Client // with a time limit, or the context has one
}

// maxBody is how many bytes of an answer of token-proxy are read.
const maxBody = 256 << 10

// Complete asks the model once. Errors have nothing of the question or the answer.
func (p *ProxyModel) Complete(ctx context.Context, prompt Prompt) (string, error) {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	body := map[string]any{
		"model": p.Name, "max_tokens": p.MaxTokens, "stream": false, "response_format": map[string]string{"type": "json_object"},
		"messages": []message{{"system", prompt.System}, {"user", prompt.User}},
	}
	if p.MaxTokens <= 0 {
		body["max_tokens"] = 400
	}
	if p.NoThinking {
		body["thinking"] = map[string]string{"type": "disabled"}
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return "", fmt.Errorf("ask the model: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(p.URL, "/")+"/chat/completions", bytes.NewReader(raw))
	if err != nil {
		return "", fmt.Errorf("ask the model: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+p.Token.Reveal())
	req.Header.Set("User-Agent", "openclaw-onboarding")
	client := p.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask the model: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("ask the model: token-proxy answers %d", resp.StatusCode)
	}
	var out struct {
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&out); err != nil || len(out.Choices) != 1 {
		return "", errors.New("ask the model: the answer cannot be read")
	}
	return out.Choices[0].Message.Content, nil
}
