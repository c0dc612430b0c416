package eventloop

import "time"

// Timer calls once, when it is due. The zero value is not set. A Timer that is set must not
// be copied. It is only ever moved to an earlier time: whoever wants it later has it fire, and
// sees then. So a deadline that moves with each event costs nothing.
type Timer struct {
	Due   func()
	at    time.Duration // on the loop's clock
	place int           // in the heap, from 1; 0 when not set
}

// timers is a heap by due time.
type timers []*Timer

// first returns when the next one is due; false when none is set.
func (h timers) first() (time.Duration, bool) {
	if len(h) == 0 {
		return 0, false
	}
	return h[0].at, true
}

// set moves t, which may be set or not, to at.
func (h *timers) set(t *Timer, at time.Duration) {
	t.at = at
	if t.place == 0 {
		*h = append(*h, t)
		t.place = len(*h)
	}
	h.down(h.up(t.place - 1))
}

// unset takes t out, if it is set.
func (h *timers) unset(t *Timer) {
	if t.place == 0 {
		return
	}
	i, last := t.place-1, len(*h)-1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	t.place = 0
	if i < last {
		h.down(h.up(i))
	}
}

func (h timers) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}

func (h timers) up(i int) int {
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].at <= h[i].at {
			break
		}
		h.swap(i, parent)
		i = parent
	}
	return i
}

func (h timers) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if h[child].at < h[least].at {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}
