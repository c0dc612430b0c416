package hangup

import (
	"net"
	"sync"
	"syscall"
)

// Peer is the other side of a connection. Its methods are safe for concurrent use, but
// there is one watch at a time.
type Peer struct {
	w     *Watcher
	place place // fixed

	mu   sync.Mutex
	gone bool   // the peer has hung up
	fn   func() // nil: nobody watches
}

// Watch calls fn once when the peer closes or resets the connection: from the Watcher's
// goroutine, or before Watch returns if it already has. fn must not block and must not
// use the Peer.
func (p *Peer) Watch(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		fn()
		return
	}
	p.fn = fn
}

// Stop ends the watch: when it returns its fn is not running and will not run.
func (p *Peer) Stop() {
	p.mu.Lock()
	p.fn = nil
	p.mu.Unlock()
}

// Leave ends the watch and lets the Watcher forget the connection, which may be closed
// then. Idempotent.
func (p *Peer) Leave() {
	p.Stop()
	p.w.leave(p)
}

// hungUp notes that the peer is gone. fn runs under the lock, so that a Stop that
// returned means that it will not run.
func (p *Peer) hungUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	if fn := p.fn; fn != nil {
		p.fn = nil
		fn()
	}
}

// Registered returns how many connections the Watcher has.
func (w *Watcher) Registered() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.peers)
}

// rawConn returns access to the file descriptor of c, nil when it has none (TLS, a pipe).
func rawConn(c net.Conn) syscall.RawConn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}
