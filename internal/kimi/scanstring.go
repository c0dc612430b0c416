package kimi

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

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
