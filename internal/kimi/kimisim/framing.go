package kimisim

import "bytes"

// framing turns events into the bytes of one SSE dialect.
type framing struct {
	b    *Behavior
	face string
	buf  []byte
}

// frame returns the n-th event's bytes, valid until the next call.
func (f *framing) frame(n int, ev event) []byte {
	b := f.b
	out := f.buf[:0]
	if n == 0 && b.BOM {
		out = append(out, "\xef\xbb\xbf"...)
	}
	if b.Comments > 0 && n%b.Comments == 0 {
		out = append(out, ": keep-alive\n\n"...)
	}
	if b.Ping > 0 && n > 0 && n%b.Ping == 0 {
		if f.face == FaceAnthropic {
			out = append(out, "event: ping\ndata: {\"type\":\"ping\"}\n\n"...)
		} else {
			out = append(out, ": ping\n\n"...)
		}
	}
	colon := ": "
	if b.NoSpace {
		colon = ":"
	}
	if ev.name != "" {
		out = append(append(append(append(out, "event"...), colon...), ev.name...), '\n')
	}
	out = append(append(out, "data"...), colon...)
	if cut := bytes.IndexByte(ev.data, ',') + 1; b.MultiLine && cut > 0 {
		// A line break between two data lines is white space between two JSON tokens.
		out = append(append(out, ev.data[:cut]...), "\ndata"...)
		out = append(append(out, colon...), ev.data[cut:]...)
	} else {
		out = append(out, ev.data...)
	}
	out = append(out, "\n\n"...)
	f.buf = out
	switch { // JSON here never holds a raw line break, so all of them are framing
	case b.CRLF:
		return bytes.ReplaceAll(out, []byte("\n"), []byte("\r\n"))
	case b.CR:
		return bytes.ReplaceAll(out, []byte("\n"), []byte("\r"))
	}
	return out
}
