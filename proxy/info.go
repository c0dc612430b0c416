package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// modelEntry has the fields of both faces' model lists, so that either SDK reads it.
type modelEntry struct {
	ID          string `json:"id"`
	Object      string `json:"object"`
	Type        string `json:"type"`
	DisplayName string `json:"display_name"`
	Created     int64  `json:"created"`
	CreatedAt   string `json:"created_at"`
	OwnedBy     string `json:"owned_by"`
}

// serveModels lists the models that the token may use. It asks no upstream: what is
// configured is what is served.
func (s *Server) serveModels(ctx *fasthttp.RequestCtx, c *call) {
	if r, d := s.admitLight(c); r != refuseNone {
		c.refuse(&ctx.Response, r, d)
		return
	}
	list := struct {
		Object  string       `json:"object"`
		Data    []modelEntry `json:"data"`
		HasMore bool         `json:"has_more"`
		FirstID string       `json:"first_id,omitempty"`
		LastID  string       `json:"last_id,omitempty"`
	}{Object: "list", Data: []modelEntry{}}
	epoch := time.Unix(0, 0).UTC()
	for _, id := range s.pool.Models() {
		if c.grant.AllowsModel(id) {
			list.Data = append(list.Data, modelEntry{id, "model", "model", id, 0, epoch.Format(time.RFC3339), "openclaw-cloud"})
		}
	}
	if n := len(list.Data); n > 0 {
		list.FirstID, list.LastID = list.Data[0].ID, list.Data[n-1].ID
	}
	c.answerJSON(ctx, list)
}

// usageAnswer is the caller's own state; it holds nothing of the platform's account.
type usageAnswer struct {
	Object    string          `json:"object"` // "usage"
	Used      int64           `json:"used"`
	Held      int64           `json:"held"` // by requests in flight, or set aside by proxies for the next ones
	Limit     int64           `json:"limit"`
	Remaining int64           `json:"remaining"`
	ResetsAt  time.Time       `json:"resets_at"`
	Period    contract.Period `json:"period"`
}

func (s *Server) serveUsage(ctx *fasthttp.RequestCtx, c *call) {
	if r, d := s.admitLight(c); r != refuseNone {
		c.refuse(&ctx.Response, r, d)
		return
	}
	u, err := s.ledger.Usage(s.life, account(c.grant))
	if err != nil {
		c.refuse(&ctx.Response, refuseQuotaUnavailable, detail{})
		return
	}
	// For the headers, which every answer carries.
	c.answer = quota.Answer{Verdict: quota.Granted, Limit: u.Limit, Settled: u.Settled, Held: u.Held}
	p := c.grant.Period
	c.answerJSON(ctx, usageAnswer{
		Object: "usage", Used: u.Settled, Held: u.Held, Limit: u.Limit,
		Remaining: max(u.Limit-u.Settled-u.Held, 0), ResetsAt: p.End.UTC(), Period: p,
	})
}

// admitLight is admission for what uses no tokens: the rate alone.
func (s *Server) admitLight(c *call) (refusal, detail) {
	ok, remaining, retry := s.rates.Allow(c.grant.CustomerID, quota.RequestRate{PerSecond: c.grant.RequestsPerSecond, Burst: c.grant.Burst}, c.start)
	c.ratelimit = rateState{known: true, remaining: remaining}
	if !ok {
		return refuseRate, detail{retryAfter: min(retry, time.Second)}
	}
	return refuseNone, detail{}
}

func (c *call) answerJSON(ctx *fasthttp.RequestCtx, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		c.s.log.Error("encode answer", "request_id", c.requestID, "error", err)
		c.refuse(&ctx.Response, refuseInternal, detail{})
		return
	}
	c.status = fasthttp.StatusOK
	c.setHeaders(&ctx.Response.Header)
	ctx.Response.Header.SetContentType("application/json")
	ctx.Response.SetBodyRaw(b)
	c.close()
}

