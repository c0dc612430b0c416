package eventloop

import (
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket reads and writes a connection without waiting. Init it once; it must not be copied
// after that.
type Socket struct {
	raw    syscall.RawConn
	op     uintptr
	buf    []byte
	n      int
	errno  syscall.Errno
	access func(fd uintptr)
}

// Init makes s the connection of raw.
func (s *Socket) Init(raw syscall.RawConn) {
	s.raw = raw
	s.access = func(fd uintptr) {
		for {
			// A socket that does not block: the scheduler need not know of the call.
			n, _, errno := unix.RawSyscall(s.op, fd, uintptr(unsafe.Pointer(unsafe.SliceData(s.buf))), uintptr(len(s.buf)))
			if errno != unix.EINTR {
				s.n, s.errno = int(n), errno //nolint:gosec // at most len(s.buf) where errno is 0
				return
			}
		}
	}
}

func (s *Socket) call(op uintptr, p []byte) (int, error) {
	s.op, s.buf = op, p
	err := s.raw.Control(s.access)
	s.buf = nil
	switch {
	case err != nil:
		return 0, err
	case s.errno == unix.EAGAIN:
		return 0, nil
	case s.errno != 0:
		return 0, s.errno
	}
	return s.n, nil
}

// Read reads what there is; 0 and no error when there is nothing now, io.EOF when the peer
// has closed its side. p must not be empty.
func (s *Socket) Read(p []byte) (int, error) {
	n, err := s.call(unix.SYS_READ, p)
	if n == 0 && err == nil && s.errno == 0 {
		return 0, io.EOF
	}
	return n, err
}

// Write writes as much of p as there is room for.
func (s *Socket) Write(p []byte) (int, error) { return s.call(unix.SYS_WRITE, p) }
