package upstream

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// socketProbe asks the kernel about a socket without reading from it. Its closures
// are made once per connection, so that a probe does not allocate.
type socketProbe struct {
	poll    func(fd uintptr)
	fds     [1]unix.PollFd
	ready   bool
	known   bool   // ackBase is valid
	ackBase uint64 // bytes the peer had acknowledged when the connection was new
}

func (p *socketProbe) init(rc syscall.RawConn) {
	p.poll = func(fd uintptr) {
		p.fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP} //nolint:gosec // a descriptor
		var zero unix.Timespec
		n, err := unix.Ppoll(p.fds[:], &zero, nil)
		p.ready = n != 0 || err != nil && err != unix.EINTR
	}
	p.ackBase, p.known = acked(rc)
}

// quiet reports whether nothing was received and the peer has not closed.
func (p *socketProbe) quiet(rc syscall.RawConn) bool {
	if rc == nil {
		return true
	}
	p.ready = false
	if err := rc.Control(p.poll); err != nil {
		return false
	}
	return !p.ready
}

// unreceived reports whether it is certain that the peer's kernel acknowledged nothing
// beyond the first n bytes written to the socket. A FIN carries the acknowledgement of
// all that arrived before it, so after a FIN the answer is final.
func (p *socketProbe) unreceived(rc syscall.RawConn, n uint64) bool {
	if !p.known {
		return false
	}
	now, ok := acked(rc)
	return ok && now <= p.ackBase+n
}

func acked(rc syscall.RawConn) (n uint64, ok bool) {
	if rc == nil {
		return 0, false
	}
	err := rc.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			n, ok = info.Bytes_acked, true
		}
	})
	return n, ok && err == nil && n > 0 // an old kernel leaves the field 0; a connected socket has its SYN acknowledged
}
