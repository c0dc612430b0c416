package kimisim

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Server is a running simulator.
type Server struct {
	cfg    Config
	keys   map[string]bool
	models map[string]Model
	http   *http.Server
	ln     *listener
	url    string
	prefix string // 8 hex digits that tell this server's ids from another's
	ledger *ledger
	ids    atomic.Uint64
	chats  atomic.Int64

	openConns atomic.Int64
	inFlight  atomic.Int64
	closing   chan struct{} // closed by Close: stalls end
	closeOnce sync.Once
	serving   sync.WaitGroup // the accept loop and all handlers

	mu          sync.Mutex // guards the following
	closed      bool       // no handler enters any more
	defaults    Behavior
	estimates   Behavior
	keyBehavior map[string]Behavior
	script      func(*RequestInfo) *Behavior
	queue       []Behavior
	usage       map[string]*keyUse
	limits      map[string]KeyLimit
}

// keyUse is what a key did lately; guarded by Server.mu.
type keyUse struct {
	inFlight int
	recent   []time.Time // admissions of the last minute
}

// New starts a server; it listens when New returns.
func New(cfg Config) (*Server, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, fmt.Errorf("kimisim: %w", err)
	}
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("kimisim: random id: %w", err)
	}
	s := &Server{
		cfg: cfg, keys: map[string]bool{}, models: map[string]Model{},
		prefix: hex.EncodeToString(id[:]), ledger: newLedger(cfg.MaxLedger), closing: make(chan struct{}),
		defaults: cfg.Defaults, keyBehavior: map[string]Behavior{}, usage: map[string]*keyUse{},
		limits: map[string]KeyLimit{},
	}
	for _, k := range cfg.Keys {
		s.keys[k] = true
	}
	for _, m := range cfg.Models {
		s.models[m.ID] = m
	}
	for k, l := range cfg.KeyLimits {
		s.limits[k] = l
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("kimisim: %w", err)
	}
	s.ln = &listener{Listener: ln, srv: s}
	s.url = "http://" + ln.Addr().String()
	var serve net.Listener = s.ln
	if cfg.TLS != nil {
		s.url = "https://" + ln.Addr().String()
		t := cfg.TLS.Clone()
		t.NextProtos = []string{"http/1.1"}
		serve = tls.NewListener(s.ln, t)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	s.http = &http.Server{
		Handler:           s.routes(),
		ConnContext:       withConn,
		ConnState:         connState,
		ReadHeaderTimeout: 60 * time.Second,
		IdleTimeout:       5 * time.Minute,
		Protocols:         protocols,
		// Clients that go away are the daily bread here.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	s.serving.Add(1)
	go func() {
		defer s.serving.Done()
		_ = s.http.Serve(serve) // always ErrServerClosed after Close or Shutdown
	}()
	return s, nil
}

// connState closes the connections that are to die when idle.
func connState(c net.Conn, state http.ConnState) {
	if state != http.StateIdle {
		return
	}
	if cc := connOf(withConn(context.Background(), c)); cc != nil && cc.takeCloseIdle() {
		_ = cc.Close()
	}
}

// URL returns scheme, host and port, without a slash at the end.
func (s *Server) URL() string { return s.url }

// OpenAIBase returns the base to which "/chat/completions" is appended.
func (s *Server) OpenAIBase() string { return s.url + "/v1" }

// AnthropicBase returns the base to which "/messages" is appended.
func (s *Server) AnthropicBase() string { return s.url + "/anthropic/v1" }

// CodingBase returns the base of the Kimi Code paths, which serve both faces.
func (s *Server) CodingBase() string { return s.url + "/coding/v1" }

// OpenConns returns how many connections are open.
func (s *Server) OpenConns() int { return int(s.openConns.Load()) }

// InFlight returns how many chat requests are being answered.
func (s *Server) InFlight() int { return int(s.inFlight.Load()) }

// Close stops the server, cuts what is in flight and waits for it. It may be called
// more than once.
func (s *Server) Close() error {
	var err error
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		close(s.closing)
		err = s.http.Close()
	})
	s.serving.Wait()
	if err != nil {
		return fmt.Errorf("kimisim: close: %w", err)
	}
	return nil
}

// enter counts a handler that Close waits for; too late for one is an aborted request.
func (s *Server) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		panic(http.ErrAbortHandler)
	}
	s.serving.Add(1)
}

// Shutdown stops listening, lets answers in flight finish until ctx ends, then closes.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	return err
}

// SetDefaults replaces the default behaviour.
func (s *Server) SetDefaults(b Behavior) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.defaults = b
}

// SetKeyBehavior replaces the defaults for one key.
func (s *Server) SetKeyBehavior(key string, b Behavior) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keyBehavior[key] = b
}

// SetEstimateBehavior makes the estimate endpoint slow (TTFT) or broken (Error,
// ErrorResponse, Non2xxHTML, StallBeforeHead, CutBeforeHead, Reset).
func (s *Server) SetEstimateBehavior(b Behavior) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.estimates = b
}

// SetKeyLimit replaces the limit of one key.
func (s *Server) SetKeyLimit(key string, l KeyLimit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits[key] = l
}

// Script has fn choose the behaviour of each request that the queue of ScriptNext leaves;
// nil from fn means the defaults, a nil fn ends the script. fn is called from many
// goroutines.
func (s *Server) Script(fn func(*RequestInfo) *Behavior) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = fn
}

