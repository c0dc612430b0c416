//go:build !linux

// Package hangup notices that a client closed its connection while the proxy is
// waiting for the upstream. This portable form polls each watched socket by peeking
// at it; the Linux form waits for the kernel's word.
package hangup

import (
	"net"
	"sync"
	"syscall"
	"time"
)

// pollEvery keeps the promise that a hang-up is noticed within a second.
const pollEvery = 250 * time.Millisecond

// Watcher watches sockets. It is safe for concurrent use.
type Watcher struct {
	mu    sync.Mutex
	next  uint64
	watch map[uint64]entry
	stop  chan struct{}
	done  chan struct{}
}

type entry struct {
	raw syscall.RawConn
	fn  func()
}

// New starts a Watcher.
func New() (*Watcher, error) {
	w := &Watcher{watch: map[uint64]entry{}, stop: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w, nil
}

// Close ends the Watcher. Watches that are still on are forgotten.
func (w *Watcher) Close() error {
	close(w.stop)
	<-w.done
	return nil
}

// Watch calls fn once, from the Watcher's goroutine, when the peer of c closes or
// resets the connection. fn must not block. The caller must call the returned stop
// before c is closed; when stop returns fn is not running and will not run.
func (w *Watcher) Watch(c net.Conn, fn func()) (stop func()) {
	raw := rawConn(c)
	if raw == nil {
		return func() {}
	}
	w.mu.Lock()
	w.next++
	id := w.next
	w.watch[id] = entry{raw, fn}
	w.mu.Unlock()
	return func() {
		w.mu.Lock()
		delete(w.watch, id)
		w.mu.Unlock()
	}
}

func (w *Watcher) run() {
	defer close(w.done)
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-t.C:
		}
		w.mu.Lock()
		for id, e := range w.watch {
			if peerClosed(e.raw) {
				delete(w.watch, id)
				e.fn()
			}
		}
		w.mu.Unlock()
	}
}

func peerClosed(raw syscall.RawConn) bool {
	closed := false
	err := raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		closed = n == 0 && err == nil || err == syscall.ECONNRESET || err == syscall.EPIPE
	})
	return err != nil || closed
}
