package load

import (
	"bytes"
	"errors"
	"strconv"
)

// phase is what an answer's next bytes are.
type phase uint8

const (
	inHead phase = iota
	inBody
	untilClose
	inChunkSize
	inChunk
	afterChunk // the CRLF behind it
	inTrailer
	complete
)

// answer reads one HTTP/1.1 answer from the bytes of a connection. The zero value is
// ready; reset makes it so again.
type answer struct {
	phase   phase
	status  int
	events  bool // a stream of SSE events
	close   bool // the server closes the connection behind it
	ended   bool // the end mark came
	errored bool // an error event came
	retry   int  // seconds of Retry-After
	left    int64
	carry   []byte // an incomplete head, chunk size or trailer line
	line    []byte // an incomplete line of an SSE stream
	body    int64  // bytes
	why     []byte // what a status other than 200 begins with
}

var (
	errMalformed = errors.New("malformed answer")
	errTooLong   = errors.New("line of an answer is longer than 1 MiB")
)

// whyBytes is how much of an error is looked at.
const whyBytes = 512

// failure names what is wrong with the answer, "" if nothing is: by the status and the code that
// the body tells, if any, or what is missing in a stream.
func (a *answer) failure() string {
	switch {
	case a.status != 200:
		kind := "status " + strconv.Itoa(a.status)
		if _, rest, ok := bytes.Cut(a.why, []byte(`"code":"`)); ok {
			if code, _, ok := bytes.Cut(rest, []byte{'"'}); ok && len(code) <= 40 {
				kind += " " + string(code)
			}
		}
		return kind
	case a.errored:
		return "error event"
	case a.events && !a.ended:
		return "no end mark"
	}
	return ""
}

func (a *answer) reset() { *a = answer{carry: a.carry[:0], line: a.line[:0], why: a.why[:0]} }

