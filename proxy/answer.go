package proxy

import (
	"errors"
	"fmt"
	"io"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

// answer relays an answer that is not a stream: read whole, metered, then passed on
// byte for byte.
func (s *Server) answer(ctx *fasthttp.RequestCtx, c *call) {
	body, err := readAtMost(c.resp, s.cfg.Limits.AnswerBytes)
	if err != nil {
		r, outcome := refuseUpstreamCut, contract.OutcomeUpstreamCut
		var uerr *upstream.Error
		switch cause := c.cancel.Cause(); {
		case cause != nil:
			r, _ = s.cutBeforeAnswer(c, cause)
			outcome = outcomeOf(cause)
		case errors.As(err, &uerr) && uerr.Timeout:
			r, outcome = refuseUpstreamTimeout, contract.OutcomeUpstreamTimeout
			s.metrics.upstreamErrors.WithLabelValues("timeout").Inc()
		default:
			s.metrics.upstreamErrors.WithLabelValues("cut").Inc()
		}
		c.release(upstream.Result{Failed: c.cancel.Cause() == nil})
		c.settle(outcome)
		c.refuse(&ctx.Response, r, detail{})
		return
	}
	info, err := kimi.ScanAnswer(body, c.face, &c.usage)
	c.outputSeen = info.OutputBytes
	switch {
	case err != nil:
		// Not one JSON object: what a cut on a chunk boundary leaves, or not a model at all.
		s.metrics.upstreamErrors.WithLabelValues("cut").Inc()
		c.release(upstream.Result{Failed: true})
		c.settle(contract.OutcomeUpstreamCut)
		c.refuse(&ctx.Response, refuseUpstreamCut, detail{})
		return
	case info.Error:
		body = kimi.Redact(nil, body)
		c.settle(contract.OutcomeUpstreamError)
	default:
		c.relayed = true
		c.settle(contract.OutcomeOK)
	}
	c.release(upstream.Result{})
	ctx.Response.SetBodyRaw(body)
	c.close()
}

func readAtMost(r io.Reader, limit int) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(body) > limit {
		return nil, fmt.Errorf("answer of the upstream is larger than %d bytes", limit)
	}
	return body, nil
}
