package proxy

import (
	"errors"
	"io"
	"net"
	"time"
)

// errSealed ends the reading of what fasthttp has buffered.
var errSealed = errors.New("nothing more is buffered")

// buffered returns what nc, which is fasthttp's hijacked c, has read of c and not used.
func (c *clientConn) buffered(nc net.Conn) (ahead []byte) {
	c.sealed = true
	defer func() { c.sealed = false }()
	var b [512]byte
	for {
		n, err := nc.Read(b[:])
		ahead = append(ahead, b[:n]...)
		if err != nil {
			return ahead
		}
	}
}

// successor returns the connection for fasthttp to serve on, in place of c. It is a new one
// because fasthttp may not have forgotten c yet. ahead is what was read of it already.
func (c *clientConn) successor(ahead []byte, t *Timeouts) *clientConn {
	c.answer(false)
	return &clientConn{TCPConn: c.TCPConn, ln: c.ln, addr: c.addr, peer: c.peer, ahead: ahead, resume: t}
}

// rest counts c among those that wait for a request after a stream. fasthttp takes them for new
// and does not close them when it shuts down. It reports false when there are to be no more.
func (l *listener) rest(c *clientConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.resting == nil {
		return false
	}
	l.resting[c] = struct{}{}
	return true
}

func (l *listener) unrest(c *clientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.resting, c)
}

// endRest ends all that rest: they read the end of their connection.
func (l *listener) endRest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.resting {
		_ = c.CloseRead() // fails where the client was faster
	}
	l.resting = nil
}

// readResumed is Read around a take-over. To fasthttp a connection that was given back is a
// new one, on which silence is an error that is answered, and whose first request has less
// time than Idle to begin and no time of its own. Here it ends like any kept connection.
func (c *clientConn) readResumed(p []byte) (n int, err error) {
	if c.sealed {
		return 0, errSealed
	}
	if len(c.ahead) > 0 {
		n = copy(p, c.ahead)
		if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
			c.ahead = nil
		}
	} else if n, err = c.TCPConn.Read(p); n == 0 && err != nil {
		return 0, io.EOF
	}
	if t := c.resume; t != nil && n > 0 {
		c.resume = nil
		c.ln.unrest(c)
		err = c.TCPConn.SetReadDeadline(time.Now().Add(time.Duration(t.ReadRequest)))
	}
	return n, err
}