// feed reads p. event is called for each event of a stream with its stamp, 0 without one.
// It returns what is behind the answer, once that is complete.
func (a *answer) feed(p []byte, event func(stamp int64)) (rest []byte, err error) {
	for len(p) > 0 && a.phase != complete {
		switch a.phase {
		case inHead:
			var head []byte
			if head, p, err = a.until(p, "\r\n\r\n"); err != nil || head == nil {
				return nil, err
			}
			err = a.readHead(head)
			a.carry = a.carry[:0]
		case inBody, inChunk, untilClose:
			n := int64(len(p))
			if a.phase != untilClose {
				n = min(n, a.left)
			}
			a.left -= n
			a.body += n
			if a.status != 200 {
				a.why = append(a.why, p[:min(n, int64(whyBytes-len(a.why)))]...)
			}
			if a.events {
				err = a.readEvents(p[:n], event)
			}
			p = p[n:]
			if a.left == 0 && a.phase == inBody {
				a.phase = complete
			} else if a.left == 0 && a.phase == inChunk {
				a.phase, a.left = afterChunk, 2
			}
		case afterChunk:
			n := min(int64(len(p)), a.left)
			a.left -= n
			p = p[n:]
			if a.left == 0 {
				a.phase = inChunkSize
			}
		case inChunkSize:
			var line []byte
			if line, p, err = a.until(p, "\r\n"); err != nil || line == nil {
				return nil, err
			}
			a.left, err = chunkSize(line)
			a.carry = a.carry[:0]
			if a.phase = inChunk; a.left == 0 {
				a.phase = inTrailer
			}
		case inTrailer:
			var line []byte
			if line, p, err = a.until(p, "\r\n"); err != nil || line == nil {
				return nil, err
			}
			if len(line) == 2 {
				a.phase = complete
			}
			a.carry = a.carry[:0]
		}
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// until returns what is before and with the end mark, nil if that has not come.
func (a *answer) until(p []byte, mark string) (part, rest []byte, err error) {
	if len(a.carry) == 0 {
		if i := bytes.Index(p, []byte(mark)); i >= 0 {
			return p[:i+len(mark)], p[i+len(mark):], nil
		}
	}
	was := len(a.carry)
	a.carry = append(a.carry, p...)
	if i := bytes.Index(a.carry[max(0, was-len(mark)+1):], []byte(mark)); i >= 0 {
		end := max(0, was-len(mark)+1) + i + len(mark)
		return a.carry[:end], p[end-was:], nil
	}
	if len(a.carry) > 1<<20 {
		return nil, nil, errTooLong
	}
	return nil, nil, nil
}

// readHead reads status and framing.
func (a *answer) readHead(head []byte) error {
	if len(head) < 12 || !bytes.HasPrefix(head, []byte("HTTP/1.")) {
		return errMalformed
	}
	status, err := strconv.Atoi(string(head[9:12]))
	if err != nil {
		return errMalformed
	}
	a.status = status
	a.phase, a.left = untilClose, 0
	a.close = head[7] == '0'
	for len(head) > 0 {
		i := bytes.IndexByte(head, '\n')
		line := head[:i+1]
		head = head[i+1:]
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			continue
		}
		name, value := line[:colon], bytes.TrimSpace(line[colon+1:])
		switch len(name) {
		case len("Connection"):
			if bytes.EqualFold(name, []byte("Connection")) {
				a.close = bytes.EqualFold(value, []byte("close"))
			}
		case len("Retry-After"):
			if bytes.EqualFold(name, []byte("Retry-After")) {
				a.retry, _ = strconv.Atoi(string(value)) // a date is not understood
			}
		case len("Content-Type"):
			if bytes.EqualFold(name, []byte("Content-Type")) {
				a.events = bytes.HasPrefix(value, []byte("text/event-stream"))
			}
		case len("Content-Length"):
			if bytes.EqualFold(name, []byte("Content-Length")) {
				if a.left, err = strconv.ParseInt(string(value), 10, 64); err != nil || a.left < 0 {
					return errMalformed
				}
				if a.phase = inBody; a.left == 0 {
					a.phase = complete
				}
			}
		case len("Transfer-Encoding"):
			if bytes.EqualFold(name, []byte("Transfer-Encoding")) && bytes.EqualFold(value, []byte("chunked")) {
				a.phase = inChunkSize
			}
		}
	}
	if a.phase == untilClose {
		a.close = true
	}
	return nil
}

func chunkSize(line []byte) (int64, error) {
	digits := bytes.TrimRight(line, "\r\n")
	if i := bytes.IndexAny(digits, "; "); i >= 0 {
		digits = digits[:i]
	}
	n := int64(0)
	if len(digits) == 0 || len(digits) > 8 {
		return 0, errMalformed
	}
	for _, c := range digits {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | int64(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			n = n<<4 | int64(c|0x20-'a'+10)
		default:
			return 0, errMalformed
		}
	}
	return n, nil
}

// readEvents reads the lines of a stream.
func (a *answer) readEvents(p []byte, event func(stamp int64)) error {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			a.line = append(a.line, p...)
			if len(a.line) > 1<<20 {
				return errTooLong
			}
			return nil
		}
		line := p[:i]
		if len(a.line) > 0 {
			a.line = append(a.line, line...)
			line = a.line
		}
		p = p[i+1:]
		a.readLine(line, event)
		a.line = a.line[:0]
	}
	return nil
}

func (a *answer) readLine(line []byte, event func(stamp int64)) {
	data, ok := bytes.CutPrefix(line, []byte("data:"))
	if !ok {
		if bytes.HasPrefix(line, []byte("event: message_stop")) {
			a.ended = true
		}
		return
	}
	data = bytes.TrimPrefix(data, []byte(" "))
	switch {
	case bytes.HasPrefix(data, []byte("[DONE]")):
		a.ended = true
	case bytes.HasPrefix(data, []byte(`{"error"`)), bytes.HasPrefix(data, []byte(`{"type":"error"`)):
		a.errored = true
	}
	event(stampOf(data))
}

// stampOf reads the last "t" of an event's data; 0 if there is none.
func stampOf(data []byte) int64 {
	const field = `,"t":`
	i := bytes.LastIndex(data, []byte(field))
	if i < 0 {
		return 0
	}
	n := int64(0)
	for _, c := range data[i+len(field):] {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
