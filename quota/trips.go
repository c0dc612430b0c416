package quota

import (
	"errors"
	"sync"
)

// maxTrips is how many trips are on their way to one server at a time, beside those of ticks: of one call, or of
// those that have come meanwhile.
const maxTrips = 4

// trips are the calls to one server that do not wait for a tick. When thousands of customers come at
// once, as after a restart, a trip for each would cost both sides several times as much as what the
// script does, and keep as many connections waiting. The zero value is ready.
type trips struct {
	mu      sync.Mutex
	running int
	queued  []*flight // only while maxTrips are running
}

// enter reports whether f is to be made at once; otherwise one that is running makes it later.
func (t *trips) enter(f *flight) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running < maxTrips {
		t.running++
		return true
	}
	t.queued = append(t.queued, f)
	return false
}

// next returns queued calls of one epoch, at most maxFlights. Without any, the caller is not
// running any more.
func (t *trips) next() []*flight {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for n < min(len(t.queued), maxFlights) && t.queued[n].call.epoch == t.queued[0].call.epoch {
		n++
	}
	if n == 0 {
		t.running--
		return nil
	}
	some := t.queued[:n:n]
	if t.queued = t.queued[n:]; len(t.queued) == 0 {
		t.queued = nil // its array is as long as the longest queue was
	}
	return some
}

// send makes one call, soon. It lands in any case.
func (l *Leases) send(f *flight) {
	t := &f.server.trips
	if f.server.away() {
		// One of the few that find out whether it is back, which must not wait for those that hang.
		if !l.spawn(func() { l.fly(f) }) {
			l.land(f, nil, errClosed)
		}
		return
	}
	if !t.enter(f) {
		return
	}
	if l.spawn(func() { l.makeTrips(f) }) {
		return
	}
	l.land(f, nil, errClosed)
	l.makeQueued(t)
}

// makeTrips makes one call, and then those that have come meanwhile.
func (l *Leases) makeTrips(f *flight) {
	l.fly(f)
	l.makeQueued(&f.server.trips)
}

// makeQueued makes the calls that are queued, until there are none.
func (l *Leases) makeQueued(t *trips) {
	for some := t.next(); len(some) > 0; some = t.next() {
		switch s, epoch := some[0].server, some[0].call.epoch; {
		case l.isClosed():
			l.landAll(some, errClosed)
		case epoch != l.epoch.Load():
			l.landAll(some, errEpoch)
		case s.away():
			// Each trip would wait for its timeout.
			l.landAll(some, errAway)
		default:
			l.flyAll(epoch, some)
		}
	}
}

var errAway = errors.New("Redis failed several times in a row")

func (l *Leases) landAll(flights []*flight, err error) {
	for _, f := range flights {
		l.land(f, nil, err)
	}
}
