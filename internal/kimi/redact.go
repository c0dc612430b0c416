package kimi

import "bytes"

const redacted = "[redacted]"

// Redact appends b to dst with every id that tells an account or opens one replaced
// by "[redacted]": org-…, ak-…, sk-…, proj-…, our own ocp_… tokens, and the
// org-…<ak-…> of Kimi's messages as one. It works on plain and on JSON-escaped text
// and is idempotent.
//
// An id is a prefix at a place where no word is running (so "desk-top" stays) and
// the letters, digits, '-' and '_' behind it.
func Redact(dst, b []byte) []byte {
	from := 0
	for i := 0; i < len(b); {
		n := secretPrefix(b[i:])
		if n == 0 || inWord(b, i) {
			i++
			continue
		}
		end := idEnd(b, i+n)
		if end == i+n {
			i++
			continue
		}
		dst = append(dst, b[from:i]...)
		dst = append(dst, redacted...)
		i = bracketed(b, end)
		from = i
	}
	return append(dst, b[from:]...)
}

// secretPrefix returns the length of the prefix of an id that b begins with, or 0.
func secretPrefix(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	switch b[0] | 0x20 {
	case 'a', 's': // ak- sk-
		if b[1]|0x20 == 'k' && b[2] == '-' {
			return 3
		}
	case 'o': // org- ocp_
		if second, third := b[1]|0x20, b[2]|0x20; second == 'r' && third == 'g' && b[3] == '-' ||
			second == 'c' && third == 'p' && b[3] == '_' {
			return 4
		}
	case 'p': // proj- proj_
		if len(b) >= 5 && bytes.EqualFold(b[:4], []byte("proj")) && (b[4] == '-' || b[4] == '_') {
			return 5
		}
	}
	return 0
}

// bracketed returns the end of a <…> with another id that follows at i, or i.
func bracketed(b []byte, i int) int {
	j := i
	for _, open := range []string{"<", `\u003c`, `\u003C`} {
		if bytes.HasPrefix(b[i:], []byte(open)) {
			j += len(open)
			break
		}
	}
	if j == i {
		return i
	}
	n := secretPrefix(b[j:])
	if n == 0 {
		return i
	}
	end := idEnd(b, j+n)
	if end == j+n {
		return i
	}
	for _, shut := range []string{">", `\u003e`, `\u003E`} {
		if bytes.HasPrefix(b[end:], []byte(shut)) {
			return end + len(shut)
		}
	}
	return end
}

func idEnd(b []byte, i int) int {
	for i < len(b) && (alnum(b[i]) || b[i] == '-' || b[i] == '_') {
		i++
	}
	return i
}

func alnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// inWord reports whether a letter or digit stands before i that is part of a word,
// and not of an escape: \n, \u003c and %3C end in letters too.
func inWord(b []byte, i int) bool {
	if i == 0 || !alnum(b[i-1]) {
		return false
	}
	if i >= 2 && b[i-2] == '\\' {
		return false
	}
	if i >= 6 && b[i-6] == '\\' && b[i-5] == 'u' {
		return false
	}
	if i >= 3 && b[i-3] == '%' {
		return false
	}
	return true
}
