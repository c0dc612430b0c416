package limits_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// journal is a replica's journal in memory. It implements quota.Journal.
type journal struct {
	name string

	mu        sync.Mutex
	life      uint64
	events    []contract.Event // number i+1 is at i
	forgotten int64
	closed    bool
	changed   chan struct{}
}

var errJournalClosed = errors.New("journal closed")

// reopen begins the next life.
func (j *journal) reopen() *journal {
	j.mu.Lock()
	defer j.mu.Unlock()
	return &journal{name: j.name, life: j.life + 1, events: j.events, forgotten: j.forgotten, changed: make(chan struct{})}
}

// spend ends a request.
func (j *journal) spend(h quota.Hold, used int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := event(j.name, int64(len(j.events)+1), quota.Account{Customer: h.Customer, Period: contract.Period{ID: h.PeriodID}}, used)
	e.Reserved = h.Tokens
	j.events = append(j.events, e)
	close(j.changed)
	j.changed = make(chan struct{})
}

func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.closed = true
		close(j.changed)
	}
}

func (j *journal) Replica() string { return j.name }
func (j *journal) Life() uint64    { return j.life }

func (j *journal) Last() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return int64(len(j.events))
}

func (j *journal) Forgotten() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.forgotten
}

func (j *journal) forget(n int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.forgotten = max(j.forgotten, n)
}

func (j *journal) Next(after int64, n int) ([]contract.Event, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		return nil, errJournalClosed
	case after < j.forgotten:
		return nil, fmt.Errorf("events after %d: those up to %d are forgotten", after, j.forgotten)
	}
	some := j.events[after:]
	return append([]contract.Event(nil), some[:min(n, len(some))]...), nil
}

func (j *journal) Wait(ctx context.Context, after int64) error {
	for {
		j.mu.Lock()
		last, changed, closed := int64(len(j.events)), j.changed, j.closed
		j.mu.Unlock()
		switch {
		case closed:
			return errJournalClosed
		case last > after:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
