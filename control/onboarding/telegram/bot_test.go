package telegram_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/callers"
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

	looked  []string
	hurried int
	entered chan struct{} // if not nil, told of each message, which then waits for release
	release chan struct{}
}

func (s *scripted) BeginTelegram(_ context.Context, user int64, b onboarding.Begin) (onboarding.Conversation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[int64]bool)
	}
	s.open[user] = true
	s.looked = append(s.looked, b.Tier)
	return onboarding.Conversation{Reply: onboarding.Reply{Text: "hello " + b.Name + " " + b.Language, Quick: []onboarding.Quick{{ID: "use:work", Label: "Work"}}}}, nil
}

func (s *scripted) Say(_ context.Context, who onboarding.Who, said onboarding.Said) (onboarding.Conversation, error) {
	if s.entered != nil {
		s.entered <- struct{}{}
		<-s.release
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return onboarding.Conversation{}, s.fail
	}
	if !s.open[who.TelegramUser] {
		return onboarding.Conversation{}, control.ErrNotFound
	}
	s.said = append(s.said, said.Text+said.Choice)
	if said.Hurried {
		s.hurried++
	}
	return onboarding.Conversation{Language: control.Portuguese, Reply: onboarding.Reply{Text: "answer to " + said.Text + said.Choice, PayURL: "https://pay.example.invalid/1"}}, nil
}

// newTelegram is a simulated Telegram with a bot, until the test ends.
func newTelegram(t *testing.T) (*telegramsim.Server, *telegramsim.Bot) {
	t.Helper()
	sim := telegramsim.New()
	t.Cleanup(sim.Close)
	return sim, sim.NewBot("onboarding_bot")
}

// started is a bot that polls a simulated Telegram until the test ends.
func started(t *testing.T, c telegram.Conversations) (*telegram.Bot, *telegramsim.Bot, *bytes.Buffer) {
	t.Helper()
	sim, bot := newTelegram(t)
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
	bot.Write(bob, "/start plan_team")
	await(t, bot, bob.ID, "hello Bob en")
	s.mu.Lock()
	if looked := s.looked[len(s.looked)-1]; looked != "team" {
		t.Errorf("it has looked at %q", looked)
	}
	s.mu.Unlock()
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
	sim, bot := newTelegram(t)
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
	if err := <-ended; err != nil || strings.Join(s.said, " ") != strings.Join(want, " ") || s.hurried != len(want)-1 {
		t.Errorf("said %v, %d in a hurry, %v", s.said, s.hurried, err)
	}
}

