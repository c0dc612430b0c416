package origin

import (
	"bytes"
	"errors"
	"strconv"
)

// request is what the origin reads of one.
type request struct {
	stream    bool
	anthropic bool
	plan      plan
	usage     usage
}

// decoder cuts the bytes of a connection into requests. It trusts its peer: a proxy that
// is measured is no attacker.
type decoder struct {
	in   []byte // what has come and is not yet a whole request
	head int    // length of the head once it is whole, 0 before
	body int    // of the body; -1 if it is chunked
	seen int    // where the search for the head's end, or the last chunk, goes on
}

var errHead = errors.New("origin: the request's head is larger than 64 KiB")

// add takes bytes from the connection.
func (d *decoder) add(p []byte) { d.in = append(d.in, p...) }

// next returns the next whole request, if there is one.
func (d *decoder) next(p *planner) (request, bool, error) {
	if d.head == 0 {
		i := bytes.Index(d.in[d.seen:], []byte("\r\n\r\n"))
		if i < 0 {
			if len(d.in) > 64<<10 {
				return request{}, false, errHead
			}
			d.seen = max(0, len(d.in)-3)
			return request{}, false, nil
		}
		d.head = d.seen + i + 4
		d.body = bodyLength(d.in[:d.head])
		d.seen = d.head
	}
	end := d.head + d.body
	var body []byte
	if d.body >= 0 {
		if len(d.in) < end {
			return request{}, false, nil
		}
		body = d.in[d.head:end]
	} else {
		// Chunk sizes inside of the text do no harm to what is looked for in it.
		i := bytes.Index(d.in[max(d.head, d.seen-7):], []byte("\r\n0\r\n\r\n"))
		if i < 0 {
			d.seen = len(d.in)
			return request{}, false, nil
		}
		end = max(d.head, d.seen-7) + i + 7
		body = d.in[d.head:end]
	}
	line, _, _ := bytes.Cut(d.in[:d.head], []byte("\r\n"))
	r := request{
		anthropic: bytes.Contains(line, []byte("/messages ")),
		// Clients write it with a blank or without.
		stream: bytes.Contains(body, []byte(`"stream":true`)) || bytes.Contains(body, []byte(`"stream": true`)),
	}
	var err error
	r.plan, err = p.plan(body)
	r.usage = usage{prompt: len(body) / 4, completion: r.plan.tokens}
	// The rest moves to the front; mostly there is none.
	d.in = append(d.in[:0], d.in[end:]...)
	d.head, d.seen = 0, 0
	return r, true, err
}

// bodyLength reads Content-Length; -1 if the body is chunked, 0 without either.
func bodyLength(head []byte) int {
	n := 0
	for line := range bytes.Lines(head) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, _ = strconv.Atoi(string(value)) // a wrong one is answered as if there were no body
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return -1
		}
	}
	return n
}
