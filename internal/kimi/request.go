package kimi

import "fmt"

// Span is where a JSON value lies in a body; End is exclusive. The zero Span means
// that the value is absent.
type Span struct{ Start, End int }

// Present reports whether the value is there.
func (s Span) Present() bool { return s.End > 0 }

// IntField is a field that holds a whole number or null. Value is 0 when the field
// is absent or null.
type IntField struct {
	Span
	Value int64
	Null  bool
}

// Request is what a proxy must know of a request body.
type Request struct {
	ModelSpan                      Span
	Model                          []byte
	Stream                         bool
	IncludeUsage                   bool
	MaxTokens, MaxCompletionTokens IntField
	N                              int64
	ThinkingBudget                 IntField
	Images, ImageBytes             int
	Videos, VideoBytes             int
	Unbounded                      string
}

// SyntaxError says that a body is not valid JSON.
type SyntaxError struct {
	Offset int
	Msg    string
}

// Error implements error.
func (e *SyntaxError) Error() string { return fmt.Sprintf("invalid JSON at byte %d: %s", e.Offset, e.Msg) }

// FieldError says that a body is JSON but not a request that can be forwarded.
type FieldError struct{ Field, Msg string }

// Error implements error.
func (e *FieldError) Error() string { return e.Field + ": " + e.Msg }

// ScanRequest validates body and reads what Request holds.
func ScanRequest(body []byte, face Face) (Request, error) { return Request{}, nil }

// Edits are the changes Apply makes.
type Edits struct {
	Model          string
	OutputCap      int64
	CapField       string
	ThinkingBudget int64
	IncludeUsage   bool
}

// Apply appends the edited body to dst.
func (r *Request) Apply(dst, body []byte, e Edits) []byte { return append(dst, body...) }

// OutputCap is the largest output per choice the request asks for, def when it names none.
func (r *Request) OutputCap(def int64) int64 { return def }
