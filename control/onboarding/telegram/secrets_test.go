package telegram_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/onboarding"
	"github.com/andreabadesso/openclaw-cloud/control/onboarding/telegram"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/internal/telegramsim"
)

// What has secrets is deleted at once, however many they are, and tried again if Telegram does not do it.
func TestManySecrets(t *testing.T) {
	t.Parallel()
	s := &scripted{open: map[int64]bool{ana.ID: true}}
	sim, bot := newTelegram(t)
	for range 90 {
		bot.Write(ana, "minha senha é hunter2")
	}
	bot.Write(ana, "oi")
	bot.Fail("deleteMessages", telegramsim.Refusal{Code: 429, Description: "Too Many Requests", RetryAfter: 1}, telegramsim.Refusal{Code: 502, Description: "Bad Gateway"})
	b, err := telegram.New(telegram.Options{
		URL: sim.URL(), Token: secret.Text(bot.Token()), Conversations: s, Logger: slog.New(slog.DiscardHandler), Pause: 10 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	await(t, bot, ana.ID, onboarding.TooFast("pt-br"))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	b.Finish(t.Context())
	for _, m := range bot.Chat(ana.ID) {
		if !m.FromBot && strings.Contains(m.Text, "hunter2") {
			t.Fatalf("%q is left", m.Text)
		}
	}
	if n := bot.Calls("deleteMessages"); n != 3 || bot.Calls("deleteMessage") > 0 || len(sim.Unknown()) > 0 {
		t.Errorf("Telegram was asked %d times to delete messages", n)
	}
}
