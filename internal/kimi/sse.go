package kimi

import "bytes"

// EventEnd returns the exclusive end of the first server-sent event in b, its blank
// line included, or -1 when b does not hold all of it. Lines end in LF, CRLF or CR,
// mixed as may be; a CR that is the last byte decides nothing, its LF may follow.
//
// from is where the search resumes: 0, or the length of b in the previous call,
// which returned -1 for a shorter b that began at the same byte. The result does not
// depend on how the bytes were dealt out.
func EventEnd(b []byte, from int) (end int) {
	i := max(min(from, len(b))-1, 0) // a CR left undecided is looked at again
	l := lines{b: b, lf: -1}
	for {
		if i = l.end(i); i < 0 {
			return -1
		}
		start := i
		if b[i] == '\n' {
			if i > 0 && b[i-1] == '\r' {
				start--
			}
			i++
		} else {
			switch {
			case i+1 == len(b):
				return -1
			case b[i+1] == '\n':
				i += 2
			default:
				i++
			}
		}
		if start == 0 || b[start-1] == '\n' || b[start-1] == '\r' {
			return i
		}
	}
}

// lines finds line ends. It remembers the next LF, so that text with no LF at all is
// not searched to its end once per CR.
type lines struct {
	b  []byte
	lf int // the first LF behind what was asked for last; len(b) for none
}

// end returns the index of the first CR or LF at or behind i, or -1. i never
// decreases from call to call.
func (l *lines) end(i int) int {
	if i > l.lf {
		l.lf = len(l.b)
		if n := bytes.IndexByte(l.b[i:], '\n'); n >= 0 {
			l.lf = i + n
		}
	}
	// Almost never found: two passes of IndexByte still beat a loop over bytes.
	if r := bytes.IndexByte(l.b[i:l.lf], '\r'); r >= 0 {
		return i + r
	}
	if l.lf == len(l.b) {
		return -1
	}
	return l.lf
}

// fields are the parts of one server-sent event.
type fields struct {
	name []byte // value of the last event: line
	data []byte // values of all data: lines, joined by LF
}

// splitEvent reads the lines of ev. data aliases ev unless it is spread over several
// lines. A byte order mark is tolerated in front of any event, for nobody here knows
// which one is the first of its stream.
func splitEvent(ev []byte) fields {
	var f fields
	if len(ev) >= 3 && ev[0] == 0xEF && ev[1] == 0xBB && ev[2] == 0xBF {
		ev = ev[3:]
	}
	l := lines{b: ev, lf: -1}
	datas := 0
	for i := 0; i < len(ev); {
		end := l.end(i)
		if end < 0 {
			end = len(ev)
		}
		line := ev[i:end]
		i = end + 1 // the LF of a CRLF comes back as an empty line
		if value, ok := fieldValue(line, "data"); ok {
			switch datas++; datas {
			case 1:
				f.data = value
			case 2: // stop aliasing; everything that follows fits
				f.data = append(make([]byte, 0, len(ev)), f.data...)
				fallthrough
			default:
				f.data = append(append(f.data, '\n'), value...)
			}
		} else if value, ok := fieldValue(line, "event"); ok {
			f.name = value
		}
	}
	return f
}

// fieldValue returns the value of a line that holds the field called name.
func fieldValue(line []byte, name string) (value []byte, ok bool) {
	if len(line) < len(name) || string(line[:len(name)]) != name {
		return nil, false
	}
	line = line[len(name):]
	if len(line) == 0 {
		return line, true
	}
	if line[0] != ':' {
		return nil, false
	}
	line = line[1:]
	if len(line) > 0 && line[0] == ' ' {
		line = line[1:]
	}
	return line, true
}

// trim cuts blanks off both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
