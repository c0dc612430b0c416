package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// origin is an upstream that answers with given bytes and keeps the bytes it was sent:
// nothing in it has an opinion about HTTP, JSON or streams.
type origin struct {
	ln net.Listener
	wg sync.WaitGroup

	mu      sync.Mutex
	conns   []net.Conn
	seen    []sentRequest
	respond func(net.Conn) // writes one answer; the connection is then closed
}

// sentRequest is one request as it came.
type sentRequest struct {
	line   string
	header []string // lines, in order
	body   string
}

// field returns the values of a header field, and how often it stands there.
func (r sentRequest) field(name string) (value string, n int) {
	for _, l := range r.header {
		k, v, _ := strings.Cut(l, ": ")
		if strings.EqualFold(k, name) {
			value = v
			n++
		}
	}
	return value, n
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{ln: ln}
	o.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			o.conns = append(o.conns, c)
			o.mu.Unlock()
			o.wg.Go(func() { o.serve(t, c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		o.mu.Lock()
		for _, c := range o.conns {
			_ = c.Close()
		}
		o.mu.Unlock()
		o.wg.Wait()
	})
	return o
}

func (o *origin) serve(t *testing.T, c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	var req sentRequest
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		if line == "" {
			break
		}
		if req.line == "" {
			req.line = line
		} else {
			req.header = append(req.header, line)
		}
	}
	length, _ := req.field("Content-Length")
	n := 0
	if _, err := fmt.Sscan(length, &n); err != nil && !strings.HasPrefix(req.line, "GET") {
		t.Errorf("the proxy sent no Content-Length: %q", req.header)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		t.Errorf("read the proxy's request: %v", err)
		return
	}
	req.body = string(body)
	o.mu.Lock()
	o.seen = append(o.seen, req)
	respond := o.respond
	o.mu.Unlock()
	if respond != nil {
		respond(c)
	}
}

// next sets what is answered from now on.
func (o *origin) next(respond func(net.Conn)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.respond = respond
}

// last returns the newest request and how many there were.
func (o *origin) last() (sentRequest, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.seen) == 0 {
		return sentRequest{}, 0
	}
	return o.seen[len(o.seen)-1], len(o.seen)
}

// upstreams is an option that makes the origin the only upstream, on both faces.
func (o *origin) upstreams(c *proxy.Config) {
	for i := range c.Upstreams {
		c.Upstreams[i].BaseURL = "http://" + o.ln.Addr().String() + "/base/v1"
	}
}

// delivery is a way in which the bytes of an answer arrive.
type delivery struct {
	name  string
	write func(c net.Conn, contentType string, body []byte)
}

func answerHead(contentType, framing string) string {
	return "HTTP/1.1 200 OK\r\nContent-Type: " + contentType + "\r\nMsh-Request-Id: 00000000-0000-4000-8000-000000000042\r\n" +
		// Said, so that no later request is sent on a connection that is about to close.
		"Connection: close\r\n" + framing + "\r\n\r\n"
}

// chunks writes each piece as a chunk of its own, in a write of its own.
func chunks(c net.Conn, contentType string, pieces [][]byte) {
	_, _ = io.WriteString(c, answerHead(contentType, "Transfer-Encoding: chunked"))
	for _, p := range pieces {
		_, _ = fmt.Fprintf(c, "%x\r\n%s\r\n", len(p), p)
	}
	_, _ = io.WriteString(c, "0\r\n\r\n")
}

// deliveries split an answer at every kind of boundary.
func deliveries() []delivery {
	return []delivery{
		{"one byte per chunk", func(c net.Conn, ct string, body []byte) {
			var pieces [][]byte
			for i := range body {
				pieces = append(pieces, body[i:i+1])
			}
			chunks(c, ct, pieces)
		}},
		{"one event per chunk", func(c net.Conn, ct string, body []byte) {
			chunks(c, ct, split(body, 0, 1))
		}},
		{"chunks that end inside events", func(c net.Conn, ct string, body []byte) {
			chunks(c, ct, split(body, -17, 1))
		}},
		{"chunks that end inside line ends", func(c net.Conn, ct string, body []byte) {
			chunks(c, ct, split(body, -1, 1))
		}},
		{"three events per chunk", func(c net.Conn, ct string, body []byte) {
			chunks(c, ct, split(body, 0, 3))
		}},
		{"chunks cut by the writes", func(c net.Conn, ct string, body []byte) {
			var b bytes.Buffer
			b.WriteString(answerHead(ct, "Transfer-Encoding: chunked"))
			for _, p := range split(body, 0, 1) {
				fmt.Fprintf(&b, "%x;ext=1\r\n%s\r\n", len(p), p)
			}
			b.WriteString("0\r\nTrailer: x\r\n\r\n")
			for raw := b.Bytes(); len(raw) > 0; {
				n := min(7, len(raw))
				_, _ = c.Write(raw[:n])
				raw = raw[n:]
			}
		}},
		{"all at once, by length", func(c net.Conn, ct string, body []byte) {
			_, _ = c.Write(append([]byte(answerHead(ct, fmt.Sprintf("Content-Length: %d", len(body)))), body...))
		}},
		{"by the end of the connection", func(c net.Conn, ct string, body []byte) {
			_, _ = io.WriteString(c, answerHead(ct, "Cache-Control: no-store"))
			for _, p := range split(body, 0, 1) {
				_, _ = c.Write(p)
			}
		}},
	}
}

// split cuts body every n events, off bytes from their end.
func split(body []byte, off, n int) [][]byte {
	var pieces [][]byte
	from, events := 0, 0
	for i := range body {
		if i > 0 && body[i] == '\n' && (body[i-1] == '\n' || bytes.HasSuffix(body[:i], []byte("\n\r"))) {
			if events++; events%n == 0 && i+1+off > from {
				pieces = append(pieces, body[from:i+1+off])
				from = i + 1 + off
			}
		}
	}
	if from < len(body) {
		pieces = append(pieces, body[from:])
	}
	return pieces
}

// canonical lists the names of header lines as net/http writes them.
func canonical(lines []string) []string {
	var names []string
	for _, l := range lines {
		k, _, _ := strings.Cut(l, ":")
		names = append(names, textproto.CanonicalMIMEHeaderKey(k))
	}
	return names
}