// ScriptNext queues behaviours for the next chat requests, one each.
func (s *Server) ScriptNext(b ...Behavior) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, b...)
}

// choose finds the behaviour of a request.
func (s *Server) choose(info *RequestInfo, c *chat) (*Behavior, error) {
	s.mu.Lock()
	b := s.defaults
	if k, ok := s.keyBehavior[info.Key]; ok {
		b = k
	}
	script := s.script
	if len(s.queue) > 0 {
		b, s.queue = s.queue[0], s.queue[1:]
		script = nil
	}
	s.mu.Unlock()
	if script != nil {
		info.LastUser = contentText(c.lastUser, false)
		if chosen := script(info); chosen != nil {
			b = *chosen
		}
	}
	if h := info.Header.Get("X-Sim"); h != "" {
		return &b, b.UnmarshalJSON([]byte(h))
	}
	if rest, ok := strings.CutPrefix(info.UserID, "sim:"); ok {
		return &b, b.UnmarshalJSON([]byte(rest))
	}
	if !bytes.Contains(c.lastUser, []byte(marker)) { // most texts are never decoded
		return &b, nil
	}
	raw, err := markedBehavior(contentText(c.lastUser, false))
	if err == nil {
		err = b.UnmarshalJSON(raw)
	}
	return &b, err
}

// begin opens a ledger entry.
func (s *Server) begin(r *http.Request, kind, face string) *record {
	n := s.ids.Add(1)
	rec := &record{done: make(chan struct{}), hex: fmt.Sprintf("%s0000%012x", s.prefix, n)}
	rec.entry = Entry{
		ID: fmt.Sprintf("%s-0000-4000-8000-%012x", s.prefix, n), BodyID: "chatcmpl-" + rec.hex,
		Kind: kind, Face: face, Time: time.Now(), Method: r.Method, Path: r.URL.Path, Key: keyOf(r),
		UserAgent: r.UserAgent(), Header: r.Header, OutputCap: -1, Outcome: OutcomeOpen,
	}
	if face == FaceAnthropic {
		rec.entry.BodyID = "msg_" + rec.hex
	}
	if c := connOf(r.Context()); c != nil {
		rec.entry.Conn = c.number
	}
	s.ledger.add(rec)
	return rec
}

// end closes a ledger entry.
func (s *Server) end(rec *record, outcome, reason string) {
	rec.update(func(e *Entry) { e.Outcome, e.Error, e.EndedAt = outcome, reason, time.Now() })
	s.ledger.finish(rec)
}

func keyOf(r *http.Request) string {
	if k := r.Header.Get("X-Api-Key"); k != "" {
		return k
	}
	k, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return k
}

const maxBody = 100 << 20

func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, errors.New("request body is larger than 100 MiB")
	}
	if r.ContentLength > 0 {
		b := make([]byte, r.ContentLength)
		_, err := io.ReadFull(r.Body, b)
		return b, err
	}
	return io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
}

func (s *Server) noteBody(rec *record, body []byte) {
	sum := sha256.Sum256(body)
	rec.update(func(e *Entry) {
		e.BodySize, e.BodySHA = len(body), hex.EncodeToString(sum[:])
		if s.cfg.KeepBodies {
			e.Body = string(body)
		}
	})
}

// admit checks the key, its limits and the User-Agent gate. A non-nil release belongs to
// the caller.
func (s *Server) admit(r *http.Request, key string) (release func(), refused *ErrorResponse) {
	if key == "" || len(s.keys) > 0 && !s.keys[key] {
		e, _ := errorCase("401 bad key")
		return nil, e
	}
	if s.cfg.RequireUserAgent && strings.HasPrefix(r.URL.Path, "/coding/") {
		if e := gate(r.UserAgent()); e != nil {
			return nil, e
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	limit, ok := s.limits[key]
	if !ok {
		return func() {}, nil
	}
	use := s.usage[key]
	if use == nil {
		use = &keyUse{}
		s.usage[key] = use
	}
	now := time.Now()
	for len(use.recent) > 0 && now.Sub(use.recent[0]) >= time.Minute {
		use.recent = use.recent[1:]
	}
	const account = "Your account org-EXAMPLE<ak-EXAMPLE> request reached organization max "
	if limit.Concurrency > 0 && use.inFlight >= limit.Concurrency {
		return nil, cooling("rate_limit_reached_error",
			fmt.Sprintf("%sconcurrency: %d, please try again after 1 seconds", account, limit.Concurrency), time.Second)
	}
	if limit.RPM > 0 && len(use.recent) >= limit.RPM {
		wait := time.Minute - now.Sub(use.recent[0])
		return nil, cooling("rate_limit_reached_error",
			fmt.Sprintf("%sRPM: %d, please try again after %d seconds", account, limit.RPM, int64((wait+time.Second-1)/time.Second)), wait)
	}
	use.inFlight++
	use.recent = append(use.recent, now)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		use.inFlight--
	}, nil
}

// gate is what Kimi Code does with a User-Agent.
func gate(userAgent string) *ErrorResponse {
	if strings.HasPrefix(userAgent, "Anthropic/JS") {
		e, _ := errorCase("Kimi Code anthropic face 429")
		return e
	}
	for _, known := range []string{"claude-code/", "claude-cli/", "KimiCLI/", "OpenAI/JS"} {
		if strings.HasPrefix(userAgent, known) {
			return nil
		}
	}
	e, _ := errorCase("403 user agent")
	return e
}
