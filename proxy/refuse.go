package proxy

import (
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// refusal is why a request is not served. Every one that exists is in refusals, the
// one place that maps reasons to HTTP.
type refusal uint8

const (
	refuseNone refusal = iota
	refuseNoCredential
	refuseTwoCredentials
	refuseBadToken
	refuseAuthFlood
	refuseSuspended
	refuseModel
	refuseConcurrency
	refuseRate
	refuseHeld
	refuseMonthly
	refuseBadRequest
	refuseBadJSON
	refuseUnbounded
	refuseTooLarge
	refuseHeadTooLarge
	refuseMethod
	refusePath
	refuseSlow
	refuseExpect
	refuseUpstreamKey
	refuseUpstreamFunds
	refuseUpstreamDown
	refuseUpstreamCut
	refuseUpstreamTimeout
	refuseQuotaUnavailable
	refuseOverloaded
	refuseDraining
	refuseRevoked
	refuseInternal
	refusePassed // the upstream's own error, about the client's request
	refusalCount
)

type refusalRow struct {
	status  int
	typ     string // error type, the stable name that clients may depend on
	reason  string // label of token_proxy_blocked_total
	message string
	noRetry bool // x-should-retry: false
	retry   int  // seconds of Retry-After, 0 none, -1 given by the caller
	alert   bool // operators must act
}

var refusals = [refusalCount]refusalRow{
	refuseNoCredential:     {401, "authentication_error", "no_credential", "no proxy token: send it as 'Authorization: Bearer ocp_…' or 'x-api-key: ocp_…'", false, 0, false},
	refuseTwoCredentials:   {401, "authentication_error", "two_credentials", "more than one credential: send the proxy token once, in Authorization or in x-api-key", false, 0, false},
	refuseBadToken:         {401, "authentication_error", "bad_token", "the proxy token is malformed, unknown or revoked", false, 0, false},
	refuseAuthFlood:        {429, "rate_limit_exceeded", "auth_failures", "too many failed authentications from this address", false, 10, false},
	refuseSuspended:        {403, "permission_error", "suspended", "the subscription is suspended; see the billing page of the dashboard", false, 0, false},
	refuseModel:            {404, "model_not_found", "model", "this token does not allow the model, or it does not exist", false, 0, false},
	refuseConcurrency:      {429, "rate_limit_exceeded", "concurrency", "too many requests in flight", false, 1, false},
	refuseRate:             {429, "rate_limit_exceeded", "rate", "too many requests per second", false, 1, false},
	refuseHeld:             {429, "rate_limit_exceeded", "held", "the tokens left this month are held by requests in flight", false, 1, false},
	refuseMonthly:          {429, "monthly_limit_exceeded", "monthly", "the monthly token limit is reached", true, -1, false},
	refuseBadRequest:       {400, "invalid_request_error", "bad_request", "malformed request", false, 0, false},
	refuseBadJSON:          {400, "invalid_request_error", "bad_json", "malformed body", false, 0, false},
	refuseUnbounded:        {400, "invalid_request_error", "unbounded", "the request holds content whose size in tokens cannot be bounded", false, 0, false},
	refuseTooLarge:         {413, "request_too_large", "too_large", "the request body is too large", false, 0, false},
	refuseHeadTooLarge:     {431, "request_too_large", "head_too_large", "the request's headers are too large", false, 0, false},
	refuseMethod:           {405, "invalid_request_error", "method", "method not allowed", false, 0, false},
	refusePath:             {404, "not_found_error", "path", "no such path", false, 0, false},
	refuseSlow:             {408, "timeout_error", "slow", "the request did not arrive in time", false, 0, false},
	refuseExpect:           {417, "invalid_request_error", "expect", "unsupported Expect header", false, 0, false},
	refuseUpstreamKey:      {502, "upstream_error", "upstream_key", "the model provider refused the platform's credentials; operators are informed", false, 30, true},
	refuseUpstreamFunds:    {503, "upstream_unavailable", "upstream_funds", "the model provider does not serve the platform's account at the moment; operators are informed", false, 30, true},
	refuseUpstreamDown:     {503, "upstream_unavailable", "upstream_down", "the model provider cannot be reached", false, -1, false},
	refuseUpstreamCut:      {502, "upstream_error", "upstream_cut", "the model provider ended its answer early", false, 1, false},
	refuseUpstreamTimeout:  {504, "upstream_timeout", "upstream_timeout", "the model provider did not answer in time", false, 0, false},
	refuseQuotaUnavailable: {503, "quota_unavailable", "quota_unavailable", "the token quota cannot be checked at the moment", false, 2, true},
	refuseOverloaded:       {503, "overloaded_error", "overloaded", "the proxy is overloaded", false, 2, false},
	refuseDraining:         {503, "overloaded_error", "draining", "the proxy is shutting down", false, 1, false},
	refuseRevoked:          {401, "authentication_error", "revoked", "the proxy token was revoked", true, 0, false},
	refuseInternal:         {500, "api_error", "internal", "internal error", false, 0, true},
	refusePassed:           {0, "", "upstream_refused", "", false, 0, false},
}

// detail refines a refusal with what the client may know about it.
type detail struct {
	message    string // replaces the table's
	param      string // the field that is wrong
	allow      string // the method that the path takes
	retryAfter time.Duration
	used       int64
	limit      int64
	resetsAt   time.Time
	status     int    // with refusePassed
	body       []byte // with refusePassed
}

// anthropicTypes are the names that Anthropic's SDKs document for what the OpenAI
// face calls otherwise. Types of our own stay as they are on both faces.
func errorType(face kimi.Face, typ string) string {
	if face != kimi.Anthropic {
		return typ
	}
	switch typ {
	case "rate_limit_exceeded":
		return "rate_limit_error"
	case "model_not_found":
		return "not_found_error"
	}
	return typ
}

// body returns the refusal as the kimi package writes it. code is the stable name on
// both faces, whatever type the face calls for.
func (r refusal) body(face kimi.Face, d detail, requestID string) kimi.Refusal {
	row := &refusals[r]
	msg := row.message
	if d.message != "" {
		msg = d.message
	}
	return kimi.Refusal{
		Type: errorType(face, row.typ), Code: row.typ, Message: msg, Param: d.param,
		Used: d.used, Limit: d.limit, ResetsAt: d.resetsAt, RequestID: requestID,
	}
}

// write answers ctx with the refusal.
func (r refusal) write(resp *fasthttp.Response, face kimi.Face, d detail, requestID string) {
	resp.ResetBody()
	resp.Header.Set("X-Request-Id", requestID)
	if r == refusePassed {
		resp.SetStatusCode(d.status)
		resp.Header.SetContentType("application/json")
		resp.SetBodyRaw(d.body)
		return
	}
	row := &refusals[r]
	resp.SetStatusCode(row.status)
	resp.Header.SetContentType("application/json")
	retry := int64(row.retry)
	if d.retryAfter > 0 {
		retry = int64((d.retryAfter + time.Second - 1) / time.Second)
	} else if row.retry < 0 {
		retry = 1
	}
	if retry > 0 {
		resp.Header.Set("Retry-After", strconv.FormatInt(retry, 10))
	}
	if d.allow != "" {
		resp.Header.Set("Allow", d.allow)
	}
	if row.noRetry {
		resp.Header.Set("X-Should-Retry", "false")
	}
	resp.SetBodyRaw(kimi.AppendError(nil, face, r.body(face, d, requestID)))
}

// suitBothFaces turns an error of the OpenAI face into one that has what clients of the
// other face read as well.
func suitBothFaces(body []byte, requestID string) []byte {
	return append([]byte(`{"type":"error","request_id":"`+requestID+`",`), body[1:]...)
}
