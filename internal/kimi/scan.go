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

	// What failed, and where. A code and not an error: the scanner lives on the
	// stack, and a pointer that could leave it would push what it points to off it.
	fault fault
	off   int

	// escapes says that str met an escape since it was last cleared.
	escapes bool
	// text adds up the raw bytes of the string values (not the keys) skipped.
	text int

	key [maxKeyLen]byte // backs decoded keys that were written with escapes
}

// maxKeyLen is longer than every key we look for, so a longer key is never ours.
const maxKeyLen = 48

// fault is why a walk stopped.
type fault uint8

const (
	faultEnd fault = iota
	faultTrailing
	faultObject
	faultKey
	faultColon
	faultArray
	faultLiteral
	faultValue
	faultDigit
	faultControl
	faultEscape
	faultUnicodeEscape
	faultUTF8
	faultDepth   // valid as far as read, but too deep for us
	faultRefused // valid as far as read; the requestScanner knows what was wrong
)

func (f fault) text() string {
	switch f {
	case faultEnd:
		return "unexpected end"
	case faultTrailing:
		return "data after the value"
	case faultObject:
		return "expected a comma or the end of the object"
	case faultKey:
		return "expected a key"
	case faultColon:
		return "expected a colon"
	case faultArray:
		return "expected a comma or the end of the array"
	case faultLiteral:
		return "invalid literal"
	case faultValue:
		return "expected a value"
	case faultDigit:
		return "expected a digit"
	case faultControl:
		return "control character in a string"
	case faultEscape:
		return "invalid escape"
	case faultUnicodeEscape:
		return "invalid \\u escape"
	case faultUTF8:
		return "invalid UTF-8"
	}
	return "invalid"
}

func (s *scanner) fail(at int, f fault) int {
	s.off, s.fault = at, f
	return -1
}

// err is the error behind a -1.
func (s *scanner) err() error {
	if s.fault == faultDepth {
		return &FieldError{Msg: "is nested too deeply"}
	}
	return &SyntaxError{Offset: s.off, Msg: s.fault.text()}
}

// notObject is the error for a text whose value, at i, is not an object: whether it
// is JSON at all decides which.
func (s *scanner) notObject(i int) error {
	if s.finish(s.skip(i, 0)) {
		return &FieldError{Msg: "must be a JSON object"}
	}
	return s.err()
}

// space skips white space. It is small enough to be inlined where there is none.
func (s *scanner) space(i int) int {
	if i < len(s.b) && s.b[i] > ' ' {
		return i
	}
	return s.blanks(i)
}

func (s *scanner) blanks(i int) int {
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
		return s.fail(i, faultEnd)
	}
	return i
}

// finish checks that only white space follows the only value of the text.
func (s *scanner) finish(i int) bool {
	if i < 0 {
		return false
	}
	if i = s.space(i); i < len(s.b) {
		s.fail(i, faultTrailing)
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
		return nil, s.fail(i, faultEnd), true
	}
	if b[i] == '}' {
		return nil, i + 1, true
	}
	if !first {
		if b[i] != ',' {
			return nil, s.fail(i, faultObject), true
		}
		if i = s.space(i + 1); i >= len(b) {
			return nil, s.fail(i, faultEnd), true
		}
	}
	if b[i] != '"' {
		return nil, s.fail(i, faultKey), true
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
		return nil, s.fail(j, faultEnd), true
	}
	if b[j] != ':' {
		return nil, s.fail(j, faultColon), true
	}
	if j = s.space(j + 1); j >= len(b) {
		return nil, s.fail(j, faultEnd), true
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
		return s.fail(i, faultEnd), true
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
		return s.fail(i, faultArray), true
	}
	if i = s.space(i + 1); i >= len(b) {
		return s.fail(i, faultEnd), true
	}
	return i, false
}

