package proxy

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

// answer relays an answer that is not a stream: read whole, metered, then passed on
// byte for byte.
func (s *Server) answer(ctx *fasthttp.RequestCtx, c *call) {
	body, err := readAtMost(c.resp, c.resp.Head.ContentLength, s.cfg.Limits.AnswerBytes)
	if err != nil {
		r, d := s.answerFailed(c, err)
		c.refuse(&ctx.Response, r, d)
		return
	}
	info, err := kimi.ScanAnswer(body, c.face, &c.usage)
	c.outputSeen = info.OutputBytes
	switch {
	case err != nil:
		// Not one JSON object: what a cut on a chunk boundary leaves, or not a model at all.
		r, d := s.answerFailed(c, err)
		c.refuse(&ctx.Response, r, d)
	case info.Error:
		// A success by its status only; SDKs look for errors behind other ones.
		fields, _ := kimi.ParseError(body)
		s.metrics.upstreamErrors.WithLabelValues("error").Inc()
		c.release(upstream.Result{})
		r, d := c.settleRefused(contract.OutcomeUpstreamError, refusePassed, detail{status: 502, body: passedError(c.face, body, fields, c.requestID)})
		c.refuse(&ctx.Response, r, d)
	default:
		c.relayed = true
		if c.departure.going.Load() {
			c.finished = true
			c.settle(contract.OutcomeClientGone)
		} else {
			c.settle(contract.OutcomeOK)
		}
		c.release(upstream.Result{})
		ctx.Response.SetBodyRaw(body)
		c.close()
	}
}

// answerFailed settles an answer that did not come whole.
func (s *Server) answerFailed(c *call, err error) (refusal, detail) {
	if cause := c.cancel.Cause(); cause != nil {
		c.release(upstream.Result{})
		return s.cutBeforeAnswer(c, cause)
	}
	c.release(upstream.Result{Failed: true})
	var uerr *upstream.Error
	if errors.As(err, &uerr) && uerr.Timeout {
		s.metrics.upstreamErrors.WithLabelValues("timeout").Inc()
		return c.settleRefused(contract.OutcomeUpstreamTimeout, refuseUpstreamTimeout, detail{})
	}
	s.metrics.upstreamErrors.WithLabelValues("cut").Inc()
	return c.settleRefused(contract.OutcomeUpstreamCut, refuseUpstreamCut, detail{})
}

// readAtMost reads an answer to its end. size is what it says of itself, or negative.
func readAtMost(r io.Reader, size int64, limit int) ([]byte, error) {
	room := int64(512)
	if size >= 0 {
		room = size + 1 // so that its end is seen without more
	}
	body := make([]byte, 0, min(room, int64(limit)+1, pooledBodyBytes)) // a size is not believed until it came
	for {
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case len(body) > limit:
			return nil, fmt.Errorf("answer of the upstream is larger than %d bytes", limit)
		case err == io.EOF:
			return body, nil
		case err != nil:
			return nil, err
		}
		if len(body) == cap(body) {
			body = slices.Grow(body, min(len(body), limit+1-len(body)))
			body = body[:len(body):min(cap(body), limit+1)]
		}
	}
}
