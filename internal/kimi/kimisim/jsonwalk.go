package kimisim

import (
	"bytes"
	"encoding/json"
	"unicode/utf16"
	"unicode/utf8"
)

// The walkers below only ever see bytes that json.Valid accepted; that is why they check
// nothing. They exist because a body of some hundred kilobytes is walked for each request
// and a decoded tree of it would cost more than the rest of the answer.

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// stringEnd returns the index after the closing quote of the string that starts at b[i].
func stringEnd(b []byte, i int) int {
	i++
	for {
		q := bytes.IndexByte(b[i:], '"')
		if q < 0 {
			return len(b)
		}
		if bytes.IndexByte(b[i:i+q], '\\') < 0 {
			return i + q + 1
		}
		for end := i + q; i < end; {
			if b[i] == '\\' {
				i++
			}
			i++
		}
		// i is past the quote if that quote was escaped.
		if i < len(b) && b[i] == '"' {
			return i + 1
		}
	}
}

// valueEnd returns the index after the value that starts at b[i].
func valueEnd(b []byte, i int) int {
	switch b[i] {
	case '"':
		return stringEnd(b, i)
	case '{', '[':
		depth := 0
		for i < len(b) {
			switch b[i] {
			case '"':
				i = stringEnd(b, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return len(b)
	}
	for i < len(b) {
		switch b[i] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			return i
		}
		i++
	}
	return i
}

// eachField calls fn for each member of a JSON object, in order, duplicates included.
func eachField(v []byte, fn func(key string, val []byte)) {
	i := skipSpace(v, 0)
	if i >= len(v) || v[i] != '{' {
		return
	}
	for i = skipSpace(v, i+1); i < len(v) && v[i] == '"'; i = skipSpace(v, i) {
		end := stringEnd(v, i)
		key := unquote(v[i:end])
		i = skipSpace(v, skipSpace(v, end)+1) // the colon
		end = valueEnd(v, i)
		fn(key, v[i:end])
		i = skipSpace(v, end)
		if i >= len(v) || v[i] != ',' {
			return
		}
		i++
	}
}

// eachElement calls fn for each element of a JSON array.
func eachElement(v []byte, fn func(val []byte)) {
	i := skipSpace(v, 0)
	if i >= len(v) || v[i] != '[' {
		return
	}
	for i = skipSpace(v, i+1); i < len(v) && v[i] != ']'; i = skipSpace(v, i) {
		end := valueEnd(v, i)
		fn(v[i:end])
		i = skipSpace(v, end)
		if i >= len(v) || v[i] != ',' {
			return
		}
		i++
	}
}

// field returns the last member of an object with that exact name, nil without one.
func field(v []byte, name string) []byte {
	var found []byte
	eachField(v, func(k string, e []byte) {
		if k == name {
			found = e
		}
	})
	return found
}

// fieldString returns a string member, "" when it is missing or no string.
func fieldString(v []byte, name string) string {
	if e := field(v, name); len(e) > 0 && e[0] == '"' {
		return unquote(e)
	}
	return ""
}

// unquote decodes a JSON string.
func unquote(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// stringLen returns the bytes of a JSON string once decoded. A lone surrogate counts as
// the three bytes of U+FFFD.
func stringLen(raw []byte) int {
	s := raw[1 : len(raw)-1]
	n := 0
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return n + len(s)
		}
		n += i
		s = s[i+1:]
		if s[0] != 'u' {
			n++
			s = s[1:]
			continue
		}
		r := hex4(s[1:5])
		s = s[5:]
		if utf16.IsSurrogate(r) {
			if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' && utf16.DecodeRune(r, hex4(s[2:6])) != utf8.RuneError {
				n += 4
				s = s[6:]
				continue
			}
			r = utf8.RuneError
		}
		n += utf8.RuneLen(r)
	}
}

func hex4(b []byte) rune {
	var r rune
	for _, c := range b {
		r <<= 4
		switch {
		case c >= 'a':
			r |= rune(c-'a') + 10
		case c >= 'A':
			r |= rune(c-'A') + 10
		default:
			r |= rune(c - '0')
		}
	}
	return r
}

// appendJSON appends s as a JSON string.
func appendJSON(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			return appendJSONSlow(dst, s)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

func appendJSONSlow(dst []byte, s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return append(dst, `""`...)
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// validObject tells whether b is one JSON object.
func validObject(b []byte) bool {
	i := skipSpace(b, 0)
	return i < len(b) && b[i] == '{' && json.Valid(b)
}
