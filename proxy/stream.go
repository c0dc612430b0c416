package proxy

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/proxy/relay"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

// relay hands the answer to the client. It returns before a stream is over: fasthttp
// reads the body from streamBody after the handler has returned.
func (s *Server) relay(ctx *fasthttp.RequestCtx, c *call) {
	c.status = c.resp.Status
	c.upstreamID = string(c.resp.Head.Get("Msh-Request-Id"))
	ctx.Response.SetStatusCode(c.status)
	c.setHeaders(&ctx.Response.Header)
	if !isEventStream(c.resp.Head.Get("Content-Type")) {
		s.answer(ctx, c)
		return
	}
	// Proxies before us must not collect events.
	ctx.Response.Header.Set("X-Accel-Buffering", "no")
	if len(ctx.Response.Header.Peek("Cache-Control")) == 0 {
		ctx.Response.Header.Set("Cache-Control", "no-cache")
	}
	ctx.Response.ImmediateHeaderFlush = true
	// Nobody reads the request any more; fasthttp would keep its buffer until the stream is
	// over, and ResetBody would only empty it.
	choices := 1
	if c.face == kimi.OpenAI {
		choices = int(c.req.N)
	}
	c.req, c.userAgent = kimi.Request{}, nil
	ctx.Request.ReleaseBody(0)
	ctx.Response.SetBodyStream(newStreamBody(c, choices), -1)
	s.metrics.streams.Inc()
}

func isEventStream(contentType []byte) bool {
	mt, _, _ := bytes.Cut(contentType, []byte{';'})
	return bytes.EqualFold(bytes.TrimSpace(mt), []byte("text/event-stream"))
}

// streamBody drives the relay with the goroutine of the client's connection: fasthttp
// reads what the client gets, and flushes after each Read. Back-pressure is the write
// that blocks; nothing is buffered beyond one read.
type streamBody struct {
	c       *call
	relay   relay.Stream
	bufs    *streamBuffers
	out     []byte // for the client, from bufs.out
	ended   bool   // nothing more will come
	closed  bool
	writeBy time.Time   // write deadline that is set on the connection
	tail    *time.Timer // ends an upstream that goes on after its end mark
}

// tailWait is how long an upstream may keep its body open after the end mark.
const tailWait = 500 * time.Millisecond

type streamBuffers struct{ in, out []byte }

// One read of the upstream is seldom more than a few events of about 250 bytes.
var streamBufferPool = sync.Pool{New: func() any {
	return &streamBuffers{in: make([]byte, 4096), out: make([]byte, 0, 4096)}
}}

func newStreamBody(c *call, choices int) *streamBody {
	b := &streamBody{c: c, bufs: streamBufferPool.Get().(*streamBuffers)}
	b.relay.Reset(relay.Options{Face: c.face, HideUsage: c.edits.IncludeUsage, Choices: choices, MaxEventBytes: c.s.cfg.Limits.EventBytes})
	return b
}

// errBug ends a stream in which we panicked: without its last chunk, so visibly.
var errBug = errors.New("BUG: panic in a stream")

// rescue is deferred where fasthttp calls us outside of the handler: it recovers nothing,
// and one panic would end every stream of the process.
func (b *streamBody) rescue(err *error) {
	if p := recover(); p != nil {
		b.c.s.panicked(b.c, p)
		b.ended, b.out = true, nil
		*err = errBug
	}
}

// Read returns the next bytes for the client, blocking until there are some.
func (b *streamBody) Read(p []byte) (n int, err error) {
	defer b.rescue(&err)
	for {
		if len(b.out) > 0 {
			n := copy(p, b.out)
			b.out = b.out[n:]
			b.extendWrite()
			return n, nil
		}
		if b.ended {
			return 0, io.EOF
		}
		b.advance()
		if b.c.departure.going.Load() {
			b.goOn()
			return 0, io.EOF
		}
	}
}

// goOn reads the upstream to the end for nobody.
func (b *streamBody) goOn() {
	for !b.ended && !b.c.settled {
		b.advance()
	}
	b.out = nil
}

