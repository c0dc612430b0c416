//go:build !linux

package proxy

import (
	"syscall"
	"time"
)

// setVanished does nothing here: only Linux can bound for how long what was sent may stay
// unacknowledged.
func setVanished(syscall.RawConn, time.Duration) error { return nil }