// Whoever is told to end answers what is in hand, and leaves nothing of it to the next one.
func TestEndsInOrder(t *testing.T) {
	t.Parallel()
	s := &scripted{open: map[int64]bool{ana.ID: true}, entered: make(chan struct{}), release: make(chan struct{})}
	sim, bot := newTelegram(t)
	bot.Write(ana, "sim")
	b, err := telegram.New(telegram.Options{URL: sim.URL(), Token: secret.Text(bot.Token()), Conversations: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	<-s.entered
	cancel()
	close(s.release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if chat := bot.Chat(ana.ID); len(chat) != 2 || chat[1].Text != "answer to sim" || bot.Pending() != 0 {
		t.Errorf("%d updates are left, the chat is %+v", bot.Pending(), chat)
	}
}

// Of somebody who writes faster than people do only so much is read, which is said once; others are answered.
func TestTooFast(t *testing.T) {
	t.Parallel()
	s := &scripted{open: map[int64]bool{ana.ID: true, bob.ID: true}}
	sim, bot := newTelegram(t)
	for range 10 {
		bot.Write(ana, "x")
	}
	bot.Write(bob, "hi")
	b, err := telegram.New(telegram.Options{
		URL: sim.URL(), Token: secret.Text(bot.Token()), Conversations: s, Logger: slog.New(slog.DiscardHandler), Messages: callers.Rate{PerSecond: 1e-6, Burst: 3},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	await(t, bot, bob.ID, "answer to hi")
	bot.Write(ana, "y")
	bot.Write(bob, "and now")
	await(t, bot, bob.ID, "answer to and now")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	var answers, refusals int
	for _, m := range bot.Chat(ana.ID) {
		switch {
		case m.FromBot && m.Text == onboarding.TooFast("pt-br"):
			refusals++
		case m.FromBot:
			answers++
		}
	}
	if answers != 3 || refusals != 1 {
		t.Errorf("%d answers, told %d times", answers, refusals)
	}
}

// A secret does not stay in its chat either if it comes too fast to be read.
func TestTooFastSecret(t *testing.T) {
	t.Parallel()
	s := &scripted{open: map[int64]bool{ana.ID: true, bob.ID: true}}
	sim, bot := newTelegram(t)
	for _, text := range []string{"x", "1234567:" + strings.Repeat("fakeFAKE1", 4), "minha senha é hunter2", "y"} {
		bot.Write(ana, text)
	}
	b, err := telegram.New(telegram.Options{
		URL: sim.URL(), Token: secret.Text(bot.Token()), Conversations: s, Logger: slog.New(slog.DiscardHandler), Messages: callers.Rate{PerSecond: 1e-6, Burst: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	bot.Write(bob, "hi") // of the same batch, or the next one
	await(t, bot, bob.ID, "answer to hi")
	await(t, bot, ana.ID, onboarding.TooFast("pt-br"))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	var left []string
	for _, m := range bot.Chat(ana.ID) {
		if !m.FromBot {
			left = append(left, m.Text)
		}
	}
	if strings.Join(left, " ") != "x y" || len(s.said) != 2 {
		t.Errorf("in the chat there are %q; %d messages were read", left, len(s.said))
	}
}

// Whom Telegram lets wait keeps nobody else waiting, and gets what was said in its order.
func TestOneChatIsSlow(t *testing.T) {
	t.Parallel()
	s := &scripted{open: map[int64]bool{ana.ID: true, bob.ID: true}}
	sim, bot := newTelegram(t)
	b, err := telegram.New(telegram.Options{URL: sim.URL(), Token: secret.Text(bot.Token()), Conversations: s, Logger: slog.New(slog.DiscardHandler), Pause: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- b.Run(ctx) }()
	go func() { ended <- b.Deliver(ctx) }()
	bot.Fail("sendMessage", telegramsim.Refusal{Code: 429, Description: "Too Many Requests", RetryAfter: 3600})
	bot.Write(ana, "a")
	for deadline := time.Now().Add(time.Minute); bot.Calls("sendMessage") == 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("nothing is sent")
		}
	}
	for _, text := range []string{"b", "c"} {
		bot.Write(ana, text)
	}
	bot.Write(bob, "hi")
	await(t, bot, bob.ID, "answer to hi")
	bot.Write(bob, "and now")
	await(t, bot, bob.ID, "answer to and now")
	for _, m := range bot.Chat(ana.ID) {
		if m.FromBot {
			t.Errorf("%q came before its time", m.Text)
		}
	}
	cancel() // what waits is not lost, though Telegram goes on refusing it
	away := telegramsim.Refusal{Code: 502, Description: "Bad Gateway"}
	bot.Fail("sendMessage", away, away)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	b.Notify(t.Context(), bob.ID, onboarding.Conversation{Reply: onboarding.Reply{Text: "found out at the last"}})
	finishing, stop := context.WithTimeout(t.Context(), 12*time.Second)
	defer stop()
	b.Finish(finishing)
	if all := bot.Chat(bob.ID); all[len(all)-1].Text != "found out at the last" {
		t.Errorf("%q is the last that is told", all[len(all)-1].Text)
	}
	var got []string
	for _, m := range bot.Chat(ana.ID) {
		if m.FromBot {
			got = append(got, m.Text)
		}
	}
	if want := "answer to a, answer to b, answer to c"; strings.Join(got, ", ") != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

// What Telegram asks for later is sent later, without anybody ending.
func TestSentLater(t *testing.T) {
	t.Parallel()
	s := &scripted{open: map[int64]bool{ana.ID: true}}
	_, bot, log := started(t, s)
	bot.Fail("sendMessage", telegramsim.Refusal{Code: 429, Description: "Too Many Requests", RetryAfter: 1}, telegramsim.Refusal{Code: 502, Description: "Bad Gateway"})
	bot.Write(ana, "a")
	await(t, bot, ana.ID, "answer to a")
	bot.Fail("sendMessage", telegramsim.Refusal{Code: 502, Description: "Bad Gateway"}, telegramsim.Refusal{Code: 502, Description: "Bad Gateway"}, telegramsim.Refusal{Code: 502, Description: "Bad Gateway"})
	bot.Write(ana, "b") // tried three times, and given up
	bot.Write(ana, "c")
	chat := await(t, bot, ana.ID, "answer to c")
	for _, m := range chat {
		if m.Text == "answer to b" {
			t.Error("it is tried for ever")
		}
	}
	if !strings.Contains(log.String(), "is not sent") {
		t.Error("nobody says that it is not sent")
	}
}

// An update that nobody can read is passed over, and keeps no other from being answered.
func TestUpdateThatCannotBeRead(t *testing.T) {
	t.Parallel()
	s := &scripted{open: map[int64]bool{ana.ID: true}}
	confirmed, sent := make(chan int64, 10), make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Offset int64  `json:"offset"`
			Text   string `json:"text"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "/sendMessage"):
			sent <- in.Text
			_, _ = io.WriteString(w, `{"ok": true, "result": {}}`)
		case in.Offset > 0:
			confirmed <- in.Offset
			<-r.Context().Done()
		default:
			_, _ = io.WriteString(w, `{"ok": true, "result": [{"update_id": 5, "message": "odd"},
				{"update_id": 6, "message": {"message_id": 1, "from": {"id": 11, "language_code": "pt-br"}, "chat": {"id": 11, "type": "private"}, "text": "oi"}}]}`)
		}
	}))
	t.Cleanup(server.Close)
	b, err := telegram.New(telegram.Options{URL: server.URL, Token: "1234567:fake", Conversations: s, Logger: slog.New(slog.DiscardHandler), Pause: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	if text, offset := <-sent, <-confirmed; text != "answer to oi" || offset != 7 {
		t.Errorf("said %q, confirmed up to %d", text, offset)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What nobody asked for is told without whoever found it out waiting for Telegram.
func TestNotify(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	b, bot, log := started(t, s)
	bot.Write(bob, "/start")
	await(t, bot, bob.ID, "hello Bob en")
	bot.Fail("sendMessage", telegramsim.Refusal{Code: 502, Description: "Bad Gateway"})
	tell := func(text string) {
		b.Notify(t.Context(), bob.ID, onboarding.Conversation{Reply: onboarding.Reply{Text: text}})
	}
	tell("your agent runs")
	for range 2000 { // nobody delivers yet
		tell("more")
	}
	if !strings.Contains(log.String(), "too many wait") {
		t.Error("nobody says that something is not told")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what was given is told all the same
	if err := b.Deliver(ctx); err != nil {
		t.Error(err)
	}
	b.Finish(t.Context())
	told := map[string]int{}
	for _, m := range bot.Chat(bob.ID) {
		told[m.Text]++
	}
	if told["your agent runs"] != 1 || told["more"] != 999 {
		t.Errorf("told %v", told)
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
