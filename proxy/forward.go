package proxy

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/proxy/journal"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

// forward sends the request upstream and waits for the head of the answer. On
// refuseNone c.resp holds it. Otherwise the call is settled.
func (s *Server) forward(ctx *fasthttp.RequestCtx, c *call) (refusal, detail) {
	if r, d := s.send(ctx, c); r != refuseNone {
		return r, d
	}
	c.ttfb = time.Since(c.admitted)
	passHeaders(&ctx.Response.Header, c.resp.Head)
	if st := c.resp.Status; st < 200 || st > 299 {
		return s.upstreamRefused(c)
	}
	if enc := c.resp.Head.Get("Content-Encoding"); len(enc) > 0 && !bytes.EqualFold(enc, []byte("identity")) {
		c.release(upstream.Result{Failed: true})
		// Not upstream_error: something was produced, and the upstream counts it.
		return c.settleRefused(contract.OutcomeUpstreamCut, refuseUpstreamCut, detail{message: "the model provider compressed its answer although it was asked not to"})
	}
	return refuseNone, detail{}
}

// send picks an upstream and a key, and sends. A second upstream is tried only when not
// one byte of the request was sent to the first.
func (s *Server) send(ctx *fasthttp.RequestCtx, c *call) (refusal, detail) {
	const attempts = 2
	for attempt := 1; ; attempt++ {
		t, err := s.pick(c, attempt > 1)
		if err != nil {
			return s.noUpstream(err)
		}
		c.target, c.served, c.upstreamName = t, t.Served(), t.Config().Name
		req := s.upstreamRequest(c, t, &ctx.Request)
		if c.slot, err = s.journal.Begin(c.intent()); err != nil {
			c.release(upstream.Result{})
			s.log.Error("request refused: it cannot be journalled", "request_id", c.requestID, "error", err)
			return refuseQuotaUnavailable, detail{message: "usage cannot be recorded at the moment"}
		}
		if d := s.leaving[c.upstreamName]; d != nil {
			// Not before: as long as nothing was sent a client that leaves costs nothing.
			req.Sending = func() bool { return c.mayGoOn(d) }
		} else if attempt > 1 {
			c.mayGoOn(nil)
		}
		c.slot.Sent()
		c.forwarded = true // whatever happens in there
		resp, err := t.Do(&req, &c.cancel)
		if err == nil {
			c.resp = resp
			return refuseNone, detail{}
		}
		var uerr *upstream.Error
		if !errors.As(err, &uerr) {
			uerr = &upstream.Error{Err: err, Sent: true}
		}
		canceled := c.cancel.Cause() != nil
		c.release(upstream.Result{Failed: !canceled})
		c.forwarded = uerr.Sent
		if !uerr.Sent {
			c.slot.Abandon()
		}
		if errors.Is(err, upstream.ErrHeader) {
			return c.settleRefused(contract.OutcomeUpstreamCut, refuseBadRequest, detail{message: badHeaders})
		}
		if !uerr.Sent && !canceled && !c.departure.going.Load() && attempt < attempts {
			// Also if there is no other upstream: this one is then said to be down, and has failed all the same.
			s.metrics.sendFailed(uerr)
			continue
		}
		s.log.Info("upstream call failed", "request_id", c.requestID, "upstream", c.upstreamName, "error", uerr.Error())
		return s.sendFailed(c, uerr)
	}
}

// badHeaders says what an upstream.ErrHeader means: all that the client names in a request
// upstream is in headers.
const badHeaders = "the headers that go to the model provider are too large, or hold control characters"

// intent is what the journal must know of the call if this process dies.
func (c *call) intent() *journal.Intent {
	return &journal.Intent{
		AdmittedAt: c.admitted, PeriodID: c.hold.PeriodID, RequestID: c.requestID,
		CustomerID: c.grant.CustomerID, BoxID: c.grant.BoxID, TokenID: c.grant.TokenID, Tier: c.grant.Tier,
		ModelAsked: c.model, ModelServed: c.served, Face: c.contractFace(), Upstream: c.upstreamName,
		Reserved: c.hold.Tokens, Weights: c.grant.Weights, PromptBound: c.promptBound, OutputBound: c.outputBound,
	}
}

// pick chooses where to send; again, it avoids the upstream that was just tried, unless
// there is no other.
func (s *Server) pick(c *call, again bool) (*upstream.Target, error) {
	now := c.admitted
	if again {
		now = time.Now()
		if t, err := s.pool.PickExcept(c.face, c.req.Model, now, c.upstreamName); err == nil {
			return t, nil
		}
	}
	return s.pool.Pick(c.face, c.req.Model, now)
}

func (s *Server) noUpstream(err error) (refusal, detail) {
	var busy *upstream.UnavailableError
	if errors.As(err, &busy) {
		return refuseUpstreamDown, detail{retryAfter: busy.RetryAfter}
	}
	return refuseModel, detail{param: "model"}
}

