package quota

import (
	"math/rand/v2"
	"sync"
)

const (
	// routine is within how many ticks a customer is called for that does not hurry: a call for
	// each request cost a tenth of its processor time, and all of a tick at once held up others.
	routine = 10
	// spread is by how many ticks that is less by chance, so that customers that were called for
	// together, as all are in a new epoch, do not stay together.
	spread = 4
)

// dirtyList has the accounts that may be dirty, and so spares a tick the others. The zero value
// is ready.
type dirtyList struct {
	mu   sync.Mutex // after any account's
	soon []*account
	ring [routine][]*account // one for each tick to come
	at   int                 // that of the last tick
}

// hurry has the next tick look at an account, which is marked as soon.
func (d *dirtyList) hurry(accounts ...*account) {
	d.mu.Lock()
	d.soon = append(d.soon, accounts...)
	d.mu.Unlock()
}

// delay has a later tick look at an account, which is marked as ringed.
func (d *dirtyList) delay(a *account) {
	d.mu.Lock()
	slot := (d.at + routine - rand.IntN(spread)) % len(d.ring) // #nosec G404 -- spreads work over time, no secret
	d.ring[slot] = append(d.ring[slot], a)
	d.mu.Unlock()
}

// take returns those that hurry, and at a turn those whose tick has come. They stay marked.
func (d *dirtyList) take(turn bool) (soon, come []*account) {
	d.mu.Lock()
	defer d.mu.Unlock()
	soon, d.soon = d.soon, nil
	if turn {
		d.at = (d.at + 1) % len(d.ring)
		come, d.ring[d.at] = d.ring[d.at], nil
	}
	return soon, come
}
