package telegramsim_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/telegramsim"
)

var ana = telegramsim.User{ID: 11, Name: "Ana", Username: "ana", Language: "pt-br"}

// reply is what the Bot API answers.
type reply struct {
	OK          bool
	ErrorCode   int `json:"error_code"`
	Description string
	Parameters  struct {
		RetryAfter int `json:"retry_after"`
	}
	Result json.RawMessage
}

func call(t *testing.T, s *telegramsim.Server, token, method string, params ...string) reply {
	t.Helper()
	form := url.Values{}
	for i := 0; i < len(params); i += 2 {
		form.Set(params[i], params[i+1])
	}
	resp, err := http.PostForm(s.URL()+"/bot"+token+"/"+method, form)
	if err != nil {
		t.Error(err) // it may be called in a goroutine
		return reply{}
	}
	defer resp.Body.Close()
	var r reply
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		t.Error(err)
		return reply{}
	}
	if r.OK != (resp.StatusCode == http.StatusOK) || !r.OK && r.ErrorCode != resp.StatusCode {
		t.Errorf("%s: status %d with %+v", method, resp.StatusCode, r)
	}
	return r
}

func start(t *testing.T) (*telegramsim.Server, *telegramsim.Bot) {
	s := telegramsim.New()
	t.Cleanup(s.Close)
	return s, s.NewBot("test_bot")
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s, b := start(t)
	b.Write(ana, "hello")
	blocked := telegramsim.User{ID: 12, Name: "Bia"}
	b.Write(blocked, "hello")
	b.Block(blocked.ID)
	b.Fail("getMe", telegramsim.Refusal{Code: 429, Description: "Too Many Requests: retry after 3", RetryAfter: 3})
	if r := call(t, s, b.Token(), "getMe"); r.ErrorCode != 429 || r.Parameters.RetryAfter != 3 {
		t.Errorf("a failure that was asked for: %+v", r)
	}
	for _, c := range []struct {
		name, token, method string
		params              []string
		code                int
		says                string
	}{
		{"once only", b.Token(), "getme", nil, 200, ""},
		{"unknown token", "1:abc", "getMe", nil, 401, "Unauthorized"},
		{"no token", "abc", "getMe", nil, 404, "Not Found"},
		{"unknown method", b.Token(), "makeCoffee", nil, 404, "Not Found"},
		{"stranger", b.Token(), "sendMessage", []string{"chat_id", "99", "text", "x"}, 400, "Bad Request: chat not found"},
		{"blocked", b.Token(), "sendMessage", []string{"chat_id", "12", "text", "x"}, 403, "Forbidden: bot was blocked by the user"},
		{"empty", b.Token(), "sendMessage", []string{"chat_id", "11", "text", " "}, 400, "Bad Request: message text is empty"},
		{"longest", b.Token(), "sendMessage", []string{"chat_id", "11", "text", strings.Repeat("😀", 2048)}, 200, ""},
		{"too long", b.Token(), "sendMessage", []string{"chat_id", "11", "text", strings.Repeat("😀", 2049)}, 400, "Bad Request: message is too long"},
		{"good marks", b.Token(), "sendMessage", []string{"chat_id", "11", "parse_mode", "HTML", "text", `<b>x <a href="y">z</a></b>`}, 200, ""},
		{"open mark", b.Token(), "sendMessage", []string{"chat_id", "11", "parse_mode", "HTML", "text", "<b>x"}, 400, "Bad Request: can't parse entities"},
		{"wrong mark", b.Token(), "sendMessage", []string{"chat_id", "11", "parse_mode", "HTML", "text", "<b>x</i>"}, 400, "Bad Request: can't parse entities"},
		{"edit nothing", b.Token(), "editMessageText", []string{"chat_id", "11", "message_id", "99", "text", "x"}, 400, "Bad Request: message to edit not found"},
		{"edit another's", b.Token(), "editMessageText", []string{"chat_id", "11", "message_id", "1", "text", "x"}, 400, "Bad Request: message can't be edited"},
		{"bad command", b.Token(), "setMyCommands", []string{"commands", `[{"command":"Start","description":"x"}]`}, 400, "Bad Request: BOT_COMMAND_INVALID"},
		{"unknown query", b.Token(), "answerCallbackQuery", []string{"callback_query_id", ""}, 400, "Bad Request: query is too old"},
	} {
		r := call(t, s, c.token, c.method, c.params...)
		if r.OK != (c.code == 200) || !r.OK && (r.ErrorCode != c.code || !strings.HasPrefix(r.Description, c.says)) {
			t.Errorf("%s: %+v, want %d %q", c.name, r, c.code, c.says)
		}
	}
	if u := s.Unknown(); len(u) != 1 || u[0] != "makecoffee" {
		t.Errorf("unknown methods: %v", u)
	}
}

