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
	peers map[*Peer]struct{}
	stop  chan struct{}
	done  chan struct{}
}

// New starts a Watcher.
func New() (*Watcher, error) {
	w := &Watcher{peers: map[*Peer]struct{}{}, stop: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w, nil
}

// Close ends the Watcher. Watches that are still on are forgotten.
func (w *Watcher) Close() error {
	close(w.stop)
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peers = map[*Peer]struct{}{}
	return nil
}

// place is where a Watcher has a Peer.
type place struct{ raw syscall.RawConn }

// Peer registers the connection c, whose Leave must be called before c is closed. Of a
// connection without a file descriptor (TLS, a pipe) nothing is noticed.
func (w *Watcher) Peer(c net.Conn) *Peer {
	p := &Peer{w: w, place: place{rawConn(c)}}
	if p.place.raw != nil {
		w.mu.Lock()
		w.peers[p] = struct{}{}
		w.mu.Unlock()
	}
	return p
}

// leave ends what Peer began.
func (w *Watcher) leave(p *Peer) {
	w.mu.Lock()
	delete(w.peers, p)
	w.mu.Unlock()
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
		var gone []*Peer
		w.mu.Lock()
		for p := range w.peers {
			if peerClosed(p.place.raw) {
				delete(w.peers, p)
				gone = append(gone, p)
			}
		}
		w.mu.Unlock()
		for _, p := range gone {
			p.hungUp()
		}
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
