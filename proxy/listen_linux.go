package proxy

import (
	"fmt"
	"math"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setVanished bounds for how long what was sent may stay unacknowledged. Keep-alive
// alone does not: it does not probe while there is something to send again, as in a
// stream, and the kernel then tries for a quarter of an hour. Connections inherit it from
// their listener.
func setVanished(rc syscall.RawConn, after time.Duration) error {
	var err error
	if cerr := rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
	}); cerr != nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", err)
	}
	return nil
}

// fileLimit returns how many files this process may have open.
func fileLimit() uint64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return math.MaxUint64 // only a warning depends on it
	}
	return l.Cur
}
