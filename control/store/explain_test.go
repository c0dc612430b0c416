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
