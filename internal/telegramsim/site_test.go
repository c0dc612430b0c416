package telegramsim_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/telegramsim"
)

// site is a server of Open on a socket.
type site struct {
	*telegramsim.Server
	t    *testing.T
	stop func()
}

func open(t *testing.T, state string) *site {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	s, err := telegramsim.Open(telegramsim.Options{URL: "http://" + server.Listener.Addr().String(), State: state})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = s.Handler()
	server.Start()
	o := &site{Server: s, t: t}
	stopped := false
	o.stop = func() {
		if !stopped {
			stopped = true
			s.Close() // first: it ends what browsers listen to
			server.Close()
		}
	}
	t.Cleanup(o.stop)
	return o
}

// ask sends JSON, or with nothing to send reads, and returns the answer.
func (s *site) ask(path string, body any) (int, map[string]any) {
	s.t.Helper()
	method, text := http.MethodGet, []byte(nil)
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			s.t.Fatal(err)
		}
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL()+path, bytes.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		s.t.Fatalf("%s: %d, %v", path, resp.StatusCode, err)
	}
	return resp.StatusCode, out
}

func (s *site) page(client *http.Client, path string, form url.Values) (int, string, http.Header) {
	s.t.Helper()
	var resp *http.Response
	var err error
	if form == nil {
		resp, err = client.Get(s.URL() + path)
	} else {
		resp, err = client.PostForm(s.URL()+path, form)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

type object = map[string]any

func TestBotsByJSON(t *testing.T) {
	t.Parallel()
	s := open(t, "")
	status, made := s.ask("/sim/bots", object{"username": "shop_bot"})
	token, _ := made["token"].(string)
	if status != http.StatusCreated || made["url"] != s.URL()+"/shop_bot" || token == "" {
		t.Fatalf("%d %v", status, made)
	}
	for name, want := range map[string]int{"shop_bot": 409, "Shop_Bot": 409, "shop": 400, "bot": 400, "1bot": 400, "a b bot": 400, "a/../bot": 400, strings.Repeat("a", 30) + "bot": 400, "": 400} {
		if status, out := s.ask("/sim/bots", object{"username": name}); status != want {
			t.Errorf("a bot named %q: %d %v", name, status, out)
		}
	}
	if _, list := s.ask("/sim/bots", nil); len(list["bots"].([]any)) != 1 {
		t.Errorf("bots: %v", list)
	}
	who := object{"id": 11, "name": "Ana", "language": "pt-br"}
	status, said := s.ask("/sim/bots/shop_bot/messages", object{"user": who, "text": "/start abc"})
	if status != http.StatusCreated || said["message_id"] != float64(1) {
		t.Errorf("a message: %d %v", status, said)
	}
	if r := call(t, s.Server, token, "getUpdates"); !strings.Contains(string(r.Result), `"/start abc"`) || !strings.Contains(string(r.Result), `"language_code":"pt-br"`) {
		t.Errorf("the bot hears %s", r.Result)
	}
	call(t, s.Server, token, "sendMessage", "chat_id", "11", "text", "Which?", "reply_markup", `{"inline_keyboard":[[{"text":"A","callback_data":"a"}]]}`)
	_, chat := s.ask("/sim/bots/shop_bot/chats/11", nil)
	messages := chat["messages"].([]any)
	if len(messages) != 2 || messages[1].(object)["text"] != "Which?" || messages[1].(object)["from_bot"] != true || messages[1].(object)["reply_markup"] == nil {
		t.Fatalf("the chat is %v", chat)
	}
	for data, want := range map[string]int{"b": 409, "a": 201} {
		if status, out := s.ask("/sim/bots/shop_bot/presses", object{"user": who, "message_id": 2, "data": data}); status != want {
			t.Errorf("pressing %s: %d %v", data, status, out)
		}
	}
	if r := call(t, s.Server, token, "getUpdates"); !strings.Contains(string(r.Result), `"data":"a"`) {
		t.Errorf("the bot hears %s", r.Result)
	}
	for path, body := range map[string]object{
		"/sim/bots/none_bot/messages": {"user": who, "text": "x"},
		"/sim/bots/shop_bot/messages": {"user": object{"id": 0, "name": "x"}, "text": "x"},
		"/sim/bots/shop_bot/presses":  {"user": object{"id": 5, "name": ""}, "message_id": 2, "data": "a"},
	} {
		if status, out := s.ask(path, body); status/100 != 4 || out["error"] == "" {
			t.Errorf("%s %v: %d %v", path, body, status, out)
		}
	}
	if status, _ := s.ask("/sim/bots/shop_bot/messages", object{"user": who, "text": " "}); status != 400 {
		t.Errorf("an empty message: %d", status)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := open(t, "")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	status, text, h := s.page(client, "/", url.Values{"username": {"@shop_bot"}})
	if status != http.StatusOK || !strings.Contains(text, `<code id="token">7`) || !strings.Contains(text, "Simulated") {
		t.Errorf("%d %s", status, text)
	}
	if policy := h.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "script-src 'self'") {
		t.Errorf("what the page may do: %s", policy)
	}
	if status, text, _ := s.page(client, "/", url.Values{"username": {"shop_bot"}}); status != http.StatusConflict || !strings.Contains(text, "already taken") {
		t.Errorf("a second time: %d %s", status, text)
	}
	if s.Bot("shop_bot") == nil {
		t.Fatal("there is no bot")
	}
	_, text, _ = s.page(client, "/shop_bot?start=from-web&user=77&name=%3CB%3E%22&language=pt-br", nil)
	for _, want := range []string{`data-start="from-web"`, "You are &lt;B&gt;&#34; (77, pt-br)", `src="/sim/chat.js"`} {
		if !strings.Contains(text, want) {
			t.Errorf("without %s: %s", want, text)
		}
	}
	// Who one is, is known the next time.
	if _, text, _ = s.page(client, "/SHOP_BOT", nil); !strings.Contains(text, "(77, pt-br)") || !strings.Contains(text, `data-start=""`) {
		t.Errorf("the next time: %s", text)
	}
	if _, text, _ = s.page(http.DefaultClient, "/shop_bot?start=%22%3E", nil); strings.Contains(text, "(77") || !strings.Contains(text, "The link is wrong") {
		t.Errorf("somebody else with a wrong link: %s", text)
	}
	if status, _, _ := s.page(client, "/none_bot", nil); status != http.StatusNotFound {
		t.Errorf("no bot: %d", status)
	}
	for _, path := range []string{"/sim/chat.js", "/sim/style.css"} {
		if status, text, _ := s.page(client, path, nil); status != http.StatusOK || len(text) < 1000 {
			t.Errorf("%s: %d", path, status)
		}
	}
	// What another site sends from somebody's browser is refused.
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL()+"/", strings.NewReader("username=other_bot"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden || s.Bot("other_bot") != nil {
		t.Errorf("from another site: %d", resp.StatusCode)
	}
}

// A chat's page hears what changes, and ends with the server.
func TestFollowChat(t *testing.T) {
	t.Parallel()
	s := open(t, "")
	b, err := s.Register("shop_bot")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(s.URL() + "/sim/bots/shop_bot/chats/11/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() string {
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return data
			}
		}
		return "the end"
	}
	if first := next(); first != `{"actions":0,"messages":[]}` {
		t.Errorf("at first: %s", first)
	}
	b.Write(telegramsim.User{ID: 12, Name: "Bia"}, "not for Ana") // which does not show
	b.Write(ana, "hello")
	if second := next(); !strings.Contains(second, `"hello"`) || strings.Contains(second, "not for Ana") {
		t.Errorf("then: %s", second)
	}
	s.stop()
	if last := next(); last != "the end" {
		t.Errorf("in the end: %s", last)
	}
}

func TestBotsAreKept(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "bots.json")
	got := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var u struct {
			Message struct{ Text string }
		}
		if json.NewDecoder(r.Body).Decode(&u) == nil && r.Header.Get("X-Telegram-Bot-Api-Secret-Token") == "secret" {
			got <- u.Message.Text
		}
	}))
	t.Cleanup(hook.Close)
	s := open(t, state)
	first, err := s.Register("shop_bot")
	if err != nil {
		t.Fatal(err)
	}
	hooked, err := s.Register("hook_bot")
	if err != nil {
		t.Fatal(err)
	}
	if r := call(t, s.Server, hooked.Token(), "setWebhook", "url", hook.URL, "secret_token", "secret"); !r.OK {
		t.Fatalf("%+v", r)
	}
	first.Write(ana, "before")
	if _, err := telegramsim.Open(telegramsim.Options{URL: s.URL(), State: state}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opened twice: %v", err)
	}
	s.stop()
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}

	s = open(t, state)
	again := s.Bot("shop_bot")
	if again == nil || again.Token() != first.Token() || again.ID() != first.ID() {
		t.Fatalf("the bot is %+v", again)
	}
	if third, err := s.Register("third_bot"); err != nil || third.ID() <= hooked.ID() {
		t.Errorf("a new bot: %v", err)
	}
	// A program that goes on behind the last update that it had hears of the next one.
	again.Write(ana, "after")
	if r := call(t, s.Server, first.Token(), "getUpdates", "offset", "2"); !strings.Contains(string(r.Result), `"after"`) {
		t.Errorf("the bot hears %s", r.Result)
	}
	s.Bot("hook_bot").Write(ana, "by webhook")
	if text := <-got; text != "by webhook" {
		t.Errorf("the webhook gets %q", text)
	}
	s.stop()
	if err := os.WriteFile(state, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := telegramsim.Open(telegramsim.Options{URL: "http://127.0.0.1:1", State: state}); err == nil || !strings.Contains(err.Error(), "no file of this version") {
		t.Errorf("a broken file: %v", err)
	}
}
