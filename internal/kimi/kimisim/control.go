package kimisim

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
)

// routes lists everything the server answers.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, p := range []string{"/v1", "/coding/v1"} {
		mux.HandleFunc("POST "+p+"/chat/completions", s.chat(FaceOpenAI))
		mux.HandleFunc("POST "+p+"/tokenizers/estimate-token-count", s.estimate)
		mux.HandleFunc("GET "+p+"/models", s.listModels)
	}
	for _, p := range []string{"/v1", "/coding/v1", "/anthropic/v1"} {
		mux.HandleFunc("POST "+p+"/messages", s.chat(FaceAnthropic))
	}
	mux.HandleFunc("GET /v1/users/me/balance", s.balance)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /sim/ledger", s.getLedger)
	mux.HandleFunc("GET /sim/totals", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.Totals()) })
	mux.HandleFunc("GET /sim/errors", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, ErrorCases()) })
	mux.HandleFunc("POST /sim/reset", s.postReset)
	mux.HandleFunc("GET /sim/behavior", s.getBehavior)
	mux.HandleFunc("PUT /sim/behavior", s.putBehavior)
	mux.HandleFunc("POST /sim/script", s.postScript)
	mux.HandleFunc("PUT /sim/limit", s.putLimit)
	mux.HandleFunc("/", s.notFound)
	return mux
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// simple runs a request that has no stream: ledger entry, key check, answer.
func (s *Server) simple(w http.ResponseWriter, r *http.Request, kind string, answerTo func(rec *record, body []byte) (any, *ErrorResponse)) {
	s.enter()
	defer s.serving.Done()
	rec := s.begin(r, kind, "")
	w.Header().Set("Msh-Request-Id", rec.entry.ID)
	body, err := readBody(r)
	s.noteBody(rec, body)
	if err != nil {
		s.end(rec, OutcomeClientGone, err.Error())
		panic(http.ErrAbortHandler)
	}
	refused := s.keyRefused(keyOf(r))
	if refused == nil && kind == KindEstimate {
		s.mu.Lock()
		b := s.estimates
		s.mu.Unlock()
		a := &answer{s: s, w: w, r: r, rec: rec, face: FaceOpenAI, conn: connOf(r.Context()), b: &b}
		if outcome, done := a.faultBeforeHead(); done {
			s.end(rec, outcome, "")
			if outcome != OutcomeError {
				a.abort()
			}
			return
		}
		if !a.wait(time.Now().Add(b.TTFT)) {
			s.end(rec, a.left(OutcomeClientGone), "")
			a.abort()
		}
	}
	var v any
	if refused == nil {
		v, refused = answerTo(rec, body)
	}
	status, outcome, reason := http.StatusOK, OutcomeComplete, ""
	if refused != nil {
		status, outcome, reason = refused.Status, OutcomeRefused, string(refused.text())
	}
	rec.update(func(e *Entry) { e.Status = status })
	s.end(rec, outcome, reason)
	if refused != nil {
		_ = refused.write(w, refused.text(), 0)
		return
	}
	writeJSON(w, status, v)
}

func (s *Server) keyRefused(key string) *ErrorResponse {
	if key != "" && (len(s.keys) == 0 || s.keys[key]) {
		return nil
	}
	e, _ := errorCase("401 bad key")
	return e
}

// estimate counts a prompt as a chat request would.
func (s *Server) estimate(w http.ResponseWriter, r *http.Request) {
	s.simple(w, r, KindEstimate, func(rec *record, body []byte) (any, *ErrorResponse) {
		c, err := s.parseChat(body, FaceOpenAI)
		if err != nil {
			return nil, refusal(http.StatusBadRequest, "invalid_request_error", "Invalid request: "+err.Error())
		}
		if _, ok := s.models[c.model]; !ok {
			return nil, refusal(http.StatusNotFound, "resource_not_found_error", "Not found the model "+c.model+" or Permission denied")
		}
		rec.update(func(e *Entry) { e.Model, e.PromptTokens = c.model, c.prompt.tokens })
		return map[string]any{"data": map[string]int{"total_tokens": c.prompt.tokens}}, nil
	})
}

