package main

import (
	"context"
	"log/slog"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control/onboarding"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// namedBot is a bot that Telegram knows.
type namedBot struct{}

func (namedBot) Check(context.Context, secret.Text) (onboarding.Bot, error) {
	return onboarding.Bot{ID: 7, Name: "our_bot"}, nil
}

// Telegram's own is asked what our bot is called, however its address is written; nobody else is.
func TestBotPage(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		telegramAPI: "https://t.me/our_bot", telegramAPI + "/": "https://t.me/our_bot", "http://127.0.0.1:9": "",
	} {
		s := onboardingSettings{telegramURL: url}
		s.telegramToken.Text = "1234567:fake"
		if got := s.botPage(t.Context(), namedBot{}, slog.New(slog.DiscardHandler)); got != want {
			t.Errorf("%s: the bot is at %q, want %q", url, got, want)
		}
	}
}
