package load

import (
	"cmp"
	"slices"
	"time"
)

// relax has a connection wait as it was told.
func (t *thread) relax(c *conn, d time.Duration) {
	c.state, c.retry = resting, t.now+int64(d)
	at, _ := slices.BinarySearchFunc(t.rest, c.retry, func(id int32, until int64) int { return cmp.Compare(t.conns[id].retry, until+1) })
	t.rest = slices.Insert(t.rest, at, c.id)
}

// rested makes connections free that have waited for as long as they were told.
func (t *thread) rested() {
	for len(t.rest) > 0 && t.conns[t.rest[0]].retry <= t.now {
		c := &t.conns[t.rest[0]]
		t.rest = t.rest[1:]
		c.state = idle
		t.idle = append(t.idle, c.id)
	}
}

// withhold skips what is due of clients that wait as they were told. Whose the next request is, of all
// clients, is asked once.
func (t *thread) withhold() {
	for t.sched != nil && len(t.rest) > 0 && !t.asked {
		at := t.start + int64(t.sched.at)
		if at > t.now {
			return
		}
		if t.random.IntN(len(t.conns)) >= len(t.rest) {
			t.asked = true
			return
		}
		if t.due(at) {
			t.rec.withheld++
		}
		t.sched.next()
	}
}
