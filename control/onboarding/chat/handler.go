package chat

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/callers"
	"github.com/andreabadesso/openclaw-cloud/control/onboarding"
)

// Conversations are had; see onboarding.Service.
type Conversations interface {
	Begin(ctx context.Context, b onboarding.Begin) (onboarding.Conversation, string, error)
	Say(ctx context.Context, who onboarding.Who, said onboarding.Said) (onboarding.Conversation, error)
	Look(ctx context.Context, who onboarding.Who) (onboarding.Conversation, error)
	Leave(ctx context.Context, who onboarding.Who) error
	Entered(ctx context.Context, who onboarding.Who) error
	Watch(ctx context.Context, who onboarding.Who, every time.Duration, send func(onboarding.Conversation) error) error
}

// Options are what a Handler needs.
type Options struct {
	Conversations Conversations
	// Origins are those of our pages, such as https://app.example.com.
	Origins []string
	// SignIn signs the browser in as a customer; nil: nobody is signed in by its conversation.
	SignIn func(ctx context.Context, w http.ResponseWriter, customerID string) error
	// Proxies are the networks of those whose word on who asks is believed.
	Proxies []netip.Prefix
	Logger  *slog.Logger
	// Every is how often an event stream looks for changes. Defaults to 1 s.
	Every time.Duration
	// Begins and Messages limit how many conversations an address opens, and how many messages it sends.
	// Default to one in 10 s, 10 at once, and one in 2 s, 30 at once.
	Begins, Messages callers.Rate
	// Streams is how many event streams there are at most, and StreamsFrom how many of one address. Default
	// to 500 and 20.
	Streams, StreamsFrom int
}

// Cookie is the name of the cookie that has a conversation's key.
const Cookie = "__Host-openclaw_onboarding"

const (
	maxBody = 32 << 10
	// keys is how many addresses each limit remembers.
	keys = 40_000
	// streamFor is how long an event stream lasts at most; a page then opens another one.
	streamFor = 30 * time.Minute
	// writeWithin is how long a client of a stream may take nothing.
	writeWithin = 10 * time.Second
	// quietFor is after how long without a change a stream says that it is there.
	quietFor = 15 * time.Second
	// cookieFor is how long a browser keeps the cookie: as long as a box may take.
	cookieFor = 7 * 24 * time.Hour
)

// Handler serves conversations. It is safe for concurrent use.
type Handler struct {
	o                Options
	mux              *http.ServeMux
	begins, messages *callers.Limiter
	streams          streams
	drain            sync.Once
	draining         chan struct{}
}

// New checks o.
func New(o Options) (*Handler, error) {
	if o.Conversations == nil || o.Logger == nil || len(o.Origins) == 0 {
		return nil, errors.New("chat: conversations, origins and a logger are required")
	}
	if o.Every <= 0 {
		o.Every = time.Second
	}
	if o.Streams <= 0 {
		o.Streams = 500
	}
	if o.StreamsFrom <= 0 {
		o.StreamsFrom = 20
	}
	if o.Begins == (callers.Rate{}) {
		o.Begins = callers.Rate{PerSecond: 0.1, Burst: 10}
	}
	if o.Messages == (callers.Rate{}) {
		o.Messages = callers.Rate{PerSecond: 0.5, Burst: 30}
	}
	h := &Handler{o: o, mux: http.NewServeMux(), begins: callers.NewLimiter(o.Begins, keys), messages: callers.NewLimiter(o.Messages, keys), streams: streams{most: o.Streams, mostFrom: o.StreamsFrom, from: make(map[string]int)}, draining: make(chan struct{})}
	h.mux.HandleFunc("POST /onboarding/v1/conversation", h.begin)
	h.mux.HandleFunc("GET /onboarding/v1/conversation", h.look)
	h.mux.HandleFunc("DELETE /onboarding/v1/conversation", h.leave)
	h.mux.HandleFunc("POST /onboarding/v1/conversation/messages", h.say)
	h.mux.HandleFunc("POST /onboarding/v1/conversation/session", h.session)
	h.mux.HandleFunc("GET /onboarding/v1/conversation/events", h.events)
	return h, nil
}

// Drain ends the event streams: their pages open others, elsewhere.
func (h *Handler) Drain() { h.drain.Do(func() { close(h.draining) }) }

// ServeHTTP serves one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	if r.Method != http.MethodGet && r.Method != http.MethodHead && !slices.Contains(h.o.Origins, r.Header.Get("Origin")) {
		refuse(w, http.StatusForbidden, "cross-site", "This is not a page of ours.")
		return
	}
	h.mux.ServeHTTP(w, r)
}

// start is what a page says when it opens a conversation.
type start struct {
	Language string `json:"language"`  // as navigator.languages has them; that of the request by default
	TimeZone string `json:"time_zone"` // as Intl has it
	Tier     string `json:"tier"`      // the plan that was looked at, if any
}

// said is what a customer says.
type said struct {
	Text   string `json:"text"`
	Choice string `json:"choice"` // id of a quick reply
}

