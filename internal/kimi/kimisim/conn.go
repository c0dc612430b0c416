package kimisim

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a server-side connection that can be told to misbehave. It sits below TLS.
type conn struct {
	net.Conn
	srv    *Server
	number int64
	once   sync.Once

	mu        sync.Mutex    // guards the following
	slow      time.Duration // pause after each 16 bytes until a blank line was written
	budget    int           // bytes that may still be written before the cut; <0: no cut
	reset     bool          // close with a TCP reset
	closeIdle bool
	dropNext  bool
}

type connKey struct{}

// listener wraps what it accepts.
type listener struct {
	net.Listener
	srv   *Server
	count atomic.Int64
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.srv.openConns.Add(1)
	return &conn{Conn: c, srv: l.srv, number: l.count.Add(1), budget: -1}, nil
}

// withConn puts the connection under a TLS or plain one into the context.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	slow, budget := c.slow, c.budget
	c.mu.Unlock()
	if slow == 0 && budget < 0 {
		return c.Conn.Write(p)
	}
	if budget >= 0 {
		n := min(budget, len(p))
		n, err := c.Conn.Write(p[:n])
		c.mu.Lock()
		c.budget -= n
		c.mu.Unlock()
		if err == nil && n < len(p) {
			_ = c.Close()
			err = net.ErrClosed
		}
		return n, err
	}
	head := len(p)
	if i := bytes.Index(p, []byte("\r\n\r\n")); i >= 0 {
		head = i + 4
		c.mu.Lock()
		c.slow = 0
		c.mu.Unlock()
	}
	for at := 0; at < head; {
		n, err := c.Conn.Write(p[at:min(at+16, head)])
		at += n
		if err != nil {
			return at, err
		}
		time.Sleep(slow)
	}
	n, err := c.Conn.Write(p[head:])
	return head + n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.srv.openConns.Add(-1)
		c.mu.Lock()
		reset := c.reset
		c.mu.Unlock()
		if t, ok := c.Conn.(*net.TCPConn); ok && reset {
			_ = t.SetLinger(0)
		}
	})
	return c.Conn.Close()
}

// set changes what the connection does; it is nil only without a real connection.
func (c *conn) set(fn func(*conn)) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fn(c)
}

// takeDrop tells whether the connection is to be closed now that a request came.
func (c *conn) takeDrop() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropNext
}

func (c *conn) takeCloseIdle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closeIdle
}
