package telegram

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/callers"
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
	Messages callers.Rate
}

// Bot is the platform's bot. It is safe for concurrent use, but for Run.
type Bot struct {
	o      Options
	http   *http.Client
	people *people
	notes  chan note
	lines  *lines
}

const (
	// atOnce is with how many people the bot speaks at once.
	atOnce = 16
	// sendWithin is how long a call may take that is not a poll.
	sendWithin = 15 * time.Second
	// maxPause bounds for how long Telegram has everybody wait.
	maxPause = time.Minute
)

// FinishWithin is how long what is in hand may take once the bot is to end: in Run, in Deliver, and then in Finish, all
// together. Run may then take a moment more to confirm what it has worked.
const FinishWithin = 40 * time.Second

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
	if o.Messages == (callers.Rate{}) {
		o.Messages = callers.Rate{PerSecond: 0.2, Burst: 20}
	}
	return &Bot{o: o, people: newPeople(o.Messages), notes: make(chan note, mostNotes), lines: newLines(), http: &http.Client{
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
				wait(b.pauseAfter(err), ctx.Done())
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
	working, cancel := lasting(ctx)
	defer cancel()
	b.work(working, list)
	return working.Err()
}

// lasting returns a context that ends FinishWithin after ctx.
func lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		wait(FinishWithin, working.Done())
		cancel()
	})
	return working, func() {
		stop()
		cancel()
	}
}

// pauseAfter is how long to wait after an error: for as long as Telegram says, or a little.
func (b *Bot) pauseAfter(err error) time.Duration {
	if refused := (*apiError)(nil); errors.As(err, &refused) && refused.retryAfter > 0 {
		return min(refused.retryAfter, maxPause)
	}
	return b.o.Pause
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
			b.forget(ctx, id, of[id]) // also what is not read
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

// mostDeleted is how many messages Telegram deletes at once.
const mostDeleted = 100

// forget takes the messages with a secret out of their chat.
func (b *Bot) forget(ctx context.Context, user int64, list []update) {
	var ids []int64
	for _, u := range list {
		if u.Message != nil && onboarding.HasSecret(u.Message.Text) {
			ids = append(ids, u.Message.ID)
		}
	}
	for some := range slices.Chunk(ids, mostDeleted) {
		b.try(ctx, user, letter{method: "deleteMessages", params: map[string]any{"chat_id": user, "message_ids": some}})
	}
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

// send sends a message. If Telegram wants it later, or cannot be reached, it is sent again, and what comes for the
// same person after it waits for that, while others are answered.
func (b *Bot) send(ctx context.Context, user int64, text string, rows [][]button) {
	m := letter{method: "sendMessage", params: map[string]any{"chat_id": user, "text": text, "link_preview_options": map[string]any{"is_disabled": true}}}
	if len(rows) > 0 {
		m.params["reply_markup"] = keyboard{rows}
	}
	if joined, _, full := b.lines.join(user, m, false); !joined {
		b.try(ctx, user, m)
	} else if full {
		b.full(m)
	}
}

// try calls Telegram, and puts what is to be tried again behind what waits for the same person.
func (b *Bot) try(ctx context.Context, user int64, m letter) {
	err := b.brief(ctx, m.method, m.params)
	pause, again := b.again(err)
	if !again {
		b.note(m.method, err)
		return
	}
	m.pause, m.tries = pause, 1
	switch _, first, full := b.lines.join(user, m, true); {
	case full:
		b.full(m)
	case first:
		go b.sendLine(user, m)
	}
}

// full says that something is not tried again.
func (b *Bot) full(m letter) {
	b.o.Logger.Warn("a message on Telegram " + unlucky(m.method) + ": too many wait to be tried again")
}

// unlucky says what a message suffers if a call fails for good.
func unlucky(method string) string {
	if method == "deleteMessages" {
		return "that has a secret stays in its chat"
	}
	return "is not sent"
}

// again reports whether what failed is to be tried again, and after which pause.
func (b *Bot) again(err error) (pause time.Duration, again bool) {
	refused := (*apiError)(nil)
	if err == nil || errors.As(err, &refused) && refused.code != http.StatusTooManyRequests && refused.code < http.StatusInternalServerError {
		return 0, false
	}
	return b.pauseAfter(err), true
}

// note says what became of what is not tried again.
func (b *Bot) note(method string, err error) {
	refused := (*apiError)(nil)
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.code == http.StatusForbidden:
		b.o.Logger.Info("somebody has blocked the bot") // who comes back sees the conversation as it is
	default:
		b.o.Logger.Warn("a message on Telegram "+unlucky(method), "error", err)
	}
}
