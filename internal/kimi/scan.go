package kimi

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// maxDepth is how many containers may be open at once. Real requests nest tool
// schemas some twenty deep; the bound keeps skipping in a fixed piece of stack.
const maxDepth = 512

// scanner walks JSON text in place. Its methods take the index where a piece begins
// and return the index behind it, or -1 after noting in the scanner what is wrong.
// Everything walked over is validated as RFC 8259 asks, UTF-8 included, so one walk
// over a whole text is a full check of it.
type scanner struct {
	b []byte

	// What failed. When refusal is set the JSON is fine as far as it was read, and
	// we refuse it for our own reasons.
	off     int
	msg     string
	refusal *FieldError

	// escapes says that str met an escape since it was last cleared.
	escapes bool
	// text adds up the raw bytes of the string values (not the keys) skipped.
	text int

	key [maxKeyLen]byte // backs decoded keys that were written with escapes
}

// maxKeyLen is longer than every key we look for, so a longer key is never ours.
const maxKeyLen = 48

func (s *scanner) fail(at int, msg string) int {
	s.off, s.msg = at, msg
	return -1
}

func (s *scanner) refuse(field, msg string) int {
	s.refusal = &FieldError{Field: field, Msg: msg}
	return -1
}

// err is the error behind a -1.
func (s *scanner) err() error {
	if s.refusal != nil {
		return s.refusal
	}
	return &SyntaxError{Offset: s.off, Msg: s.msg}
}

const endOfText = "unexpected end"

// space skips white space.
func (s *scanner) space(i int) int {
	for i < len(s.b) {
		switch s.b[i] {
		case ' ', '\n', '\r', '\t':
			i++
		default:
			return i
		}
	}
	return i
}

// begin returns where the only value of the text begins.
func (s *scanner) begin() int {
	i := s.space(0)
	if i >= len(s.b) {
		return s.fail(i, endOfText)
	}
	return i
}

// finish checks that only white space follows the only value of the text.
func (s *scanner) finish(i int) bool {
	if i < 0 {
		return false
	}
	if i = s.space(i); i < len(s.b) {
		s.fail(i, "data after the value")
		return false
	}
	return true
}

// member goes to the next member of an object; i is behind the '{' when first is
// set, else behind the previous value. It returns the decoded key, valid until the
// next call, and where the value begins. At the end of the object done is true and
// at is behind the '}'; after a failure done is true and at is -1.
func (s *scanner) member(i int, first bool) (key []byte, at int, done bool) {
	if i < 0 {
		return nil, -1, true
	}
	b := s.b
	i = s.space(i)
	if i >= len(b) {
		return nil, s.fail(i, endOfText), true
	}
	if b[i] == '}' {
		return nil, i + 1, true
	}
	if !first {
		if b[i] != ',' {
			return nil, s.fail(i, "expected a comma or the end of the object"), true
		}
		if i = s.space(i + 1); i >= len(b) {
			return nil, s.fail(i, endOfText), true
		}
	}
	if b[i] != '"' {
		return nil, s.fail(i, "expected a key"), true
	}
	s.escapes = false
	j := s.str(i)
	if j < 0 {
		return nil, -1, true
	}
	key = b[i+1 : j-1]
	if s.escapes {
		key = decodeShort(s.key[:], key)
	}
	if j = s.space(j); j >= len(b) {
		return nil, s.fail(j, endOfText), true
	}
	if b[j] != ':' {
		return nil, s.fail(j, "expected a colon"), true
	}
	if j = s.space(j + 1); j >= len(b) {
		return nil, s.fail(j, endOfText), true
	}
	return key, j, false
}

// element goes to the next element of an array, as member does for objects.
func (s *scanner) element(i int, first bool) (at int, done bool) {
	if i < 0 {
		return -1, true
	}
	b := s.b
	i = s.space(i)
	if i >= len(b) {
		return s.fail(i, endOfText), true
	}
	if first {
		if b[i] == ']' {
			return i + 1, true
		}
		return i, false
	}
	if b[i] == ']' {
		return i + 1, true
	}
	if b[i] != ',' {
		return s.fail(i, "expected a comma or the end of the array"), true
	}
	if i = s.space(i + 1); i >= len(b) {
		return s.fail(i, endOfText), true
	}
	return i, false
}

