package store

import (
	"context"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// monthsAhead is how many months after the present one get their partition early, so
// that the turn of a month finds its partition there.
const monthsAhead = 2

const monthFormat = "2006-01"

// EnsurePartitions creates the partitions of usage_events for this month and the next
// ones. Call it at start and from time to time; RecordUsage creates what is missing.
// It always asks Postgres, and so tells as well whether Postgres answers.
func (s *Store) EnsurePartitions(ctx context.Context) error {
	now := s.now().UTC()
	for n := range monthsAhead + 1 {
		if err := s.createMonth(ctx, control.MonthsAfter(now, n)); err != nil {
			return explain("ensure partitions of usage_events", err)
		}
	}
	return nil
}

// ensureMonths runs outside of the ledger's transaction: attaching a partition locks
// customers against writers, which should last for a moment only.
func (s *Store) ensureMonths(ctx context.Context, events []control.Delivery) error {
	for i := range events {
		if err := s.ensureMonth(ctx, events[i].Event.AdmittedAt); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) ensureMonth(ctx context.Context, at time.Time) error {
	month := at.UTC().Format(monthFormat)
	s.monthsMu.Lock()
	known := s.months[month]
	s.monthsMu.Unlock()
	if known {
		return nil
	}
	return s.createMonth(ctx, at)
}

func (s *Store) createMonth(ctx context.Context, at time.Time) error {
	if _, err := s.pool.Exec(ctx, `SELECT usage_events_ensure_month($1)`, at); err != nil {
		return err
	}
	s.monthsMu.Lock()
	s.months[at.UTC().Format(monthFormat)] = true
	s.monthsMu.Unlock()
	return nil
}

func (s *Store) forgetMonths() {
	s.monthsMu.Lock()
	defer s.monthsMu.Unlock()
	clear(s.months)
}
