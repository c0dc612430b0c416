package e2e_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// link is a way to Redis that a test can hurt.
type link struct {
	ln net.Listener
	to string

	deaf    atomic.Bool  // messages of pub/sub do not arrive; everything else does
	dropped atomic.Int64 // such messages

	mu     sync.Mutex
	healed *sync.Cond
	cut    bool // nothing passes, and nobody is told
	closed bool
	conns  map[net.Conn]struct{}
}

// newLink returns a link to the Redis at an address, which ends with the test.
func newLink(t *testing.T, to string) *link {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{ln: ln, to: to, conns: map[net.Conn]struct{}{}}
	l.healed = sync.NewCond(&l.mu)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			done.Go(func() { l.carry(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		l.mu.Lock()
		l.closed, l.cut = true, false
		l.healed.Broadcast()
		for c := range l.conns {
			c.Close()
		}
		l.mu.Unlock()
		done.Wait()
	})
	return l
}

// url is the address of Redis by way of the link.
func (l *link) url() string { return "redis://" + l.ln.Addr().String() + "/0" }

// sever lets nothing pass until heal. What is sent meanwhile arrives then.
func (l *link) sever() { l.set(true) }
func (l *link) heal()  { l.set(false) }

func (l *link) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	l.healed.Broadcast()
}

// pass waits until something may pass.
func (l *link) pass() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.cut {
		l.healed.Wait()
	}
}

// own notes a connection, and reports whether it may be used.
func (l *link) own(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		c.Close()
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *link) drop(c net.Conn) {
	c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// carry carries one connection until either side ends it.
func (l *link) carry(client net.Conn) {
	if !l.own(client) {
		return
	}
	defer l.drop(client)
	l.pass()
	server, err := net.Dial("tcp", l.to)
	if err != nil || !l.own(server) {
		return
	}
	defer l.drop(server)
	var both sync.WaitGroup
	both.Go(func() {
		defer server.Close()
		buf := make([]byte, 16<<10)
		for {
			n, err := client.Read(buf)
			l.pass()
			if _, werr := server.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	})
	both.Go(func() {
		defer client.Close()
		r := bufio.NewReader(server)
		for {
			text, message, err := readValue(r, nil)
			if err != nil {
				return
			}
			l.pass()
			if message && l.deaf.Load() {
				l.dropped.Add(1)
				continue
			}
			if _, err := client.Write(text); err != nil {
				return
			}
		}
	})
	both.Wait()
}

// readValue reads one value of Redis' protocol, of either version, appends it to b, and
// reports whether it is a message of pub/sub.
func readValue(r *bufio.Reader, b []byte) (text []byte, message bool, err error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, false, err
	}
	b = append(b, line...)
	kind, rest := line[0], string(bytes.TrimRight(line[1:], "\r\n"))
	count := func(each int) (int, error) {
		n, err := strconv.Atoi(rest)
		if err != nil {
			return 0, fmt.Errorf("length %q: %w", line, err)
		}
		return each * n, nil
	}
	switch kind {
	case '+', '-', ':', '_', ',', '#', '(':
		return b, false, nil
	case '$', '!', '=': // of a length
		n, err := count(1)
		if n < 0 || err != nil {
			return b, false, err // nil
		}
		from := len(b)
		b = append(b, make([]byte, n+2)...)
		_, err = io.ReadFull(r, b[from:])
		return b, false, err
	case '*', '~', '>', '%': // of values
		each := 1
		if kind == '%' {
			each = 2
		}
		n, err := count(each)
		if err != nil {
			return b, false, err
		}
		for i := range n {
			from := len(b)
			if b, _, err = readValue(r, b); err != nil {
				return b, false, err
			}
			if i == 0 && (kind == '*' || kind == '>') && strings.HasSuffix(string(b[from:]), "\r\nmessage\r\n") {
				message = true
			}
		}
		return b, message, nil
	}
	return b, false, fmt.Errorf("unknown value %q", line)
}
