package telegramsim

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// pageFiles are the templates, the style and the script.
//
//go:embed pages
var pageFiles embed.FS

// Handler serves the Bot API, and what stands in for Telegram's apps: pages on which people write
// to bots, and the same in JSON for tests. A server of Open only.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.showFather)
	mux.HandleFunc("POST /{$}", s.askFather)
	mux.HandleFunc("GET /{bot}", s.showChat)
	for _, name := range []string{"style.css", "chat.js"} {
		mux.HandleFunc("GET /sim/"+name, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, pageFiles, "pages/"+name)
		})
	}
	mux.HandleFunc("GET /sim/bots", s.listBots)
	mux.HandleFunc("POST /sim/bots", s.makeBot)
	mux.HandleFunc("POST /sim/bots/{bot}/messages", s.write)
	mux.HandleFunc("POST /sim/bots/{bot}/presses", s.press)
	mux.HandleFunc("GET /sim/bots/{bot}/chats/{user}", s.readChat)
	mux.HandleFunc("GET /sim/bots/{bot}/chats/{user}/events", s.followChat)
	pages := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A bot's name has no colon.
		if token, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/bot"), "/"); strings.HasPrefix(r.URL.Path, "/bot") && strings.Contains(token, ":") {
			s.serve(w, r)
			return
		}
		pages.ServeHTTP(w, r)
	})
}

// sorted are the bots, the newest last. The caller holds the lock.
func (s *Server) sorted() []*Bot {
	return slices.SortedFunc(maps.Values(s.bots), func(a, b *Bot) int { return cmp.Compare(a.id, b.id) })
}

// person is somebody made up, as JSON and cookies say them.
type person struct {
	ID       int64  `json:"id"`
	Name     string `json:"name"`
	Username string `json:"username,omitempty"`
	Language string `json:"language,omitempty"`
}

var (
	personName = regexp.MustCompile(`^[A-Za-z0-9_]{0,32}$`)
	language   = regexp.MustCompile(`^[A-Za-z-]{0,10}$`)
	payload    = regexp.MustCompile(`^[A-Za-z0-9_-]{0,64}$`)
)

// What can be wrong with a person.
var (
	errPersonID     = errors.New("a person's id is a number from 1 on")
	errPersonName   = errors.New("a person's name has 1 to 64 letters")
	errPersonUser   = errors.New("a person's username has letters, digits and underscores only")
	errPersonSpeaks = errors.New("a language is written like pt-br")
)

func (p *person) check() error {
	switch {
	case p.ID < 1 || p.ID >= 1<<52:
		return errPersonID
	case strings.TrimSpace(p.Name) == "" || utf8.RuneCountInString(p.Name) > 64:
		return errPersonName
	case !personName.MatchString(p.Username):
		return errPersonUser
	case !language.MatchString(p.Language):
		return errPersonSpeaks
	}
	return nil
}

func (p *person) user() User {
	return User{ID: p.ID, Name: p.Name, Username: p.Username, Language: p.Language}
}

// botView is a bot in JSON.
type botView struct {
	ID       int64  `json:"id"`
	Username string `json:"username"`
	Token    string `json:"token"`
	URL      string `json:"url"` // of its chat, as https://t.me/username is
}

func (s *Server) viewOf(b *Bot) botView {
	return botView{b.id, b.username, b.token, s.site.url + "/" + b.username}
}

func (s *Server) allBots() []botView {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []botView{}
	for _, b := range s.sorted() {
		out = append(out, s.viewOf(b))
	}
	return out
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the reader may have gone
}

func complain(w http.ResponseWriter, status int, err error) {
	reply(w, status, object{"error": err.Error()})
}

// read takes a request's JSON.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		complain(w, http.StatusBadRequest, err)
		return false
	}
	return true
}

func (s *Server) listBots(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, object{"bots": s.allBots()})
}

