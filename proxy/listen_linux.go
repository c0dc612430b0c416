package proxy

import (
	"fmt"
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
