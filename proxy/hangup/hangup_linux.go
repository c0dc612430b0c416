// Package hangup notices that a client closed its connection while the proxy is
// waiting for the upstream and so neither reads nor writes that connection. fasthttp
// has no such signal (valyala/fasthttp#965).
//
// On Linux one epoll instance watches all registered sockets for EPOLLRDHUP: nothing
// is polled, and data that the client already sent (a pipelined request) does not hide
// the FIN behind it. A half-close counts as a hang-up, as in nginx.
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
	watch map[int32]entry // by file descriptor
	done  chan struct{}
}

type entry struct {
	gen uint32 // tells a late event of an earlier watch of the same descriptor
	fn  func()
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
	w := &Watcher{epfd: epfd, wake: wake, watch: map[int32]entry{}, done: make(chan struct{})}
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
	return errors.Join(unix.Close(w.epfd), unix.Close(w.wake))
}

// Watch calls fn once, from the Watcher's goroutine, when the peer of c closes or
// resets the connection; at once if it already has. fn must not block. The caller must
// call the returned stop before c is closed; when stop returns fn is not running and
// will not run. A connection without a file descriptor (TLS, a pipe) is not watched.
func (w *Watcher) Watch(c net.Conn, fn func()) (stop func()) {
	raw := rawConn(c)
	if raw == nil {
		return func() {}
	}
	var fd, gen = int32(-1), uint32(0)
	_ = raw.Control(func(f uintptr) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.next++
		ev := unix.EpollEvent{
			Events: unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR | unix.EPOLLET | unix.EPOLLONESHOT,
			Fd:     int32(f), Pad: int32(w.next),
		}
		err := unix.EpollCtl(w.epfd, unix.EPOLL_CTL_ADD, int(f), &ev)
		if errors.Is(err, unix.EEXIST) {
			err = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_MOD, int(f), &ev)
		}
		if err == nil {
			fd, gen = int32(f), w.next
			w.watch[fd] = entry{gen, fn}
		}
	})
	if fd < 0 {
		return func() {}
	}
	return func() {
		w.mu.Lock()
		if e, ok := w.watch[fd]; ok && e.gen == gen {
			delete(w.watch, fd)
			_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_DEL, int(fd), nil)
		}
		w.mu.Unlock()
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
			// fn runs under the lock, so that a stop that returned means that it will
			// not run; it must not block, and it must not call Watch or stop.
			w.mu.Lock()
			if e, ok := w.watch[ev.Fd]; ok && e.gen == uint32(ev.Pad) {
				delete(w.watch, ev.Fd)
				_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_DEL, int(ev.Fd), nil)
				e.fn()
			}
			w.mu.Unlock()
		}
	}
}
