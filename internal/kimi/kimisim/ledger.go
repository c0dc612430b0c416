package kimisim

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Outcomes of a request, as ledger entries name them.
const (
	OutcomeOpen       = "open"        // not over yet
	OutcomeComplete   = "complete"    // answered to the end
	OutcomeClientGone = "client_gone" // the client closed before the end
	OutcomeCut        = "cut"         // this server closed before the end
	OutcomeError      = "error"       // answered with an error that a behaviour chose
	OutcomeErrorEvent = "error_event" // a 200 that ended with an error
	OutcomeStalled    = "stalled"     // silent until the client closed
	OutcomeRefused    = "refused"     // key, limit, User-Agent gate or a bad request
)

// Kinds of ledger entries.
const (
	KindChat     = "chat"
	KindEstimate = "estimate"
	KindModels   = "models"
	KindBalance  = "balance"
	KindOther    = "other"
)

// Entry is what the ledger knows about one request. Times are this machine's.
type Entry struct {
	ID        string      `json:"id"`      // also the Msh-Request-Id header
	BodyID    string      `json:"body_id"` // the id in the answer's JSON
	Sequence  int         `json:"sequence"`
	Kind      string      `json:"kind"`
	Tag       string      `json:"tag,omitempty"`
	Time      time.Time   `json:"time"`
	Key       string      `json:"key"`
	UserID    string      `json:"user_id,omitempty"` // safety_identifier or metadata.user_id
	Face      string      `json:"face,omitempty"`
	Method    string      `json:"method"`
	Path      string      `json:"path"`
	Model     string      `json:"model,omitempty"`
	UserAgent string      `json:"user_agent"`
	Conn      int64       `json:"conn"` // number of the connection
	Header    http.Header `json:"header"`
	BodySize  int         `json:"body_size"`
	BodySHA   string      `json:"body_sha256,omitempty"`
	Body      string      `json:"body,omitempty"` // with Config.KeepBodies
	Stream    bool        `json:"stream"`
	OutputCap int         `json:"output_cap"` // the lowest cap in the request, -1 without

	// What the answer's usage says, or would say: decided before the first byte.
	PromptTokens     int `json:"prompt_tokens"` // cached ones included
	CachedTokens     int `json:"cached_tokens"`
	CompletionTokens int `json:"completion_tokens"` // reasoning included
	ReasoningTokens  int `json:"reasoning_tokens"`
	// ProducedTokens are the completion tokens in events that were handed to the socket
	// as a whole.
	ProducedTokens int `json:"produced_tokens"`
	// UsageSent tells whether the final usage was handed to the socket.
	UsageSent bool `json:"usage_sent"`
	// EventsSent counts whole events (1 for an answer without streaming).
	EventsSent int `json:"events_sent"`

	Status  int    `json:"status"` // 0 when no head was sent
	Outcome string `json:"outcome"`
	Error   string `json:"error,omitempty"` // why refused
	// ClosedAt is when the client's close was noticed, zero if it did not close first.
	ClosedAt time.Time `json:"closed_at,omitzero"`
	EndedAt  time.Time `json:"ended_at,omitzero"`
}

// Totals add up the entries of one key; they survive MaxLedger.
type Totals struct {
	Requests         int `json:"requests"` // of kind chat
	Answered         int `json:"answered"` // with usage or at least one token
	Refused          int `json:"refused"`
	PromptTokens     int `json:"prompt_tokens"` // of answered ones
	CachedTokens     int `json:"cached_tokens"`
	CompletionTokens int `json:"completion_tokens"` // of those whose usage was sent
	ProducedTokens   int `json:"produced_tokens"`
}

// record is a live entry. The counters are atomic because the request writes them per
// event while others read; mu guards the rest.
type record struct {
	mu       sync.Mutex
	entry    Entry
	produced atomic.Int64
	events   atomic.Int64
	usage    atomic.Bool
	done     chan struct{}
	hex      string // Entry.BodyID without its prefix
}

func (r *record) snapshot() Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry
	e.ProducedTokens = int(r.produced.Load())
	e.EventsSent = int(r.events.Load())
	e.UsageSent = r.usage.Load()
	return e
}

