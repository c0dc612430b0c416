package onboarding

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/internal/telegramsim"
)

// A bot is what Telegram says it is.
func TestBotAPI(t *testing.T) {
	t.Parallel()
	sim := telegramsim.New()
	t.Cleanup(sim.Close)
	bot := sim.NewBot("ada_agent_bot")
	api := &BotAPI{URL: sim.URL() + "/", Client: &http.Client{Timeout: 30 * time.Second}}
	got, err := api.Check(t.Context(), secret.Text(bot.Token()))
	if err != nil || got != (Bot{bot.ID(), "ada_agent_bot"}) {
		t.Errorf("%+v, %v", got, err)
	}
	check := func(what string, api *BotAPI, token string, refused bool) {
		t.Helper()
		_, err := api.Check(t.Context(), secret.Text(token))
		_, half, _ := strings.Cut(token, ":")
		if err == nil || errors.Is(err, ErrBotRefused) != refused || half != "" && strings.Contains(err.Error(), half) {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("unknown", api, botToken(), true)
	check("no token", api, "../../getMe", true)
	bot.Fail("getMe", telegramsim.Refusal{Code: 429, Description: "Too Many Requests", RetryAfter: 3}, telegramsim.Refusal{Code: 502, Description: "Bad Gateway"})
	check("too many", api, bot.Token(), false)
	check("bad gateway", api, bot.Token(), false)
	check("nobody listens", &BotAPI{URL: "http://127.0.0.1:1"}, botToken(), false)
	check("no address", &BotAPI{URL: "http://\x00"}, botToken(), false)
	var answer string
	odd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer == "" {
			http.Redirect(w, r, sim.URL()+"/bot"+bot.Token()+"/getMe", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(odd.Close)
	check("elsewhere", &BotAPI{URL: odd.URL}, botToken(), false)
	for text, refused := range map[string]bool{
		"hello": false, `{"ok": false}`: false, `{"ok": true, "result": {"id": 5, "is_bot": false, "username": "ada"}}`: true,
		`{"ok": true, "result": {"id": 5, "is_bot": true, "username": "a b<script>"}}`: true, `{"ok": true, "result": {"id": 0, "is_bot": true, "username": "ada_bot"}}`: true,
	} {
		answer = text
		check(text, &BotAPI{URL: odd.URL}, botToken(), refused)
	}
}

// What goes to token-proxy, and what comes back, is as Kimi has it.
func TestProxyModel(t *testing.T) {
	t.Parallel()
	sim, err := kimisim.New(kimisim.Config{Keys: []string{"sk-fake-1"}, KeepBodies: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() })
	sim.SetDefaults(kimisim.Behavior{Text: `{"lead": "Nice.", "fields": {}} `, OutputTokens: 100})
	model := &ProxyModel{URL: sim.OpenAIBase(), Token: "sk-fake-1", Name: "kimi-k2.5", NoThinking: true}
	prompt, err := promptOf(sessionIn(StateGreeting), "hello")
	if err != nil {
		t.Fatal(err)
	}
	got, err := model.Complete(t.Context(), prompt)
	if err != nil || !strings.Contains(got, `"lead"`) {
		t.Fatalf("%q, %v", got, err)
	}
	if _, lead, err := understood(got, "hello"); err != nil || lead != "Nice." {
		t.Errorf("%q, %v", lead, err)
	}
	refused := &ProxyModel{URL: sim.OpenAIBase(), Token: "sk-fake-2", Name: "kimi-k2.5"}
	if _, err := refused.Complete(t.Context(), prompt); err == nil || strings.Contains(err.Error(), "sk-fake") || !strings.Contains(err.Error(), "401") {
		t.Errorf("another key: %v", err)
	}
	var body map[string]any
	answer := func(http.ResponseWriter) {}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body = nil
		if r.URL.Path != "/v1/chat/completions" || r.Header.Get("Authorization") != "Bearer fake" || json.NewDecoder(r.Body).Decode(&body) != nil {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		answer(w)
	}))
	t.Cleanup(server.Close)
	model = &ProxyModel{URL: server.URL + "/v1/", Token: "fake", Name: "k2", MaxTokens: 50}
	for name, text := range map[string]string{"no JSON": "hello", "nothing": "{}", "two": `{"choices": [{}, {}]}`, "endless": `{"choices": [{"message": {"content": "` + strings.Repeat("a", 1<<20)} {
		answer = func(w http.ResponseWriter) { _, _ = io.WriteString(w, text) }
		if _, err := model.Complete(t.Context(), prompt); err == nil || strings.Contains(err.Error(), "hello") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if body["max_tokens"] != 50.0 || body["model"] != "k2" || body["stream"] != false || body["thinking"] != nil {
		t.Errorf("asked %v", body)
	}
	held := make(chan struct{})
	answer = func(http.ResponseWriter) { <-held }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := model.Complete(ctx, prompt); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent one: %v", err)
	}
	close(held)
}