// serveEstimate passes a count of tokens on. It is free at the upstream, so only the
// rate and the number in flight are limited.
func (s *Server) serveEstimate(ctx *fasthttp.RequestCtx, c *call) {
	body := ctx.Request.Body()
	if err := s.scan(c, body); err != nil {
		c.refuse(&ctx.Response, refuseBadJSON, scanDetail(err))
		return
	}
	if !c.grant.AllowsModel(c.model) || !s.pool.Serves(kimi.OpenAI, c.model) {
		c.refuse(&ctx.Response, refuseModel, detail{param: "model"})
		return
	}
	if r, d := s.enlist(c); r != refuseNone {
		c.refuse(&ctx.Response, r, d)
		return
	}
	if !s.customers.enter(c.grant.CustomerID, c.grant.Concurrent) {
		c.refuse(&ctx.Response, refuseConcurrency, detail{})
		return
	}
	c.entered = true
	if r, d := s.admitLight(c); r != refuseNone {
		c.refuse(&ctx.Response, r, d)
		return
	}
	n, err := s.estimate(c, c.asGiven(body), &c.cancel, &ctx.Response.Header)
	if err != nil {
		s.log.Info("estimate failed", "request_id", c.requestID, "error", err)
		r, d := s.estimateFailed(c, err)
		c.refuse(&ctx.Response, r, d)
		return
	}
	var out struct {
		Data struct {
			TotalTokens int64 `json:"total_tokens"`
		} `json:"data"`
	}
	out.Data.TotalTokens = n
	c.answerJSON(ctx, out)
}

// estimateRefused is an upstream's answer to an estimate that is not a success.
type estimateRefused struct {
	upstream   string
	key        string // its name
	status     int
	body       []byte
	retryAfter time.Duration
}

func (e *estimateRefused) Error() string {
	return fmt.Sprintf("estimate prompt: upstream %s answered status %d", e.upstream, e.status)
}

// estimateFailed says what a client is told whose estimate ended with err: the upstream's
// own words where they are about the request, as with a completion.
func (s *Server) estimateFailed(c *call, err error) (refusal, detail) {
	const uncounted = "the model provider did not count the tokens"
	if cause := c.cancel.Cause(); cause != nil {
		_, r, d := c.cutFor(cause)
		return r, d
	}
	var refused *estimateRefused
	var busy *upstream.UnavailableError
	var uerr *upstream.Error
	switch {
	case errors.As(err, &refused):
		fields, parsed := kimi.ParseError(refused.body)
		s.metrics.upstreamErrors.WithLabelValues(strconv.Itoa(refused.status)).Inc()
		r, result := classify(refused.status, fields, parsed, refused.retryAfter)
		if result.KeyRefused {
			s.keyRefused(refused.upstream, refused.key, refused.status, fields.Type)
		}
		if r == refuseNone {
			return refusePassed, detail{status: refused.status, body: passedError(c.face, refused.body, fields, c.requestID)}
		}
		return r, detail{retryAfter: refused.retryAfter}
	case errors.Is(err, upstream.ErrHeader):
		return refuseBadRequest, detail{message: badHeaders}
	case errors.As(err, &busy):
		return refuseUpstreamDown, detail{retryAfter: busy.RetryAfter, message: uncounted}
	case errors.As(err, &uerr) && uerr.Timeout:
		s.metrics.upstreamErrors.WithLabelValues("timeout").Inc()
		return refuseUpstreamTimeout, detail{}
	}
	return refuseUpstreamDown, detail{message: uncounted}
}

// asGiven returns what to ask an estimator for the prompt of body, of the OpenAI face.
func (c *call) asGiven(body []byte) func(model string) [][]byte {
	return func(model string) [][]byte { return edited(&c.req, body, kimi.Edits{Model: model}) }
}

