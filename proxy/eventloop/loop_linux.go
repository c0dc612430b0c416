package eventloop

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many events one wait takes.
const batch = 256

// wakeSlot marks the loop's own event.
const wakeSlot = -1

// Loop is one event loop. See the package comment for who may call what.
type Loop struct {
	epoll  *os.File // keeps the goroutine parked until the epoll instance has something
	raw    syscall.RawConn
	epfd   int
	wake   int // eventfd that ends a wait
	start  time.Time
	ready  func(fd uintptr) bool // takes what is ready
	got    int
	events [batch]unix.EpollEvent

	now     time.Duration
	watches []*Watch // by slot; nil where free
	free    []int32
	gen     int32
	timers  timers
	armed   time.Duration // when the wait ends by itself; 0: never
	ended   bool

	mu     sync.Mutex
	posted []Task
	closed bool
	spare  []Task // of the goroutine
	done   chan struct{}
}

// New starts a Loop.
func New() (*Loop, error) {
	l := &Loop{start: time.Now(), done: make(chan struct{})}
	var err error
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("event loop: epoll: %w", err)
	}
	// A descriptor that does not block is what has os.NewFile put it into the runtime's poller.
	if err := unix.SetNonblock(l.epfd, true); err != nil {
		_ = unix.Close(l.epfd)
		return nil, fmt.Errorf("event loop: %w", err)
	}
	l.epoll = os.NewFile(uintptr(l.epfd), "epoll") //nolint:gosec // a descriptor
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		_ = l.epoll.Close()
		return nil, fmt.Errorf("event loop: eventfd: %w", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeSlot}
	err = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, l.wake, &ev)
	if err == nil {
		l.raw, err = l.epoll.SyscallConn()
	}
	if err == nil {
		err = l.epoll.SetReadDeadline(time.Time{}) // fails where the runtime does not poll it
	}
	if err != nil {
		_ = l.epoll.Close()
		_ = unix.Close(l.wake)
		return nil, fmt.Errorf("event loop: %w", err)
	}
	l.ready = func(fd uintptr) bool {
		// It does not wait, so the scheduler need not know.
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&l.events[0])), batch, 0, 0, 0)
		if errno != 0 {
			n = 0
		}
		l.got = int(n) //nolint:gosec // at most batch
		return n > 0
	}
	go l.run()
	return l, nil
}

// Close ends the loop when it has run the tasks that were posted before, and waits for that. What
// is still watched is told nothing. It must not be called by the loop's own goroutine, and once only.
func (l *Loop) Close() error {
	l.mu.Lock()
	l.closed = true
	err := l.interrupt()
	l.mu.Unlock()
	if err == nil {
		<-l.done
	}
	return errors.Join(err, l.epoll.Close(), unix.Close(l.wake))
}

func (l *Loop) interrupt() error {
	one := [8]byte{0: 1}
	if _, err := unix.Write(l.wake, one[:]); err != nil {
		return fmt.Errorf("event loop: wake: %w", err)
	}
	return nil
}

// Post has t run soon, after those that were posted before it. It reports false, and does
// nothing, when the loop was closed.
func (l *Loop) Post(t Task) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.posted = append(l.posted, t)
	if len(l.posted) == 1 {
		// Under the lock: once the loop is closed, the number may be that of another file.
		_ = l.interrupt() // an eventfd takes 2^64-2 of them
	}
	l.mu.Unlock()
	return true
}

// Now returns the loop's clock: when this round of events began, since the loop's start.
func (l *Loop) Now() time.Duration { return l.now }

// At returns t on the loop's clock.
func (l *Loop) At(t time.Time) time.Duration { return t.Sub(l.start) }

// By has t called at the given time of the loop's clock, or earlier if it is set for that.
func (l *Loop) By(t *Timer, at time.Duration) {
	if t.place == 0 || at < t.at {
		l.timers.set(t, at)
	}
}

// Unset has t not called.
func (l *Loop) Unset(t *Timer) { l.timers.unset(t) }

