package proxy

import (
	"math"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

// BreakUpstreamErrors makes the proxy panic where it counts an error of the upstream.
func (m *Metrics) BreakUpstreamErrors() { m.upstreamErrors = nil }

// BreakTTFB makes it panic at the end of a forwarded call, when that is settled.
func (m *Metrics) BreakTTFB() { m.ttfb = nil }

// RefuseStrangers makes the proxy look up no large upload's token that it does not know.
func (s *Server) RefuseStrangers() {
	s.strangers.SetLimit(0)
	s.strangers.SetBurst(0)
}

// Hot takes one call through what costs every request something, as far as it needs no
// socket and no journal: authentication, admission, settling.
type Hot struct {
	s           *Server
	c           *call
	token, body []byte
}

// NewHot returns a call with this body.
func (s *Server) NewHot(face kimi.Face, token string, body []byte) *Hot {
	return &Hot{s: s, c: &call{s: s, face: face}, token: []byte(token), body: body}
}

// Authenticate reports whether the token is good.
func (h *Hot) Authenticate() bool {
	h.c.start = time.Now()
	r, _ := h.s.authenticate(h.c, h.token)
	return r == refuseNone
}

// Admit reports whether the call may be sent.
func (h *Hot) Admit() bool {
	r, _ := h.s.admit(h.c, h.body)
	return r == refuseNone
}

// Settle ends the call and returns its hold.
func (h *Hot) Settle() int64 {
	c := h.c
	c.forwarded, c.settled = true, false
	c.served, c.upstreamName = c.model, "kimi"
	c.outputSeen, c.relayed = 5, true
	c.settle(contract.OutcomeOK)
	h.s.ledger.Release(c.hold)
	h.s.calls.remove(c)
	return c.charged
}

// Sent returns the body that goes upstream for a call with this one.
// The pieces are as the upstream's client gets them.
func (s *Server) Sent(face kimi.Face, body []byte) ([][]byte, error) {
	c := &call{s: s, face: face}
	if err := s.scan(c, body); err != nil {
		return nil, err
	}
	t, err := s.pool.Pick(face, c.req.Model, time.Now())
	if err != nil {
		return nil, err
	}
	defer t.Release(upstream.Result{})
	c.served, c.edits.OutputCap = t.Served(), 64
	var in fasthttp.Request
	in.SetBodyRaw(body)
	return s.upstreamRequest(c, t, &in).Body, nil
}

// RefuseAll has the server refuse all requests, or none, as if it had too much to do, and hold who was
// refused for that part of the time it was told.
func (s *Server) RefuseAll(refuse bool, held float64) {
	o := &s.overload
	o.share.Store(uint32(held * overloadUnit))
	o.next.Store(0)
	o.pace.Store(0)
	if refuse {
		o.next.Store(math.MaxInt64)
		o.pace.Store(1)
	}
}

// RefusalClasses returns the class of each reason for which requests are refused.
func RefusalClasses() map[string]contract.RefusalClass {
	out := map[string]contract.RefusalClass{}
	for r := refuseNone + 1; r < refusalCount; r++ {
		out[refusals[r].reason] = r.class()
	}
	return out
}