func (s *Server) listModels(w http.ResponseWriter, r *http.Request) {
	s.simple(w, r, KindModels, func(*record, []byte) (any, *ErrorResponse) {
		return map[string]any{"object": "list", "data": s.cfg.Models}, nil
	})
}

func (s *Server) balance(w http.ResponseWriter, r *http.Request) {
	s.simple(w, r, KindBalance, func(*record, []byte) (any, *ErrorResponse) {
		return json.RawMessage(`{"code":0,"data":{"available_balance":12.5,"voucher_balance":2.5,"cash_balance":10.0},"scode":"0x0","status":true}`), nil
	})
}

// notFound records what came to a path that Kimi does not have.
func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	s.simple(w, r, KindOther, func(*record, []byte) (any, *ErrorResponse) {
		return nil, refusal(http.StatusNotFound, "resource_not_found_error", "The requested resource was not found: "+r.Method+" "+r.URL.Path)
	})
}

// getLedger serves the entries, filtered by ?key=, ?request=, ?tag=, ?kind=, ?outcome=.
func (s *Server) getLedger(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	wanted := ""
	if id := q.Get("request"); id != "" {
		e, ok := s.Find(id)
		if !ok {
			writeJSON(w, http.StatusNotFound, map[string]string{"error": "no request " + id + " in the ledger"})
			return
		}
		wanted = e.ID
	}
	match := func(param, value string) bool { return !q.Has(param) || q.Get(param) == value }
	entries := []Entry{}
	for _, e := range s.Ledger() {
		if (wanted == "" || e.ID == wanted) && match("key", e.Key) && match("tag", e.Tag) &&
			match("kind", e.Kind) && match("outcome", e.Outcome) {
			entries = append(entries, e)
		}
	}
	s.ledger.mu.Lock()
	dropped := s.ledger.dropped
	s.ledger.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{
		"entries": entries, "totals": s.Totals(), "dropped": dropped,
		"open_conns": s.OpenConns(), "in_flight": s.InFlight(), "now": time.Now(),
	})
}

// postReset forgets the ledger, the script, and the behaviours set since the start.
func (s *Server) postReset(w http.ResponseWriter, _ *http.Request) {
	s.ResetLedger()
	s.mu.Lock()
	s.queue, s.script, s.defaults, s.estimates = nil, nil, s.cfg.Defaults, Behavior{}
	s.keyBehavior, s.usage = map[string]Behavior{}, map[string]*keyUse{}
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]string{"status": "reset"})
}

func (s *Server) getBehavior(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	b := s.defaults
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, b)
}

// putBehavior replaces the defaults, with ?key= the behaviour of one key, with
// ?for=estimate that of the estimate endpoint.
func (s *Server) putBehavior(w http.ResponseWriter, r *http.Request) {
	var b Behavior
	if !readJSON(w, r, &b) {
		return
	}
	switch q := r.URL.Query(); {
	case q.Get("for") == KindEstimate:
		s.SetEstimateBehavior(b)
	case q.Get("key") != "":
		s.SetKeyBehavior(q.Get("key"), b)
	default:
		s.SetDefaults(b)
	}
	writeJSON(w, http.StatusOK, b)
}

// postScript queues one behaviour or an array of them.
func (s *Server) postScript(w http.ResponseWriter, r *http.Request) {
	var raw json.RawMessage
	if !readJSON(w, r, &raw) {
		return
	}
	if !strings.HasPrefix(string(raw), "[") {
		raw = json.RawMessage("[" + string(raw) + "]")
	}
	var list []Behavior
	if err := json.Unmarshal(raw, &list); err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	s.ScriptNext(list...)
	writeJSON(w, http.StatusOK, map[string]int{"queued": len(list)})
}

// putLimit sets the limit of ?key=.
func (s *Server) putLimit(w http.ResponseWriter, r *http.Request) {
	var l KeyLimit
	if !readJSON(w, r, &l) {
		return
	}
	s.SetKeyLimit(r.URL.Query().Get("key"), l)
	writeJSON(w, http.StatusOK, l)
}

func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	err := errors.New("use Content-Type: application/json or none")
	if ct := r.Header.Get("Content-Type"); ct == "" || !strings.HasPrefix(ct, "multipart/") {
		err = json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(v)
	}
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return false
	}
	return true
}
