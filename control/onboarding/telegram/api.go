package telegram

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// apiError is what Telegram refuses a call with.
type apiError struct {
	method      string
	code        int
	description string
	retryAfter  time.Duration
}

func (e *apiError) Error() string {
	return fmt.Sprintf("%s: Telegram answers %d: %s", e.method, e.code, e.description)
}

// maxAnswer is how many bytes of an answer are read.
const maxAnswer = 8 << 20

// call calls a method of the Bot API. No error has the bot's token.
func (b *Bot) call(ctx context.Context, method string, params, result any) error {
	raw, err := json.Marshal(params)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(b.o.URL, "/")+"/bot"+b.o.Token.Reveal()+"/"+method, bytes.NewReader(raw))
	if err != nil {
		return errors.New(method + ": the address of Telegram cannot be used") // the error has the URL
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := b.http.Do(req)
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err // without the URL
		}
		return fmt.Errorf("%s: %w", method, err)
	}
	defer resp.Body.Close()
	var out struct {
		OK          bool            `json:"ok"`
		Result      json.RawMessage `json:"result"`
		Description string          `json:"description"`
		Parameters  struct {
			RetryAfter int `json:"retry_after"`
		} `json:"parameters"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&out); err != nil {
		return fmt.Errorf("%s: Telegram answers %d, and not in JSON", method, resp.StatusCode)
	}
	if !out.OK {
		return &apiError{method, resp.StatusCode, out.Description, time.Duration(out.Parameters.RetryAfter) * time.Second}
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(out.Result, result); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// update is something that somebody did. What is not read here is not asked for.
type update struct {
	ID       int64     `json:"update_id"`
	Message  *message  `json:"message"`
	Callback *callback `json:"callback_query"`
}

type person struct {
	ID       int64  `json:"id"`
	IsBot    bool   `json:"is_bot"`
	Name     string `json:"first_name"`
	Language string `json:"language_code"`
}

type message struct {
	ID   int64   `json:"message_id"`
	From *person `json:"from"`
	Chat struct {
		ID   int64  `json:"id"`
		Type string `json:"type"`
	} `json:"chat"`
	Text string `json:"text"`
}

type callback struct {
	ID   string  `json:"id"`
	From *person `json:"from"`
	Data string  `json:"data"`
}

// from returns who did it; nil for what does not concern us: other bots, and groups.
func (u update) from() *person {
	switch {
	case u.Message != nil && u.Message.From != nil && u.Message.Chat.Type == "private" && u.Message.Chat.ID == u.Message.From.ID && !u.Message.From.IsBot:
		return u.Message.From
	case u.Callback != nil && u.Callback.From != nil && !u.Callback.From.IsBot:
		return u.Callback.From
	}
	return nil
}

// button is one below a message.
type button struct {
	Text string `json:"text"`
	Data string `json:"callback_data,omitempty"`
	URL  string `json:"url,omitempty"`
}

type keyboard struct {
	Rows [][]button `json:"inline_keyboard"`
}
