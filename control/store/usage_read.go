package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// usageShares takes whole days, $2 to $3, from their sums, and what is left before, $4 to $5,
// and behind them, $6 to $7, from the events.
const usageShares = `
	SELECT day::timestamp, model, sum(requests)::bigint, sum(prompt)::bigint, sum(cached)::bigint, sum(completion)::bigint,
		sum(reasoning)::bigint, sum(settled)::bigint
	FROM (
		SELECT day, model, requests, prompt_tokens AS prompt, cached_tokens AS cached, completion_tokens AS completion,
			reasoning_tokens AS reasoning, settled_tokens AS settled
		FROM usage_days WHERE customer_id = $1 AND day >= $2::date AND day < $3::date
		UNION ALL ` + usageOfEvents + ` AND admitted_at >= $4 AND admitted_at < $5
		UNION ALL ` + usageOfEvents + ` AND admitted_at >= $6 AND admitted_at < $7
	) AS used GROUP BY day, model ORDER BY day, model`

const usageOfEvents = `
		SELECT (admitted_at AT TIME ZONE 'UTC')::date, model_served, 1, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, settled_tokens
		FROM usage_events WHERE customer_id = $1`

// usageArgs are the arguments of usageShares.
func usageArgs(customer string, from, to time.Time) []any {
	from, to = from.UTC(), to.UTC()
	first, last := from.Truncate(24*time.Hour), to.Truncate(24*time.Hour) // days of UTC, counted from midnight
	if first.Before(from) {
		first = first.Add(24 * time.Hour)
	}
	if last.Before(first) { // it begins and ends within a day
		first, last = to, to
		return []any{customer, first, last, from, to, to, to}
	}
	return []any{customer, first, last, from, first, last, to}
}

func usageByDay(ctx context.Context, q querier, customer string, from, to time.Time) ([]control.UsageShare, error) {
	rows, _ := q.Query(ctx, usageShares, usageArgs(customer, from, to)...)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[control.UsageShare])
	return list, explain("usage of customer "+customer, err)
}

// UsageByDay sums up what a customer used from one time to another, that excluded, by day
// (UTC) and model, in this order. Of days whose events are kept no more (see
// DropOldPartitions) only whole ones are in it.
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
