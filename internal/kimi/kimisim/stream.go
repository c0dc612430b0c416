package kimisim

import (
	"bytes"
	"compress/gzip"
	"errors"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// output writes a body in the pieces that a behaviour asks for and counts what is out.
type output struct {
	a       *answer
	flush   func() error
	zip     *gzip.Writer
	pending []byte
	marks   []mark
	batch   int
	// last says that nothing follows what is pending. Its final piece is left to
	// net/http, which sends it when the handler returns: so a client that has the whole
	// answer finds it complete in the ledger.
	last bool
}

// mark is where an event in pending ends.
type mark struct {
	end, tokens int
	usage       bool
}

func (a *answer) newOutput() *output {
	o := &output{a: a, flush: func() error { return nil }}
	if f, ok := a.w.(interface{ FlushError() error }); ok {
		o.flush = f.FlushError
	}
	if a.b.Gzip && strings.Contains(a.r.Header.Get("Accept-Encoding"), "gzip") {
		a.w.Header().Set("Content-Encoding", "gzip")
		o.zip = gzip.NewWriter(a.w)
	}
	if a.b.CloseDelimited {
		// net/http understands this as: neither chunks nor a length.
		a.w.Header().Set("Transfer-Encoding", "identity")
	}
	return o
}

// head sends the response head.
func (o *output) head() {
	o.a.rec.update(func(e *Entry) { e.Status = http.StatusOK })
	o.a.w.WriteHeader(http.StatusOK)
}

// add takes one event (or a part of one, with no mark) and sends when enough are there.
func (o *output) add(frame []byte, m mark) error {
	o.pending = append(o.pending, frame...)
	m.end = len(o.pending)
	o.marks = append(o.marks, m)
	if o.batch++; o.batch < o.a.b.EventsPerWrite {
		return nil
	}
	return o.drain()
}

// drain sends everything that is pending.
func (o *output) drain() error {
	size := o.a.b.ChunkBytes
	if size <= 0 {
		size = len(o.pending)
	}
	for out := 0; out < len(o.pending); {
		end := min(out+size, len(o.pending))
		if err := o.raw(o.pending[out:end], o.last && end == len(o.pending)); err != nil {
			return err
		}
		out = end
		o.settle(out)
		if o.a.b.ChunkPause > 0 && out < len(o.pending) && !o.a.wait(time.Now().Add(o.a.b.ChunkPause)) {
			return errors.New("the client or the server went during a pause")
		}
	}
	o.pending, o.marks, o.batch = o.pending[:0], o.marks[:0], 0
	return nil
}

// settle counts the events that are out as a whole.
func (o *output) settle(out int) {
	done := 0
	for _, m := range o.marks {
		if m.end > out {
			break
		}
		done++
		rec := o.a.rec
		rec.events.Add(1)
		if m.tokens > 0 {
			rec.produced.Add(int64(m.tokens))
		}
		if m.usage {
			rec.usage.Store(true)
		}
	}
	o.marks = o.marks[done:]
}

// raw sends bytes, now unless they may be held back.
func (o *output) raw(p []byte, hold bool) error {
	if o.zip != nil {
		if _, err := o.zip.Write(p); err != nil {
			return err
		}
		if err := o.zip.Flush(); err != nil {
			return err
		}
	} else if _, err := o.a.w.Write(p); err != nil {
		return err
	}
	if hold {
		return nil
	}
	return o.flush()
}

// finish ends the body.
func (o *output) finish() error {
	if err := o.drain(); err != nil {
		return err
	}
	if o.zip != nil {
		return o.zip.Close()
	}
	return nil
}

// cutInside sends half of the frame in the middle of an HTTP chunk, then closes.
func (o *output) cutInside(frame []byte) {
	b := o.a.b
	if o.flush() != nil { // a head that is still held back would use up the budget
		return
	}
	o.a.conn.set(func(c *conn) { c.budget, c.reset = len(frame)/2+4, b.Reset })
	_ = o.raw(frame, false)
}

// stream sends the answer as events and returns the outcome.
func (a *answer) stream() string {
	events := iter.Seq[event](a.plan.openAIEvents)
	if a.face == FaceAnthropic {
		events = a.plan.anthropicEvents
	}
	o := a.newOutput()
	if a.b.EarlyHead {
		o.head()
		if o.flush() != nil {
			a.gone()
			return OutcomeClientGone
		}
	}
	start := time.Now().Add(a.b.TTFT)
	if !a.wait(start) {
		return a.left(OutcomeClientGone)
	}
	if !a.b.EarlyHead {
		o.head()
	}
	f := framing{b: a.b, face: a.face}
	n, tokens := 0, 0
	outcome := OutcomeComplete
	for ev := range events {
		if outcome = a.fault(o, &f, n, ev); outcome != "" {
			return outcome
		}
		if rate := a.b.TokensPerSecond; rate > 0 && tokens > 0 && ev.tokens > 0 {
			due := start.Add(time.Duration(float64(tokens) / rate * float64(time.Second)))
			if !a.wait(due) {
				return a.left(OutcomeClientGone)
			}
			if a.b.Stamp {
				restamp(ev.data)
			}
		}
		tokens += ev.tokens
		o.last = ev.end
		if a.r.Context().Err() != nil || o.add(f.frame(n, ev), mark{tokens: ev.tokens, usage: ev.usage}) != nil {
			a.gone()
			return OutcomeClientGone
		}
		n++
	}
	if outcome = a.fault(o, &f, n, event{}); outcome != "" {
		return outcome
	}
	if o.finish() != nil {
		a.gone()
		return OutcomeClientGone
	}
	return OutcomeComplete
}

// restamp replaces the time in an event that was made before a wait; see Behavior.Stamp.
func restamp(data []byte) {
	const field = `,"t":`
	if i := bytes.LastIndex(data, []byte(field)); i >= 0 {
		// It has as many digits as before.
		_ = strconv.AppendInt(data[:i+len(field)], time.Now().UnixNano(), 10)
	}
}

// fault plays what is due after n events, before ev; "" means nothing ended the stream.
func (a *answer) fault(o *output, f *framing, n int, ev event) string {
	b := a.b
	switch {
	case fires(b.ErrorAfterEvents, n):
		o.last = true
		if o.add(f.frame(n, errorEvent(a.face)), mark{}) != nil || o.finish() != nil {
			a.gone()
			return OutcomeClientGone
		}
		return OutcomeErrorEvent
	case fires(b.CutAfterEvents, n):
		if o.drain() != nil || o.flush() != nil {
			a.gone()
			return OutcomeClientGone
		}
		return OutcomeCut
	case fires(b.CutMidEvent, n):
		if o.drain() == nil {
			o.cutInside(f.frame(n, ev))
		}
		return OutcomeCut
	case fires(b.CutOnChunkBoundary, n):
		frame := f.frame(n, ev)
		if o.drain() == nil {
			_ = o.raw(frame[:len(frame)/2], false)
		}
		return OutcomeCut
	case fires(b.StallAfterEvents, n):
		if o.drain() != nil || o.flush() != nil {
			a.gone()
			return OutcomeStalled
		}
		if !a.wait(time.Now().Add(stallTime(b))) {
			return a.left(OutcomeStalled)
		}
	}
	return ""
}

func errorEvent(face string) event {
	if face == FaceAnthropic {
		return event{name: "error", data: anthropicError("overloaded_error", "Overloaded")}
	}
	return event{data: openAIError("engine_overloaded_error", "The engine is currently overloaded, please try again later")}
}

// whole sends the answer as one body.
func (a *answer) whole() string {
	b := a.b
	body := a.plan.openAIAnswer()
	if a.face == FaceAnthropic {
		body = a.plan.anthropicAnswer()
	}
	o := a.newOutput()
	until := time.Now().Add(b.TTFT)
	if b.TokensPerSecond > 0 {
		until = until.Add(time.Duration(float64(a.plan.visible) / b.TokensPerSecond * float64(time.Second)))
	}
	if b.EarlyHead {
		o.head()
		_ = o.flush()
	}
	if !a.wait(until) {
		return a.left(OutcomeClientGone)
	}
	if b.ErrorAfterEvents != 0 {
		body = errorEvent(a.face).data
	}
	half := b.StallAfterEvents != 0 || b.CutAfterEvents != 0 || b.CutMidEvent != 0 || b.CutOnChunkBoundary != 0
	if !b.EarlyHead {
		if o.zip == nil && b.ChunkBytes == 0 && !b.CloseDelimited {
			a.w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
		}
		o.head()
	}
	if half {
		if o.raw(body[:len(body)/2], false) != nil {
			a.gone()
			return OutcomeClientGone
		}
		if b.StallAfterEvents != 0 {
			if !a.wait(time.Now().Add(stallTime(b))) {
				return a.left(OutcomeStalled)
			}
			body = body[len(body)/2:]
		} else {
			return OutcomeCut
		}
	}
	m := mark{tokens: a.plan.visible, usage: b.UsagePlace != UsageNone}
	if b.ErrorAfterEvents != 0 {
		m = mark{}
	}
	o.last = true
	if o.add(body, m) != nil || o.finish() != nil {
		a.gone()
		return OutcomeClientGone
	}
	if b.ErrorAfterEvents != 0 {
		return OutcomeErrorEvent
	}
	return OutcomeComplete
}
