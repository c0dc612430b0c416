package proxy

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/proxy/relay"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

// relay hands the answer to the client. It returns before a stream is over: then the event
// loop has both connections, or fasthttp reads the body from streamBody.
func (s *Server) relay(ctx *fasthttp.RequestCtx, c *call) {
	c.status = c.resp.Status
	c.upstreamID = string(c.resp.Head.Get("Msh-Request-Id"))
	ctx.Response.SetStatusCode(c.status)
	c.setHeaders(&ctx.Response.Header)
	if !isEventStream(c.resp.Head.Get("Content-Type")) {
		s.answer(ctx, c)
		return
	}
	c.streamed = true
	// Proxies before us must not collect events.
	ctx.Response.Header.Set("X-Accel-Buffering", "no")
	if len(ctx.Response.Header.Peek("Cache-Control")) == 0 {
		ctx.Response.Header.Set("Cache-Control", "no-cache")
	}
	// Nobody reads the request any more; fasthttp would keep its buffer until the stream is
	// over, and ResetBody would only empty it.
	if c.face == kimi.OpenAI {
		c.choices = int(c.req.N)
	}
	c.req, c.userAgent = kimi.Request{}, nil
	ctx.Request.ReleaseBody(0)
	s.metrics.streams.Inc()
	if s.handOver(ctx, c) {
		return
	}
	ctx.Response.ImmediateHeaderFlush = true
	ctx.Response.SetBodyStream(newStreamBody(c), -1)
}

func isEventStream(contentType []byte) bool {
	mt, _, _ := bytes.Cut(contentType, []byte{';'})
	return bytes.EqualFold(bytes.TrimSpace(mt), []byte("text/event-stream"))
}

// stream is a stream on its way, whoever drives it: a driver reads the upstream, has take
// make of it what the client gets, and writes that. It does no I/O with the client.
type stream struct {
	c     *call
	relay relay.Stream
	ended bool // nothing more will come
}

// tailWait is how long an upstream may keep its body open after the end mark.
const tailWait = 500 * time.Millisecond

func (b *stream) init(c *call) {
	b.c = c
	b.relay.Reset(relay.Options{Face: c.face, HideUsage: c.edits.IncludeUsage, Choices: c.choices, MaxEventBytes: c.s.cfg.Limits.EventBytes})
}

// errBug ends a stream in which we panicked: without its last chunk, so visibly.
var errBug = errors.New("BUG: panic in a stream")

// take puts what one read of the upstream brought through the relay, and appends to out what
// the client is to get of it. Once b.ended is set there is nothing more to read.
func (b *stream) take(out, in []byte, err error) []byte {
	c := b.c
	out, ferr := b.relay.Feed(out, in)
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
	return out
}

// tailing reports whether only what is left of the framing is missing, which usually is on
// its way.
func (b *stream) tailing() bool { return !b.ended && b.relay.End() == relay.Done }

// cut ends a stream that did not reach its end mark, visibly for the client.
func (b *stream) cut(out []byte, err error) []byte {
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

func (b *stream) settle(o contract.Outcome) {
	b.c.usage = *b.relay.Usage()
	b.c.outputSeen = b.relay.OutputBytes()
	b.c.relayed, b.c.finished = b.relay.Events() > 0, b.relay.Finished() || b.relay.End() == relay.Done
	b.c.settle(o)
}
