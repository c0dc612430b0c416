package kimisim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Places where usage is reported; see Behavior.UsagePlace.
const (
	UsageAuto      = "auto"        // as Kimi does
	UsageChoice    = "choice"      // OpenAI: choices[0].usage of the finish chunk
	UsageTop       = "top"         // OpenAI: an extra chunk with top-level usage
	UsageBoth      = "both"        // OpenAI: both of the above
	UsageNone      = "none"        // nowhere
	UsageDelta     = "delta"       // Anthropic: zeros in message_start, counts in message_delta
	UsageStartBoth = "start+delta" // Anthropic: in message_start and in message_delta
)

// Behavior says how one request is answered. The zero value answers at once, correctly.
//
// In JSON the fields have the names of their tags, durations are strings such as "200ms",
// and unknown fields are errors.
//
// Positions (the …AfterEvents family) count SSE events: n > 0 is after n events, a
// negative value is before the first, 0 is never.
type Behavior struct {
	// Tag is copied into the ledger entry, so that a test can find its request.
	Tag string `json:"tag,omitempty"`

	// TTFT is the time to the first event (or to the answer, without streaming).
	TTFT time.Duration `json:"ttft,omitempty"`
	// EarlyHead sends the response head at once instead of with the first event.
	EarlyHead bool `json:"early_head,omitempty"`
	// TokensPerSecond paces the output. 0 is as fast as the socket takes it.
	TokensPerSecond float64 `json:"tokens_per_second,omitempty"`
	// TokensPerChunk is the number of tokens in one event. Defaults to 1.
	TokensPerChunk int `json:"tokens_per_chunk,omitempty"`

	// OutputTokens is how long the answer wants to be, reasoning included. 0 derives 16
	// to 143 from a hash of the messages; negative means none. The request's cap cuts it.
	OutputTokens int `json:"output_tokens,omitempty"`
	// ExceedCap ignores max_tokens and max_completion_tokens.
	ExceedCap bool `json:"exceed_cap,omitempty"`
	// HiddenTokens are counted in usage but never sent, as a chat template's end tokens.
	HiddenTokens int `json:"hidden_tokens,omitempty"`
	// CachedTokens is the part of the prompt found in the cache, at most the prompt.
	// Negative is automatic: the largest multiple of 256 below the prompt's size.
	CachedTokens int `json:"cached_tokens,omitempty"`
	// ReasoningTokens come before the text and are part of OutputTokens.
	ReasoningTokens int `json:"reasoning_tokens,omitempty"`
	// ToolCalls is how many tools are called, unless the conversation already ends with
	// a tool's result. A request with tools whose last user message says "call the tool"
	// gets one anyway.
	ToolCalls int `json:"tool_calls,omitempty"`
	// ToolName and ToolArguments replace the request's own tool and the generated JSON.
	ToolName      string `json:"tool_name,omitempty"`
	ToolArguments string `json:"tool_arguments,omitempty"`
	// Text replaces the generated text; its tokens are as CountTokens counts them.
	Text string `json:"text,omitempty"`
	// BigEvent makes the first text token that many bytes long.
	BigEvent int `json:"big_event,omitempty"`

	// UsagePlace is one of the Usage constants. Defaults to UsageAuto: choices[0].usage,
	// or the extra chunk if the request has include_usage; start and delta on the
	// Anthropic face.
	UsagePlace string `json:"usage_place,omitempty"`
	// NegativeUsage and AbsurdUsage report counts of -7 and 10^15.
	NegativeUsage bool `json:"negative_usage,omitempty"`
	AbsurdUsage   bool `json:"absurd_usage,omitempty"`
	// RawUsage is sent as the usage object as it is.
	RawUsage json.RawMessage `json:"raw_usage,omitempty"`

	// ChunkBytes cuts what is written into writes (and HTTP chunks) of that many bytes.
	ChunkBytes int `json:"chunk_bytes,omitempty"`
	// ChunkPause waits between these writes, so that they arrive separately.
	ChunkPause time.Duration `json:"chunk_pause,omitempty"`
	// EventsPerWrite collects that many events for one write. Defaults to 1.
	EventsPerWrite int `json:"events_per_write,omitempty"`
	// CRLF, CR, NoSpace, BOM and MultiLine are framing variants: line ends, `data:{`,
	// a byte order mark first, and JSON spread over two data lines.
	CRLF      bool `json:"crlf,omitempty"`
	CR        bool `json:"cr,omitempty"`
	NoSpace   bool `json:"no_space,omitempty"`
	BOM       bool `json:"bom,omitempty"`
	MultiLine bool `json:"multi_line,omitempty"`
	// Comments puts a comment before every n-th event, Ping a ping event (a comment on
	// the OpenAI face).
	Comments int `json:"comments,omitempty"`
	Ping     int `json:"ping,omitempty"`
	// Stamp puts the send time in Unix nanoseconds into each event's JSON as "t".
	Stamp bool `json:"stamp,omitempty"`
	// NoEndMark leaves out [DONE] or message_stop; NoFinish the finish reason as well.
	NoEndMark bool `json:"no_end_mark,omitempty"`
	NoFinish  bool `json:"no_finish,omitempty"`

	// Gzip compresses if the request accepts gzip.
	Gzip bool `json:"gzip,omitempty"`
	// CloseDelimited sends neither length nor chunks: the body ends with the connection.
	CloseDelimited bool `json:"close_delimited,omitempty"`
	// NoKeepAlive answers with Connection: close.
	NoKeepAlive bool `json:"no_keep_alive,omitempty"`
	// SlowHeaders is a pause after each 16 bytes of the response head.
	SlowHeaders time.Duration `json:"slow_headers,omitempty"`
	// ExtraHeaders adds headers that identify the account and a cookie.
	ExtraHeaders bool `json:"extra_headers,omitempty"`
	// Headers are added to the response, after all others.
	Headers map[string]string `json:"headers,omitempty"`

	// Error answers with a case of 08_errors.json (see ErrorCases) by its name or an
	// unambiguous part of it; in JSON it may also be {"status","headers","body"}.
	Error string `json:"-"`
	// ErrorResponse answers with this response.
	ErrorResponse *ErrorResponse `json:"-"`
	// RetryAfter replaces the Retry-After headers of an error; negative removes them.
	RetryAfter time.Duration `json:"retry_after,omitempty"`
	// Non2xxHTML answers with a 502 in HTML.
	Non2xxHTML bool `json:"non2xx_html,omitempty"`

	// StallBeforeHead says nothing until the client goes; CutBeforeHead closes instead.
	StallBeforeHead bool `json:"stall_before_head,omitempty"`
	CutBeforeHead   bool `json:"cut_before_head,omitempty"`
	// ErrorAfterEvents sends an error event in the face's shape and ends the body. A
	// non-stream answer becomes a 200 with an error body.
	ErrorAfterEvents int `json:"error_after_events,omitempty"`
	// StallAfterEvents goes silent until the client goes, or for StallFor if that is set.
	StallAfterEvents int           `json:"stall_after_events,omitempty"`
	StallFor         time.Duration `json:"stall_for,omitempty"`
	// CutAfterEvents closes the connection after whole events (and whole HTTP chunks,
	// without the last one). Of a non-stream answer half the body is sent, as it is with
	// the two below.
	CutAfterEvents int `json:"cut_after_events,omitempty"`
	// CutMidEvent closes inside the event that follows, in the middle of an HTTP chunk.
	CutMidEvent int `json:"cut_mid_event,omitempty"`
	// CutOnChunkBoundary closes inside the event that follows, after a whole HTTP chunk.
	CutOnChunkBoundary int `json:"cut_on_chunk_boundary,omitempty"`
	// Reset makes each of the cuts a TCP reset; alone it resets instead of answering.
	Reset bool `json:"reset,omitempty"`
	// CloseIdle closes the kept-alive connection right after a complete answer.
	CloseIdle bool `json:"close_idle,omitempty"`
	// DropNext answers normally and closes the connection when the next request has
	// arrived on it, before a byte of an answer.
	DropNext bool `json:"drop_next,omitempty"`
}

