package kimi

import (
	"bytes"
	"fmt"
)

// Span is where a JSON value lies in a body, the quotes of a string included; End is
// exclusive. The zero Span means that the value is absent.
type Span struct{ Start, End int }

// Present reports whether the value is there.
func (s Span) Present() bool { return s.End > 0 }

// IntField is a field that holds a whole number ≥ 0 or null. Value is 0 when the
// field is absent or null.
type IntField struct {
	Span
	Value int64
	Null  bool
}

// asks reports whether the field names a number that binds. A zero does not: servers
// written in Go cannot tell it from an absent field.
func (f *IntField) asks() bool { return f.Present() && f.Value > 0 }

// MaxCount is the largest count of tokens that is believed: 2^40. Caps above it are
// taken as it, reported numbers above it are implausible. Products of it with small
// factors fit an int64.
const MaxCount = 1 << 40

// MaxChoices is the largest n that is accepted, as OpenAI's own limit has it.
const MaxChoices = 128

// Request is what a proxy must know of a request body. It holds offsets into the
// body and may alias it: it is valid as long as the body does not change.
type Request struct {
	// ModelSpan is the model's JSON string, Model the name it decodes to, never
	// empty. Model aliases the body when it is written without escapes.
	ModelSpan Span
	Model     []byte

	Messages Span // of the messages array

	Stream       bool
	IncludeUsage bool // stream_options.include_usage is true

	// MaxTokens and MaxCompletionTokens are the caps on output, in tokens per
	// choice. The second one means nothing on the Anthropic face.
	MaxTokens, MaxCompletionTokens IntField
	N                              int64    // choices asked for, 1 to MaxChoices; 1 when absent or null
	ThinkingBudget                 IntField // thinking.budget_tokens

	// Images and Videos count the parts of their kind in messages and tool
	// results. ImageBytes and VideoBytes are how much of the body is their inline
	// data: bytes that are charged by the picture, not as text.
	Images, ImageBytes int
	Videos, VideoBytes int

	// Unbounded says what in the request makes input whose size cannot be told
	// from the body, such as "document part" or "builtin tool $web_search". It is
	// empty when there is none.
	Unbounded string

	face          Face
	open          int // behind the body's '{'
	streamOptions Span
	optionsNull   bool
	optionsEmpty  bool
	includeUsage  Span
}

// SyntaxError says that a body is not valid JSON.
type SyntaxError struct {
	Offset int    // byte where reading stopped, from 0
	Msg    string // what was wrong there; holds no part of the body
}

// Error implements error.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("invalid JSON at byte %d: %s", e.Offset, e.Msg)
}

// FieldError says that a body is valid JSON, as far as it was read, but not a request
// that may be forwarded.
type FieldError struct {
	Field string // such as "max_tokens" or "stream_options.include_usage"; "" is the body itself
	Msg   string // holds no part of the body
}

// Error implements error.
func (e *FieldError) Error() string {
	if e.Field == "" {
		return "body: " + e.Msg
	}
	return e.Field + ": " + e.Msg
}

// ScanRequest validates body in one pass (RFC 8259 with valid UTF-8, one object, at
// most 512 levels deep) and reads what Request holds. It refuses, with a *FieldError,
// fields of the wrong type and everything that two parsers could read in two ways: a
// key that matters given twice, or spelt in another case (encoding/json of Go would
// take "Model" for "model"). Text that is not JSON gives a *SyntaxError.
//
// It allocates nothing for a body that is accepted, unless the model's name is
// written with escapes or Unbounded is set. Concurrent use is safe.
func ScanRequest(body []byte, face Face) (Request, error) {
	s := requestScanner{scanner: scanner{b: body}, r: Request{face: face, N: 1}}
	i := s.begin()
	if i >= 0 && body[i] != '{' {
		return Request{}, s.notObject(i)
	}
	if i >= 0 {
		i = s.top(i)
	}
	if !s.finish(i) {
		if s.fault == faultRefused {
			return Request{}, s.refusal
		}
		return Request{}, s.err()
	}
	switch {
	case s.seen&(1<<fModel) == 0:
		return Request{}, &FieldError{"model", "is required"}
	case s.seen&(1<<fMessages) == 0:
		return Request{}, &FieldError{"messages", "is required"}
	}
	return s.r, nil
}

