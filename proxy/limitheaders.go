package proxy

import (
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// warnAt is the share of the monthly limit from which answers carry a warning.
const warnAt = 0.9

// headerWriter sets headers whose names are in canonical form, without a string for each
// number.
type headerWriter struct {
	h       *fasthttp.ResponseHeader
	scratch [24]byte
}

func (w *headerWriter) text(name, value string) { w.h.SetCanonical([]byte(name), []byte(value)) }

func (w *headerWriter) number(name string, n int64) {
	w.h.SetCanonical([]byte(name), strconv.AppendInt(w.scratch[:0], n, 10))
}

// seconds writes a duration as OpenAI's headers do: "12s".
func (w *headerWriter) seconds(name string, d time.Duration) {
	n := int64((max(d, 0) + time.Second - 1) / time.Second)
	w.h.SetCanonical([]byte(name), append(strconv.AppendInt(w.scratch[:0], n, 10), 's'))
}

// setHeaders writes what every answer carries: the request's id and, once the customer
// is known, the state of its limits.
func (c *call) setHeaders(h *fasthttp.ResponseHeader) {
	w := headerWriter{h: h}
	w.text("X-Request-Id", c.requestID)
	if c.face == kimi.Anthropic && len(h.Peek("Request-Id")) == 0 {
		w.text("Request-Id", c.requestID) // where Anthropic's SDKs look
	}
	g := c.grant
	if g == nil || g.Status == contract.StatusRevoked { // the limits of a revoked grant mean nothing
		return
	}
	if !c.ratelimit.known { // refused before the rate was asked
		rate := quota.RequestRate{PerSecond: g.RequestsPerSecond, Burst: g.Burst}
		c.ratelimit = rateState{known: true, remaining: c.s.rates.Remaining(g.CustomerID, rate, c.start)}
	}
	w.number("X-Ratelimit-Limit-Requests", int64(g.Burst))
	w.number("X-Ratelimit-Remaining-Requests", int64(max(c.ratelimit.remaining, 0)))
	missing := float64(g.Burst - c.ratelimit.remaining)
	w.seconds("X-Ratelimit-Reset-Requests", time.Duration(missing/g.RequestsPerSecond*float64(time.Second)))
	w.seconds("X-Ratelimit-Reset-Tokens", time.Until(g.Period.End))
	a := c.answer
	if a.Verdict == quota.Unknown {
		a = c.s.standing(g)
	}
	if a.Verdict == quota.Unknown {
		w.number("X-Ratelimit-Limit-Tokens", g.MonthlyLimit)
		return
	}
	w.number("X-Ratelimit-Limit-Tokens", a.Limit)
	w.number("X-Ratelimit-Remaining-Tokens", max(a.Limit-a.Settled-a.Held, 0))
	if a.Limit > 0 && float64(a.Settled) >= warnAt*float64(a.Limit) {
		w.text("X-Token-Warning", "90%")
	}
}