// Watch is one socket that is watched. The zero value is none.
type Watch struct {
	l    *Loop
	raw  syscall.RawConn
	h    Handler
	slot int32
	gen  int32 // tells a late event from one of this watch
}

// Watch has h told what the socket becomes ready for, of want and Hangup, beginning with what it
// is ready for now. w must stay as it is until Stop.
func (l *Loop) Watch(w *Watch, raw syscall.RawConn, want Event, h Handler) error {
	l.gen++
	*w = Watch{l: l, raw: raw, h: h, gen: l.gen}
	if n := len(l.free); n > 0 {
		w.slot = l.free[n-1]
		l.free = l.free[:n-1]
		l.watches[w.slot] = w
	} else {
		w.slot = int32(len(l.watches)) //nolint:gosec // as many as there are descriptors
		l.watches = append(l.watches, w)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: w.slot, Pad: w.gen}
	if want&Readable != 0 {
		ev.Events |= unix.EPOLLIN
	}
	if want&Writable != 0 {
		ev.Events |= unix.EPOLLOUT
	}
	var err error
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, int(fd), &ev) //nolint:gosec // a descriptor
	}); cerr != nil {
		err = cerr
	}
	if err != nil {
		w.forget()
		return fmt.Errorf("event loop: watch: %w", err)
	}
	return nil
}

// Stop ends the watch, if there is one: its handler is not called any more. Call it before the
// socket is closed or used elsewhere.
func (w *Watch) Stop() {
	if w.l == nil {
		return
	}
	l := w.l
	_ = w.raw.Control(func(fd uintptr) { // a closed one is watched no more
		_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, int(fd), nil) //nolint:gosec // a descriptor
	})
	w.forget()
}

func (w *Watch) forget() {
	w.l.watches[w.slot] = nil
	w.l.free = append(w.l.free, w.slot)
	*w = Watch{}
}

func (l *Loop) run() {
	defer close(l.done)
	for !l.ended {
		l.got = 0
		err := l.raw.Read(l.ready)
		l.now = time.Since(l.start)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			panic(fmt.Sprintf("BUG: event loop cannot wait: %v", err)) // its streams would hang for ever
		}
		for i := range l.got {
			l.dispatch(&l.events[i])
		}
		l.expire()
		l.arm()
	}
}

func (l *Loop) dispatch(ev *unix.EpollEvent) {
	if ev.Fd == wakeSlot {
		l.runPosted()
		return
	}
	w := l.watches[ev.Fd]
	if w == nil || w.gen != ev.Pad {
		return // of a watch that ended in this round
	}
	var e Event
	if ev.Events&unix.EPOLLIN != 0 {
		e |= Readable
	}
	if ev.Events&unix.EPOLLOUT != 0 {
		e |= Writable
	}
	if ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e |= Hangup
	}
	w.h.Ready(e)
}

func (l *Loop) runPosted() {
	l.mu.Lock()
	tasks := l.posted
	l.posted = l.spare[:0]
	closed := l.closed
	l.mu.Unlock()
	for i, t := range tasks {
		t.Run()
		tasks[i] = nil
	}
	l.spare = tasks
	l.ended = closed
}

func (l *Loop) expire() {
	for {
		at, ok := l.timers.first()
		if !ok || at > l.now {
			return
		}
		t := l.timers[0]
		l.timers.unset(t)
		t.Due()
	}
}

// arm has the wait end when the first timer is due. One that moved later ends it once for nothing.
func (l *Loop) arm() {
	at, ok := l.timers.first()
	switch {
	case ok && (l.armed == 0 || l.armed <= l.now || at < l.armed):
		l.armed = at
		_ = l.epoll.SetReadDeadline(l.start.Add(at)) // fails only once it is closed
	case !ok && l.armed != 0 && l.armed <= l.now:
		l.armed = 0
		_ = l.epoll.SetReadDeadline(time.Time{})
	}
}
