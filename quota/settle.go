package quota

import (
	"context"
	"errors"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

const (
	readEvents = 500 // at once
	switching  = -1  // epoch: not one any more, not the other yet
	// gather is for how long events are let come before they are read: the waking of a
	// goroutine for each costs a request a twentieth of its processor time.
	gather = 2 * time.Millisecond
)

// read takes events from the journal as they come, in their order: the only way in which
// anything is settled.
func (l *Leases) read(ctx context.Context) {
	for {
		l.reading.Lock()
		err := l.readOn()
		at := l.at.Load()
		l.reading.Unlock()
		if err == nil {
			err = l.journal.Wait(ctx, at)
		}
		if err == nil {
			pause(ctx, gather)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			l.opts.Logger.Error("cannot read what was used", "error", err)
			if !pause(ctx, time.Second) {
				return
			}
		}
	}
}

// readOn takes what is there. l.reading is held.
func (l *Leases) readOn() error {
	for {
		events, err := l.journal.Next(l.at.Load(), readEvents)
		if err != nil {
			return err
		}
		for i := range events {
			e := &events[i]
			l.take(e)
			l.at.Store(e.Seq)
		}
		l.caught.Store(l.at.Load() >= l.begun)
		if len(events) == 0 {
			return nil
		}
	}
}

// take settles one event: its hold ends if it was made in this life.
func (l *Leases) take(e *contract.Event) {
	a := l.lock(accountKey{e.CustomerID, e.PeriodID})
	used := min(max(e.Settled, 0), e.Reserved)
	if e.Seq > l.begun {
		a.spend(e.Seq, e.Reserved, used)
		a.usedAt = l.now() // who waits for a long answer is not silent
	} else {
		a.recovered(e.Seq, used)
	}
	a.mu.Unlock()
	l.waiters.wake(e.CustomerID)
}

// settledUpTo returns the number up to which all events are settled in Redis.
func (l *Leases) settledUpTo() int64 {
	up := l.at.Load() // first: an event that is taken from now on is pending below
	l.each(func(a *account) { up = min(up, a.settledUpTo()) })
	return up
}

// rebase begins an epoch whose records contain this replica's events up to base: all later
// ones have to be settled anew. l.reading is held.
func (l *Leases) rebase(epoch, base int64) error {
	if err := l.readOn(); err != nil {
		return err
	}
	// An earlier life of this replica may have settled in this epoch what lies in between.
	from := max(base, l.journal.Forgotten())
	if from > base && l.epoch.Load() > 0 {
		// Cannot be, if nobody forgot more than the ledger had.
		return errors.New("BUG: the rebuilt records lack events that the journal has forgotten")
	}
	// No call is made, and no answer to an earlier one counts, while it is half done.
	l.epoch.Store(switching)
	l.each(func(a *account) { a.forgetSpends() })
	for at, after := l.at.Load(), from; after < at; {
		events, err := l.journal.Next(after, readEvents)
		if err != nil {
			return err
		}
		for i := range events {
			e := &events[i]
			if e.Seq > at {
				break
			}
			a := l.lock(accountKey{e.CustomerID, e.PeriodID})
			a.recovered(e.Seq, min(max(e.Settled, 0), e.Reserved))
			a.mu.Unlock()
		}
		if len(events) == 0 {
			break
		}
		after = events[len(events)-1].Seq
	}
	l.base.Store(base)
	l.opts.Guard.entered(epoch)
	l.epoch.Store(epoch)
	return nil
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
