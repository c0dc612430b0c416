package kimi

import "math"

// parseCount reads a JSON number that is whole, whichever way it is written (64, 64.0,
// 6.4e1). It refuses signs, parts of one, what is not a number, and values above an int64.
func parseCount(b []byte) (int64, bool) {
	// v is what was read up to its last digit that is not 0. zeros follow it; scale is
	// the power of ten that is still due.
	var v uint64
	zeros, scale, fraction := 0, 0, false
	i := 0
digits:
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '.' && !fraction:
			fraction = true
			continue
		case c == '0':
			zeros++
		case '1' <= c && c <= '9':
			var ok bool
			if v, ok = shift(v, zeros+1); !ok || v > math.MaxInt64-uint64(c-'0') {
				return 0, false
			}
			v, zeros = v+uint64(c-'0'), 0
		default:
			break digits
		}
		if fraction {
			scale--
		}
	}
	if i == 0 {
		return 0, false
	}
	e, ok := exponent(b[i:])
	if !ok {
		return 0, false
	}
	v, ok = shift(v, zeros+scale+e)
	return int64(v), ok
}

// shift returns v × 10^n. It reports false when that is no whole number, which is certain
// for n < 0 where v does not end in 0, or above an int64.
func shift(v uint64, n int) (uint64, bool) {
	switch {
	case v == 0:
		return 0, true
	case n < 0:
		return 0, false
	}
	for ; n > 0; n-- {
		if v > math.MaxInt64/10 {
			return 0, false
		}
		v *= 10
	}
	return v, true
}

// exponent reads the rest of a number, which may be empty: e, a sign, digits. It refuses
// what is beyond a million.
func exponent(b []byte) (n int, ok bool) {
	if len(b) == 0 {
		return 0, true
	}
	if b[0] != 'e' && b[0] != 'E' || len(b) == 1 {
		return 0, false
	}
	b = b[1:]
	sign := 1
	if b[0] == '+' || b[0] == '-' {
		if b[0] == '-' {
			sign = -1
		}
		b = b[1:]
	}
	for _, c := range b {
		if c < '0' || c > '9' || n > 100_000 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return sign * n, len(b) > 0
}
