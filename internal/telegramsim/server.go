package telegramsim

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// maxBody is how many bytes a request may have.
const maxBody = 8 << 20

// Server is one Telegram. It is safe for concurrent use.
type Server struct {
	http *httptest.Server // of New
	site *site            // of Open
	// closed ends polls and deliveries.
	closed  chan struct{}
	closing sync.Once
	works   sync.WaitGroup

	mu      sync.Mutex
	bots    map[string]*Bot // by token
	next    int64           // number of the next bot
	unknown []string
}

// New starts a server. Close it.
func New() *Server {
	s := newServer()
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	return s
}

func newServer() *Server { return &Server{bots: make(map[string]*Bot), closed: make(chan struct{})} }

// Close ends open polls and stops it.
func (s *Server) Close() {
	s.closing.Do(func() { close(s.closed) })
	s.works.Wait()
	if s.http != nil {
		s.http.CloseClientConnections()
		s.http.Close()
	}
	if s.site != nil {
		s.site.close()
	}
}

// URL is where it answers, in place of https://api.telegram.org.
func (s *Server) URL() string {
	if s.site != nil {
		return s.site.url
	}
	return s.http.URL
}

// NewBot makes a bot, as BotFather does, with a random token.
func (s *Server) NewBot(username string) *Bot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newBot(username)
}

func (s *Server) newBot(username string) *Bot {
	s.next++
	id := firstBot + s.next
	return s.addBot(username, id, strconv.FormatInt(id, 10)+":"+(rand.Text() + rand.Text())[:35])
}

// firstBot is below the ids of bots.
const firstBot = 7_000_000_000

func (s *Server) addBot(username string, id int64, token string) *Bot {
	b := &Bot{
		s: s, username: username, id: id, token: token, changed: make(chan struct{}),
		calls: make(map[string]int), failing: make(map[string][]Refusal), chats: make(map[int64]*chat), answered: make(map[string]string),
	}
	s.bots[token] = b
	return b
}

// Unknown returns the methods that were asked for and that it does not know, in order.
func (s *Server) Unknown() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.unknown...)
}

// Refusal is an error as Telegram answers it.
type Refusal struct {
	Code        int    // also the HTTP status
	Description string // such as "Bad Request: chat not found"
	RetryAfter  int    // seconds, with 429
}

func (r *Refusal) Error() string { return r.Description }

func refuse(code int, format string, args ...any) error {
	return &Refusal{Code: code, Description: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return refuse(http.StatusBadRequest, "Bad Request: "+format, args...)
}

// object is what JSON is made from.
type object map[string]any

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	result, err := s.answer(r)
	status, out := http.StatusOK, object{"ok": true, "result": result}
	if err != nil {
		refusal, ok := err.(*Refusal)
		if !ok {
			refusal = &Refusal{Code: http.StatusInternalServerError, Description: "Internal Server Error: " + err.Error()}
		}
		status, out = refusal.Code, object{"ok": false, "error_code": refusal.Code, "description": refusal.Description}
		if refusal.RetryAfter > 0 {
			out["parameters"] = object{"retry_after": refusal.RetryAfter}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out) // the client may have gone
}

func (s *Server) answer(r *http.Request) (any, error) {
	// Methods are /bot<token>/<method>, and their case does not matter.
	token, method, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/bot"), "/")
	if !ok || !strings.HasPrefix(r.URL.Path, "/bot") || !strings.Contains(token, ":") {
		return nil, refuse(http.StatusNotFound, "Not Found")
	}
	method = strings.ToLower(method)
	p, err := readParams(r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	b := s.bots[token]
	if b == nil {
		s.mu.Unlock()
		return nil, refuse(http.StatusUnauthorized, "Unauthorized")
	}
	b.calls[method]++
	if queue := b.failing[method]; len(queue) > 0 {
		b.failing[method] = queue[1:]
		s.mu.Unlock()
		return nil, &queue[0]
	}
	s.mu.Unlock()
	if method == "getupdates" {
		return b.getUpdates(r.Context(), p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	result, known, err := b.call(method, p)
	if !known {
		s.unknown = append(s.unknown, method)
		return nil, refuse(http.StatusNotFound, "Not Found")
	}
	return result, err
}

// call does everything but polling. The caller holds the lock.
func (b *Bot) call(method string, p params) (result any, known bool, err error) {
	known = true
	switch method {
	case "getme":
		result = b.self(true)
	case "sendmessage":
		result, err = b.sendMessage(p)
	case "editmessagetext":
		result, err = b.editMessageText(p)
	case "editmessagereplymarkup":
		result, err = b.editMarkup(p)
	case "deletemessage":
		result, err = b.deleteMessage(p)
	case "deletemessages":
		result, err = b.deleteMessages(p)
	case "sendchataction":
		result, err = b.sendChatAction(p)
	case "setmessagereaction":
		_, _, err = b.messageOf(p, "message to react not found")
		result = true
	case "getchat":
		result, err = b.getChat(p)
	case "answercallbackquery":
		result, err = b.answerCallbackQuery(p)
	case "setmycommands":
		result, err = b.setMyCommands(p)
	case "getmycommands":
		result = b.commands
		if b.commands == nil {
			result = []Command{}
		}
	case "deletemycommands":
		b.commands, result = nil, true
	case "setmydescription", "setmyshortdescription", "setmyname", "setchatmenubutton":
		result = true
	case "setwebhook":
		if result, err = b.setWebhook(p); err == nil {
			err = b.s.save()
		}
	case "deletewebhook":
		b.endWebhook(p["drop_pending_updates"] == "true")
		result, err = true, b.s.save()
	case "getwebhookinfo":
		result = object{"url": b.webhook.url, "has_custom_certificate": false, "pending_update_count": len(b.updates)}
	default:
		known = false
	}
	return result, known, err
}

// params are a request's parameters: strings as they are, anything else as JSON.
type params map[string]string

// readParams takes parameters from the query and from a body in any of the three forms that
// Telegram takes. Files are left out.
func readParams(r *http.Request) (params, error) {
	p := make(params)
	add := func(values url.Values) {
		for k, v := range values {
			p[k] = v[0]
		}
	}
	add(r.URL.Query())
	r.Body = http.MaxBytesReader(nil, r.Body, maxBody)
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch strings.TrimSpace(kind) {
	case "application/json":
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, refuse(http.StatusRequestEntityTooLarge, "Request Entity Too Large")
		}
		var fields map[string]json.RawMessage
		if len(raw) > 0 && json.Unmarshal(raw, &fields) != nil {
			return nil, badRequest("can't parse JSON object")
		}
		for k, v := range fields {
			text := string(v)
			if json.Unmarshal(v, &text) != nil {
				text = string(v)
			}
			p[k] = text
		}
	case "multipart/form-data":
		if err := r.ParseMultipartForm(maxBody); err != nil {
			return nil, badRequest("can't parse form")
		}
		add(r.MultipartForm.Value)
	default:
		if err := r.ParseForm(); err != nil {
			return nil, badRequest("can't parse form")
		}
		add(r.PostForm)
	}
	return p, nil
}

func (p params) number(key string) int64 {
	n, _ := strconv.ParseInt(p[key], 10, 64)
	return n
}

// raw returns a parameter that is JSON, nil if it is not there.
func (p params) raw(key string) (json.RawMessage, error) {
	if p[key] == "" {
		return nil, nil
	}
	if !json.Valid([]byte(p[key])) {
		return nil, badRequest("can't parse %s JSON object", key)
	}
	return json.RawMessage(p[key]), nil
}
