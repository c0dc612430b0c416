package quota

import (
	"sync"
	"sync/atomic"
	"time"
)

// waiters holds one channel per customer that somebody waits for. The zero value is
// ready; safe for concurrent use.
type waiters struct {
	count   atomic.Int64 // of by, to be read without mu
	mu      sync.Mutex   // guards the following
	by      map[string]waiter
	sweepAt time.Time
}

type waiter struct {
	changed chan struct{}
	since   time.Time
}

// waiterTTL is after how long a channel is closed without a change: its waiters may
// be long gone, and nobody says so.
const waiterTTL = time.Minute

func (w *waiters) wait(customer string) <-chan struct{} {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil {
		w.by = make(map[string]waiter)
	}
	if now.After(w.sweepAt) {
		w.sweepAt = now.Add(waiterTTL)
		for c, old := range w.by {
			if now.Sub(old.since) >= waiterTTL {
				close(old.changed)
				delete(w.by, c)
			}
		}
	}
	found, ok := w.by[customer]
	if !ok {
		found = waiter{changed: make(chan struct{}), since: now}
		w.by[customer] = found
	}
	w.count.Store(int64(len(w.by)))
	return found.changed
}

func (w *waiters) wake(customer string) {
	// Who waits from here on looks at the account after this, and finds the change.
	if w.count.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if found, ok := w.by[customer]; ok {
		close(found.changed)
		delete(w.by, customer)
		w.count.Store(int64(len(w.by)))
	}
}
