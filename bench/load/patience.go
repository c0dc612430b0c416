package load

import (
	"cmp"
	"slices"
	"time"
)

// relax has a connection wait as it was told.
func (t *thread) relax(c *conn, d time.Duration) {
	c.state, c.retry = resting, t.now+int64(d)
	t.rest = t.inOrder(t.rest, c)
}

// inOrder adds c to connections that wait, the first whose time comes first.
func (t *thread) inOrder(waiting []int32, c *conn) []int32 {
	at, _ := slices.BinarySearchFunc(waiting, c.retry, func(id int32, until int64) int { return cmp.Compare(t.conns[id].retry, until+1) })
	return slices.Insert(waiting, at, c.id)
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
		switch {
		case t.due(at):
			t.rec.withheld++
		case t.now >= t.from:
			t.rec.backlog-- // the warm-up's, for which others wait
		}
		t.sched.next()
	}
}