func (s *Server) sendFailed(c *call, uerr *upstream.Error) (refusal, detail) {
	if cause := c.cancel.Cause(); cause != nil {
		return s.cutBeforeAnswer(c, cause)
	}
	s.metrics.sendFailed(uerr)
	if uerr.Timeout {
		if uerr.Sent {
			return c.settleRefused(contract.OutcomeUpstreamTimeout, refuseUpstreamTimeout, detail{})
		}
		return c.settleRefused(contract.OutcomeUpstreamTimeout, refuseUpstreamDown, detail{})
	}
	if uerr.Sent {
		return c.settleRefused(contract.OutcomeUpstreamCut, refuseUpstreamCut, detail{})
	}
	return c.settleRefused(contract.OutcomeUpstreamCut, refuseUpstreamDown, detail{})
}

// settleRefused settles a call that ends in a refusal: the event says what the client gets.
func (c *call) settleRefused(o contract.Outcome, r refusal, d detail) (refusal, detail) {
	c.status = refusals[r].status
	if r == refusePassed {
		c.status = d.status
	}
	c.settle(o)
	return r, d
}

// cutBeforeAnswer ends a call that was canceled before anything of the answer came.
func (s *Server) cutBeforeAnswer(c *call, cause error) (refusal, detail) {
	o, r, d := c.cutFor(cause)
	return c.settleRefused(o, r, d)
}

// cutFor says what a cut for that cause is called, and what the client is told.
func (c *call) cutFor(cause error) (contract.Outcome, refusal, detail) {
	var limit *limitCut
	switch {
	case cause == errRevoked:
		return contract.OutcomeRevoked, refuseRevoked, detail{}
	case cause == errSuspended:
		return contract.OutcomeRevoked, refuseSuspended, detail{}
	case cause == errDrained:
		return contract.OutcomeDrained, refuseDraining, detail{}
	case errors.As(cause, &limit):
		return contract.OutcomeLimitCut, refuseMonthly, c.monthlyDetail(limit.Error(), limit.settled, limit.limit)
	}
	return contract.OutcomeClientGone, refuseUpstreamCut, detail{} // nobody is there to read it
}

// upstreamRequest rebuilds the request from the allow-list: a client header that is
// not named here never goes upstream.
func (s *Server) upstreamRequest(c *call, t *upstream.Target, in *fasthttp.Request) upstream.Request {
	cfg := t.Config()
	c.edits.Model = ""
	if c.served != c.model {
		c.edits.Model = c.served
	}
	c.edits.CapField = cfg.CapField
	c.edits.IncludeUsage = c.face == kimi.OpenAI && c.req.Stream && cfg.NeedsIncludeUsage && !c.req.IncludeUsage
	h := &in.Header
	req := upstream.Request{
		Body:        edited(&c.req, in.Body(), c.edits),
		ContentType: []byte("application/json"),
		Accept:      h.Peek("Accept"),
		UserAgent:   h.UserAgent(),
		Traceparent: h.Peek("Traceparent"),
	}
	if c.face == kimi.Anthropic {
		req.AnthropicVersion, req.AnthropicBeta = h.Peek("Anthropic-Version"), h.Peek("Anthropic-Beta")
	}
	return req
}

// edited returns body with e spliced in, in pieces that alias it: of a large body no second
// copy is made, which no budget would count.
func edited(r *kimi.Request, body []byte, e kimi.Edits) [][]byte {
	pieces, _ := r.Apply(make([][]byte, 0, 8), nil, body, e)
	return pieces
}

// passed are the upstream's headers that a client may see. Those that identify the
// platform's account (msh-org-id and its kin) are not among them.
var passed = [...]string{
	"Content-Type", "Cache-Control",
	"Retry-After", "X-Retry-After", "Msh-Cooldown-Seconds",
	"Msh-Request-Id", "X-Msh-Trace-Id", "X-Trace-Id", "Request-Id",
	"Msh-Context-Cache-Token-Saved",
}

func passHeaders(dst *fasthttp.ResponseHeader, src *upstream.Head) {
	for _, name := range passed {
		if v := src.Get(name); len(v) > 0 {
			dst.SetCanonical([]byte(name), v)
		}
	}
}

// maxErrorBody is how much of an upstream's error answer is read: as much as OpenClaw
// reads of ours.
const maxErrorBody = 64 << 10

// upstreamRefused handles an answer that is not a success. Nothing was produced, so
// nothing is billed. The upstream's own words reach the client where they are about the
// client's request, with account ids redacted; never where they are about our account.
func (s *Server) upstreamRefused(c *call) (refusal, detail) {
	status := c.resp.Status
	body, _ := io.ReadAll(io.LimitReader(c.resp, maxErrorBody)) // what came is enough to tell the kind
	fields, parsed := kimi.ParseError(body)
	retryAfter := retryAfterOf(c.resp.Head)
	s.metrics.upstreamErrors.WithLabelValues(strconv.Itoa(status)).Inc()

	r, result := classify(status, fields, parsed, retryAfter)
	if result.KeyRefused {
		s.keyRefused(c.target.Config().Name, c.target.KeyName(), status, fields.Type)
	}
	c.upstreamID = string(c.resp.Head.Get("Msh-Request-Id"))
	c.release(result)
	d := detail{retryAfter: retryAfter}
	if r == refuseNone {
		r, d = refusePassed, detail{status: status, body: passedError(c.face, body, fields, c.requestID)}
	}
	return c.settleRefused(contract.OutcomeUpstreamError, r, d)
}

