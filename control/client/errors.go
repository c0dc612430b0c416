package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/api"
)

// ErrSignIn says that there is no session, and none could be had.
var ErrSignIn = errors.New("sign in first")

// ErrUnreachable says that the api did not answer.
var ErrUnreachable = errors.New("the api does not answer")

// kindForeign is the kind of answers that are not the api's.
const kindForeign = "foreign"

// Error is an answer that says no. Its text is one sentence that says what is wrong and what
// to do.
type Error struct {
	Status     int
	Kind       string // the last part of the problem's type
	Problem    api.Problem
	RetryAfter time.Duration // 0 if the api did not say when to come again

	what string // the request was about
	key  string // repeats the request safely; "" if that needs none
	base string // of the api, where that matters
}

// passing reports whether the same request may succeed a little later.
func (e *Error) passing() bool {
	switch {
	case e.Status == http.StatusTooManyRequests, e.Status == http.StatusServiceUnavailable, e.Status == http.StatusBadGateway, e.Status == http.StatusGatewayTimeout:
		return true
	case e.Status == http.StatusConflict:
		return e.RetryAfter > 0 // someone has it in hand
	}
	return false
}

func (e *Error) Error() string {
	detail := strings.TrimRight(e.Problem.Detail, ".")
	request := " (request " + e.Problem.RequestID + ")"
	again := ""
	if e.RetryAfter > 0 {
		again = fmt.Sprintf("; try again in %s", e.RetryAfter)
	}
	if e.key != "" {
		again += repeat(e.key)
	}
	text := detail
	switch {
	case e.Kind == kindForeign:
		return fmt.Sprintf("what answers at %s is not the operators' api (%s): check OPENCLAW_API_URL", e.base, detail)
	case e.Kind == "unauthenticated":
		return `the api does not accept the session: sign in with "openclawctl login"`
	case e.Kind == "forbidden":
		return `your role may not do this ("openclawctl whoami" says which it is): ask an admin`
	case e.Kind == "not-found":
		if e.what != "" && !strings.Contains(detail, e.what) {
			return e.what + ": not found"
		}
		text = or(detail, "not found")
	case e.Kind == "exists":
		text = or(detail, "it exists already")
	case e.Kind == "conflict" && e.RetryAfter > 0:
		text = "someone else has it in hand" + again
	case e.Status == http.StatusTooManyRequests:
		text = lower(or(detail, "too many requests")) + again
	case e.Status == http.StatusServiceUnavailable:
		text = "the api cannot do this just now: " + lower(or(detail, "something that it needs is away")) + again + request
	case e.Status >= http.StatusInternalServerError:
		text = "something went wrong in the api, and its log says what" + again + request
	case detail == "":
		text = lower(e.Problem.Title)
	}
	return text
}

// repeat says how to repeat what may have been done.
func repeat(key string) string {
	return "; it may have been done: repeat the command with --idempotency-key " + key + ", which does nothing twice"
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// lower begins a text in the middle of a sentence.
func lower(s string) string {
	if len(s) > 1 && s[1] >= 'a' && s[1] <= 'z' || len(s) > 1 && s[1] == ' ' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

// lost says that there was no answer.
func (c *Client) lost(r Request, err error, uncertain bool) error {
	reason := err.Error()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		reason = "nothing listens there"
	case isUnknownHost(err):
		reason = "there is no such host"
	}
	text := fmt.Sprintf("no answer from the api at %s: %s", c.base, reason)
	if key := keyIf(uncertain, r); key != "" {
		text += repeat(key)
	}
	return &lostError{text, err}
}

type lostError struct {
	text  string
	cause error
}

func (e *lostError) Error() string { return e.text }

func (e *lostError) Unwrap() []error { return []error{ErrUnreachable, e.cause} }