// requestScanner is a scanner that knows the shape of requests. The depth constants
// in its methods are how many containers are open where a value is skipped.
type requestScanner struct {
	scanner
	r       Request
	seen    uint32      // bit per field, to tell repeated keys
	refusal *FieldError // with faultRefused

	collect bool   // where inline media are, into inline
	inline  []Span // in no order
}

// refuse stops at JSON that is valid as far as it was read.
func (s *requestScanner) refuse(field, msg string) int {
	s.refusal = &FieldError{Field: field, Msg: msg}
	return s.fail(0, faultRefused)
}

// Fields that may stand only once at their level.
const (
	fModel = iota
	fMessages
	fStream
	fStreamOptions
	fIncludeUsage
	fMaxTokens
	fMaxCompletionTokens
	fN
	fThinking
	fBudgetTokens
	fTools
	fSystem
)

// once notes that field was met and refuses its second time.
func (s *requestScanner) once(field uint, name string) bool {
	if s.seen&(1<<field) != 0 {
		s.refuse(name, "is given more than once")
		return false
	}
	s.seen |= 1 << field
	return true
}

func (s *requestScanner) top(i int) int {
	i++
	s.r.open = i
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			return at
		}
		switch string(key) {
		case "model":
			i = s.model(at)
		case "messages":
			i = s.messages(at)
			s.r.Messages = Span{at, max(i, 0)}
		case "stream":
			i = s.flag(at, fStream, "stream", &s.r.Stream)
		case "stream_options":
			i = s.options(at)
		case "max_tokens":
			i = s.count(at, fMaxTokens, "max_tokens", &s.r.MaxTokens)
		case "max_completion_tokens":
			i = s.count(at, fMaxCompletionTokens, "max_completion_tokens", &s.r.MaxCompletionTokens)
		case "n":
			i = s.choices(at)
		case "thinking":
			i = s.thinking(at)
		case "tools":
			i = s.tools(at)
		case "system":
			i = s.system(at)
		case "mcp_servers":
			i = s.remote(at, "MCP servers")
		case "web_search_options":
			i = s.remote(at, "web search")
		case "previous_response_id":
			i = s.remote(at, "previous response")
		case "conversation":
			i = s.remote(at, "stored conversation")
		case "container":
			i = s.remote(at, "container")
		default:
			if s.misspelt(key, "model", "messages", "stream", "stream_options", "max_tokens",
				"max_completion_tokens", "n", "thinking", "tools", "system", "mcp_servers",
				"web_search_options", "previous_response_id", "conversation", "container") {
				return -1
			}
			i = s.skip(at, 1)
		}
	}
}

// misspelt refuses a key that equals one of names but for the case of its letters.
func (s *requestScanner) misspelt(key []byte, names ...string) bool {
	odd := false
	for _, c := range key {
		odd = odd || 'A' <= c && c <= 'Z' || c >= 0x80
	}
	if !odd {
		return false
	}
	for _, name := range names {
		// Folding knows that ſ is an s and K (Kelvin) a k, as encoding/json does.
		if len(key) <= 3*len(name) && bytes.EqualFold(key, []byte(name)) {
			s.refuse(name, "is written in another case")
			return true
		}
	}
	return false
}

func (s *requestScanner) model(i int) int {
	if !s.once(fModel, "model") {
		return -1
	}
	if s.b[i] != '"' {
		return s.wrong(i, "model", "must be a string")
	}
	s.escapes = false
	j := s.str(i)
	if j < 0 {
		return -1
	}
	raw := s.b[i+1 : j-1]
	if len(raw) == 0 {
		return s.refuse("model", "must not be empty")
	}
	if s.escapes {
		raw = decode(make([]byte, 0, len(raw)), raw)
	}
	s.r.Model, s.r.ModelSpan = raw, Span{i, j}
	return j
}