// skip walks over the value at i, inside depth open containers.
func (s *scanner) skip(i, depth int) int {
	if i >= len(s.b) {
		return s.fail(i, endOfText)
	}
	switch c := s.b[i]; c {
	case '{', '[':
		return s.container(i, depth)
	default:
		return s.scalar(i, c)
	}
}

// scalar walks over the string, number or literal at i, which begins with c.
func (s *scanner) scalar(i int, c byte) int {
	switch c {
	case '"':
		j := s.str(i)
		s.text += j - i - 2 // nonsense after a failure, when nobody reads it
		return j
	case 't':
		return s.literal(i, "true")
	case 'f':
		return s.literal(i, "false")
	case 'n':
		return s.literal(i, "null")
	default:
		return s.number(i)
	}
}

func (s *scanner) literal(i int, want string) int {
	if len(s.b)-i < len(want) || string(s.b[i:i+len(want)]) != want {
		return s.fail(i, "invalid literal")
	}
	return i + len(want)
}

// container walks over the object or array at i. It keeps which kind is open at
// each level in one bit, so that no nesting can exhaust the stack.
func (s *scanner) container(i, depth int) int {
	var objects [maxDepth / 64]uint64
	b := s.b
	level := depth - 1 // index of the innermost open container
	first := false
open:
	if level++; level >= maxDepth {
		return s.refuse("", "nested too deeply")
	}
	if b[i] == '{' {
		objects[level/64] |= 1 << (level % 64)
	} else {
		objects[level/64] &^= 1 << (level % 64)
	}
	first = true
	i++
	for {
		var done bool
		if objects[level/64]&(1<<(level%64)) != 0 {
			i, done = s.plainMember(i, first)
		} else {
			i, done = s.element(i, first)
		}
		if i < 0 {
			return -1
		}
		if done {
			if level == depth {
				return i
			}
			level--
			first = false
			continue
		}
		first = false
		c := b[i]
		if c == '{' || c == '[' {
			goto open
		}
		if i = s.scalar(i, c); i < 0 {
			return -1
		}
	}
}

// plainMember is member for objects whose keys do not matter.
func (s *scanner) plainMember(i int, first bool) (at int, done bool) {
	b := s.b
	i = s.space(i)
	if i >= len(b) {
		return s.fail(i, endOfText), true
	}
	if b[i] == '}' {
		return i + 1, true
	}
	if !first {
		if b[i] != ',' {
			return s.fail(i, "expected a comma or the end of the object"), true
		}
		if i = s.space(i + 1); i >= len(b) {
			return s.fail(i, endOfText), true
		}
	}
	if b[i] != '"' {
		return s.fail(i, "expected a key"), true
	}
	if i = s.str(i); i < 0 {
		return -1, true
	}
	if i = s.space(i); i >= len(b) {
		return s.fail(i, endOfText), true
	}
	if b[i] != ':' {
		return s.fail(i, "expected a colon"), true
	}
	if i = s.space(i + 1); i >= len(b) {
		return s.fail(i, endOfText), true
	}
	return i, false
}

// Masks for looking at eight bytes at once.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// stops returns a word whose lowest set bit is the top bit of the first byte of x
// that ends or escapes a string, or that may not stand in one: quote, backslash,
// control character. Bits above that one mean nothing (borrows ripple upwards).
func stops(x uint64) uint64 {
	quote := x ^ ('"' * ones)
	slash := x ^ ('\\' * ones)
	return ((quote-ones)&^quote | (slash-ones)&^slash | (x-' '*ones)&^x) & highs
}