// ErrorResponse is a whole response that is not an answer.
type ErrorResponse struct {
	Case    string            `json:"case,omitempty"`
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers,omitempty"`
	// Body is sent as it is if it is JSON of any kind but a string; a JSON string is
	// sent decoded.
	Body     json.RawMessage `json:"body,omitempty"`
	BodyText string          `json:"body_text,omitempty"`
}

// UnmarshalJSON lays the JSON over b: fields that it does not name keep their value.
func (b *Behavior) UnmarshalJSON(data []byte) error {
	type plain Behavior
	aux := struct {
		*plain
		TTFT        *duration       `json:"ttft"`
		ChunkPause  *duration       `json:"chunk_pause"`
		SlowHeaders *duration       `json:"slow_headers"`
		RetryAfter  *duration       `json:"retry_after"`
		StallFor    *duration       `json:"stall_for"`
		Error       json.RawMessage `json:"error"`
	}{
		plain: (*plain)(b),
		TTFT:  (*duration)(&b.TTFT), ChunkPause: (*duration)(&b.ChunkPause), SlowHeaders: (*duration)(&b.SlowHeaders),
		RetryAfter: (*duration)(&b.RetryAfter), StallFor: (*duration)(&b.StallFor),
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&aux); err != nil {
		return fmt.Errorf("behaviour: %w", err)
	}
	if len(aux.Error) > 0 {
		b.Error, b.ErrorResponse = "", nil
		var err error
		if aux.Error[0] == '{' {
			err = json.Unmarshal(aux.Error, &b.ErrorResponse)
		} else {
			err = json.Unmarshal(aux.Error, &b.Error)
		}
		if err != nil {
			return fmt.Errorf("behaviour: error: %w", err)
		}
	}
	return b.validate()
}