// estimate asks an upstream that has an estimate endpoint, and serves the call's model,
// to count a prompt: that of the request that ask makes for the upstream's name of the
// model. What a client may see of the answer's headers is written to passTo, unless that
// is nil.
func (s *Server) estimate(c *call, ask func(model string) [][]byte, cancel *upstream.Canceler, passTo *fasthttp.ResponseHeader) (n int64, err error) {
	t, err := s.pool.PickEstimator(kimi.OpenAI, c.req.Model, time.Now())
	if err != nil {
		return 0, fmt.Errorf("estimate prompt: %w", err)
	}
	cfg := t.Config()
	req := upstream.Request{
		Body:        ask(t.Served()),
		ContentType: []byte("application/json"),
		UserAgent:   c.userAgent,
	}
	resp, err := t.DoPath("POST", cfg.EstimatePath, &req, cancel)
	if err != nil {
		t.Release(upstream.Result{Failed: cancel.Cause() == nil})
		return 0, fmt.Errorf("estimate prompt: %w", err)
	}
	status, retryAfter, key := resp.Status, retryAfterOf(resp.Head), t.KeyName()
	if passTo != nil {
		passHeaders(passTo, resp.Head)
	}
	answer, err := io.ReadAll(io.LimitReader(resp, maxErrorBody))
	resp.Close(true)
	// What an estimate is refused for says little about completions: only an outage counts,
	// and not that we did not wait for the end.
	t.Release(upstream.Result{Failed: cancel.Cause() == nil && (err != nil || status >= 500)})
	switch {
	case status < 200 || status > 299:
		return 0, &estimateRefused{upstream: cfg.Name, key: key, status: status, body: answer, retryAfter: retryAfter}
	case err != nil:
		return 0, fmt.Errorf("estimate prompt: %w", err)
	}
	var v struct {
		Data struct {
			TotalTokens *int64 `json:"total_tokens"`
		} `json:"data"`
	}
	if json.Unmarshal(answer, &v) != nil || v.Data.TotalTokens == nil || *v.Data.TotalTokens < 0 {
		return 0, fmt.Errorf("estimate prompt: upstream %s answered status %d without a count", cfg.Name, status)
	}
	return *v.Data.TotalTokens, nil
}

// exactPrompt returns the size of the prompt by an upstream's own count: an upper bound
// still, but close to the truth. On the OpenAI face it counts the messages, and the bytes
// of the other fields are added. The estimate endpoint knows no other face, so it is asked
// about an Anthropic body as if that were somebody's text (AppendAsText), with what images
// and videos cost at most added; JSON costs more than what it says, by a few tokens for
// each part. It reports false when nobody can say within a short time, or the text is longer
// than any upstream would take it: the copy that it would be asked about counts in no budget.
func (s *Server) exactPrompt(c *call, body []byte) (int64, bool) {
	ask, uncounted := c.asGiven(body), int64(len(body)-(c.req.Messages.End-c.req.Messages.Start))
	if c.face == kimi.Anthropic {
		const longest = 2 << 20
		if len(body)-c.req.ImageBytes-c.req.VideoBytes > longest {
			return 0, false
		}
		ask = func(model string) [][]byte { return [][]byte{c.req.AppendAsText(nil, body, model)} }
		uncounted = quota.PromptBound(0, c.req.Images, 0, c.req.Videos, 0, s.cfg.Limits.ImageTokens, s.cfg.Limits.VideoTokens)
	}
	// A request must not wait for long for what only spares it a refusal.
	const patience = 2 * time.Second
	var own upstream.Canceler
	timer := time.AfterFunc(patience, func() { own.Cancel(os.ErrDeadlineExceeded) })
	defer timer.Stop()
	n, err := s.estimate(c, ask, &own, nil)
	if err != nil {
		s.log.Debug("near the limit the prompt could not be counted", "request_id", c.requestID, "error", err)
		return 0, false
	}
	total := n + uncounted
	return total, total >= n
}

// Models returns the model names that this proxy serves, sorted.
func (s *Server) Models() []string { return slices.Clone(s.pool.Models()) }
