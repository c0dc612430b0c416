package store

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// ExplainBilling returns the plans by which billing looks for what is due.
func ExplainBilling(ctx context.Context, s *Store, at time.Time) map[string]string {
	plans := make(map[string]string)
	for name, q := range map[string]struct {
		sql  string
		args []any
	}{
		"overdue":     {overdueSubscriptions, []any{at, 10}},
		"used":        {periodsUsed, []any{at, 90, false, control.MailNearLimit, 200}},
		"above limit": {periodsAboveLimit, []any{at, "", "", 200}},
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