// wrong refuses a value of the wrong type, unless it is not even valid JSON.
func (s *requestScanner) wrong(i int, field, msg string) int {
	if s.skip(i, 8) < 0 {
		return -1
	}
	return s.refuse(field, msg)
}

// flag reads true, false or null.
func (s *requestScanner) flag(i int, field uint, name string, v *bool) int {
	if !s.once(field, name) {
		return -1
	}
	switch s.b[i] {
	case 't':
		*v = true
		return s.literal(i, "true")
	case 'f':
		return s.literal(i, "false")
	case 'n':
		return s.literal(i, "null")
	}
	return s.wrong(i, name, "must be true, false or null")
}

// count reads a whole number ≥ 0 or null.
func (s *requestScanner) count(i int, field uint, name string, f *IntField) int {
	if !s.once(field, name) {
		return -1
	}
	j := s.skip(i, 8)
	if j < 0 {
		return -1
	}
	f.Span = Span{i, j}
	if s.b[i] == 'n' {
		f.Null = true
		return j
	}
	v, ok := parseCount(s.b[i:j])
	if !ok {
		return s.refuse(name, "must be a whole number ≥ 0 or null")
	}
	f.Value = v
	return j
}

func (s *requestScanner) choices(i int) int {
	var f IntField
	if i = s.count(i, fN, "n", &f); i < 0 {
		return -1
	}
	if f.Null {
		return i
	}
	if f.Value < 1 || f.Value > MaxChoices {
		return s.refuse("n", fmt.Sprintf("must be a whole number from 1 to %d", MaxChoices))
	}
	s.r.N = f.Value
	return i
}

func (s *requestScanner) options(i int) int {
	if !s.once(fStreamOptions, "stream_options") {
		return -1
	}
	start := i
	switch s.b[i] {
	case 'n':
		s.r.optionsNull = true
		i = s.literal(i, "null")
	case '{':
		i++
		s.r.optionsEmpty = true
		for first := true; ; first = false {
			key, at, done := s.member(i, first)
			if done {
				i = at
				break
			}
			s.r.optionsEmpty = false
			if string(key) == "include_usage" {
				i = s.flag(at, fIncludeUsage, "stream_options.include_usage", &s.r.IncludeUsage)
				s.r.includeUsage = Span{at, i}
			} else if s.misspelt(key, "include_usage") {
				return -1
			} else {
				i = s.skip(at, 2)
			}
		}
	default:
		return s.wrong(i, "stream_options", "must be an object or null")
	}
	s.r.streamOptions = Span{start, i}
	return i
}

func (s *requestScanner) thinking(i int) int {
	if !s.once(fThinking, "thinking") {
		return -1
	}
	switch s.b[i] {
	case 'n':
		return s.literal(i, "null")
	case '{':
	default:
		return s.wrong(i, "thinking", "must be an object or null")
	}
	i++
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			return at
		}
		if string(key) == "budget_tokens" {
			i = s.count(at, fBudgetTokens, "thinking.budget_tokens", &s.r.ThinkingBudget)
		} else if s.misspelt(key, "budget_tokens") {
			return -1
		} else {
			i = s.skip(at, 2)
		}
	}
}

// remote reads a field that, unless null or empty, makes the upstream fetch input
// of its own.
func (s *requestScanner) remote(i int, what string) int {
	j := s.skip(i, 1)
	if j < 0 {
		return -1
	}
	if c := s.b[i]; c != 'n' && (c != '[' || s.space(i+1) != j-1) {
		s.unbounded(what)
	}
	return j
}

func (s *requestScanner) unbounded(what string) {
	if s.r.Unbounded == "" {
		s.r.Unbounded = what
	}
}

// OutputCap is how many tokens of output one choice may have by the request's own
// caps: the largest of them, at most MaxCount; def when they are absent, null or 0.
func (r *Request) OutputCap(def int64) int64 {
	var v int64
	if r.MaxTokens.asks() {
		v = r.MaxTokens.Value
	}
	if r.MaxCompletionTokens.asks() && r.face != Anthropic {
		v = max(v, r.MaxCompletionTokens.Value)
	}
	if v == 0 {
		return def
	}
	return min(v, MaxCount)
}
