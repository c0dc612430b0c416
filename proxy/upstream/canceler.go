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
	held     io.Closer // ends what a call blocks on; nil between calls
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
	if c.held != nil {
		_ = c.held.Close()
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
	c.held = nil
	c.mu.Unlock()
}

// Reset makes a detached Canceler ready for another request. The caller guarantees
// that nobody still holds it in order to cancel the former request.
func (c *Canceler) Reset() {
	c.mu.Lock()
	c.held, c.cause, c.detached = nil, nil, false
	c.mu.Unlock()
}

// stopper is a dial or a wait for a connection, for hold.
type stopper context.CancelFunc

// Close ends it.
func (s stopper) Close() error {
	s()
	return nil
}

// hold makes Cancel close h, and reports false when Cancel came first; the caller
// then closes h itself. A nil Canceler never cancels.
func (c *Canceler) hold(h io.Closer) bool {
	if c == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return false
	}
	c.held = h
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
	c.held = nil
	return c.cause == nil
}

// canceled returns the cause, also for a nil Canceler.
func (c *Canceler) canceled() error {
	if c == nil {
		return nil
	}
	return c.Cause()
}
