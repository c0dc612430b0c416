// Package hangup notices that a client closed its connection while the proxy is
// waiting for the upstream and so neither reads nor writes that connection. fasthttp
// has no such signal (valyala/fasthttp#965).
//
// On Linux one epoll instance watches all registered sockets for EPOLLRDHUP: nothing
// is polled, and data that the client already sent (a pipelined request) does not hide
// the FIN behind it. A socket is registered once, for all the requests of its
// connection: to watch it costs no system call. A half-close counts as a hang-up, as in
// nginx.
package hangup

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Watcher watches sockets. It is safe for concurrent use.
type Watcher struct {
	epfd int
	wake int // eventfd that ends run

	mu    sync.Mutex
	next  uint32
	peers map[int32]*Peer // by file descriptor
	done  chan struct{}
}

// New starts a Watcher.
func New() (*Watcher, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch for hang-ups: epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epfd)
		return nil, fmt.Errorf("watch for hang-ups: eventfd: %w", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, wake, &ev); err != nil {
		_ = unix.Close(epfd)
		_ = unix.Close(wake)
		return nil, fmt.Errorf("watch for hang-ups: epoll: %w", err)
	}
	w := &Watcher{epfd: epfd, wake: wake, peers: map[int32]*Peer{}, done: make(chan struct{})}
	go w.run()
	return w, nil
}

// Close ends the Watcher. Watches that are still on are forgotten.
func (w *Watcher) Close() error {
	var one [8]byte
	one[0] = 1
	if _, err := unix.Write(w.wake, one[:]); err != nil {
		return fmt.Errorf("stop watching for hang-ups: %w", err)
	}
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	err := errors.Join(unix.Close(w.epfd), unix.Close(w.wake))
	w.epfd, w.peers = -1, map[int32]*Peer{} // connections may still come and go
	return err
}

// place is where a Watcher has a Peer.
type place struct {
	fd  int32
	gen uint32 // tells a late event of an earlier socket with the same descriptor
}

// Peer registers the connection c, whose Leave must be called before c is closed. Of a
// connection without a file descriptor (TLS, a pipe), or once the system has no room for
// more, nothing is noticed.
func (w *Watcher) Peer(c net.Conn) *Peer {
	p := &Peer{w: w, place: place{fd: -1}}
	raw := rawConn(c)
	if raw == nil {
		return p
	}
	_ = raw.Control(func(f uintptr) { // fails where c is closed, and nothing is left to notice
		w.mu.Lock()
		defer w.mu.Unlock()
		w.next++
		at := place{fd: int32(f), gen: w.next}
		ev := unix.EpollEvent{
			Events: unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR | unix.EPOLLET,
			Fd:     at.fd, Pad: int32(at.gen),
		}
		err := unix.EpollCtl(w.epfd, unix.EPOLL_CTL_ADD, int(f), &ev)
		if errors.Is(err, unix.EEXIST) {
			err = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_MOD, int(f), &ev)
		}
		if err == nil {
			p.place = at
			w.peers[at.fd] = p
		}
	})
	return p
}

// leave ends what Peer began.
func (w *Watcher) leave(p *Peer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at := p.place; w.peers[at.fd] == p {
		delete(w.peers, at.fd)
		_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_DEL, int(at.fd), nil)
	}
}

func (w *Watcher) run() {
	defer close(w.done)
	var events [128]unix.EpollEvent
	for {
		n, err := unix.EpollWait(w.epfd, events[:], -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		for _, ev := range events[:n] {
			if ev.Fd == -1 {
				return
			}
			w.mu.Lock()
			p := w.peers[ev.Fd]
			w.mu.Unlock()
			if p != nil && p.place.gen == uint32(ev.Pad) {
				p.hungUp()
			}
		}
	}
}
