package upstream

import (
	"context"
	"io"
	"sync"
)

// Canceler ends a request from another goroutine. The zero value is ready. One
// Canceler serves one client request, which may make several upstream calls one after
// the other; it must not be copied, and calls that use it must not overlap.
type Canceler struct {
	// mu is held while the socket is closed, so that once release or Detach has
	// returned no Cancel can still be about to close a pooled connection. Closing a
	// socket never blocks (the TLS close_notify is deliberately left out).
	mu       sync.Mutex
	socket   io.Closer          // what a call blocks on, nil between calls
	stop     context.CancelFunc // ends a dial or a wait for a connection
	cause    error
	detached bool
}

// Cancel ends the call in progress and every later one with cause (ErrCanceled when
// nil). The first cause wins. It may be called from any goroutine at any time, before
// Do and after the end included, and does nothing once Detach has returned.
func (c *Canceler) Cancel(cause error) {
	if cause == nil {
		cause = ErrCanceled
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.detached || c.cause != nil {
		return
	}
	c.cause = cause
	if c.stop != nil {
		c.stop()
	}
	if c.socket != nil {
		_ = c.socket.Close()
	}
}

// Cause returns what Cancel was called with, nil when it was not.
func (c *Canceler) Cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// Detach makes every later Cancel a no-op. A Cancel that already began has finished
// when Detach returns.
func (c *Canceler) Detach() {
	c.mu.Lock()
	c.detached = true
	c.socket, c.stop = nil, nil
	c.mu.Unlock()
}

// Reset makes a detached Canceler ready for another request. The caller guarantees
// that nobody still holds it in order to cancel the former request.
func (c *Canceler) Reset() {
	c.mu.Lock()
	c.socket, c.stop, c.cause, c.detached = nil, nil, nil, false
	c.mu.Unlock()
}

// hold makes Cancel close s, and reports false when Cancel came first; the caller
// then closes s itself. A nil Canceler never cancels.
func (c *Canceler) hold(s io.Closer) bool {
	if c == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return false
	}
	c.socket, c.stop = s, nil
	return true
}

// holdStop makes Cancel call stop, and reports false when Cancel came first.
func (c *Canceler) holdStop(stop context.CancelFunc) bool {
	if c == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return false
	}
	c.socket, c.stop = nil, stop
	return true
}

// release takes the socket out of Cancel's reach. It reports false when Cancel came
// first and the socket therefore is closed.
func (c *Canceler) release() bool {
	if c == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket, c.stop = nil, nil
	return c.cause == nil
}

// canceled returns the cause, also for a nil Canceler.
func (c *Canceler) canceled() error {
	if c == nil {
		return nil
	}
	return c.Cause()
}
