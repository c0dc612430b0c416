package telegramsim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bot is one bot, as those see it who write to it.
type Bot struct {
	s        *Server
	id       int64
	username string
	token    string

	// The rest is under the server's lock.
	changed     chan struct{} // closed, and made anew, when anything changes
	calls       map[string]int
	failing     map[string][]Refusal
	chats       map[int64]*chat
	lastUpdate  int64
	updates     []update // not yet confirmed
	poll        chan struct{}
	webhook     webhook
	answered    map[string]string // callback queries
	callbacks   int
	commands    []Command
	lastMessage int64
}

// User is a person.
type User struct {
	ID       int64  // positive
	Name     string // first name
	Username string // may be empty
	Language string // as their Telegram says it, such as "pt-br"; may be empty
}

func (u User) object() object {
	o := object{"id": u.ID, "is_bot": false, "first_name": u.Name}
	if u.Username != "" {
		o["username"] = u.Username
	}
	if u.Language != "" {
		o["language_code"] = u.Language
	}
	return o
}

// Message is one in a private chat, as it is now: edited, and without what was deleted.
type Message struct {
	ID        int64
	FromBot   bool
	Text      string // as it was sent, so with marks if there is a ParseMode
	ParseMode string // "", "HTML", "Markdown" or "MarkdownV2"
	Markup    json.RawMessage
	ReplyTo   int64
	Edits     int
	At        time.Time
}

// Command is one of a bot's menu.
type Command struct {
	Command     string `json:"command"`
	Description string `json:"description"`
}

type chat struct {
	user     User
	blocked  bool
	messages []*Message
	actions  int
}

// Token is what the bot's program has to present.
func (b *Bot) Token() string { return b.token }

// ID is the bot's own user id.
func (b *Bot) ID() int64 { return b.id }

// Username is the bot's name without @.
func (b *Bot) Username() string { return b.username }

// note tells everybody who waits that something changed. The caller holds the lock.
func (b *Bot) note() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Write has a person write to the bot in their private chat, and returns the message's id.
func (b *Bot) Write(from User, text string) int64 {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	c := b.chats[from.ID]
	if c == nil {
		c = &chat{}
		b.chats[from.ID] = c
	}
	c.user, c.blocked = from, false
	m := &Message{ID: b.nextMessage(), Text: text, At: time.Now()}
	c.messages = append(c.messages, m)
	o := b.messageObject(c, m)
	if strings.HasPrefix(text, "/") {
		length := len(strings.Fields(text)[0])
		o["entities"] = []object{{"type": "bot_command", "offset": 0, "length": length}}
	}
	b.queue(object{"message": o}, "message")
	return m.ID
}

// Press has a person press a button that carries data below one of the bot's messages. It
// returns the query's id.
func (b *Bot) Press(from User, message int64, data string) (string, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	c := b.chats[from.ID]
	if c == nil {
		return "", fmt.Errorf("press a button: %s never wrote to the bot", from.Name)
	}
	m := c.find(message)
	if m == nil || !strings.Contains(string(m.Markup), strconv.Quote(data)) {
		return "", fmt.Errorf("press a button: message %d has none with data %q", message, data)
	}
	b.callbacks++
	id := fmt.Sprintf("%d%06d", b.id, b.callbacks)
	b.queue(object{"callback_query": object{
		"id": id, "from": from.object(), "message": b.messageObject(c, m), "chat_instance": strconv.FormatInt(from.ID, 10), "data": data,
	}}, "callback_query")
	return id, nil
}

// Answered returns what the bot answered to a query of Press, and whether it did.
func (b *Bot) Answered(query string) (text string, ok bool) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	text, ok = b.answered[query]
	return text, ok
}

// Block has a person block the bot, until they write again.
func (b *Bot) Block(user int64) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if c := b.chats[user]; c != nil {
		c.blocked = true
	}
}

// Chat returns the messages of a person's private chat with the bot, oldest first.
func (b *Bot) Chat(user int64) []Message {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	return b.chat(user)
}

func (b *Bot) chat(user int64) []Message {
	c := b.chats[user]
	if c == nil {
		return nil
	}
	out := make([]Message, 0, len(c.messages))
	for _, m := range c.messages {
		out = append(out, *m)
	}
	return out
}

// Actions returns how often the bot showed a person that it types, or the like.
func (b *Bot) Actions(user int64) int {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if c := b.chats[user]; c != nil {
		return c.actions
	}
	return 0
}

// Commands returns the bot's menu.
func (b *Bot) Commands() []Command {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	return slices.Clone(b.commands)
}

// Calls returns how often a method was called, such as "sendMessage".
func (b *Bot) Calls(method string) int {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	return b.calls[strings.ToLower(method)]
}

// Pending returns how many updates the bot has not confirmed.
func (b *Bot) Pending() int {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	return len(b.updates)
}

// Fail has the next calls of a method answered so, one by one.
func (b *Bot) Fail(method string, with ...Refusal) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	method = strings.ToLower(method)
	b.failing[method] = append(b.failing[method], with...)
}

// Await waits until a person's chat is as ok wants it, and returns it. It looks again
// whenever something changes.
func (b *Bot) Await(ctx context.Context, user int64, ok func([]Message) bool) ([]Message, error) {
	for {
		b.s.mu.Lock()
		messages, changed := b.chat(user), b.changed
		b.s.mu.Unlock()
		if ok(messages) {
			return messages, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return messages, fmt.Errorf("await the chat of %d: %w", user, ctx.Err())
		}
	}
}