func (s *Server) makeBot(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Username string `json:"username"`
	}
	if !read(w, r, &in) {
		return
	}
	b, err := s.Register(in.Username)
	switch {
	case errors.Is(err, ErrTaken):
		complain(w, http.StatusConflict, err)
	case errors.Is(err, ErrName):
		complain(w, http.StatusBadRequest, err)
	case err != nil:
		complain(w, http.StatusInternalServerError, err)
	default:
		reply(w, http.StatusCreated, s.viewOf(b))
	}
}

// ofPath finds the bot that a path names.
func (s *Server) ofPath(w http.ResponseWriter, r *http.Request) *Bot {
	b := s.Bot(r.PathValue("bot"))
	if b == nil {
		complain(w, http.StatusNotFound, errors.New("there is no such bot"))
	}
	return b
}

func (s *Server) write(w http.ResponseWriter, r *http.Request) {
	var in struct {
		User person `json:"user"`
		Text string `json:"text"`
	}
	b := s.ofPath(w, r)
	if b == nil || !read(w, r, &in) {
		return
	}
	err := in.User.check()
	if err == nil {
		err = checkText(params{"text": in.Text})
	}
	if err != nil {
		complain(w, http.StatusBadRequest, err)
		return
	}
	reply(w, http.StatusCreated, object{"message_id": b.Write(in.User.user(), in.Text)})
}

func (s *Server) press(w http.ResponseWriter, r *http.Request) {
	var in struct {
		User    person `json:"user"`
		Message int64  `json:"message_id"`
		Data    string `json:"data"`
	}
	b := s.ofPath(w, r)
	if b == nil || !read(w, r, &in) {
		return
	}
	if err := in.User.check(); err != nil {
		complain(w, http.StatusBadRequest, err)
		return
	}
	query, err := b.Press(in.User.user(), in.Message, in.Data)
	if err != nil {
		complain(w, http.StatusConflict, err)
		return
	}
	reply(w, http.StatusCreated, object{"query": query})
}

// messageView is a message in JSON.
type messageView struct {
	ID        int64           `json:"id"`
	FromBot   bool            `json:"from_bot"`
	Text      string          `json:"text"`
	ParseMode string          `json:"parse_mode,omitempty"`
	Markup    json.RawMessage `json:"reply_markup,omitempty"`
	ReplyTo   int64           `json:"reply_to,omitempty"`
	Edits     int             `json:"edits,omitempty"`
	At        time.Time       `json:"at"`
}

// chatView is a chat as it is now, and a channel that is closed when anything changes.
func (b *Bot) chatView(user int64) (view object, changed <-chan struct{}) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	messages, actions := []messageView{}, 0
	if c := b.chats[user]; c != nil {
		actions = c.actions
	}
	for _, m := range b.chat(user) {
		messages = append(messages, messageView(m))
	}
	return object{"messages": messages, "actions": actions}, b.changed
}

func userOf(w http.ResponseWriter, r *http.Request) (int64, bool) {
	id, err := strconv.ParseInt(r.PathValue("user"), 10, 64)
	if err != nil {
		complain(w, http.StatusBadRequest, errors.New("a person's id is a number"))
	}
	return id, err == nil
}

func (s *Server) readChat(w http.ResponseWriter, r *http.Request) {
	b := s.ofPath(w, r)
	if b == nil {
		return
	}
	if user, ok := userOf(w, r); ok {
		view, _ := b.chatView(user)
		reply(w, http.StatusOK, view)
	}
}