// skip walks over the value at i, inside depth open containers.
func (s *scanner) skip(i, depth int) int {
	if i >= len(s.b) {
		return s.fail(i, faultEnd)
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
		return s.fail(i, faultLiteral)
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
		return s.fail(i, faultDepth)
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
		return s.fail(i, faultEnd), true
	}
	if b[i] == '}' {
		return i + 1, true
	}
	if !first {
		if b[i] != ',' {
			return s.fail(i, faultObject), true
		}
		if i = s.space(i + 1); i >= len(b) {
			return s.fail(i, faultEnd), true
		}
	}
	if b[i] != '"' {
		return s.fail(i, faultKey), true
	}
	if i = s.str(i); i < 0 {
		return -1, true
	}
	if i = s.space(i); i >= len(b) {
		return s.fail(i, faultEnd), true
	}
	if b[i] != ':' {
		return s.fail(i, faultColon), true
	}
	if i = s.space(i + 1); i >= len(b) {
		return s.fail(i, faultEnd), true
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
//
// Flipping bit 1 moves the quote to 0x20 and what was there out of the way, so that
// one comparison finds quotes and control characters together.
func stops(x uint64) uint64 {
	return (((x ^ 2*ones) - 0x21*ones) | ((x ^ '\\'*ones) - ones)) &^ x & highs
}

// str walks over the string at i.
func (s *scanner) str(i int) int {
	b := s.b
	i++
	start := i
	var seen uint64 // all text bytes or-ed together: the top bits tell non-ASCII
	for {
		for len(b)-i >= 8 {
			x := binary.LittleEndian.Uint64(b[i:])
			if m := stops(x); m != 0 {
				seen |= x & (m&-m - 1)
				i += bits.TrailingZeros64(m) >> 3
				goto stop
			}
			seen |= x
			i += 8
			// Most strings are short; the others are worth larger strides.
			for len(b)-i >= 32 {
				c := b[i : i+32 : i+32]
				w0 := binary.LittleEndian.Uint64(c)
				w1 := binary.LittleEndian.Uint64(c[8:])
				w2 := binary.LittleEndian.Uint64(c[16:])
				w3 := binary.LittleEndian.Uint64(c[24:])
				m0, m1, m2, m3 := stops(w0), stops(w1), stops(w2), stops(w3)
				if m0|m1|m2|m3 == 0 {
					seen |= w0 | w1 | w2 | w3
					i += 32
					continue
				}
				// Up to the stop the text counts for seen; a little beyond it
				// costs at most a needless look for UTF-8.
				seen |= w0
				if m0 == 0 {
					i, m0 = i+8, m1
					seen |= w1
					if m0 == 0 {
						i, m0 = i+8, m2
						seen |= w2
						if m0 == 0 {
							i, m0 = i+8, m3
							seen |= w3
						}
					}
				}
				i += bits.TrailingZeros64(m0) >> 3
				goto stop
			}
		}
		for ; ; i++ {
			if i >= len(b) {
				return s.fail(len(b), faultEnd)
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
			if seen&highs != 0 {
				if bad := invalidUTF8(b[start:i]); bad >= 0 {
					return s.fail(start+bad, faultUTF8)
				}
			}
			return i + 1
		case '\\':
			s.escapes = true
			if i+1 < len(b) && shortEscape(b[i+1]) {
				i += 2
				continue
			}
			if i = s.escape(i); i < 0 {
				return -1
			}
		default:
			return s.fail(i, faultControl)
		}
	}
}

// shortEscape reports whether c makes an escape of two characters.
func shortEscape(c byte) bool {
	const (
		low  = 1<<'"' | 1<<'/'
		high = 1<<('\\'-64) | 1<<('b'-64) | 1<<('f'-64) | 1<<('n'-64) | 1<<('r'-64) | 1<<('t'-64)
	)
	if c < 64 {
		return low>>c&1 != 0
	}
	return uint64(high)>>(c-64)&1 != 0 // 0 for shifts of 64 and more
}

// escape walks over the escape sequence at i.
func (s *scanner) escape(i int) int {
	b := s.b
	if i+1 >= len(b) {
		return s.fail(len(b), faultEnd)
	}
	if shortEscape(b[i+1]) {
		return i + 2
	}
	if b[i+1] == 'u' {
		if len(b)-i < 6 {
			return s.fail(len(b), faultEnd)
		}
		if _, ok := hex4(b[i+2 : i+6]); !ok {
			return s.fail(i, faultUnicodeEscape)
		}
		return i + 6
	}
	return s.fail(i, faultEscape)
}

// invalidUTF8 returns where b stops being valid UTF-8, or -1. Text in Chinese is
// common here, so ASCII and most three-byte characters have short ways.
func invalidUTF8(b []byte) int {
	i := 0
	for len(b)-i >= 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		if x&highs == 0 {
			i += 8
			continue
		}
		if ascii := bits.TrailingZeros64(x&highs) >> 3; ascii > 0 {
			if i += ascii; len(b)-i < 8 {
				break
			}
			x = binary.LittleEndian.Uint64(b[i:])
		}
		// U+1000 to U+CFFF: leads E1 to EC, whose continuations are unrestricted.
		for x&0xC0C0F0 == 0x8080E0 && uint8(x)-0xE1 <= 0xEC-0xE1 {
			i += 3
			if x >>= 24; x&0xC0C0F0 == 0x8080E0 && uint8(x)-0xE1 <= 0xEC-0xE1 {
				i += 3
			}
			if len(b)-i < 8 {
				break
			}
			x = binary.LittleEndian.Uint64(b[i:])
		}
		if b[i] < utf8.RuneSelf {
			continue
		}
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// number walks over the number at i.
func (s *scanner) number(i int) int {
	b := s.b
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch {
	case i >= len(b):
		return s.fail(i, faultEnd)
	case b[i] == '0':
		i++
	case '1' <= b[i] && b[i] <= '9':
		i = digits(b, i)
	default:
		return s.fail(i, faultValue)
	}
	if i < len(b) && b[i] == '.' {
		j := digits(b, i+1)
		if j == i+1 {
			return s.fail(j, faultDigit)
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
			return s.fail(j, faultDigit)
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
