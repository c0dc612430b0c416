package kimisim

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const kimiCodeMaxBody = 2097152

// chat answers a chat request of one face.
func (s *Server) chat(face string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.enter()
		defer s.serving.Done()
		if connOf(r.Context()).takeDrop() {
			s.end(s.begin(r, KindChat, face), OutcomeCut, "dropped on a reused connection, as drop_next asked")
			panic(http.ErrAbortHandler)
		}
		s.inFlight.Add(1)
		rec := s.begin(r, KindChat, face)
		a := &answer{s: s, w: w, r: r, rec: rec, face: face, conn: connOf(r.Context())}
		outcome, reason := a.run()
		abort := outcome == OutcomeCut || outcome == OutcomeClientGone || outcome == OutcomeStalled
		s.inFlight.Add(-1)
		s.end(rec, outcome, reason)
		if abort {
			a.abort()
		}
	}
}

// abort ends the handler and closes the connection, with a reset if that is asked for.
func (a *answer) abort() {
	if a.b.Reset {
		a.conn.set(func(c *conn) { c.reset = true })
	}
	panic(http.ErrAbortHandler)
}

// answer is one chat request on its way.
type answer struct {
	s    *Server
	w    http.ResponseWriter
	r    *http.Request
	rec  *record
	conn *conn
	face string
	b    *Behavior
	plan *plan
}

// run answers and returns the outcome, with the reason of a refusal.
func (a *answer) run() (outcome, reason string) {
	a.b = &Behavior{}
	a.commonHeaders()
	key := a.rec.entry.Key
	body, err := readBody(a.r)
	a.s.noteBody(a.rec, body)
	if err != nil {
		if a.r.Context().Err() != nil || !errors.Is(err, http.ErrBodyReadAfterClose) && len(body) < int(a.r.ContentLength) {
			a.gone()
			return OutcomeClientGone, ""
		}
		return a.refuse(refusal(http.StatusBadRequest, "invalid_request_error", err.Error()))
	}
	release, refused := a.s.admit(a.r, key)
	if refused != nil {
		return a.refuse(refused)
	}
	defer release()
	c, err := a.s.parseChat(body, a.face)
	if err != nil {
		return a.refuse(refusal(http.StatusBadRequest, "invalid_request_error", "Invalid request: "+err.Error()))
	}
	a.rec.update(func(e *Entry) {
		e.Model, e.Stream, e.OutputCap, e.UserID = c.model, c.stream, c.outputCap, c.userID
		e.PromptTokens = c.prompt.tokens
		e.Sequence = int(a.s.chats.Add(1))
	})
	b, err := a.s.choose(&RequestInfo{
		ID: a.rec.entry.ID, Sequence: a.rec.entry.Sequence, Key: key, Face: a.face, Path: a.r.URL.Path,
		Model: c.model, Stream: c.stream, UserAgent: a.r.UserAgent(), Header: a.r.Header,
		PromptTokens: c.prompt.tokens, UserID: c.userID, Body: body,
	}, c)
	if err != nil {
		return a.refuse(refusal(http.StatusBadRequest, "simulator_error", err.Error()))
	}
	a.b = b
	a.rec.update(func(e *Entry) { e.Tag = b.Tag })
	if outcome, done := a.faultBeforeHead(); done {
		return outcome, ""
	}
	model, known := a.s.models[c.model]
	switch {
	case !known:
		return a.refuse(refusal(http.StatusNotFound, "resource_not_found_error", "Not found the model "+c.model+" or Permission denied"))
	case strings.HasPrefix(a.r.URL.Path, "/coding/") && len(body) > kimiCodeMaxBody:
		return a.refuse(refusal(http.StatusBadRequest, "invalid_request_error",
			"total message size "+strconv.Itoa(len(body))+" exceeds limit "+strconv.Itoa(kimiCodeMaxBody)))
	case c.prompt.tokens > model.ContextLength:
		return a.refuse(refusal(http.StatusBadRequest, "invalid_request_error",
			"Your request exceeded model token limit: "+strconv.Itoa(model.ContextLength)+" (requested: "+strconv.Itoa(c.prompt.tokens)+")"))
	}
	a.plan = makePlan(a.rec.hex, time.Now().Unix(), c, b)
	a.rec.update(func(e *Entry) {
		e.CachedTokens, e.CompletionTokens = a.plan.usage.cached, a.plan.usage.completion
		e.ReasoningTokens = a.plan.usage.reasoning
	})
	a.answerHeaders()
	if c.stream {
		return a.stream(), ""
	}
	return a.whole(), ""
}

// refuse sends an error of the simulator's own making.
func (a *answer) refuse(e *ErrorResponse) (outcome, reason string) {
	body := e.inFace(a.face, a.r.URL.Path)
	a.rec.update(func(r *Entry) { r.Status = e.Status })
	if a.face == FaceOpenAI || !validObject(body) {
		body = e.text()
	}
	if err := e.write(a.w, body, 0); err != nil {
		a.gone()
	}
	return OutcomeRefused, string(body)
}

