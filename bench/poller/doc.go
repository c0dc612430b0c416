// Package poller is the smallest useful wrapper of epoll and non-blocking sockets, for the
// two programs of a measurement that must cost less than what they measure: the load
// generator and the origin. One goroutine, locked to its thread, drives thousands of
// connections with it: no goroutine is woken per event, and no deadline timer is set.
//
// It exists on Linux only. Elsewhere every function returns errors.ErrUnsupported, since
// what a proxy costs is read from Linux' accounting anyway.
package poller

import (
	"errors"
	"time"
)

// ErrAgain says that a socket has nothing to read, or no room, just now.
var ErrAgain = errors.New("poller: again")

// Forever makes Wait wait for an event or a Wake only.
const Forever = time.Duration(-1)

// Event says that a socket may have become readable or writable.
type Event struct {
	ID     int32 // of Add
	Hangup bool  // the peer closed: read until the end now, there will be no other event
}
