package kimi

import (
	"encoding/json"
	"strconv"
	"time"
)

// ErrorFields are the parts of an upstream's error, "" where it gave none. Message
// may hold account ids: pass it through Redact before logging or relaying it.
type ErrorFields struct{ Type, Message, Code string }

// ParseError reads an error body in either face's shape, {"error":{…}} or
// {"type":"error","error":{…}}. It reports false for anything else, such as the HTML
// page of a gateway.
func ParseError(body []byte) (ErrorFields, bool) {
	var outer struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &outer) != nil || len(outer.Error) == 0 {
		return ErrorFields{}, false
	}
	switch outer.Error[0] {
	case '"':
		return ErrorFields{Message: looseString(outer.Error)}, true
	case '{':
	default:
		return ErrorFields{}, false
	}
	var inner struct{ Type, Message, Code json.RawMessage }
	if json.Unmarshal(outer.Error, &inner) != nil {
		return ErrorFields{}, false
	}
	return ErrorFields{
		Type:    looseString(inner.Type),
		Message: looseString(inner.Message),
		Code:    looseString(inner.Code),
	}, true
}

// looseString is the text of a string, a number as it is written, and "" for the rest.
func looseString(raw json.RawMessage) string {
	var text string
	if len(raw) == 0 {
		return ""
	}
	if raw[0] == '"' {
		if json.Unmarshal(raw, &text) != nil {
			return ""
		}
		return text
	}
	if raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9' {
		return string(raw)
	}
	return ""
}

// Refusal is an error of ours for a client.
type Refusal struct {
	Type    string // such as "rate_limit_exceeded"
	Code    string // OpenAI only; "" is null
	Message string
	Param   string // the field at fault, OpenAI only; "" is null

	// With ResetsAt set the body carries used, limit (tokens) and resets_at.
	Used, Limit int64
	ResetsAt    time.Time

	RequestID string // Anthropic only; left out when ""
}

// AppendError appends r as a whole body in the face's shape.
func AppendError(dst []byte, face Face, r Refusal) []byte {
	if face == Anthropic {
		dst = append(dst, `{"type":"error","error":{"type":`...)
		dst = AppendString(dst, r.Type)
		dst = append(dst, `,"message":`...)
		dst = AppendString(dst, r.Message)
		dst = appendLimit(dst, &r)
		dst = append(dst, '}')
		if r.RequestID != "" {
			dst = append(dst, `,"request_id":`...)
			dst = AppendString(dst, r.RequestID)
		}
		return append(dst, '}')
	}
	dst = append(dst, `{"error":{"message":`...)
	dst = AppendString(dst, r.Message)
	dst = append(dst, `,"type":`...)
	dst = AppendString(dst, r.Type)
	dst = append(dst, `,"code":`...)
	dst = appendNullable(dst, r.Code)
	dst = append(dst, `,"param":`...)
	dst = appendNullable(dst, r.Param)
	dst = appendLimit(dst, &r)
	return append(dst, "}}"...)
}

// AppendErrorEvent appends r as an event that ends a stream.
func AppendErrorEvent(dst []byte, face Face, r Refusal) []byte {
	if face == Anthropic {
		dst = append(dst, "event: error\n"...)
	}
	dst = append(dst, "data: "...)
	dst = AppendError(dst, face, r)
	return append(dst, "\n\n"...)
}

func appendNullable(dst []byte, text string) []byte {
	if text == "" {
		return append(dst, "null"...)
	}
	return AppendString(dst, text)
}

func appendLimit(dst []byte, r *Refusal) []byte {
	if r.ResetsAt.IsZero() {
		return dst
	}
	dst = append(dst, `,"used":`...)
	dst = strconv.AppendInt(dst, r.Used, 10)
	dst = append(dst, `,"limit":`...)
	dst = strconv.AppendInt(dst, r.Limit, 10)
	dst = append(dst, `,"resets_at":"`...)
	dst = r.ResetsAt.UTC().AppendFormat(dst, time.RFC3339)
	return append(dst, '"')
}
