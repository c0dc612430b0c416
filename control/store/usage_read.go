package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// usageShares reads nothing that is not in index usage_events_customer.
const usageShares = `
	SELECT date_trunc('day', admitted_at AT TIME ZONE 'UTC') AS day, model_served, count(*), sum(prompt_tokens)::bigint,
		sum(cached_tokens)::bigint, sum(completion_tokens)::bigint, sum(reasoning_tokens)::bigint, sum(settled_tokens)::bigint
	FROM usage_events WHERE customer_id = $1 AND admitted_at >= $2 AND admitted_at < $3
	GROUP BY day, model_served ORDER BY day, model_served`

func usageByDay(ctx context.Context, q querier, customer string, from, to time.Time) ([]control.UsageShare, error) {
	rows, _ := q.Query(ctx, usageShares, customer, from, to)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[control.UsageShare])
	return list, explain("usage of customer "+customer, err)
}

// UsageByDay sums up what a customer used from one time to another, that excluded, by day
// (UTC) and model, in this order.
func (s *Store) UsageByDay(ctx context.Context, customer string, from, to time.Time) ([]control.UsageShare, error) {
	return usageByDay(ctx, s.pool, customer, from, to)
}

// UsageByDay sums up what a customer used: see Store.UsageByDay.
func (t *Tx) UsageByDay(ctx context.Context, customer string, from, to time.Time) ([]control.UsageShare, error) {
	return usageByDay(ctx, t.tx, customer, from, to)
}

// EachEvent hands the usage events of a customer to do, oldest first, and stops at its
// first error.
func (t *Tx) EachEvent(ctx context.Context, customer string, do func(contract.Event) error) error {
	rows, err := t.tx.Query(ctx, `SELECT `+eventList+` FROM usage_events WHERE customer_id = $1 ORDER BY admitted_at, replica, seq`, customer)
	if err != nil {
		return explain("events of customer "+customer, err)
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanEvent(rows)
		if err != nil {
			return explain("events of customer "+customer, err)
		}
		if err := do(e); err != nil {
			return err
		}
	}
	return explain("events of customer "+customer, rows.Err())
}

// PlatformUsage sums up the periods of all customers that contain at, by tier.
func (s *Store) PlatformUsage(ctx context.Context, at time.Time) ([]control.TierUsage, error) {
	rows, _ := s.pool.Query(ctx, platformUsage, at)
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (u control.TierUsage, err error) {
		t := &u.Totals
		err = row.Scan(&u.Tier, &u.Customers, &u.Limit, &t.Requests, &t.Prompt, &t.Cached, &t.Completion, &t.Reasoning, &t.Settled, &t.Unbilled)
		return u, err
	})
	return list, explain("usage of the platform", err)
}

const platformUsage = `
	SELECT c.tier, count(DISTINCT c.id), sum(limit_tokens)::bigint, sum(requests)::bigint, sum(prompt_tokens)::bigint,
		sum(cached_tokens)::bigint, sum(completion_tokens)::bigint, sum(reasoning_tokens)::bigint, sum(settled_tokens)::bigint,
		sum(unbilled_tokens)::bigint
	FROM usage_periods p JOIN customers c ON c.id = p.customer_id
	WHERE p.ends_at > $1 AND p.starts_at <= $1 GROUP BY c.tier ORDER BY c.tier`
