package upstream

import (
	"bytes"
	"errors"
	"fmt"
)

// Limits of a response head.
const (
	maxHeadBytes  = 64 << 10
	maxHeadFields = 256
)

// ErrMalformed is wrapped by every error of ParseHead and Chunked.Feed: the bytes are
// not HTTP/1.1 as RFC 9112 has it, and the connection cannot be used any further.
var ErrMalformed = errors.New("malformed response")

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// Head is a parsed response head. It owns a copy of its bytes; the zero value is ready
// and is reused without allocating. Not safe for concurrent use.
type Head struct {
	Status        int   // 100 to 599
	Minor         int   // of HTTP/1.x
	ContentLength int64 // -1 when absent
	Chunked       bool
	KeepAlive     bool // the connection may carry another request after the body

	raw    []byte
	fields []field
}

type field struct{ name, nameEnd, value, valueEnd uint32 }

// Get returns the value of the first field with this name, in any case, without
// surrounding blanks, and nil when there is none. It aliases the head. A nil head has no fields.
func (h *Head) Get(name string) []byte {
	if h == nil {
		return nil
	}
	for i := range h.fields {
		f := &h.fields[i]
		if equalFold(h.raw[f.name:f.nameEnd], name) {
			return h.raw[f.value:f.valueEnd]
		}
	}
	return nil
}

// reset forgets the former head and keeps the memory unless it is large.
func (h *Head) reset() {
	raw, fields := h.raw[:0], h.fields[:0]
	if cap(raw) > 4<<10 {
		raw = nil
	}
	*h = Head{ContentLength: -1, raw: raw, fields: fields}
}

// ParseHead parses the response head at the start of b into h and returns its length,
// the blank line included. It returns 0 and no error while b holds only a part of the
// head (h is then undefined), and an error that wraps ErrMalformed as soon as a complete
// line is wrong or a limit is passed, however the bytes were split.
//
// Stricter than most clients: lines end with CRLF, no folded lines, no blank before the
// colon, no control characters, Content-Length once or repeated identically, the
// only transfer coding is chunked, never together with Content-Length.
func ParseHead(b []byte, h *Head) (n int, err error) {
	const proto = "HTTP/1."
	h.reset()
	if p := min(len(b), len(proto)); string(b[:p]) != proto[:p] {
		return 0, malformed("not an HTTP/1.x response")
	}
	if len(b) > maxHeadBytes {
		b = b[:maxHeadBytes]
	}
	line, pos, err := headLine(b, 0)
	if pos == 0 || err != nil {
		return 0, tooLarge(b, err)
	}
	if err := h.parseStatus(line); err != nil {
		return 0, err
	}
	framing := framingFields{length: -1}
	for {
		start := pos
		line, pos, err = headLine(b, start)
		if pos == 0 || err != nil {
			return 0, tooLarge(b, err)
		}
		if len(line) == 0 {
			break
		}
		if err := h.parseField(line, start, &framing); err != nil {
			return 0, err
		}
	}
	if err := h.applyFraming(&framing); err != nil {
		return 0, err
	}
	h.raw = append(h.raw, b[:pos]...)
	return pos, nil
}

// headLine returns the line that starts at pos without its CRLF and the start of the
// next one, 0 when the line is not complete yet.
func headLine(b []byte, pos int) (line []byte, next int, err error) {
	i := bytes.IndexByte(b[pos:], '\n')
	if i < 0 {
		return nil, 0, nil
	}
	if i == 0 || b[pos+i-1] != '\r' {
		return nil, 0, malformed("bare LF in the head")
	}
	return b[pos : pos+i-1], pos + i + 1, nil
}

func tooLarge(b []byte, err error) error {
	if err == nil && len(b) >= maxHeadBytes {
		return malformed("head larger than 64 KiB")
	}
	return err
}

func (h *Head) parseStatus(line []byte) error {
	// HTTP/1.1 200 OK; the blank after the code may be missing together with the reason.
	if len(line) < 12 || (line[7] != '0' && line[7] != '1') || line[8] != ' ' || (len(line) > 12 && line[12] != ' ') {
		return malformed("status line")
	}
	code := 0
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return malformed("status code")
		}
		code = code*10 + int(c-'0')
	}
	if code < 100 || code > 599 {
		return malformed("status code out of range")
	}
	for _, c := range line[12:] {
		if !valueByte(c) {
			return malformed("control character in the reason phrase")
		}
	}
	h.Status, h.Minor = code, int(line[7]-'0')
	return nil
}

// framingFields collects what decides where the body ends.
type framingFields struct {
	length           int64
	chunked          bool
	close, keepAlive bool
}

func (h *Head) parseField(line []byte, start int, fr *framingFields) error {
	if line[0] == ' ' || line[0] == '\t' {
		return malformed("folded header line")
	}
	if len(h.fields) == maxHeadFields {
		return malformed("more than 256 header fields")
	}
	colon := 0
	for colon < len(line) && tokenByte(line[colon]) {
		colon++
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		return malformed("header field name")
	}
	v, e := colon+1, len(line)
	for v < e && (line[v] == ' ' || line[v] == '\t') {
		v++
	}
	for e > v && (line[e-1] == ' ' || line[e-1] == '\t') {
		e--
	}
	for _, c := range line[v:e] {
		if !valueByte(c) {
			return malformed("control character in a header value")
		}
	}
	h.fields = append(h.fields, field{uint32(start), uint32(start + colon), uint32(start + v), uint32(start + e)}) //nolint:gosec // below 64 Ki
	return fr.note(line[:colon], line[v:e])
}

func (fr *framingFields) note(name, value []byte) error {
	switch {
	case equalFold(name, "content-length"):
		n, ok := parseLength(value)
		if !ok {
			return malformed("Content-Length")
		}
		if fr.length >= 0 && fr.length != n {
			return malformed("conflicting Content-Length")
		}
		fr.length = n
	case equalFold(name, "transfer-encoding"):
		if fr.chunked || !equalFold(value, "chunked") {
			return malformed("transfer coding other than chunked")
		}
		fr.chunked = true
	case equalFold(name, "connection"):
		for len(value) > 0 {
			var opt []byte
			opt, value, _ = bytes.Cut(value, []byte{','})
			opt = bytes.Trim(opt, " \t")
			fr.close = fr.close || equalFold(opt, "close")
			fr.keepAlive = fr.keepAlive || equalFold(opt, "keep-alive")
		}
	}
	return nil
}

func (h *Head) applyFraming(fr *framingFields) error {
	if fr.chunked && fr.length >= 0 {
		return malformed("both Content-Length and Transfer-Encoding")
	}
	if fr.chunked && h.Minor == 0 {
		return malformed("Transfer-Encoding in HTTP/1.0")
	}
	h.ContentLength, h.Chunked = fr.length, fr.chunked
	h.KeepAlive = !fr.close && (h.Minor == 1 || fr.keepAlive)
	return nil
}

// parseLength reads a decimal number of at most 18 digits.
func parseLength(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// valueByte reports whether c may stand in a header value: no control characters but TAB.
func valueByte(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }

// tokenByte reports whether c may stand in a header name (RFC 9110 token).
func tokenByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return false
}

// equalFold compares b with an ASCII name, letters in any case.
func equalFold(b []byte, name string) bool {
	if len(b) != len(name) {
		return false
	}
	for i := range len(b) {
		x, y := b[i], name[i]
		if x == y {
			continue
		}
		if x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z' {
			return false
		}
	}
	return true
}