// keyRefused tells the operators, who must act.
func (s *Server) keyRefused(upstreamName, key string, status int, typ string) {
	s.metrics.keyRefused.Inc()
	s.log.Error("ALERT: the upstream refuses our key or account", "upstream", upstreamName, "key", key, "status", status, "type", typ)
}

// classify maps an upstream's error to what the client is told (refuseNone: the
// upstream's own answer) and what it means for the key and the endpoint.
func classify(status int, e kimi.ErrorFields, parsed bool, retryAfter time.Duration) (refusal, upstream.Result) {
	const (
		shortCooldown = time.Second
		longCooldown  = time.Minute // a person has to act
	)
	quotaGone := e.Type == "exceeded_current_quota_error"
	switch {
	case status == 402 || quotaGone:
		return refuseUpstreamFunds, upstream.Result{Cooldown: longCooldown, KeyRefused: true}
	case status == 401:
		return refuseUpstreamKey, upstream.Result{Cooldown: longCooldown, KeyRefused: true}
	case status == 403:
		// Kimi Code: usage limit of the billing cycle, or a client whose User-Agent is not
		// that of a coding agent. The latter must not take the key from everybody else.
		if bytes.Contains([]byte(e.Message), []byte("Coding Agents")) {
			return refuseUpstreamKey, upstream.Result{}
		}
		if bytes.Contains([]byte(e.Message), []byte("usage limit")) {
			return refuseUpstreamFunds, upstream.Result{Cooldown: longCooldown, KeyRefused: true}
		}
		return refuseUpstreamKey, upstream.Result{KeyRefused: true}
	case status == 429 && retryAfter == 0 && bytes.Contains([]byte(e.Message), []byte("overloaded")):
		// Kimi Code says the same to clients whose User-Agent it does not like, always
		// without a time to wait, and that must not take the key from everybody else.
		return refuseNone, upstream.Result{}
	case status == 429:
		return refuseNone, upstream.Result{Cooldown: max(retryAfter, shortCooldown)}
	case status == 504 || status == 408:
		return refuseUpstreamTimeout, upstream.Result{Failed: true}
	case status >= 500:
		if !parsed {
			return refuseUpstreamDown, upstream.Result{Failed: true}
		}
		return refuseNone, upstream.Result{Failed: true}
	case status < 400:
		return refuseUpstreamCut, upstream.Result{Failed: true} // a redirect, never followed
	case !parsed:
		return refuseUpstreamCut, upstream.Result{}
	}
	return refuseNone, upstream.Result{}
}

// passedError is the upstream's error in the client's face: its own bytes where the
// shape fits, else rewritten.
func passedError(face kimi.Face, body []byte, e kimi.ErrorFields, requestID string) []byte {
	if shapedFor(face, body) {
		return kimi.Redact(nil, body)
	}
	if e.Message == "" {
		e = kimi.ErrorFields{Type: "rate_limit_exceeded", Code: "rate_limit_exceeded", Message: "the model provider is busy"}
	}
	return kimi.AppendError(nil, face, kimi.Refusal{
		Type: e.Type, Code: e.Code, Message: string(kimi.Redact(nil, []byte(e.Message))), RequestID: requestID,
	})
}

// shapedFor reports whether an error body is of the face's shape: Anthropic's has
// "type":"error" beside "error".
func shapedFor(face kimi.Face, body []byte) bool {
	body = bytes.TrimLeft(body, " \t\r\n")
	if len(body) == 0 || body[0] != '{' {
		return false
	}
	anthropic := bytes.Contains(body, []byte(`"type":"error"`)) || bytes.Contains(body, []byte(`"type": "error"`))
	return anthropic == (face == kimi.Anthropic)
}

func retryAfterOf(h *upstream.Head) time.Duration {
	for _, name := range []string{"Retry-After", "X-Retry-After", "Msh-Cooldown-Seconds"} {
		if v := h.Get(name); len(v) > 0 && len(v) < 7 {
			if n, err := strconv.Atoi(string(v)); err == nil && n >= 0 {
				return time.Duration(n) * time.Second
			}
		}
	}
	return 0
}

// release gives the connection and the key back. Idempotent.
func (c *call) release(r upstream.Result) {
	if c.resp != nil {
		given := c.resp.Status >= 200 && c.resp.Status <= 299 && c.resp.Unfinished()
		c.resp.Close(!r.Failed)
		c.resp = nil
		// That we do not take an answer that goes on (too large, compressed) is no outage.
		r.Failed = r.Failed && !given
	}
	if c.target != nil {
		c.target.Release(r)
		c.target = nil
	}
}
