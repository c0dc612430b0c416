package telegramsim

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
)

// maxText is how long a message may be, in UTF-16 code units.
const maxText = 4096

func (b *Bot) self(full bool) object {
	o := object{"id": b.id, "is_bot": true, "first_name": b.username, "username": b.username}
	if full {
		o["can_join_groups"], o["can_read_all_group_messages"], o["supports_inline_queries"] = true, false, false
		o["can_connect_to_business"], o["has_main_web_app"] = false, false
	}
	return o
}

func (b *Bot) nextMessage() int64 {
	b.lastMessage++
	return b.lastMessage
}

func (c *chat) find(id int64) *Message {
	for _, m := range c.messages {
		if m.ID == id {
			return m
		}
	}
	return nil
}

func (c *chat) object() object {
	o := object{"id": c.user.ID, "type": "private", "first_name": c.user.Name}
	if c.user.Username != "" {
		o["username"] = c.user.Username
	}
	return o
}

func (b *Bot) messageObject(c *chat, m *Message) object {
	o := object{"message_id": m.ID, "chat": c.object(), "date": m.At.Unix(), "text": m.Text}
	o["from"] = c.user.object()
	if m.FromBot {
		o["from"] = b.self(false)
	}
	if m.Edits > 0 {
		o["edit_date"] = m.At.Unix()
	}
	if m.Markup != nil {
		o["reply_markup"] = m.Markup
	}
	if to := c.find(m.ReplyTo); to != nil && to != m {
		o["reply_to_message"] = object{"message_id": to.ID, "chat": c.object(), "date": to.At.Unix(), "text": to.Text}
	}
	return o
}

// chatOf returns the chat that a call is about, if the bot may write there.
func (b *Bot) chatOf(p params) (*chat, error) {
	if p["chat_id"] == "" {
		return nil, badRequest("chat_id is empty")
	}
	c := b.chats[p.number("chat_id")]
	if c == nil {
		return nil, badRequest("chat not found")
	}
	if c.blocked {
		return nil, refuse(http.StatusForbidden, "Forbidden: bot was blocked by the user")
	}
	return c, nil
}

// messageOf returns one of the chat's messages.
func (b *Bot) messageOf(p params, missing string) (*chat, *Message, error) {
	c, err := b.chatOf(p)
	if err != nil {
		return nil, nil, err
	}
	m := c.find(p.number("message_id"))
	if m == nil {
		return nil, nil, badRequest("%s", missing)
	}
	return c, m, nil
}

// checkText refuses what Telegram would. Marks are counted as text, which is stricter.
func checkText(p params) error {
	text := p["text"]
	if strings.TrimSpace(text) == "" {
		return badRequest("message text is empty")
	}
	if len(utf16.Encode([]rune(text))) > maxText && p["parse_mode"] == "" {
		return badRequest("message is too long")
	}
	switch p["parse_mode"] {
	case "", "Markdown", "MarkdownV2":
	case "HTML":
		return checkHTML(text)
	default:
		return badRequest("unsupported parse_mode")
	}
	return nil
}

// checkHTML wants tags to be closed in order.
func checkHTML(text string) error {
	var open []string
	for rest := text; ; {
		i := strings.IndexByte(rest, '<')
		if i < 0 {
			break
		}
		tag, after, ok := strings.Cut(rest[i+1:], ">")
		if !ok || tag == "" {
			return badRequest("can't parse entities: Unclosed start tag")
		}
		rest = after
		if name, end := strings.CutPrefix(tag, "/"); end {
			if len(open) == 0 || open[len(open)-1] != name {
				return badRequest("can't parse entities: Unmatched end tag, found \"</%s>\"", name)
			}
			open = open[:len(open)-1]
			continue
		}
		open = append(open, strings.Fields(tag)[0])
	}
	if len(open) > 0 {
		return badRequest("can't parse entities: Can't find end tag corresponding to start tag \"%s\"", open[len(open)-1])
	}
	return nil
}

func (b *Bot) sendMessage(p params) (any, error) {
	c, err := b.chatOf(p)
	if err != nil {
		return nil, err
	}
	if err := checkText(p); err != nil {
		return nil, err
	}
	markup, err := p.raw("reply_markup")
	if err != nil {
		return nil, err
	}
	m := &Message{ID: b.nextMessage(), FromBot: true, Text: p["text"], ParseMode: p["parse_mode"], Markup: markup, At: time.Now()}
	var reply struct {
		MessageID int64 `json:"message_id"`
	}
	if raw, err := p.raw("reply_parameters"); err != nil {
		return nil, err
	} else if raw != nil {
		_ = json.Unmarshal(raw, &reply)
	}
	m.ReplyTo = max(reply.MessageID, p.number("reply_to_message_id"))
	c.messages = append(c.messages, m)
	b.note()
	return b.messageObject(c, m), nil
}