func TestConversation(t *testing.T) {
	t.Parallel()
	s, b := start(t)
	b.Write(ana, "/start now")
	r := call(t, s, b.Token(), "getUpdates", "timeout", "5")
	var updates []struct {
		ID      int64 `json:"update_id"`
		Message struct {
			Text     string
			From     struct{ ID int64 }
			Entities []struct{ Type string }
		}
	}
	if err := json.Unmarshal(r.Result, &updates); err != nil || len(updates) != 1 {
		t.Fatalf("%s: %v", r.Result, err)
	}
	u := updates[0]
	if u.Message.Text != "/start now" || u.Message.From.ID != ana.ID || len(u.Message.Entities) != 1 || u.Message.Entities[0].Type != "bot_command" {
		t.Errorf("update %+v", u)
	}
	// What is not confirmed comes again; what is does not.
	if again := call(t, s, b.Token(), "getUpdates"); string(again.Result) != string(r.Result) {
		t.Errorf("not confirmed, it comes as %s", again.Result)
	}
	if after := call(t, s, b.Token(), "getUpdates", "offset", "2"); string(after.Result) != "[]" || b.Pending() != 0 {
		t.Errorf("confirmed, there is still %s", after.Result)
	}

	call(t, s, b.Token(), "sendChatAction", "chat_id", "11", "action", "typing")
	call(t, s, b.Token(), "sendMessage", "chat_id", "11", "text", "Which?", "reply_markup", `{"inline_keyboard":[[{"text":"A","callback_data":"a"}]]}`)
	chat := b.Chat(ana.ID)
	if len(chat) != 2 || !chat[1].FromBot || chat[1].Text != "Which?" || b.Actions(ana.ID) != 1 {
		t.Fatalf("the chat is %+v", chat)
	}
	if _, err := b.Press(ana, chat[1].ID, "b"); err == nil {
		t.Error("a button that is not there was pressed")
	}
	query, err := b.Press(ana, chat[1].ID, "a")
	if err != nil {
		t.Fatal(err)
	}
	if r := call(t, s, b.Token(), "getUpdates", "offset", "2"); !strings.Contains(string(r.Result), query) {
		t.Errorf("the button does not arrive: %s", r.Result)
	}
	call(t, s, b.Token(), "answerCallbackQuery", "callback_query_id", query, "text", "Thanks")
	if text, ok := b.Answered(query); !ok || text != "Thanks" {
		t.Errorf("the query is answered %q, %v", text, ok)
	}
	if r := call(t, s, b.Token(), "answerCallbackQuery", "callback_query_id", query); r.OK {
		t.Error("a query was answered twice")
	}
	for _, want := range []bool{true, false} {
		if r := call(t, s, b.Token(), "editMessageText", "chat_id", "11", "message_id", "2", "text", "A, then."); r.OK != want {
			t.Errorf("edited to the same: %+v", r)
		}
	}
	call(t, s, b.Token(), "setMyCommands", "commands", `[{"command":"start","description":"Begin"}]`)
	if c := b.Commands(); len(c) != 1 || c[0].Command != "start" || b.Calls("setMyCommands") != 1 {
		t.Errorf("commands %v", c)
	}
	call(t, s, b.Token(), "deleteMessage", "chat_id", "11", "message_id", "2")
	if chat := b.Chat(ana.ID); len(chat) != 1 {
		t.Errorf("after deleting: %+v", chat)
	}
	for _, c := range []struct {
		ids  string
		ok   bool
		left int
	}{{`[]`, false, 1}, {`"1"`, false, 1}, {`[1` + strings.Repeat(",1", 100) + `]`, false, 1}, {`[99,1]`, true, 0}} {
		if r := call(t, s, b.Token(), "deleteMessages", "chat_id", "11", "message_ids", c.ids); r.OK != c.ok || len(b.Chat(ana.ID)) != c.left {
			t.Errorf("deleting %s: %+v, %+v are left", c.ids, r, b.Chat(ana.ID))
		}
	}
}

