package proxy

import (
	"time"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

// settle fixes how a forwarded request ended: its counts and their basis, the charge
// to the limit, and its usage event. The first outcome wins; later calls do nothing.
func (c *call) settle(o contract.Outcome) {
	if c.settled {
		return
	}
	c.settled = true
	c.outcome = o
	c.leave() // before the client can see the end and ask for the next
	if !c.forwarded {
		c.slot.Abandon()
		c.s.ledger.Release(c.hold)
		return
	}
	c.count()
	w := c.grant.Weights
	used := contract.Weigh(w, c.counts.Prompt, c.counts.Cached, c.counts.Completion)
	c.charged = min(used, c.hold.Tokens)
	c.unbilled = used - c.charged + c.overrun
	if c.unbilled > 0 {
		c.s.metrics.unbilled.Add(float64(c.unbilled))
		c.s.log.Error("ALERT: the upstream counted more than was reserved", "request_id", c.requestID, "upstream", c.upstreamName, "used", used+c.overrun, "reserved", c.hold.Tokens)
	}
	c.s.metrics.countTokens(c.grant.Tier, c.served, c.counts)
	// The journal fixes who, when and what was reserved: see intent. Its reader settles
	// the hold and ships the event, now or after a crash, so that both tell the same.
	c.slot.Complete(&contract.Event{
		UpstreamRequestID: c.upstreamID,
		ModelServed:       c.served, Upstream: c.upstreamName,
		Prompt: c.counts.Prompt, Cached: c.counts.Cached, Completion: c.counts.Completion, Reasoning: c.counts.Reasoning,
		Settled: c.charged, Unbilled: c.unbilled,
		Basis: c.basis, Outcome: o, Status: c.statusSent(),
		TTFBMicros: c.ttfb.Microseconds(), DurationMicros: time.Since(c.admitted).Microseconds(),
	})
}

// count decides what was used. The upstream's own numbers count where they are whole
// and plausible. Otherwise what was seen is bounded from above: the prompt by what
// was reserved for it, the output by the bytes of its text; never beyond the
// reservation, so that a customer is never billed for what could not have been. What the
// upstream itself counted beyond that is an overrun.
func (c *call) count() {
	counts, whole := c.usage.Counts()
	// Counts on the way are not the upstream's last word, and nobody answers for nothing.
	final := whole && !c.usage.Implausible() && (c.outcome == contract.OutcomeOK || c.finished) &&
		counts.Prompt > 0 && (counts.Completion > 0 || c.outputSeen == 0)
	switch {
	case final:
		c.counts, c.basis = counts, contract.BasisUpstream
		return
	case c.outcome == contract.OutcomeUpstreamError && !c.relayed:
		// Refused before anything was produced: the upstream counts nothing.
		c.counts, c.basis = kimi.Counts{}, contract.BasisUpstream
		return
	}
	c.basis = contract.BasisEstimated
	if c.usage.Implausible() {
		c.s.metrics.implausible.Inc()
		c.s.log.Error("ALERT: implausible usage from the upstream", "request_id", c.requestID, "upstream", c.upstreamName)
		counts = kimi.Counts{}
	}
	switch c.outcome {
	case contract.OutcomeUpstreamCut, contract.OutcomeUpstreamTimeout, contract.OutcomeDrained, contract.OutcomeLimitCut:
		if !c.relayed {
			// Nothing came of it, and not by the client's doing.
			c.counts = kimi.Counts{}
			return
		}
	}
	prompt := counts.Prompt
	if prompt == 0 {
		prompt = c.promptBound
	}
	c.counts = kimi.Counts{
		Prompt:     min(prompt, c.promptBound),
		Completion: min(max(counts.Completion, c.outputSeen), c.outputBound),
		Reasoning:  min(counts.Reasoning, counts.Completion),
	}
	c.counts.Cached = min(counts.Cached, c.counts.Prompt)
	prompt, w := max(counts.Prompt, c.counts.Prompt), c.grant.Weights
	c.overrun = max(contract.Weigh(w, prompt, counts.Cached, max(counts.Completion, c.counts.Completion))-
		contract.Weigh(w, c.counts.Prompt, c.counts.Cached, c.counts.Completion), 0)
}

func (c *call) statusSent() int {
	if c.outcome == contract.OutcomeClientGone {
		return 0
	}
	return c.status
}

// refuse answers with a refusal and ends the call.
func (c *call) refuse(resp *fasthttp.Response, r refusal, d detail) {
	c.status = refusals[r].status
	if r == refusePassed {
		c.status = d.status
	}
	c.setHeaders(&resp.Header)
	r.write(resp, c.faceOrDefault(), d, c.requestID)
	if c.outcome != contract.OutcomeClientGone {
		c.s.metrics.blocked(r)
		c.blocked = refusals[r].reason
	}
	c.release(upstream.Result{})
	if !c.hold.IsZero() && !c.settled {
		// Not sent, or a panic after the answer began: then it is billed as it may have been.
		c.relayed = c.relayed || c.ttfb > 0
		c.settle(contract.OutcomeUpstreamCut)
	}
	c.close()
}

func (c *call) faceOrDefault() kimi.Face {
	if c.face == 0 {
		return kimi.OpenAI
	}
	return c.face
}

// close is the end of every call: it gives back what the call held and writes its one
// log line. Idempotent.
func (c *call) close() {
	if c.closed {
		return
	}
	c.closed = true
	if c.peer != nil {
		c.peer.Stop()
	}
	c.s.calls.remove(c)
	c.cancel.Detach()
	c.departed()
	c.leave()
	now := time.Now()
	took := now.Sub(c.start)
	c.s.metrics.observe(c, took)
	c.logLine(now, took)
}

// leave frees the call's place in flight. Idempotent.
func (c *call) leave() {
	if c.entered {
		c.entered = false
		c.s.customers.leave(c.grant.CustomerID)
	}
}
