package kimi

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
