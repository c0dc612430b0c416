package store

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// ExplainDueForRenewal returns the plan of DueForRenewal.
func ExplainDueForRenewal(ctx context.Context, s *Store, at time.Time, after Due) string {
	rows, _ := s.pool.Query(ctx, "EXPLAIN "+dueForRenewal, at, after.End, after.ID, 200)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err.Error()
	}
	return strings.Join(lines, "\n")
}

// ExplainAboveBases returns the plan by which EachRecord finds what replicas settle
// themselves.
func ExplainAboveBases(ctx context.Context, s *Store, epoch int64) (plan string) {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, byNumbers, false); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, "EXPLAIN "+aboveBases, epoch)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		plan = strings.Join(lines, "\n")
		return err
	})
	if err != nil {
		return err.Error()
	}
	return plan
}
