package proxy

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
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
	n, err := s.estimate(c, body, &c.cancel)
	if err != nil {
		s.log.Info("estimate failed", "request_id", c.requestID, "error", err)
		c.refuse(&ctx.Response, refuseUpstreamDown, detail{message: "the model provider did not count the tokens"})
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

// estimate asks an upstream that has an estimate endpoint to count the prompt of body.
func (s *Server) estimate(c *call, body []byte, cancel *upstream.Canceler) (n int64, err error) {
	t, err := s.pool.PickEstimator(c.face, c.req.Model, time.Now())
	if err != nil {
		return 0, fmt.Errorf("estimate prompt: %w", err)
	}
	cfg := t.Config()
	req := upstream.Request{
		Body:        [][]byte{c.req.Apply(nil, body, kimi.Edits{Model: t.Served()})},
		ContentType: []byte("application/json"),
		UserAgent:   c.userAgent,
	}
	resp, err := t.DoPath("POST", cfg.EstimatePath, &req, cancel)
	if err != nil {
		t.Release(upstream.Result{Failed: cancel.Cause() == nil})
		return 0, fmt.Errorf("estimate prompt: %w", err)
	}
	status := resp.Status
	answer, err := io.ReadAll(io.LimitReader(resp, maxErrorBody))
	resp.Close(true)
	// What an estimate is refused for says little about completions: only an outage counts.
	t.Release(upstream.Result{Failed: err != nil || status >= 500})
	if err != nil {
		return 0, fmt.Errorf("estimate prompt: %w", err)
	}
	var v struct {
		Data struct {
			TotalTokens *int64 `json:"total_tokens"`
		} `json:"data"`
	}
	if status != 200 || json.Unmarshal(answer, &v) != nil || v.Data.TotalTokens == nil || *v.Data.TotalTokens < 0 {
		return 0, fmt.Errorf("estimate prompt: upstream %s answered status %d without a count", cfg.Name, status)
	}
	return *v.Data.TotalTokens, nil
}

// exactPrompt returns the size of the prompt by the upstream's own count, plus the bytes
// of what its estimate does not cover (tools and the other fields), so that the sum
// stays an upper bound.
func (s *Server) exactPrompt(c *call, body []byte) (int64, bool) {
	if c.face != kimi.OpenAI {
		return 0, false // the estimate endpoint speaks the OpenAI face
	}
	// A request must not wait for long for what only spares it a refusal.
	const patience = 2 * time.Second
	var own upstream.Canceler
	timer := time.AfterFunc(patience, func() { own.Cancel(os.ErrDeadlineExceeded) })
	defer timer.Stop()
	n, err := s.estimate(c, body, &own)
	if err != nil {
		s.log.Debug("near the limit the prompt could not be counted", "request_id", c.requestID, "error", err)
		return 0, false
	}
	uncovered := len(body) - (c.req.Messages.End - c.req.Messages.Start)
	return n + int64(uncovered), true
}

// Models returns the model names that this proxy serves, sorted.
func (s *Server) Models() []string { return slices.Clone(s.pool.Models()) }
