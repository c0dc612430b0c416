package proxy

import (
	"errors"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// admit takes what the request needs before anything is sent: a place in flight, a
// request of the rate, and a reservation of the most tokens it can use.
func (s *Server) admit(c *call, body []byte) (refusal, detail) {
	if err := s.scan(c, body); err != nil {
		return refuseBadJSON, scanDetail(err)
	}
	if c.req.Stream && c.http10 {
		return refuseBadRequest, detail{message: "streaming needs HTTP/1.1; a proxy before this one may have to be told so (nginx: proxy_http_version 1.1)"}
	}
	if c.req.Unbounded != "" {
		return refuseUnbounded, detail{message: "the size in tokens of this content cannot be bounded, so it cannot be charged safely: " + c.req.Unbounded}
	}
	if !c.grant.AllowsModel(c.model) || !s.pool.Serves(c.face, c.model) {
		return refuseModel, detail{message: fmt.Sprintf("the model %q does not exist or this token does not allow it; GET /v1/models lists those that do", clip(c.model, 100)), param: "model"}
	}
	if r, d := s.enlist(c); r != refuseNone {
		return r, d
	}
	if s.journal.Full() {
		s.unwritten.Add(1)
		return refuseQuotaUnavailable, detail{message: "usage cannot be recorded at the moment"}
	}
	if !s.customers.enter(c.grant.CustomerID, c.grant.Concurrent) {
		return refuseConcurrency, detail{message: fmt.Sprintf("too many requests in flight: this plan allows %d at once", c.grant.Concurrent)}
	}
	c.entered = true
	ok, remaining, retry := s.rates.Allow(c.grant.CustomerID, quota.RequestRate{PerSecond: c.grant.RequestsPerSecond, Burst: c.grant.Burst}, c.start)
	c.ratelimit = rateState{known: true, remaining: remaining}
	if !ok {
		return refuseRate, detail{
			message:    fmt.Sprintf("too many requests: this plan allows %g per second", c.grant.RequestsPerSecond),
			retryAfter: min(retry, time.Second), // Retry-After: 1 makes OpenClaw wait rather than fail over
		}
	}
	return s.reserve(c, body)
}

func (s *Server) scan(c *call, body []byte) error {
	var err error
	c.req, err = kimi.ScanRequest(body, c.face)
	if err != nil {
		return err
	}
	c.model = s.pool.Name(c.face, c.req.Model)
	return nil
}

func scanDetail(err error) detail {
	var field *kimi.FieldError
	if errors.As(err, &field) {
		return detail{message: field.Error(), param: field.Field}
	}
	return detail{message: "the body is not valid JSON: " + err.Error()}
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// reserve holds a sound upper bound: the bytes of the body (a token has at least one)
// with configured maxima for media, and the output cap of each choice. Where that is
// more than the limit leaves, the exact prompt size is asked for and the cap lowered
// to what is left, so that the upstream itself ends the answer in time.
func (s *Server) reserve(c *call, body []byte) (refusal, detail) {
	l := &s.cfg.Limits
	prompt := quota.PromptBound(len(body), c.req.Images, c.req.ImageBytes, c.req.Videos, c.req.VideoBytes, l.ImageTokens, l.VideoTokens)
	asked, n := c.req.OutputCap(l.DefaultOutputCap), c.req.N
	outputCap := asked

	exact := false
	var deadline time.Time
	for {
		w := c.grant.Weights
		a, err := s.take(account(c.grant), quota.Need(w, prompt, outputCap, n))
		if err != nil {
			s.log.Debug("tokens cannot be reserved", "request_id", c.requestID, "error", err)
			return refuseQuotaUnavailable, detail{}
		}
		c.answer = a
		switch a.Verdict {
		case quota.Granted:
			c.hold, c.admitted = a.Hold, time.Now()
			c.promptBound, c.outputBound = prompt, quota.Need(unit, 0, outputCap, n)
			c.edits.OutputCap = outputCap
			if a.Limit > c.grant.MonthlyLimit {
				s.promise(c, a.Limit)
			}
			if c.req.ThinkingBudget.Present() && outputCap < asked {
				// The budget counts into max_tokens and must stay below it.
				c.edits.ThinkingBudget = max(outputCap-1, 1)
			}
			return refuseNone, detail{}
		case quota.Exceeds:
			if !exact && a.Left() >= quota.Need(w, 1, min(asked, l.MinOutput), 1) {
				// Near the limit only, and where it can help: ask how large the prompt really is.
				exact = true
				if p, ok := s.exactPrompt(c, body); ok {
					prompt = min(prompt, p)
				}
				continue
			}
			lowered := min(quota.LoweredCap(w, a.Left(), prompt, n), asked)
			if a.Left() < quota.Need(w, prompt, l.MinOutput, 1) || lowered < 1 {
				return s.monthlyReached(c)
			}
			if lowered >= outputCap { // cannot be: it did not fit
				return refuseInternal, detail{}
			}
			// Lowered to what the limit leaves, not to what others leave of it just now:
			// output is never shortened because of mere holds.
			outputCap = lowered
		case quota.Held:
			before := c.grant
			if deadline.IsZero() {
				deadline = time.Now().Add(time.Duration(s.cfg.Timeouts.WaitForHold))
			}
			if r, d := s.awaitHold(c, deadline); r != refuseNone {
				return r, d
			}
			if c.grant != before {
				outputCap = asked // the limit may have been raised
			}
		default:
			return refuseInternal, detail{}
		}
	}
}

// unit counts every token once, whatever a grant's weights say.
var unit = contract.Weights{Prompt: 1, Cached: 1, Completion: 1}

func account(g *contract.Grant) quota.Account {
	return quota.Account{Customer: g.CustomerID, Period: g.Period, Limit: g.MonthlyLimit, LimitVersion: g.LimitVersion}
}

// take reserves need tokens: from what this replica has leased, else with a trip to Redis.
func (s *Server) take(acct quota.Account, need int64) (quota.Answer, error) {
	if a := s.ledger.TryReserve(acct, need); a.Verdict != quota.Unknown {
		return a, nil
	}
	a, err := s.ledger.Reserve(s.life, acct, need)
	if err != nil {
		s.metrics.quotaErrors.Inc()
		return a, err
	}
	return a, nil
}

// holdPoll is how often a waiter asks again when no settlement of this replica wakes
// it: those of other replicas are not heard of.
const holdPoll = 50 * time.Millisecond

// awaitHold waits until tokens may have become free, for as long as the request may wait
// and is wanted. It goes on with the newest version of the grant.
func (s *Server) awaitHold(c *call, deadline time.Time) (refusal, detail) {
	if cause := c.cancel.Cause(); cause != nil {
		return s.cutBeforeAnswer(c, cause)
	}
	left := time.Until(deadline)
	if left <= 0 {
		return refuseHeld, detail{}
	}
	t := time.NewTimer(min(left, holdPoll))
	defer t.Stop()
	select {
	case <-s.ledger.Changed(c.grant.CustomerID):
	case <-t.C:
	case <-s.life.Done():
		return refuseDraining, detail{}
	}
	if g, err := s.grants.Lookup(s.life, c.digest); err == nil && g.Status == contract.StatusActive {
		c.use(g)
	}
	return refuseNone, detail{}
}

// monthlyReached refuses with the state of the limit, as c.answer has it.
func (s *Server) monthlyReached(c *call) (refusal, detail) {
	a, end := c.answer, c.grant.Period.End
	msg := fmt.Sprintf("monthly token limit reached: %d of %d used; it resets at %s", a.Settled, a.Limit, end.UTC().Format(time.RFC3339))
	return refuseMonthly, c.monthlyDetail(msg, a.Settled, a.Limit)
}

func (c *call) monthlyDetail(msg string, used, limit int64) detail {
	end := c.grant.Period.End
	return detail{
		message: msg, used: used, limit: limit, resetsAt: end.UTC(),
		retryAfter: max(time.Until(end), time.Second),
	}
}
