package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// Problem is what every error is answered as (RFC 9457, application/problem+json).
type Problem struct {
	// Type is a URN that programs can go by; it never changes its meaning.
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail is for people: what is wrong with this request.
	Detail string `json:"detail,omitempty"`
	// RequestID is in our log too.
	RequestID string `json:"request_id"`
	// Fields says what is wrong with fields of the body, by name.
	Fields map[string]string `json:"fields,omitempty"`
	// PayURL is where to pay what is open.
	PayURL string `json:"pay_url,omitempty" doc:"Where to pay the invoice that is open."`
}

// kind is a sort of problem.
type kind struct {
	name   string // the last part of Problem.Type
	status int
	title  string
}

// The sorts of problem.
func kindMalformed() kind {
	return kind{"malformed", http.StatusBadRequest, "The request cannot be read"}
}
func kindInvalid() kind {
	return kind{"invalid", http.StatusUnprocessableEntity, "The request cannot be accepted"}
}
func kindUnauthenticated() kind {
	return kind{"unauthenticated", http.StatusUnauthorized, "Sign in first"}
}
func kindUnpaid() kind {
	return kind{"unpaid", http.StatusPaymentRequired, "A payment is needed"}
}
func kindForbidden() kind { return kind{"forbidden", http.StatusForbidden, "Not allowed"} }
func kindForgery() kind {
	return kind{"cross-site", http.StatusForbidden, "The request may come from another site"}
}
func kindStale() kind {
	return kind{"sign-in-again", http.StatusForbidden, "Sign in again first"}
}
func kindNotFound() kind { return kind{"not-found", http.StatusNotFound, "There is no such thing"} }
func kindMethod() kind {
	return kind{"method-not-allowed", http.StatusMethodNotAllowed, "The method does not fit this path"}
}
func kindExists() kind   { return kind{"exists", http.StatusConflict, "It exists already"} }
func kindConflict() kind { return kind{"conflict", http.StatusConflict, "Someone else has it in hand"} }
func kindTooLarge() kind {
	return kind{"too-large", http.StatusRequestEntityTooLarge, "The body is too large"}
}
func kindMediaType() kind {
	return kind{"media-type", http.StatusUnsupportedMediaType, "The body is not JSON"}
}
func kindTooMany() kind {
	return kind{"too-many-requests", http.StatusTooManyRequests, "Too many requests"}
}
func kindUnavailable() kind {
	return kind{"unavailable", http.StatusServiceUnavailable, "Not available just now"}
}
func kindInternal() kind {
	return kind{"internal", http.StatusInternalServerError, "Something went wrong here"}
}

// failure is an error whose detail is meant for the caller.
type failure struct {
	kind       kind
	detail     string
	fields     map[string]string
	payURL     string
	retryAfter time.Duration
	cause      error // for the log; may be nil
}

func (f *failure) Error() string {
	if f.cause != nil {
		return f.kind.name + ": " + f.detail + ": " + f.cause.Error()
	}
	return f.kind.name + ": " + f.detail
}

func (f *failure) Unwrap() error { return f.cause }

func fail(k kind, detail string) error { return &failure{kind: k, detail: detail} }

// invalid says what is wrong with one field.
func invalid(field, what string) error {
	return &failure{kind: kindInvalid(), detail: field + ": " + what, fields: map[string]string{field: what}}
}

func tooMany(wait time.Duration, what string) error {
	return &failure{kind: kindTooMany(), detail: what, retryAfter: max(wait, time.Second)}
}

// judge is the one place that says what an error is answered. frank callers, who are
// operators, read what our own rules say; nobody reads what a library says.
func judge(err error, frank bool) *failure {
	if f := (*failure)(nil); errors.As(err, &f) {
		return f
	}
	detail := ""
	if frank {
		detail = err.Error()
	}
	switch {
	case errors.Is(err, control.ErrSchema):
		return &failure{kind: kindUnavailable(), detail: "The database is being brought to another version.", retryAfter: 10 * time.Second, cause: err}
	case errors.Is(err, control.ErrNotFound):
		return &failure{kind: kindNotFound(), detail: detail, cause: err}
	case errors.Is(err, control.ErrReused):
		return &failure{kind: kindUnauthenticated(), detail: "The session has ended.", cause: err}
	case errors.Is(err, control.ErrExists): // its text may be Postgres'
		return &failure{kind: kindExists(), cause: err}
	case errors.Is(err, control.ErrConflict):
		return &failure{kind: kindConflict(), detail: "Try again in a moment.", retryAfter: time.Second, cause: err}
	case errors.Is(err, control.ErrInvalid):
		return &failure{kind: kindInvalid(), detail: detail, cause: err}
	case errors.Is(err, quota.ErrUnavailable), errors.Is(err, control.ErrUnavailable), store.Unavailable(err), errors.Is(err, context.DeadlineExceeded):
		return &failure{kind: kindUnavailable(), detail: "A part that this needs does not answer.", retryAfter: 2 * time.Second, cause: err}
	}
	return &failure{kind: kindInternal(), cause: err}
}

// problem writes f. Nothing of the answer may have been written yet.
func (f *failure) problem(w http.ResponseWriter, requestID string) {
	p := Problem{
		Type: "urn:openclaw:problem:" + f.kind.name, Title: f.kind.title, Status: f.kind.status,
		Detail: f.detail, RequestID: requestID, Fields: f.fields, PayURL: f.payURL,
	}
	body, err := json.Marshal(p)
	if err != nil { // strings always can
		body = []byte("{}")
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if f.kind.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((f.retryAfter+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(f.kind.status)
	_, _ = w.Write(append(body, '\n')) // who went away is not told
}
