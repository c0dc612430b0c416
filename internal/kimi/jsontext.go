package kimi

import (
	"bytes"
	"unicode/utf8"
)

// AppendString appends text as a JSON string. Invalid UTF-8 becomes U+FFFD.
func AppendString(dst []byte, text string) []byte {
	return append(appendEscaped(append(dst, '"'), text), '"')
}

// appendEscaped appends text as it stands between the quotes of a JSON string.
func appendEscaped[T string | []byte](dst []byte, text T) []byte {
	const hex = "0123456789abcdef"
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRuneInString(string(text[i:min(i+utf8.UTFMax, len(text))]))
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
	}
	return dst
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
