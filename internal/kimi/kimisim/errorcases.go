package kimisim

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed data/errors.json
var errorsJSON []byte

//go:embed data/more_errors.json
var moreErrorsJSON []byte

// loadCases decodes the embedded cases once; they are never written to.
var loadCases = sync.OnceValue(func() []ErrorResponse {
	var a, b []ErrorResponse
	if err := errors.Join(json.Unmarshal(errorsJSON, &a), json.Unmarshal(moreErrorsJSON, &b)); err != nil {
		panic("BUG: embedded error cases: " + err.Error())
	}
	a = append(a, b...)
	for i := range a {
		var compact bytes.Buffer
		if len(a[i].Body) > 0 && json.Compact(&compact, a[i].Body) == nil {
			a[i].Body = compact.Bytes()
		}
	}
	return a
})

// ErrorCases returns the error responses that Behavior.Error can name: those of the
// recorded samples first, then others that the documentation names.
func ErrorCases() []ErrorResponse {
	cases := append([]ErrorResponse(nil), loadCases()...)
	for i := range cases {
		cases[i].Headers = maps.Clone(cases[i].Headers)
	}
	return cases
}

// errorCase finds a case by its name, or by a part of it that only one has.
func errorCase(name string) (*ErrorResponse, error) {
	var found *ErrorResponse
	cases := loadCases()
	for i := range cases {
		if cases[i].Case == name {
			return &cases[i], nil
		}
		if strings.Contains(cases[i].Case, name) {
			if found != nil {
				return nil, fmt.Errorf("error %q is both %q and %q", name, found.Case, cases[i].Case)
			}
			found = &cases[i]
		}
	}
	if found == nil {
		names := make([]string, len(cases))
		for i := range cases {
			names[i] = cases[i].Case
		}
		return nil, fmt.Errorf("no error case %q; there are: %s", name, strings.Join(names, ", "))
	}
	return found, nil
}

// text returns the body as it goes on the wire.
func (e *ErrorResponse) text() []byte {
	if len(e.Body) == 0 {
		return []byte(e.BodyText)
	}
	if e.Body[0] == '"' {
		return []byte(unquote(e.Body))
	}
	return e.Body
}

func (e *ErrorResponse) write(w http.ResponseWriter, body []byte, retryAfter time.Duration) error {
	h := w.Header()
	for k, v := range e.Headers {
		if http.CanonicalHeaderKey(k) != "Msh-Request-Id" {
			h.Set(k, v)
		}
	}
	if retryAfter != 0 {
		for _, k := range []string{"Retry-After", "X-Retry-After", "Msh-Cooldown-Seconds"} {
			if retryAfter < 0 {
				h.Del(k)
			} else {
				h.Set(k, strconv.FormatInt(int64((retryAfter+time.Second-1)/time.Second), 10))
			}
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.Status)
	_, err := w.Write(body)
	return err
}

// inFace gives an OpenAI-shaped error body the shape that Kimi uses on an Anthropic path:
// everything on /coding, all but 401 and 429 on the platform's /anthropic.
func (e *ErrorResponse) inFace(face, path string) []byte {
	body := e.text()
	if face != FaceAnthropic || !json.Valid(body) || fieldString(body, "type") == "error" {
		return body
	}
	if strings.HasPrefix(path, "/anthropic/") && (e.Status == http.StatusUnauthorized || e.Status == http.StatusTooManyRequests) {
		return body
	}
	inner := field(body, "error")
	if inner == nil {
		return body
	}
	kind := fieldString(inner, "type")
	switch {
	case e.Status == http.StatusUnauthorized:
		kind = "authentication_error"
	case e.Status == http.StatusForbidden:
		kind = "permission_error"
	case e.Status == http.StatusNotFound:
		kind = "not_found_error"
	case e.Status == http.StatusTooManyRequests:
		kind = "rate_limit_error"
	case e.Status == http.StatusBadRequest:
		kind = "invalid_request_error"
	case e.Status >= 500:
		kind = "api_error"
	}
	return anthropicError(kind, fieldString(inner, "message"))
}

func anthropicError(kind, message string) []byte {
	b := appendJSON([]byte(`{"type":"error","error":{"type":`), kind)
	b = appendJSON(append(b, `,"message":`...), message)
	return append(b, "}}"...)
}

func openAIError(kind, message string) []byte {
	b := appendJSON([]byte(`{"error":{"message":`), message)
	b = appendJSON(append(b, `,"type":`...), kind)
	return append(b, "}}"...)
}

// refusal is an error of the simulator's own making, in OpenAI shape until inFace.
func refusal(status int, kind, message string) *ErrorResponse {
	return &ErrorResponse{
		Status:  status,
		Headers: map[string]string{"Content-Type": "application/json; charset=utf-8"},
		Body:    openAIError(kind, message),
	}
}

// cooling is a 429 with Kimi's three headers.
func cooling(kind, message string, wait time.Duration) *ErrorResponse {
	e := refusal(http.StatusTooManyRequests, kind, message)
	s := strconv.FormatInt(max(1, int64((wait+time.Second-1)/time.Second)), 10)
	for _, k := range []string{"Retry-After", "X-Retry-After", "Msh-Cooldown-Seconds"} {
		e.Headers[k] = s
	}
	return e
}
