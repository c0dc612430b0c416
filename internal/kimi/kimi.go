// Package kimi reads the two wire formats that Kimi speaks, the OpenAI one and the
// Anthropic one, as far as a metering proxy must: which model and how much output a
// request asks for, where an event of a stream ends, what was used, what failed.
//
// Nothing here builds a tree: requests and answers are scanned in place, and edits
// are byte splices, so that bodies pass as they are. No I/O, no goroutines, no state
// between calls other than what the caller holds.
package kimi

// Face is a wire format.
type Face uint8

// The faces.
const (
	OpenAI    Face = iota + 1 // POST /v1/chat/completions
	Anthropic                 // POST /v1/messages
)
