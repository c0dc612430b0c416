package poller

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Poller waits for sockets. Only Wake may be called from another goroutine.
type Poller struct {
	fd   int
	wake int
	evs  [256]unix.EpollEvent
}

// wakeID marks the event of Wake. Connections have ids from 0.
const wakeID = -1

// New returns a Poller without sockets.
func New() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("poller: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("poller: eventfd: %w", err)
	}
	p := &Poller{fd: fd, wake: wake}
	if err := p.Add(wake, wakeID); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Precise makes waits of the calling thread end when they are due, instead of up to 50 µs
// later, which the kernel does by default to save power. The caller must have locked its
// goroutine to the thread; undo sets the default again.
func Precise() (undo func()) {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // later wake-ups at worst
	return func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }
}

// Add watches fd for reading and writing, edge-triggered, until it is closed. id comes
// back with its events.
func (p *Poller) Add(fd int, id int32) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: id}
	if id == wakeID {
		ev.Events = unix.EPOLLIN
	}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("poller: add: %w", err)
	}
	return nil
}

// Wait appends to list the events of sockets, waiting at most d for the first. An event may
// come although nothing changed, also of a socket which was closed meanwhile.
func (p *Poller) Wait(list []Event, d time.Duration) ([]Event, error) {
	// What is there already costs no switch of the scheduler's state.
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.evs[0])), uintptr(len(p.evs)), 0, 0, 0)
	if e == 0 && n == 0 && d != 0 {
		var ts *unix.Timespec
		if d > 0 {
			t := unix.NsecToTimespec(int64(d))
			ts = &t
		}
		n, _, e = unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.evs[0])), uintptr(len(p.evs)), uintptr(unsafe.Pointer(ts)), 0, 0)
	}
	if e != 0 && e != unix.EINTR {
		return list, fmt.Errorf("poller: wait: %w", e)
	}
	if e != 0 {
		n = 0
	}
	for _, ev := range p.evs[:n] {
		if ev.Fd == wakeID {
			var b [8]byte
			_, _ = unix.Read(p.wake, b[:]) // it is level-triggered: what is not read now is later
			continue
		}
		list = append(list, Event{ID: ev.Fd, Hangup: ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0})
	}
	return list, nil
}

// Wake ends a Wait, or the next one.
func (p *Poller) Wake() {
	one := [8]byte{1}
	_, _ = unix.Write(p.wake, one[:]) // if it is full, Wait ends anyway
}

// Close frees the Poller, not the sockets.
func (p *Poller) Close() {
	unix.Close(p.wake)
	unix.Close(p.fd)
}

// Dial begins a connection to addr. It is complete, or has failed, at the first event;
// Connected tells.
func Dial(addr netip.AddrPort) (fd int, err error) {
	fd, err = unix.Socket(family(addr), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("poller: socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // latency would suffer, no more
	if err := unix.Connect(fd, sockaddr(addr)); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, fmt.Errorf("poller: connect: %w", err)
	}
	return fd, nil
}

// Connected returns nil for a connection that is complete, ErrAgain for one on its way,
// and otherwise why it failed.
func Connected(fd int) error {
	e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return fmt.Errorf("poller: connect: %w", err)
	}
	if e != 0 {
		return fmt.Errorf("poller: connect: %w", unix.Errno(e))
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return ErrAgain
	}
	return nil
}

// Listen opens a listening socket; several may share one address, and the kernel then
// spreads connections over them.
func Listen(addr netip.AddrPort) (fd int, bound netip.AddrPort, err error) {
	fd, err = unix.Socket(family(addr), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, addr, fmt.Errorf("poller: socket: %w", err)
	}
	fail := func(what string, err error) (int, netip.AddrPort, error) {
		unix.Close(fd)
		return -1, addr, fmt.Errorf("poller: %s %s: %w", what, addr, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fail("listen on", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fail("listen on", err)
	}
	if err := unix.Bind(fd, sockaddr(addr)); err != nil {
		return fail("bind", err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return fail("listen on", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return fail("name of", err)
	}
	port := addr.Port()
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		port = uint16(sa.Port)
	case *unix.SockaddrInet6:
		port = uint16(sa.Port)
	}
	return fd, netip.AddrPortFrom(addr.Addr(), port), nil
}

// Accept returns the next connection, or ErrAgain.
func Accept(listener int) (fd int, err error) {
	fd, _, err = unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err == unix.EAGAIN || err == unix.ECONNABORTED || err == unix.EINTR {
		return -1, ErrAgain
	}
	if err != nil {
		return -1, fmt.Errorf("poller: accept: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // latency would suffer, no more
	return fd, nil
}

// Read reads what is there: ErrAgain if nothing is, io.EOF at the end.
func Read(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	switch {
	case e == unix.EAGAIN || e == unix.EINTR:
		return 0, ErrAgain
	case e != 0:
		return 0, fmt.Errorf("poller: read: %w", e)
	case n == 0:
		return 0, io.EOF
	}
	return int(n), nil
}

// Write writes as much as there is room for, which may be less than b; ErrAgain if there
// is none.
func Write(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	switch {
	case e == unix.EAGAIN || e == unix.EINTR:
		return 0, ErrAgain
	case e != 0:
		return 0, fmt.Errorf("poller: write: %w", e)
	}
	return int(n), nil
}

// Close closes a socket; it is no longer watched then.
func Close(fd int) { unix.Close(fd) }

// Raise lifts the limit of open files of this process, and of those it starts, to what the
// system allows, and returns it.
func Raise() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("poller: limit of open files: %w", err)
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("poller: limit of open files: %w", err)
	}
	return l.Cur, nil
}

func family(addr netip.AddrPort) int {
	if addr.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
}

// Resolve turns host:port into the first of its addresses.
func Resolve(hostport string) (netip.AddrPort, error) {
	a, err := net.ResolveTCPAddr("tcp", hostport)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("poller: %w", err)
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}