func TestAllowedUpdatesAndOffsets(t *testing.T) {
	t.Parallel()
	s, b := start(t)
	for _, text := range []string{"a", "b", "c"} {
		b.Write(ana, text)
	}
	if r := call(t, s, b.Token(), "getUpdates", "offset", "-1"); strings.Count(string(r.Result), "update_id") != 1 || !strings.Contains(string(r.Result), `"c"`) {
		t.Errorf("the last one: %s", r.Result)
	}
	b.Write(ana, "d")
	if r := call(t, s, b.Token(), "getUpdates", "allowed_updates", `["callback_query"]`); string(r.Result) != "[]" || b.Pending() != 0 {
		t.Errorf("of another kind: %s, %d wait", r.Result, b.Pending())
	}
}

func TestSecondPollerEndsTheFirst(t *testing.T) {
	t.Parallel()
	s, b := start(t)
	polls := make(chan reply, 2)
	for range 2 { // whichever is second
		go func() { polls <- call(t, s, b.Token(), "getUpdates", "timeout", "50") }()
	}
	if r := <-polls; r.ErrorCode != http.StatusConflict || !strings.HasPrefix(r.Description, "Conflict: terminated by other getUpdates request") {
		t.Errorf("the first poller gets %+v", r)
	}
	b.Write(ana, "hello")
	if r := <-polls; !strings.Contains(string(r.Result), "hello") {
		t.Errorf("the second poller gets %+v", r)
	}
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	s, b := start(t)
	got := make(chan string, 10)
	refused := false
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var u struct{ Message struct{ Text string } }
		if json.NewDecoder(r.Body).Decode(&u) != nil || r.Header.Get("X-Telegram-Bot-Api-Secret-Token") != "secret" {
			t.Error("not what a webhook gets")
		}
		if !refused { // deliveries come one by one
			refused = true
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got <- u.Message.Text
	}))
	t.Cleanup(hook.Close)
	b.Write(ana, "one")
	if r := call(t, s, b.Token(), "setWebhook", "url", hook.URL, "secret_token", "secret"); !r.OK {
		t.Fatalf("%+v", r)
	}
	b.Write(ana, "two")
	if a, c := <-got, <-got; a != "one" || c != "two" {
		t.Errorf("delivered %q and %q", a, c)
	}
	if r := call(t, s, b.Token(), "getUpdates"); r.ErrorCode != http.StatusConflict {
		t.Errorf("polling beside a webhook: %+v", r)
	}
	call(t, s, b.Token(), "deleteWebhook")
	b.Write(ana, "three")
	if r := call(t, s, b.Token(), "getUpdates", "timeout", "5"); !strings.Contains(string(r.Result), "three") {
		t.Errorf("polling after it: %+v", r)
	}
}

func TestAwait(t *testing.T) {
	t.Parallel()
	s, b := start(t)
	b.Write(ana, "hello")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var sent sync.WaitGroup
	sent.Go(func() { call(t, s, b.Token(), "sendMessage", "chat_id", "11", "text", "Hi!") })
	defer sent.Wait() // it has its answer after the message is there
	chat, err := b.Await(ctx, ana.ID, func(chat []telegramsim.Message) bool { return len(chat) == 2 })
	if err != nil || chat[1].Text != "Hi!" {
		t.Errorf("%+v, %v", chat, err)
	}
	cancel()
	if _, err := b.Await(ctx, ana.ID, func([]telegramsim.Message) bool { return false }); err == nil {
		t.Error("waiting did not end")
	}
}
