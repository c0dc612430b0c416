package telegram

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/onboarding"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// Conversations are had; see onboarding.Service.
type Conversations interface {
	BeginTelegram(ctx context.Context, user int64, b onboarding.Begin) (onboarding.Conversation, error)
	Say(ctx context.Context, who onboarding.Who, said onboarding.Said) (onboarding.Conversation, error)
}

// Options are what a Bot needs.
type Options struct {
	URL           string // such as https://api.telegram.org
	Token         secret.Text
	Conversations Conversations
	Logger        *slog.Logger
	// Poll is how long Telegram may wait for updates. Defaults to 50 s.
	Poll time.Duration
	// Pause is how long to wait after a poll that failed. Defaults to 3 s.
	Pause time.Duration
}

// Bot is the platform's bot. It is safe for concurrent use.
type Bot struct {
	o    Options
	http *http.Client
}

// atOnce is with how many people the bot speaks at once.
const atOnce = 16

// New checks o.
func New(o Options) (*Bot, error) {
	if o.URL == "" || o.Token == "" || o.Conversations == nil || o.Logger == nil {
		return nil, errors.New("telegram: an address, a token, conversations and a logger are required")
	}
	if o.Poll <= 0 {
		o.Poll = 50 * time.Second
	}
	if o.Pause <= 0 {
		o.Pause = 3 * time.Second
	}
	return &Bot{o: o, http: &http.Client{
		Timeout:       o.Poll + 30*time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Run polls until ctx ends.
func (b *Bot) Run(ctx context.Context) error {
	offset := int64(0)
	for ctx.Err() == nil {
		var list []update
		err := b.call(ctx, "getUpdates", map[string]any{
			"offset": offset, "timeout": int(b.o.Poll / time.Second), "allowed_updates": []string{"message", "callback_query"},
		}, &list)
		if err != nil {
			if ctx.Err() == nil {
				b.o.Logger.Warn("cannot ask Telegram for messages", "error", err)
				b.wait(ctx, err)
			}
			continue
		}
		b.work(ctx, list)
		for _, u := range list {
			offset = max(offset, u.ID+1)
		}
	}
	return nil
}

// wait waits for as long as Telegram says, or a little.
func (b *Bot) wait(ctx context.Context, err error) {
	pause := b.o.Pause
	if refused := (*apiError)(nil); errors.As(err, &refused) && refused.retryAfter > 0 {
		pause = refused.retryAfter
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// work works updates: those of one person one by one.
func (b *Bot) work(ctx context.Context, list []update) {
	var people []int64
	of := make(map[int64][]update)
	for _, u := range list {
		from := u.from()
		if from == nil {
			continue
		}
		if of[from.ID] == nil {
			people = append(people, from.ID)
		}
		of[from.ID] = append(of[from.ID], u)
	}
	turns := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for _, id := range people {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			for _, u := range of[id] {
				b.answer(ctx, u)
			}
		})
	}
	wg.Wait()
}

// answer works one update.
func (b *Bot) answer(ctx context.Context, u update) {
	from := u.from()
	c, err := b.converse(ctx, from, u)
	if err != nil {
		b.o.Logger.Error("a message on Telegram is not answered", "error", err)
		b.send(ctx, from.ID, onboarding.Apology(from.Language), nil)
		return
	}
	b.Tell(ctx, from.ID, c)
}

func (b *Bot) converse(ctx context.Context, from *person, u update) (onboarding.Conversation, error) {
	begin := onboarding.Begin{Language: from.Language, Name: from.Name}
	who := onboarding.Who{TelegramUser: from.ID}
	said := onboarding.Said{}
	if u.Callback != nil {
		if err := b.call(ctx, "answerCallbackQuery", map[string]any{"callback_query_id": u.Callback.ID}, nil); err != nil {
			b.o.Logger.Debug("a button keeps waiting", "error", err)
		}
		said.Choice = u.Callback.Data
	} else {
		said.Text = u.Message.Text
		if onboarding.HasSecret(said.Text) {
			if err := b.call(ctx, "deleteMessage", map[string]any{"chat_id": from.ID, "message_id": u.Message.ID}, nil); err != nil {
				b.o.Logger.Warn("a message with a secret stays in its chat", "error", err)
			}
		}
		if command, _, _ := strings.Cut(said.Text, " "); command == "/start" {
			return b.o.Conversations.BeginTelegram(ctx, from.ID, begin)
		}
	}
	c, err := b.o.Conversations.Say(ctx, who, said)
	if !errors.Is(err, control.ErrNotFound) {
		return c, err
	}
	return b.o.Conversations.BeginTelegram(ctx, from.ID, begin)
}

// Tell says what is new of a conversation to somebody. It is onboarding.Options.Notify, too.
func (b *Bot) Tell(ctx context.Context, user int64, c onboarding.Conversation) {
	if c.Reply.Text == "" {
		return
	}
	var rows [][]button
	if c.Reply.PayURL != "" {
		rows = append(rows, []button{{Text: onboarding.PageLabel(c.Language), URL: c.Reply.PayURL}})
	}
	for _, q := range c.Reply.Quick {
		rows = append(rows, []button{{Text: q.Label, Data: q.ID}})
	}
	b.send(ctx, user, c.Reply.Text, rows)
}

// send sends a message, once more if Telegram wants it later.
func (b *Bot) send(ctx context.Context, user int64, text string, rows [][]button) {
	params := map[string]any{"chat_id": user, "text": text, "link_preview_options": map[string]any{"is_disabled": true}}
	if len(rows) > 0 {
		params["reply_markup"] = keyboard{rows}
	}
	err := b.call(ctx, "sendMessage", params, nil)
	refused := (*apiError)(nil)
	if errors.As(err, &refused) && refused.code == http.StatusTooManyRequests {
		b.wait(ctx, err)
		err = b.call(ctx, "sendMessage", params, nil)
	}
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.code == http.StatusForbidden:
		b.o.Logger.Info("somebody has blocked the bot") // who comes back sees the conversation as it is
	default:
		b.o.Logger.Warn("a message on Telegram is not sent", "error", err)
	}
}