// advance takes one read of the upstream through the relay.
func (b *streamBody) advance() {
	c := b.c
	n, err := c.resp.Read(b.bufs.in)
	out, ferr := b.relay.Feed(b.bufs.out[:0], b.bufs.in[:n])
	if err == nil {
		err = ferr
	}
	if errors.Is(err, io.EOF) {
		out = b.relay.CloseInput(out)
	}
	// Before the client can see what it counts. More bytes than tokens were reserved are no
	// more tokens for that; more tokens are, if the upstream counts them.
	u, _ := b.relay.Usage().Counts()
	c.slot.Advance(u.Prompt, u.Cached, max(u.Completion, min(b.relay.OutputBytes(), c.outputBound)), u.Reasoning, b.relay.Events() > 0)
	switch b.relay.End() {
	case relay.Done:
		// Settled before the client can see the end mark: whoever has read it can
		// rely on the usage being recorded.
		outcome := contract.OutcomeOK
		if c.departure.going.Load() {
			outcome = contract.OutcomeClientGone
		}
		b.settle(outcome)
		b.ended = err != nil
		if !b.ended && b.tail == nil {
			// What is left of the framing usually is on its way.
			b.tail = time.AfterFunc(tailWait, func() { c.cancel.Cancel(errTail) })
		}
	case relay.Failed:
		b.settle(contract.OutcomeUpstreamError)
		b.ended = true
	default:
		if err != nil {
			out = b.cut(out, err)
		}
	}
	if b.ended {
		c.release(upstream.Result{Failed: c.outcome == contract.OutcomeUpstreamCut || c.outcome == contract.OutcomeUpstreamTimeout})
	}
	b.bufs.out = out[:0]
	b.out = out
}

// cut ends a stream that did not reach its end mark, visibly for the client.
func (b *streamBody) cut(out []byte, err error) []byte {
	c := b.c
	b.ended = true
	outcome, r, d := contract.OutcomeUpstreamCut, refuseUpstreamCut, detail{}
	var uerr *upstream.Error
	switch cause := c.cancel.Cause(); {
	case cause != nil:
		outcome, r, d = c.cutFor(cause)
	case c.departure.going.Load():
		outcome = contract.OutcomeClientGone
	case errors.As(err, &uerr) && uerr.Timeout:
		outcome, r = contract.OutcomeUpstreamTimeout, refuseUpstreamTimeout
		c.s.metrics.upstreamErrors.WithLabelValues("timeout").Inc()
	default:
		c.s.metrics.upstreamErrors.WithLabelValues("cut").Inc()
	}
	b.settle(outcome)
	if outcome == contract.OutcomeClientGone {
		return out
	}
	return kimi.AppendErrorEvent(out, c.face, r.body(c.face, d, c.requestID))
}

func (b *streamBody) settle(o contract.Outcome) {
	b.c.usage = *b.relay.Usage()
	b.c.outputSeen = b.relay.OutputBytes()
	b.c.relayed, b.c.finished = b.relay.Events() > 0, b.relay.Finished() || b.relay.End() == relay.Done
	b.c.settle(o)
}

// extendWrite gives the client its time to take what comes next. The deadline is
// moved at most eight times per timeout: each move costs a timer.
func (b *streamBody) extendWrite() {
	if b.c.s.state.Load() == stateClosed {
		return // the end of a drain may have failed all writes
	}
	limit := time.Duration(b.c.s.cfg.Timeouts.Write)
	now := time.Now()
	if b.writeBy.Sub(now) > limit-limit/8 {
		return
	}
	b.writeBy = now.Add(limit)
	_ = b.c.conn.SetWriteDeadline(b.writeBy) // a dead connection fails at the write itself
}

// Close is called by fasthttp when the body is through or the client is gone.
func (b *streamBody) Close() (err error) {
	if b.closed {
		return nil
	}
	b.closed = true
	c := b.c
	defer c.close()
	defer b.rescue(&err)
	if b.tail != nil {
		b.tail.Stop()
	}
	if !c.settled && c.clientLeft() {
		b.goOn()
	}
	if !c.settled {
		b.settle(contract.OutcomeClientGone)
	}
	// After the end mark the rest of the framing usually is there already.
	c.release(upstream.Result{})
	c.s.metrics.streams.Dec()
	if cap(b.bufs.out) <= pooledBodyBytes { // a large event must not stay in memory for ever
		streamBufferPool.Put(b.bufs)
	}
	b.bufs, b.out = nil, nil
	return nil
}