// followChat sends a chat as server-sent events: now, and each time that it has changed.
func (s *Server) followChat(w http.ResponseWriter, r *http.Request) {
	b := s.ofPath(w, r)
	if b == nil {
		return
	}
	user, ok := userOf(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	alive := time.NewTicker(15 * time.Second)
	defer alive.Stop()
	var sent []byte
	for {
		view, changed := b.chatView(user)
		text, err := json.Marshal(view)
		if err != nil {
			return
		}
		if !bytes.Equal(text, sent) { // other people's chats change as well
			if _, err := fmt.Fprintf(w, "data: %s\n\n", text); err != nil {
				return
			}
			sent = text
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-changed:
		case <-alive.C:
			if _, err := fmt.Fprint(w, ": here\n\n"); err != nil {
				return
			}
		case <-s.closed:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// page is what the pages show.
type page struct {
	T     words
	Title string
	Said  string
	Bots  []botView
	Made  *botView

	Bot        string
	Start      string // what the link wants to be told to the bot
	Person     person
	PersonJSON string
}

// showFather is the page of all bots.
func (s *Server) showFather(w http.ResponseWriter, r *http.Request) {
	s.show(w, http.StatusOK, "father.html", page{T: wordsOf(r), Title: "BotFather", Bots: s.allBots()})
}

// askFather makes a bot, and shows its token.
func (s *Server) askFather(w http.ResponseWriter, r *http.Request) {
	status, p := http.StatusOK, page{T: wordsOf(r), Title: "BotFather"}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	b, err := s.Register(strings.TrimPrefix(strings.TrimSpace(r.PostFormValue("username")), "@"))
	if err == nil {
		v := s.viewOf(b)
		p.Made = &v
	} else {
		status, p.Said = http.StatusConflict, p.T.sorry(err)
	}
	p.Bots = s.allBots()
	s.show(w, status, "father.html", p)
}

// showChat is a person's chat with a bot. As t.me it takes start in the query, and offers to send
// that to the bot. Who the person is is in the query, in a cookie of before, or made up.
func (s *Server) showChat(w http.ResponseWriter, r *http.Request) {
	t := wordsOf(r)
	b := s.Bot(r.PathValue("bot"))
	if b == nil {
		s.show(w, http.StatusNotFound, "father.html", page{T: t, Title: "BotFather", Said: t["not_found"], Bots: s.allBots()})
		return
	}
	p := page{T: t, Title: "@" + b.username, Bot: b.username, Start: r.URL.Query().Get("start")}
	if !payload.MatchString(p.Start) {
		p.Start, p.Said = "", t["wrong_link"]
	}
	var err error
	if p.Person, err = personOf(r); err != nil {
		p.Said = t.sorry(err)
	}
	text, err := json.Marshal(p.Person)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	p.PersonJSON = string(text)
	http.SetCookie(w, &http.Cookie{
		Name: cookie, Value: url.QueryEscape(p.PersonJSON), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: 30 * 24 * 3600,
	})
	s.show(w, http.StatusOK, "chat.html", p)
}

// cookie is where a browser keeps who is in front of it.
const cookie = "telegramsim_person"

// personOf is who asks. With an error it is somebody else than was wanted.
func personOf(r *http.Request) (person, error) {
	made := person{ID: 100_000_000 + rand.Int64N(900_000_000), Name: "Ana", Language: "en"}
	if inPortuguese(r) {
		made.Language = "pt-br"
	}
	if c, err := r.Cookie(cookie); err == nil {
		var known person
		if text, err := url.QueryUnescape(c.Value); err == nil && json.Unmarshal([]byte(text), &known) == nil && known.check() == nil {
			made = known
		}
	}
	q := r.URL.Query()
	if !q.Has("user") {
		return made, nil
	}
	id, err := strconv.ParseInt(q.Get("user"), 10, 64)
	if err != nil {
		return made, errPersonID
	}
	wanted := person{ID: id, Name: q.Get("name"), Username: q.Get("username"), Language: q.Get("language")}
	if err := wanted.check(); err != nil {
		return made, err
	}
	return wanted, nil
}

func (s *Server) show(w http.ResponseWriter, status int, name string, p page) {
	var text bytes.Buffer
	if err := s.site.pages.ExecuteTemplate(&text, name, p); err != nil {
		http.Error(w, "This page cannot be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = text.WriteTo(w) // the reader may have gone
}