// faultBeforeHead plays the faults that replace the whole answer.
func (a *answer) faultBeforeHead() (outcome string, done bool) {
	b := a.b
	switch {
	case b.StallBeforeHead:
		if !a.wait(time.Now().Add(stallTime(b))) {
			return a.left(OutcomeStalled), true
		}
	case b.CutBeforeHead, b.Reset && b.CutAfterEvents == 0 && b.CutMidEvent == 0 && b.CutOnChunkBoundary == 0:
		return OutcomeCut, true
	}
	e := b.ErrorResponse
	if e == nil && b.Error != "" {
		e, _ = errorCase(b.Error) // validated when the behaviour was read
	}
	if e == nil && b.Non2xxHTML {
		e, _ = errorCase("502 gateway, HTML not JSON")
	}
	if e == nil {
		return "", false
	}
	if !a.wait(time.Now().Add(b.TTFT)) {
		return a.left(OutcomeClientGone), true
	}
	a.extraHeaders()
	a.rec.update(func(r *Entry) { r.Status = e.Status })
	if e.write(a.w, e.inFace(a.face, a.r.URL.Path), b.RetryAfter) != nil {
		a.gone()
		return OutcomeClientGone, true
	}
	return OutcomeError, true
}

// stallTime is how long a stall lasts; without StallFor longer than any client.
func stallTime(b *Behavior) time.Duration {
	if b.StallFor > 0 {
		return b.StallFor
	}
	return 24 * time.Hour
}

// gone notes that the client closed, as a failed write or the end of its context tells.
func (a *answer) gone() {
	a.rec.update(func(e *Entry) {
		if e.ClosedAt.IsZero() {
			e.ClosedAt = time.Now()
		}
	})
}

// left is the outcome after a wait that was cut short: the given one if the client went,
// a cut if this server is closing.
func (a *answer) left(outcome string) string {
	if a.r.Context().Err() == nil {
		return OutcomeCut
	}
	return outcome
}

// wait sleeps until a time; false when the client went, or this server is closing.
func (a *answer) wait(until time.Time) bool {
	d := time.Until(until)
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-a.s.closing:
		return false
	case <-a.r.Context().Done():
		a.gone()
		return false
	}
}

func (a *answer) commonHeaders() {
	h := a.w.Header()
	h["Msh-Request-Id"] = []string{a.rec.entry.ID}
	h["Msh-Trace-Mode"] = []string{"on"}
	h["X-Msh-Trace-Id"] = []string{"00000000" + a.rec.hex}
	h["Vary"] = []string{"Origin"}
}

// answerHeaders are those of a 200.
func (a *answer) answerHeaders() {
	h := a.w.Header()
	h["Server-Timing"] = []string{"inner; dur=" + strconv.FormatInt(a.b.TTFT.Milliseconds(), 10)}
	if n := a.plan.usage.cached; n > 0 {
		h["Msh-Context-Cache-Token-Saved"] = []string{strconv.Itoa(n)}
	}
	if a.plan.chat.stream {
		h["Content-Type"] = []string{"text/event-stream"}
		h["Cache-Control"] = []string{"no-cache"}
	} else {
		h["Content-Type"] = []string{"application/json; charset=utf-8"}
	}
	if a.b.NoKeepAlive {
		h["Connection"] = []string{"close"}
	}
	a.extraHeaders()
	if a.b.SlowHeaders > 0 {
		a.conn.set(func(c *conn) { c.slow = a.b.SlowHeaders })
	}
	if a.b.CloseIdle || a.b.DropNext {
		a.conn.set(func(c *conn) { c.closeIdle, c.dropNext = a.b.CloseIdle, a.b.DropNext })
	}
}

// extraHeaders are the ones that a behaviour asks for.
func (a *answer) extraHeaders() {
	h := a.w.Header()
	if a.b.ExtraHeaders {
		for k, v := range map[string]string{
			"Msh-Org-Id": "org-EXAMPLE", "Msh-Uid": "uid-EXAMPLE", "Msh-Gid": "gid-EXAMPLE",
			"Msh-Project-Id": "proj-EXAMPLE", "Set-Cookie": "__cf_bm=EXAMPLE; path=/; HttpOnly; Secure",
			"Server": "cloudflare", "Cf-Ray": "0000000000000000-EXA", "Cf-Cache-Status": "DYNAMIC",
			"Strict-Transport-Security": "max-age=31536000; includeSubDomains",
			"X-Trace-Id":                "trace-EXAMPLE", "Openai-Organization": "org-EXAMPLE",
		} {
			h.Set(k, v)
		}
	}
	for k, v := range a.b.Headers {
		h.Set(k, v)
	}
}
