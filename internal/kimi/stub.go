package kimi

import "time"

// EventEnd finds the exclusive end of the first SSE event in b, or -1.
func EventEnd(b []byte, from int) (end int) { return -1 }

// EventKind is what an SSE event is.
type EventKind uint8

// The kinds.
const (
	EventOther EventKind = iota
	EventData
	EventEndMark
	EventError
)

// EventInfo is what InspectEvent saw.
type EventInfo struct {
	Kind        EventKind
	UsageOnly   bool
	Finish      bool
	OutputBytes int64
}

// InspectEvent reads one event.
func InspectEvent(ev []byte, face Face, u *Usage) EventInfo { return EventInfo{} }

// Usage gathers what an upstream reported.
type Usage struct{}

// Counts are normalised token counts.
type Counts struct{ Prompt, Cached, Completion, Reasoning int64 }

// Counts returns the counts and whether prompt and completion were both reported.
func (u *Usage) Counts() (c Counts, complete bool) { return }

// Implausible reports numbers that cannot be.
func (u *Usage) Implausible() bool { return false }

// AnswerInfo is what ScanAnswer saw.
type AnswerInfo struct {
	OutputBytes int64
	Error       bool
	ID          Span
}

// ScanAnswer reads a non-stream answer.
func ScanAnswer(body []byte, face Face, u *Usage) (AnswerInfo, error) { return AnswerInfo{}, nil }

// ErrorFields are the parts of an upstream's error.
type ErrorFields struct{ Type, Message, Code string }

// ParseError reads an upstream's error body.
func ParseError(body []byte) (ErrorFields, bool) { return ErrorFields{}, false }

// Redact appends b without account ids and keys.
func Redact(dst, b []byte) []byte { return append(dst, b...) }

// Refusal is an error for a client.
type Refusal struct {
	Type, Code, Message string
	Param               string
	Used, Limit         int64
	ResetsAt            time.Time
	RequestID           string
}

// AppendError appends the error body.
func AppendError(dst []byte, face Face, r Refusal) []byte { return dst }

// AppendErrorEvent appends the error as an SSE event.
func AppendErrorEvent(dst []byte, face Face, r Refusal) []byte { return dst }
