package upstream

// Limits of the chunked coding.
const (
	maxChunkSize     = 1 << 50
	maxChunkDigits   = 16
	maxChunkLine     = 4 << 10  // one size line with its extensions
	maxTrailerBytes  = 16 << 10 // all trailer fields
	maxChunkOverhead = 16 << 10 // extensions beyond what the body bytes justify
)

type chunkState uint8

const (
	chunkSize    chunkState = iota // before the first digit
	chunkDigits                    // in the digits
	chunkExt                       // in an extension
	chunkQuoted                    // in a quoted extension value
	chunkEscape                    // after a backslash there
	chunkSizeLF                    // after the CR of the size line
	chunkData                      // in the data
	chunkDataCR                    // after the data
	chunkDataLF                    // after the CR behind the data
	chunkTrailer                   // at the start of a trailer line
	chunkName                      // in a trailer field's name
	chunkValue                     // in its value
	chunkValueLF                   // after the CR of a trailer field
	chunkLastLF                    // after the CR of the last, empty line
	chunkDone                      // behind the body
)

// Chunked decodes the chunked transfer coding without copying. The zero value is at
// the start of a body; Feed may be given its bytes in any portions.
//
// Strict: sizes are hexadecimal digits without blanks, every line ends with CRLF,
// extensions and trailers are bounded, checked and thrown away.
type Chunked struct {
	state    chunkState
	remain   int64 // bytes of data left in this chunk
	line     int   // bytes of this size line
	trailer  int
	overhead int64 // line bytes minus an allowance per body byte
}

// Feed consumes the start of in and returns the next run of body bytes as a part of
// it, how many bytes of in were used, and whether the body ended. It returns without
// body when in is used up or the body ended; callers call it again with what is left
// while used < len(in) and not done. Bytes behind the end are never used.
// An error wraps ErrMalformed and is final.
func (c *Chunked) Feed(in []byte) (body []byte, used int, done bool, err error) {
	for used < len(in) && c.state != chunkDone {
		if c.state != chunkData {
			if err := c.step(in[used]); err != nil {
				return nil, used, false, err
			}
			used++
			continue
		}
		n := int(min(c.remain, int64(len(in)-used)))
		body = in[used : used+n]
		used += n
		c.overhead = max(0, c.overhead-int64(n))
		if c.remain -= int64(n); c.remain == 0 {
			c.state = chunkDataCR
		}
		// The CRLF behind the data usually comes in the same read; taking it along
		// spares a call.
		for used < len(in) && (c.state == chunkDataCR || c.state == chunkDataLF) {
			if err := c.step(in[used]); err != nil {
				return body, used, false, err
			}
			used++
		}
		return body, used, false, nil
	}
	return nil, used, c.state == chunkDone, nil
}

// Done reports whether the body ended.
func (c *Chunked) Done() bool { return c.state == chunkDone }

// step consumes one byte outside the data.
func (c *Chunked) step(b byte) error {
	switch c.state {
	case chunkSize, chunkDigits, chunkExt, chunkQuoted, chunkEscape, chunkSizeLF:
		return c.stepSize(b)
	case chunkDataCR:
		if b != '\r' {
			return malformed("chunk data longer than its size")
		}
		c.state = chunkDataLF
	case chunkDataLF:
		if b != '\n' {
			return malformed("no LF after chunk data")
		}
		c.state = chunkSize
		c.line = 0
	default:
		return c.stepTrailer(b)
	}
	return nil
}

func (c *Chunked) stepSize(b byte) error {
	if c.line++; c.line > maxChunkLine {
		return malformed("chunk size line too long")
	}
	switch c.state {
	case chunkSize, chunkDigits:
		if d, ok := hexDigit(b); ok {
			if c.state = chunkDigits; c.remain >= maxChunkSize>>4 || c.line > maxChunkDigits {
				return malformed("chunk size too large")
			}
			c.remain = c.remain<<4 | d
			return nil
		}
		switch {
		case c.state == chunkSize:
			return malformed("chunk size")
		case b == '\r':
			c.state = chunkSizeLF
		case b == ';':
			c.state = chunkExt
		default:
			return malformed("chunk size")
		}
	case chunkExt:
		switch {
		case b == '\r':
			c.state = chunkSizeLF
		case b == '"':
			c.state = chunkQuoted
		case !valueByte(b):
			return malformed("control character in a chunk extension")
		}
	case chunkQuoted:
		switch {
		case b == '"':
			c.state = chunkExt
		case b == '\\':
			c.state = chunkEscape
		case !valueByte(b):
			return malformed("control character in a chunk extension")
		}
	case chunkEscape:
		if !valueByte(b) {
			return malformed("control character in a chunk extension")
		}
		c.state = chunkQuoted
	case chunkSizeLF:
		if b != '\n' {
			return malformed("no LF after a chunk size")
		}
		// Chunks of few bytes are normal in a stream of events; extensions are not.
		if c.overhead += int64(c.line) - 18; c.overhead > maxChunkOverhead {
			return malformed("chunk extensions outweigh the body")
		}
		c.overhead = max(0, c.overhead)
		if c.state = chunkData; c.remain == 0 {
			c.state = chunkTrailer
		}
	}
	return nil
}

func (c *Chunked) stepTrailer(b byte) error {
	if c.trailer++; c.trailer > maxTrailerBytes {
		return malformed("trailers too large")
	}
	switch c.state {
	case chunkTrailer:
		switch {
		case b == '\r':
			c.state = chunkLastLF
		case tokenByte(b):
			c.state = chunkName
		default:
			return malformed("trailer field name")
		}
	case chunkName:
		switch {
		case b == ':':
			c.state = chunkValue
		case !tokenByte(b):
			return malformed("trailer field name")
		}
	case chunkValue:
		switch {
		case b == '\r':
			c.state = chunkValueLF
		case !valueByte(b):
			return malformed("control character in a trailer")
		}
	case chunkValueLF:
		if b != '\n' {
			return malformed("bare CR in a trailer")
		}
		c.state = chunkTrailer
	case chunkLastLF:
		if b != '\n' {
			return malformed("no LF after the last chunk")
		}
		c.state = chunkDone
	}
	return nil
}

// decode moves the body bytes of b to its front and returns their number and how many
// bytes of b were used; they are fewer than len(b) only behind the end of the body.
func (c *Chunked) decode(b []byte) (n, used int, err error) {
	for used < len(b) {
		body, u, done, err := c.Feed(b[used:])
		if len(body) > 0 {
			n += copy(b[n:], body)
		}
		used += u
		if err != nil || done {
			return n, used, err
		}
	}
	return n, used, nil
}

func hexDigit(b byte) (int64, bool) {
	switch {
	case b >= '0' && b <= '9':
		return int64(b - '0'), true
	case b >= 'a' && b <= 'f':
		return int64(b-'a') + 10, true
	case b >= 'A' && b <= 'F':
		return int64(b-'A') + 10, true
	}
	return 0, false
}