func (h *Handler) begin(w http.ResponseWriter, r *http.Request) {
	var in start
	if !h.read(w, r, &in) {
		return
	}
	if who := whoOf(r); who.Key != "" {
		c, err := h.o.Conversations.Look(r.Context(), who)
		if err == nil && !c.Final {
			answer(w, http.StatusOK, c)
			return
		}
		if err != nil && !errors.Is(err, control.ErrNotFound) {
			h.fail(w, r, err)
			return
		}
	}
	if !h.mayGo(w, r, h.begins) {
		return
	}
	if in.Language == "" {
		in.Language = r.Header.Get("Accept-Language")
	}
	c, key, err := h.o.Conversations.Begin(r.Context(), onboarding.Begin{Language: in.Language, TimeZone: in.TimeZone, Tier: in.Tier})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	http.SetCookie(w, cookie(key, cookieFor))
	answer(w, http.StatusCreated, c)
}

// cookie is what a browser keeps; for a negative time it forgets it.
func cookie(key string, keep time.Duration) *http.Cookie {
	return &http.Cookie{Name: Cookie, Value: key, Path: "/", MaxAge: int(keep / time.Second), Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

func (h *Handler) leave(w http.ResponseWriter, r *http.Request) {
	if err := h.o.Conversations.Leave(r.Context(), whoOf(r)); err != nil && !errors.Is(err, control.ErrNotFound) {
		h.fail(w, r, err)
		return
	}
	http.SetCookie(w, cookie("", -time.Second))
	w.WriteHeader(http.StatusNoContent)
}

func (h *Handler) look(w http.ResponseWriter, r *http.Request) {
	c, err := h.o.Conversations.Look(r.Context(), whoOf(r))
	if err != nil {
		h.fail(w, r, err)
		return
	}
	answer(w, http.StatusOK, c)
}

func (h *Handler) say(w http.ResponseWriter, r *http.Request) {
	var in said
	if !h.read(w, r, &in) || !h.mayGo(w, r, h.messages) {
		return
	}
	c, err := h.o.Conversations.Say(r.Context(), whoOf(r), onboarding.Said{Text: in.Text, Choice: in.Choice})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	answer(w, http.StatusOK, c)
}

// session signs in whoever has become a customer in this browser, once. Not before its agent runs: until then the
// conversation is where it belongs.
func (h *Handler) session(w http.ResponseWriter, r *http.Request) {
	if !h.mayGo(w, r, h.messages) {
		return
	}
	c, err := h.o.Conversations.Look(r.Context(), whoOf(r))
	switch {
	case err != nil:
		h.fail(w, r, err)
		return
	case c.State != onboarding.StateComplete || c.Customer == "" || h.o.SignIn == nil:
		refuse(w, http.StatusConflict, "conflict", "Nobody has become a customer here yet.")
		return
	}
	if err := h.o.SignIn(r.Context(), w, c.Customer); err != nil {
		h.fail(w, r, err)
		return
	}
	if err := h.o.Conversations.Entered(r.Context(), whoOf(r)); err != nil {
		h.fail(w, r, err)
		return
	}
	http.SetCookie(w, cookie("", -time.Second))
	w.WriteHeader(http.StatusNoContent)
}

// whoOf reads the cookie.
func whoOf(r *http.Request) onboarding.Who {
	if k, err := r.Cookie(Cookie); err == nil {
		return onboarding.Who{Key: k.Value}
	}
	return onboarding.Who{}
}

// read reads a body, and refuses one that is not what it should be.
func (h *Handler) read(w http.ResponseWriter, r *http.Request, into any) bool {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "media-type", "The body has to be JSON.")
		return false
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, end := dec.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("there is more than one value")
		}
	}
	tooLarge := (*http.MaxBytesError)(nil)
	switch {
	case errors.As(err, &tooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, "too-large", "The body is too large.")
	case err != nil:
		// Not the error: it may quote what somebody wrote.
		refuse(w, http.StatusBadRequest, "malformed", "The body cannot be read.")
	}
	return err == nil
}

// caller is by what somebody is limited.
func (h *Handler) caller(r *http.Request) string {
	return callers.Subnet(callers.Address(r, h.o.Proxies))
}

func (h *Handler) mayGo(w http.ResponseWriter, r *http.Request, l *callers.Limiter) bool {
	wait, ok := l.Take(h.caller(r), time.Now())
	if !ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(max(wait, time.Second)/time.Second)))
		refuse(w, http.StatusTooManyRequests, "too-many-requests", "This is too fast. Please wait a moment.")
	}
	return ok
}

func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, control.ErrNotFound):
		refuse(w, http.StatusNotFound, "not-found", "There is no conversation, or it has expired.")
	case r.Context().Err() != nil: // nobody is there any more
	default:
		h.o.Logger.Error("a conversation cannot be served", "path", r.URL.Path, "error", err)
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable, "unavailable", "This does not work just now. Please try again.")
	}
}

// problem is what is answered instead, as the api does.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

// refuse answers with a problem of a kind that the api knows, too: pages have one way to read them.
func refuse(w http.ResponseWriter, status int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(problem{"urn:openclaw:problem:" + kind, http.StatusText(status), status, detail}) // the client may be gone
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}