func (r *record) update(fn func(e *Entry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn(&r.entry)
}

// ledger keeps the newest records in order.
type ledger struct {
	mu      sync.Mutex
	max     int
	records []*record
	byID    map[string]*record // by Entry.ID and record.hex
	totals  map[string]*Totals
	dropped int
	changed chan struct{} // closed and replaced when a request begins or ends
}

func newLedger(maxEntries int) *ledger {
	l := &ledger{max: maxEntries}
	l.reset()
	return l
}

func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records, l.dropped = nil, 0
	l.byID, l.totals = map[string]*record{}, map[string]*Totals{}
	if l.changed != nil {
		close(l.changed)
	}
	l.changed = make(chan struct{})
}

func (l *ledger) signal() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *ledger) add(r *record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.records) >= l.max {
		drop := max(l.max/10, 1)
		for _, old := range l.records[:drop] {
			delete(l.byID, old.entry.ID)
			delete(l.byID, old.hex)
		}
		l.records = append(l.records[:0:0], l.records[drop:]...)
		l.dropped += drop
	}
	l.records = append(l.records, r)
	l.byID[r.entry.ID] = r
	l.byID[r.hex] = r
	l.signal()
}

func (l *ledger) finish(r *record) {
	e := r.snapshot()
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Kind == KindChat {
		t := l.totals[e.Key]
		if t == nil {
			t = &Totals{}
			l.totals[e.Key] = t
		}
		t.Requests++
		if e.Outcome == OutcomeRefused {
			t.Refused++
		}
		if e.UsageSent || e.ProducedTokens > 0 {
			t.Answered++
			t.PromptTokens += e.PromptTokens
			t.CachedTokens += e.CachedTokens
			t.ProducedTokens += e.ProducedTokens
		}
		if e.UsageSent {
			t.CompletionTokens += e.CompletionTokens
		}
	}
	close(r.done)
	l.signal()
}

// find accepts Entry.ID and Entry.BodyID, the latter with or without its prefix.
func (l *ledger) find(id string) *record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byID[strings.TrimPrefix(strings.TrimPrefix(id, "chatcmpl-"), "msg_")]
}

func (l *ledger) all() []*record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*record(nil), l.records...)
}

// Ledger returns the entries, oldest first, requests in flight included.
func (s *Server) Ledger() []Entry {
	records := s.ledger.all()
	out := make([]Entry, len(records))
	for i, r := range records {
		out[i] = r.snapshot()
	}
	return out
}

// ResetLedger forgets all entries and totals.
func (s *Server) ResetLedger() { s.ledger.reset() }

// Totals returns the sums per key since the start or the last reset, of ended requests.
func (s *Server) Totals() map[string]Totals {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	out := make(map[string]Totals, len(s.ledger.totals))
	for k, t := range s.ledger.totals {
		out[k] = *t
	}
	return out
}

// Find returns the entry of a request by its id: Entry.ID or Entry.BodyID.
func (s *Server) Find(id string) (Entry, bool) {
	r := s.ledger.find(id)
	if r == nil {
		return Entry{}, false
	}
	return r.snapshot(), true
}

// WaitClosed waits until a request has ended here, because it was answered or because the
// client's close was noticed, and returns its entry.
func (s *Server) WaitClosed(requestID string, timeout time.Duration) (Entry, error) {
	r := s.ledger.find(requestID)
	if r == nil {
		return Entry{}, fmt.Errorf("no request %q in the ledger", requestID)
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-r.done:
		return r.snapshot(), nil
	case <-t.C:
		return r.snapshot(), fmt.Errorf("request %s is still open after %v", requestID, timeout)
	}
}

// WaitLedger waits until ok accepts the entries; it looks again whenever a request begins
// or ends, and every 10 ms for the counters of those in flight.
func (s *Server) WaitLedger(timeout time.Duration, ok func([]Entry) bool) ([]Entry, error) {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		s.ledger.mu.Lock()
		changed := s.ledger.changed
		s.ledger.mu.Unlock()
		entries := s.Ledger()
		if ok(entries) {
			return entries, nil
		}
		tick := time.NewTimer(10 * time.Millisecond)
		select {
		case <-changed:
		case <-tick.C:
		case <-deadline.C:
			tick.Stop()
			return entries, fmt.Errorf("the ledger is not as awaited after %v (%d entries)", timeout, len(entries))
		}
		tick.Stop()
	}
}