func (b *Bot) editMessageText(p params) (any, error) {
	c, m, err := b.messageOf(p, "message to edit not found")
	if err != nil {
		return nil, err
	}
	if !m.FromBot {
		return nil, badRequest("message can't be edited")
	}
	if err := checkText(p); err != nil {
		return nil, err
	}
	markup, err := p.raw("reply_markup")
	if err != nil {
		return nil, err
	}
	if m.Text == p["text"] && m.ParseMode == p["parse_mode"] && string(m.Markup) == string(markup) {
		return nil, notModified()
	}
	m.Text, m.ParseMode, m.Markup = p["text"], p["parse_mode"], markup
	m.Edits++
	b.note()
	return b.messageObject(c, m), nil
}

func notModified() error {
	return badRequest("message is not modified: specified new message content and reply markup are exactly the same as a current content and reply markup of the message")
}

func (b *Bot) editMarkup(p params) (any, error) {
	c, m, err := b.messageOf(p, "message to edit not found")
	if err != nil {
		return nil, err
	}
	markup, err := p.raw("reply_markup")
	if err != nil {
		return nil, err
	}
	if string(m.Markup) == string(markup) {
		return nil, notModified()
	}
	m.Markup = markup
	m.Edits++
	b.note()
	return b.messageObject(c, m), nil
}

func (b *Bot) deleteMessage(p params) (any, error) {
	c, m, err := b.messageOf(p, "message to delete not found")
	if err != nil {
		return nil, err
	}
	c.messages = slices.DeleteFunc(c.messages, func(other *Message) bool { return other == m })
	b.note()
	return true, nil
}

// maxDeleted is how many messages may be deleted at once.
const maxDeleted = 100

// deleteMessages passes over those that are not there.
func (b *Bot) deleteMessages(p params) (any, error) {
	c, err := b.chatOf(p)
	if err != nil {
		return nil, err
	}
	var ids []int64
	if json.Unmarshal([]byte(p["message_ids"]), &ids) != nil {
		return nil, badRequest("can't parse message_ids JSON object")
	}
	if len(ids) == 0 || len(ids) > maxDeleted {
		return nil, badRequest("message identifiers are not 1 to %d", maxDeleted)
	}
	c.messages = slices.DeleteFunc(c.messages, func(m *Message) bool { return slices.Contains(ids, m.ID) })
	b.note()
	return true, nil
}

func (b *Bot) sendChatAction(p params) (any, error) {
	c, err := b.chatOf(p)
	if err != nil {
		return nil, err
	}
	if p["action"] == "" {
		return nil, badRequest("wrong parameter action in request")
	}
	c.actions++
	b.note()
	return true, nil
}

func (b *Bot) getChat(p params) (any, error) {
	c, err := b.chatOf(p)
	if err != nil {
		return nil, err
	}
	return c.object(), nil
}

func (b *Bot) answerCallbackQuery(p params) (any, error) {
	id := p["callback_query_id"]
	if _, twice := b.answered[id]; twice || id == "" {
		return nil, badRequest("query is too old and response timeout expired or query ID is invalid")
	}
	b.answered[id] = p["text"]
	b.note()
	return true, nil
}

func (b *Bot) setMyCommands(p params) (any, error) {
	var commands []Command
	if json.Unmarshal([]byte(p["commands"]), &commands) != nil {
		return nil, badRequest("can't parse commands JSON object")
	}
	if len(commands) > 100 {
		return nil, badRequest("BOT_COMMANDS_TOO_MUCH")
	}
	for _, c := range commands {
		if c.Command == "" || len(c.Command) > 32 || c.Command != strings.ToLower(c.Command) || strings.ContainsAny(c.Command, "- /") {
			return nil, badRequest("BOT_COMMAND_INVALID")
		}
		if c.Description == "" || len([]rune(c.Description)) > 256 {
			return nil, badRequest("BOT_COMMAND_DESCRIPTION_INVALID")
		}
	}
	b.commands = commands
	b.note()
	return true, nil
}