// str walks over the string at i.
func (s *scanner) str(i int) int {
	b := s.b
	i++
	start := i
	var seen uint64 // all text bytes or-ed together: the top bits tell non-ASCII
	for {
		for len(b)-i >= 16 {
			x := binary.LittleEndian.Uint64(b[i:])
			y := binary.LittleEndian.Uint64(b[i+8:])
			if m := stops(x); m != 0 {
				seen |= x & (m&-m - 1)
				i += bits.TrailingZeros64(m) >> 3
				goto stop
			}
			if m := stops(y); m != 0 {
				seen |= x | y&(m&-m-1)
				i += 8 + bits.TrailingZeros64(m)>>3
				goto stop
			}
			seen |= x | y
			i += 16
		}
		for ; ; i++ {
			if i >= len(b) {
				return s.fail(len(b), endOfText)
			}
			c := b[i]
			if c == '"' || c == '\\' || c < ' ' {
				break
			}
			seen |= uint64(c)
		}
	stop:
		switch b[i] {
		case '"':
			if seen&highs != 0 && !utf8.Valid(b[start:i]) {
				return s.fail(start+invalidUTF8(b[start:i]), "invalid UTF-8")
			}
			return i + 1
		case '\\':
			s.escapes = true
			if i = s.escape(i); i < 0 {
				return -1
			}
		default:
			return s.fail(i, "control character in a string")
		}
	}
}

// escape walks over the escape sequence at i.
func (s *scanner) escape(i int) int {
	b := s.b
	if i+1 >= len(b) {
		return s.fail(len(b), endOfText)
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		if len(b)-i < 6 {
			return s.fail(len(b), endOfText)
		}
		if _, ok := hex4(b[i+2 : i+6]); !ok {
			return s.fail(i, "invalid \\u escape")
		}
		return i + 6
	}
	return s.fail(i, "invalid escape")
}

func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(b)
}

// number walks over the number at i.
func (s *scanner) number(i int) int {
	b := s.b
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch {
	case i >= len(b):
		return s.fail(i, endOfText)
	case b[i] == '0':
		i++
	case '1' <= b[i] && b[i] <= '9':
		i = digits(b, i)
	default:
		return s.fail(i, "invalid value")
	}
	if i < len(b) && b[i] == '.' {
		j := digits(b, i+1)
		if j == i+1 {
			return s.fail(j, "digit expected")
		}
		i = j
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		j := digits(b, i)
		if j == i {
			return s.fail(j, "digit expected")
		}
		i = j
	}
	return i
}

func digits(b []byte, i int) int {
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	return i
}

func hex4(b []byte) (v uint32, ok bool) {
	for _, c := range b[:4] {
		v <<= 4
		switch {
		case '0' <= c && c <= '9':
			v |= uint32(c - '0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			v |= uint32(c|0x20-'a') + 10
		default:
			return 0, false
		}
	}
	return v, true
}

// decode appends to dst what the raw text of a valid JSON string (without quotes)
// stands for. Lone surrogates become U+FFFD, as encoding/json has it.
func decode(dst, raw []byte) []byte {
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return append(dst, raw...)
		}
		dst = append(dst, raw[:i]...)
		c := raw[i+1]
		raw = raw[i+2:]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			v, _ := hex4(raw)
			raw = raw[4:]
			r := rune(v)
			if 0xD800 <= r && r < 0xDC00 && len(raw) >= 6 && raw[0] == '\\' && raw[1] == 'u' {
				if low, _ := hex4(raw[2:]); 0xDC00 <= low && low < 0xE000 {
					r = 0x10000 + (r-0xD800)<<10 + rune(low) - 0xDC00
					raw = raw[6:]
				}
			}
			dst = utf8.AppendRune(dst, r) // a surrogate becomes U+FFFD
			continue
		}
		dst = append(dst, c)
	}
}

// decodeShort decodes raw into buf when the result fits, without allocating. A text
// that does not fit comes back as it is: it holds a backslash, so it equals none of
// the names we compare with.
func decodeShort(buf, raw []byte) []byte {
	if len(raw) > 6*len(buf) {
		return raw
	}
	var full [6 * maxKeyLen]byte
	out := decode(full[:0], raw)
	if len(out) > len(buf) {
		return raw
	}
	return buf[:copy(buf, out)]
}