// MarshalJSON writes the fields that differ from the zero value.
func (b Behavior) MarshalJSON() ([]byte, error) {
	type plain Behavior
	aux := struct {
		plain
		TTFT        duration `json:"ttft,omitempty"`
		ChunkPause  duration `json:"chunk_pause,omitempty"`
		SlowHeaders duration `json:"slow_headers,omitempty"`
		RetryAfter  duration `json:"retry_after,omitempty"`
		StallFor    duration `json:"stall_for,omitempty"`
		Error       any      `json:"error,omitempty"`
	}{
		plain: plain(b),
		TTFT:  duration(b.TTFT), ChunkPause: duration(b.ChunkPause), SlowHeaders: duration(b.SlowHeaders),
		RetryAfter: duration(b.RetryAfter), StallFor: duration(b.StallFor),
	}
	switch {
	case b.ErrorResponse != nil:
		aux.Error = b.ErrorResponse
	case b.Error != "":
		aux.Error = b.Error
	}
	return json.Marshal(aux)
}

func (b *Behavior) validate() error {
	switch b.UsagePlace {
	case "", UsageAuto, UsageChoice, UsageTop, UsageBoth, UsageNone, UsageDelta, UsageStartBoth:
	default:
		return fmt.Errorf("behaviour: usage_place %q is none of auto, choice, top, both, none, delta, start+delta", b.UsagePlace)
	}
	if b.Error != "" {
		if _, err := errorCase(b.Error); err != nil {
			return fmt.Errorf("behaviour: %w", err)
		}
	}
	if b.ErrorResponse != nil && (b.ErrorResponse.Status < 200 || b.ErrorResponse.Status > 599) {
		return fmt.Errorf("behaviour: error status %d is not between 200 and 599", b.ErrorResponse.Status)
	}
	if b.TokensPerSecond < 0 || b.BigEvent < 0 || b.BigEvent > 64<<20 || b.OutputTokens > 50_000_000 {
		return errors.New("behaviour: a number is out of range")
	}
	return nil
}

// fires tells whether a position of the …AfterEvents family is reached after n events.
func fires(position, n int) bool {
	return position != 0 && max(position, 0) == n
}

// duration reads "200ms" and writes it.
type duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

// marker begins a behaviour in the text of a message.
const marker = "[[sim:"

// markedBehavior returns the JSON of the first [[sim:{…}]] in a text.
func markedBehavior(text string) ([]byte, error) {
	_, text, _ = strings.Cut(text, marker)
	dec := json.NewDecoder(strings.NewReader(text))
	var v json.RawMessage
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("behaviour: [[sim:…]]: %w", err)
	}
	if !strings.HasPrefix(strings.TrimSpace(text[dec.InputOffset():]), "]]") {
		return nil, errors.New("behaviour: [[sim:{…}]] is not closed")
	}
	return v, nil
}
