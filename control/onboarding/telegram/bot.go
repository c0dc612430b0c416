package telegram

import (
	"context"
	"encoding/json"
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
	// Pause is how long to wait after a call that failed. Defaults to 3 s.
	Pause time.Duration
	// Messages limits what is taken of one person. Defaults to one in 5 s, 20 at once.
	Messages Rate
}

// Rate is how many are let through: PerSecond on average, Burst at once.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Bot is the platform's bot. It is safe for concurrent use, but for Run.
type Bot struct {
	o      Options
	http   *http.Client
	people *people
	notes  chan note
}

const (
	// atOnce is with how many people the bot speaks at once.
	atOnce = 16
	// sendWithin is how long a call may take that is not a poll.
	sendWithin = 15 * time.Second
	// maxPause bounds for how long Telegram has everybody wait.
	maxPause = time.Minute
	// finishWithin is how long what is in hand may take once the bot is to end.
	finishWithin = 40 * time.Second
)

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
	if o.Messages == (Rate{}) {
		o.Messages = Rate{PerSecond: 0.2, Burst: 20}
	}
	return &Bot{o: o, people: newPeople(o.Messages), notes: make(chan note, mostNotes), http: &http.Client{
		Timeout:       o.Poll + 30*time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Run polls until ctx ends. What is in hand then is answered and confirmed, so that whoever polls next
// does not answer it again.
func (b *Bot) Run(ctx context.Context) error {
	offset := int64(0)
	for ctx.Err() == nil {
		list, err := b.poll(ctx, offset, b.o.Poll)
		if err != nil {
			if ctx.Err() == nil {
				b.o.Logger.Warn("cannot ask Telegram for messages", "error", err)
				b.wait(ctx, err)
			}
			continue
		}
		if len(list) == 0 {
			continue
		}
		if err := b.finish(ctx, list); err != nil {
			b.o.Logger.Warn("messages on Telegram are left to whoever polls next", "error", err)
			return nil
		}
		for _, u := range list {
			offset = max(offset, u.ID+1)
		}
		if ctx.Err() != nil {
			b.confirm(ctx, offset)
		} // otherwise the next poll confirms
	}
	return nil
}

// confirm has Telegram forget the updates before offset.
func (b *Bot) confirm(ctx context.Context, offset int64) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendWithin)
	defer cancel()
	if _, err := b.poll(limited, offset, 0); err != nil {
		b.o.Logger.Warn("messages on Telegram may be answered twice", "error", err)
	}
}

// poll asks for updates from offset on, which confirms those before.
func (b *Bot) poll(ctx context.Context, offset int64, wait time.Duration) (list []update, err error) {
	var raw []json.RawMessage
	err = b.call(ctx, "getUpdates", map[string]any{
		"offset": offset, "timeout": int(wait / time.Second), "allowed_updates": []string{"message", "callback_query"},
	}, &raw)
	for _, one := range raw {
		// One that cannot be read must not keep the others from being.
		var u update
		if json.Unmarshal(one, &u) != nil {
			b.o.Logger.Warn("an update of Telegram cannot be read", "bytes", len(one))
			var id struct {
				ID int64 `json:"update_id"`
			}
			if err := json.Unmarshal(one, &id); err != nil {
				return nil, errors.New("getUpdates: an update has no number")
			}
			u = update{ID: id.ID}
		}
		list = append(list, u)
	}
	return list, err
}

// finish works updates also if ctx ends meanwhile, though not for ever: then some may be left.
func (b *Bot) finish(ctx context.Context, list []update) error {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		timer := time.NewTimer(finishWithin)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-working.Done():
		}
	})()
	b.work(working, list)
	return working.Err()
}

// wait waits for as long as Telegram says, or a little.
func (b *Bot) wait(ctx context.Context, err error) {
	pause := b.o.Pause
	if refused := (*apiError)(nil); errors.As(err, &refused) && refused.retryAfter > 0 {
		pause = min(refused.retryAfter, maxPause)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// work works updates: those of one person one by one, and not more than one may send. Others wait until it
// is done, so for all but the newest of a person it is done in a hurry.
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
			for i, u := range of[id] {
				switch ok, first := b.people.mayWrite(id, time.Now()); {
				case ok:
					b.answer(ctx, u, i < len(of[id])-1)
				case first:
					b.send(ctx, id, onboarding.TooFast(u.from().Language), nil)
				}
			}
		})
	}
	wg.Wait()
}

// planLink begins what a link to the bot says, https://t.me/BOT?start=plan_NAME, about the plan that was
// looked at. What is not one is on sale under no such name.
const planLink = "plan_"

// answer works one update.
func (b *Bot) answer(ctx context.Context, u update, hurried bool) {
	from := u.from()
	c, err := b.converse(ctx, from, u, hurried)
	if err != nil {
		b.o.Logger.Error("a message on Telegram is not answered", "error", err)
		b.send(ctx, from.ID, onboarding.Apology(from.Language), nil)
		return
	}
	b.Tell(ctx, from.ID, c)
}

func (b *Bot) converse(ctx context.Context, from *person, u update, hurried bool) (onboarding.Conversation, error) {
	begin := onboarding.Begin{Language: from.Language, Name: from.Name}
	who := onboarding.Who{TelegramUser: from.ID}
	said := onboarding.Said{Hurried: hurried}
	if u.Callback != nil {
		if err := b.brief(ctx, "answerCallbackQuery", map[string]any{"callback_query_id": u.Callback.ID}); err != nil {
			b.o.Logger.Debug("a button keeps waiting", "error", err)
		}
		said.Choice = u.Callback.Data
	} else {
		said.Text = u.Message.Text
		if onboarding.HasSecret(said.Text) {
			if err := b.brief(ctx, "deleteMessage", map[string]any{"chat_id": from.ID, "message_id": u.Message.ID}); err != nil {
				b.o.Logger.Warn("a message with a secret stays in its chat", "error", err)
			}
		}
		if command, payload, _ := strings.Cut(said.Text, " "); command == "/start" {
			begin.Tier, _ = strings.CutPrefix(payload, planLink)
			return b.o.Conversations.BeginTelegram(ctx, from.ID, begin)
		}
	}
	c, err := b.o.Conversations.Say(ctx, who, said)
	if !errors.Is(err, control.ErrNotFound) {
		return c, err
	}
	return b.o.Conversations.BeginTelegram(ctx, from.ID, begin)
}

// Tell says what is new of a conversation to somebody.
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

// brief is a call that does not wait for anybody.
func (b *Bot) brief(ctx context.Context, method string, params any) error {
	limited, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	return b.call(limited, method, params, nil)
}

// send sends a message, once more if Telegram wants it later or cannot be reached.
func (b *Bot) send(ctx context.Context, user int64, text string, rows [][]button) {
	params := map[string]any{"chat_id": user, "text": text, "link_preview_options": map[string]any{"is_disabled": true}}
	if len(rows) > 0 {
		params["reply_markup"] = keyboard{rows}
	}
	err := b.brief(ctx, "sendMessage", params)
	refused := (*apiError)(nil)
	if err != nil && (!errors.As(err, &refused) || refused.code == http.StatusTooManyRequests || refused.code >= http.StatusInternalServerError) {
		b.wait(ctx, err)
		err = b.brief(ctx, "sendMessage", params)
	}
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.code == http.StatusForbidden:
		b.o.Logger.Info("somebody has blocked the bot") // who comes back sees the conversation as it is
	default:
		b.o.Logger.Warn("a message on Telegram is not sent", "error", err)
	}
}
