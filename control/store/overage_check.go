package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// OverageScope says of which periods OverageChecks tells, and which of their events count.
type OverageScope struct {
	Now      time.Time        // by the clock of the periods
	Ended    time.Time        // periods that ended after it, and whose events are all kept
	Settle   time.Duration    // events that were recorded within it are too young to be due
	Late     time.Duration    // events that were recorded longer after the period's end are not due any more
	Customer string           // only this one's, unless it is ""
	After    control.QuotaKey // zero for the first page, then the last entry of the page before
	Limit    int
}

// overageChecks is one statement, and so sees events, limits and reports of one moment. A report
// that is younger than the limit was made of what the limit includes now.
const overageChecks = `
SELECT p.customer_id, p.period_id, p.ends_at, coalesce(r.subscriptions, '{}'), coalesce(r.tokens, 0),
	greatest(least(coalesce(e.due, 0) - i.included, p.overage_most), 0),
	CASE WHEN r.last < p.limit_set_at THEN least(coalesce(e.settled, 0), p.overage_most)
		ELSE greatest(least(coalesce(e.settled, 0) - i.included, p.overage_most), 0) END
FROM usage_periods p
CROSS JOIN LATERAL (SELECT ` + freeTokens + ` + p.forgiven_tokens AS included) i
LEFT JOIN LATERAL (
	SELECT sum(tokens_to - tokens_from)::bigint AS tokens, max(created_at) AS last,
		array_agg(DISTINCT subscription_id ORDER BY subscription_id) AS subscriptions
	FROM meter_reports m WHERE m.customer_id = p.customer_id AND m.period_id = p.period_id) r ON true
LEFT JOIN LATERAL (
	SELECT sum(settled_tokens)::bigint AS settled, sum(settled_tokens) FILTER (
		WHERE recorded_at < now() - make_interval(secs => $3)
			AND (p.ends_at > $1 OR recorded_at < p.ends_at + make_interval(secs => $4)))::bigint AS due
	FROM usage_events u WHERE u.customer_id = p.customer_id AND u.period_id = p.period_id) e ON true
WHERE p.ends_at > $2 AND p.starts_at >= $9 AND (p.overage_most > 0 OR r.tokens IS NOT NULL) AND ($5 = '' OR p.customer_id = $5)
	AND (p.customer_id, p.period_id) > ($6, $7)
ORDER BY p.customer_id, p.period_id LIMIT $8`

// OverageChecks compares what of periods has to be billed token by token with the reports of it.
// Due is as if the customers' tiers have a price above their limits.
func (s *Store) OverageChecks(ctx context.Context, o OverageScope) ([]control.OverageCheck, error) {
	rows, _ := s.pool.Query(ctx, overageChecks,
		o.Now, o.Ended, o.Settle.Seconds(), o.Late.Seconds(), o.Customer, o.After.CustomerID, o.After.PeriodID, o.Limit, keptSince(s.now()))
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c control.OverageCheck, err error) {
		err = row.Scan(&c.CustomerID, &c.PeriodID, &c.End, &c.Subscriptions, &c.Reported, &c.Due, &c.Most)
		c.End = c.End.UTC()
		return c, err
	})
	return list, explain("check overage", err)
}
