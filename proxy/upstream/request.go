package upstream

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// maxRequestHead bounds what goes upstream besides the body.
const maxRequestHead = 32 << 10

// Request is all that a client's request may contribute to the request upstream.
// Empty values are left out. Nothing in it is kept after Do has returned.
type Request struct {
	Body [][]byte // sent one after the other; not modified

	Accept           []byte
	UserAgent        []byte // Config.DefaultUserAgent when empty
	ContentType      []byte // application/json when empty and there is a body
	AnthropicVersion []byte
	AnthropicBeta    []byte
	Traceparent      []byte

	// Sending, if not nil, is called before the first byte of each try is written. The
	// request is given up, as canceled, when it reports false.
	Sending func() bool
}

func (r *Request) bodyLen() int {
	n := 0
	for _, b := range r.Body {
		n += len(b)
	}
	return n
}

// authLines are the head lines that are the same for every request with a key.
func (e *endpoint) authLines(k Key) []byte {
	auth := "Authorization: Bearer "
	if e.cfg.KeyHeader == KeyAPIKey {
		auth = "x-api-key: "
	}
	return []byte("Host: " + e.host + "\r\n" + auth + k.Secret.Reveal() + "\r\nAccept-Encoding: identity\r\n")
}

// appendHead appends the request head. path is "" for the face's own path.
func (t *Target) appendHead(dst []byte, method, path string, r *Request, bodyLen int) ([]byte, error) {
	e := t.key.ep
	start := len(dst)
	if path == "" {
		dst = append(dst, e.post...)
	} else {
		if (method != http.MethodGet && method != http.MethodPost) || !validPath(path) {
			return dst, fmt.Errorf("%w: method %q or path", ErrHeader, method)
		}
		dst = append(dst, method...)
		dst = append(dst, ' ')
		dst = append(dst, e.base...)
		dst = append(dst, path...)
		dst = append(dst, " HTTP/1.1\r\n"...)
	}
	dst = append(dst, t.key.auth...)
	agent, kind := r.UserAgent, r.ContentType
	ok := true
	if len(agent) == 0 {
		dst = append(dst, "User-Agent: "...)
		dst = append(dst, e.cfg.DefaultUserAgent...)
		dst = append(dst, '\r', '\n')
	}
	dst = appendField(dst, "User-Agent: ", agent, &ok)
	if len(kind) == 0 && bodyLen > 0 {
		dst = append(dst, "Content-Type: application/json\r\n"...)
	}
	dst = appendField(dst, "Content-Type: ", kind, &ok)
	dst = appendField(dst, "Accept: ", r.Accept, &ok)
	dst = appendField(dst, "anthropic-version: ", r.AnthropicVersion, &ok)
	dst = appendField(dst, "anthropic-beta: ", r.AnthropicBeta, &ok)
	dst = appendField(dst, "traceparent: ", r.Traceparent, &ok)
	if !ok {
		return dst, fmt.Errorf("%w: control character", ErrHeader)
	}
	if method != http.MethodGet || bodyLen > 0 {
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, int64(bodyLen), 10)
		dst = append(dst, '\r', '\n')
	}
	dst = append(dst, '\r', '\n')
	if len(dst)-start > maxRequestHead {
		return dst, fmt.Errorf("%w: head larger than %d bytes", ErrHeader, maxRequestHead)
	}
	return dst, nil
}

// appendField appends one header line, nothing for an empty value, and clears ok when
// the value could end the line early.
func appendField(dst []byte, name string, value []byte, ok *bool) []byte {
	if len(value) == 0 {
		return dst
	}
	for _, c := range value {
		if !valueByte(c) {
			*ok = false
			return dst
		}
	}
	dst = append(dst, name...)
	dst = append(dst, value...)
	return append(dst, '\r', '\n')
}

// writePiece is what is written before the write deadline moves on.
const writePiece = 256 << 10

// send writes the head and the body that was not coalesced with it.
func (cn *conn) send(head []byte, body [][]byte, total time.Duration) error {
	if len(body) == 0 {
		return cn.writeAll(head, total)
	}
	if cn.nc != cn.raw { // TLS makes records of its own, there is nothing to gather
		if err := cn.writeAll(head, total); err != nil {
			return err
		}
		for _, b := range body {
			if err := cn.writeAll(b, total); err != nil {
				return err
			}
		}
		return nil
	}
	batch := make(net.Buffers, 1, len(body)+1)
	batch[0] = head
	size := len(head)
	for _, b := range body {
		for len(b) > 0 {
			n := min(len(b), writePiece-size)
			batch = append(batch, b[:n])
			b, size = b[n:], size+n
			if size == writePiece {
				if err := cn.gather(batch, total); err != nil {
					return err
				}
				batch, size = batch[:0], 0
			}
		}
	}
	if size == 0 {
		return nil
	}
	return cn.gather(batch, total)
}

// writeAll writes b in pieces that each have idle_timeout to be taken.
func (cn *conn) writeAll(b []byte, total time.Duration) error {
	for len(b) > 0 {
		if err := cn.limitWrite(cn.ep.cfg.IdleTimeout.Std(), total); err != nil {
			return err
		}
		piece := b[:min(len(b), writePiece)]
		n, err := cn.nc.Write(piece)
		if cn.nc == cn.raw {
			cn.wrote += uint64(n) //nolint:gosec // never negative
		}
		if err != nil {
			return err
		}
		b = b[len(piece):]
	}
	return nil
}

// gather writes several slices with one system call.
func (cn *conn) gather(batch net.Buffers, total time.Duration) error {
	if err := cn.limitWrite(cn.ep.cfg.IdleTimeout.Std(), total); err != nil {
		return err
	}
	n, err := batch.WriteTo(cn.raw)
	cn.wrote += uint64(n) //nolint:gosec // never negative
	return err
}
