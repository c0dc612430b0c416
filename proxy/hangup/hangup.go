package hangup

import (
	"net"
	"syscall"
)

// Watched returns how many sockets are watched.
func (w *Watcher) Watched() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.watch)
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
