package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// monthsAhead is how many months after the present one get their partition early, so
// that the turn of a month finds its partition there.
const monthsAhead = 2

const monthFormat = "2006-01"

// keptYears is for how long usage events are kept, by their admission.
const keptYears = 2

// partitionFormat is the name of a month's partition, as usage_events_ensure_month
// makes it.
const partitionFormat = "usage_events_2006_01"

// oldestKept returns the time of the oldest event that is still taken.
func oldestKept(now time.Time) time.Time { return now.UTC().AddDate(-keptYears, 0, 0) }

// keptSince returns the beginning of the oldest month that is still kept as a whole.
func keptSince(now time.Time) time.Time {
	t := oldestKept(now)
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// DropOldPartitions removes, for ever, the events of months that ended more than two
// years ago, and returns the names of the partitions. The totals of their periods
// stay. Whichever clock is behind counts, ours or that of Postgres. It fails rather than keep writers waiting for more than 2 s; those it has
// dropped by then are gone.
func (s *Store) DropOldPartitions(ctx context.Context) ([]string, error) {
	now := s.now()
	var theirs time.Time
	if err := s.pool.QueryRow(ctx, `SELECT now()`).Scan(&theirs); err != nil {
		return nil, explain("drop old partitions", err)
	}
	if theirs.Before(now) {
		now = theirs
	}
	rows, _ := s.pool.Query(ctx, `SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
		WHERE inhparent = 'usage_events'::regclass ORDER BY relname`)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, explain("drop old partitions", err)
	}
	var dropped []string
	for _, name := range names {
		month, err := time.Parse(partitionFormat, name)
		if err != nil || !month.Before(keptSince(now)) {
			continue // made by hand, or kept
		}
		err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			// The same lock as where partitions are made.
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('usage_events_ensure_month')), set_config('lock_timeout', '2s', true)`); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `DROP TABLE IF EXISTS `+pgx.Identifier{name}.Sanitize())
			return err
		})
		if err != nil {
			return dropped, explain(fmt.Sprintf("drop partition %s", name), err)
		}
		dropped = append(dropped, name)
	}
	s.forgetMonths()
	return dropped, nil
}

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
