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

// ExplainAccountPages returns the plans by which the pages of a customer, and lists of
// operators, are read, each with the arguments that it has in use.
func ExplainAccountPages(ctx context.Context, s *Store, customer string, now time.Time) map[string]string {
	plans := make(map[string]string)
	for name, q := range map[string]struct {
		sql  string
		args []any
	}{
		"usage":     {usageShares, []any{customer, now.AddDate(0, 0, -30), now.Add(time.Hour)}},
		"customers": {selectCustomers + ` WHERE (created_at, id) > ($1, $2) AND ($3 = '' OR status = $3)` + byAge, []any{now.Add(-time.Hour), "x", "", 50}},
		"boxes":     {selectBoxes + ofCustomer(""), []any{now.Add(-time.Hour), "x", "", 50}},
		"own boxes": {selectBoxes + ofCustomer(customer), []any{time.Time{}, "", customer, 50}},
		"audit":     {selectAudit + ` WHERE id < $1 AND customer_id = $3 ORDER BY id DESC LIMIT $2`, []any{int64(1 << 60), 50, customer}},
	} {
		rows, _ := s.pool.Query(ctx, "EXPLAIN "+q.sql, q.args...)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		plans[name] = strings.Join(lines, "\n")
		if err != nil {
			plans[name] = err.Error()
		}
	}
	return plans
}
