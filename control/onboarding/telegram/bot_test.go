package telegram_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/onboarding"
	"github.com/andreabadesso/openclaw-cloud/control/onboarding/telegram"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/internal/telegramsim"
)

var (
	ana = telegramsim.User{ID: 11, Name: "Ana", Language: "pt-br"}
	bob = telegramsim.User{ID: 12, Name: "Bob", Language: "en"}
)

// scripted is what a conversation would be.
type scripted struct {
	mu   sync.Mutex
	open map[int64]bool
	said []string
	fail error
}

func (s *scripted) BeginTelegram(_ context.Context, user int64, b onboarding.Begin) (onboarding.Conversation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[int64]bool)
	}
	s.open[user] = true
	return onboarding.Conversation{Reply: onboarding.Reply{Text: "hello " + b.Name + " " + b.Language, Quick: []onboarding.Quick{{ID: "use:work", Label: "Work"}}}}, nil
}

func (s *scripted) Say(_ context.Context, who onboarding.Who, said onboarding.Said) (onboarding.Conversation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return onboarding.Conversation{}, s.fail
	}
	if !s.open[who.TelegramUser] {
		return onboarding.Conversation{}, control.ErrNotFound
	}
	s.said = append(s.said, said.Text+said.Choice)
	return onboarding.Conversation{Language: control.Portuguese, Reply: onboarding.Reply{Text: "answer to " + said.Text + said.Choice, PayURL: "https://pay.example.invalid/1"}}, nil
}

// started is a bot that polls a simulated Telegram until the test ends.
func started(t *testing.T, c telegram.Conversations) (*telegram.Bot, *telegramsim.Bot, *bytes.Buffer) {
	t.Helper()
	sim := telegramsim.New()
	t.Cleanup(sim.Close)
	bot := sim.NewBot("onboarding_bot")
	log := &bytes.Buffer{}
	b, err := telegram.New(telegram.Options{
		URL: sim.URL(), Token: secret.Text(bot.Token()), Conversations: c, Logger: slog.New(slog.NewTextHandler(log, nil)), Pause: 10 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if strings.Contains(log.String(), bot.Token()) {
			t.Error("the bot's token is logged")
		}
		if u := sim.Unknown(); len(u) > 0 {
			t.Errorf("methods that are not known: %v", u)
		}
	})
	return b, bot, log
}

// await waits for the last message of a chat.
func await(t *testing.T, bot *telegramsim.Bot, user int64, last string) []telegramsim.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	chat, err := bot.Await(ctx, user, func(m []telegramsim.Message) bool {
		return len(m) > 0 && m[len(m)-1].FromBot && m[len(m)-1].Text == last
	})
	if err != nil {
		t.Fatalf("%v: %+v", err, chat)
	}
	return chat
}

func TestConversation(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	b, bot, _ := started(t, s)
	bot.Write(ana, "oi") // without /start, too
	chat := await(t, bot, ana.ID, "hello Ana pt-br")
	query, err := bot.Press(ana, chat[1].ID, "use:work")
	if err != nil {
		t.Fatal(err)
	}
	chat = await(t, bot, ana.ID, "answer to use:work")
	if _, ok := bot.Answered(query); !ok {
		t.Error("the button waits")
	}
	if markup := string(chat[2].Markup); !strings.Contains(markup, "https://pay.example.invalid/1") || !strings.Contains(markup, "pagamento") {
		t.Errorf("the page to pay on: %s", markup)
	}
	bot.Write(bob, "/start web")
	await(t, bot, bob.ID, "hello Bob en")
	bot.Write(ana, "/start")
	await(t, bot, ana.ID, "hello Ana pt-br")

	// A token does not stay in the chat.
	bot.Write(ana, "it is 1234567:"+strings.Repeat("fakeFAKE1", 4))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	chat, err = bot.Await(ctx, ana.ID, func(m []telegramsim.Message) bool { return strings.HasPrefix(m[len(m)-1].Text, "answer to it is") })
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range chat {
		if !m.FromBot && strings.Contains(m.Text, "fakeFAKE1") {
			t.Errorf("in the chat there is %q", m.Text)
		}
	}
	b.Tell(t.Context(), bob.ID, onboarding.Conversation{Reply: onboarding.Reply{Text: "your agent runs"}})
	await(t, bot, bob.ID, "your agent runs")
}

// Messages of one person come in their order, however many wait.
func TestOrder(t *testing.T) {
	t.Parallel()
	s := &scripted{open: map[int64]bool{ana.ID: true}}
	sim := telegramsim.New()
	t.Cleanup(sim.Close)
	bot := sim.NewBot("onboarding_bot")
	var want []string
	for _, text := range strings.Fields("a b c d e f g h") {
		bot.Write(ana, text)
		want = append(want, text)
	}
	b, err := telegram.New(telegram.Options{URL: sim.URL(), Token: secret.Text(bot.Token()), Conversations: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	await(t, bot, ana.ID, "answer to h")
	cancel()
	if err := <-ended; err != nil || strings.Join(s.said, " ") != strings.Join(want, " ") {
		t.Errorf("said %v, %v", s.said, err)
	}
}

// What fails is said, and the next message is answered again.
func TestFailures(t *testing.T) {
	t.Parallel()
	s := &scripted{open: map[int64]bool{ana.ID: true, bob.ID: true}, fail: errors.New("Postgres is away")}
	_, bot, _ := started(t, s)
	bot.Write(ana, "oi")
	await(t, bot, ana.ID, onboarding.Apology("pt-br"))
	s.mu.Lock()
	s.fail = nil
	s.mu.Unlock()
	bot.Fail("getUpdates", telegramsim.Refusal{Code: 502, Description: "Bad Gateway"}, telegramsim.Refusal{Code: 429, Description: "Too Many Requests", RetryAfter: 1})
	bot.Fail("sendMessage", telegramsim.Refusal{Code: 429, Description: "Too Many Requests"})
	bot.Write(ana, "de novo")
	await(t, bot, ana.ID, "answer to de novo")
	bot.Write(bob, "hi")
	bot.Block(bob.ID)
	bot.Write(ana, "e agora")
	await(t, bot, ana.ID, "answer to e agora")
}

func TestNewWantsWhatItNeeds(t *testing.T) {
	t.Parallel()
	if _, err := telegram.New(telegram.Options{}); err == nil {
		t.Error("a bot of nothing")
	}
}
