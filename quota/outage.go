package quota

import (
	"sync/atomic"
	"time"
)

// outage lets callers fail at once while Redis is away, instead of each waiting for
// its timeout: after some failures in a row only one
// attempt per outagePause goes through, until one works. The zero value is ready.
type outage struct {
	failures atomic.Int32
	next     atomic.Int64 // Unix nanoseconds: when the next attempt may go through
}

const (
	outageAfter = 3
	outagePause = 50 * time.Millisecond
)

func (o *outage) allow(now time.Time) bool {
	if o.failures.Load() < outageAfter {
		return true
	}
	next := o.next.Load()
	return now.UnixNano() >= next && o.next.CompareAndSwap(next, now.Add(outagePause).UnixNano())
}

func (o *outage) failed(now time.Time) {
	// The pause counts from the end of the attempt, which may have taken longer.
	if o.failures.Load() >= outageAfter || o.failures.Add(1) >= outageAfter {
		o.next.Store(now.Add(outagePause).UnixNano())
	}
}

func (o *outage) worked() {
	if o.failures.Load() != 0 {
		o.failures.Store(0)
	}
}
