package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

func newestEpoch(ctx context.Context, q querier) (control.QuotaEpoch, error) {
	rows, _ := q.Query(ctx, `SELECT number, based_at IS NOT NULL FROM quota_epochs ORDER BY number DESC LIMIT 1`)
	e, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[control.QuotaEpoch])
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return e, explain("newest epoch", err)
}

// QuotaEpoch returns the newest epoch.
func (s *Store) QuotaEpoch(ctx context.Context) (control.QuotaEpoch, error) {
	return newestEpoch(ctx, s.pool)
}

func splitKeys(keys []control.QuotaKey) (customers, periods []string) {
	customers, periods = make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		customers[i], periods[i] = k.CustomerID, k.PeriodID
	}
	return customers, periods
}

func collectKeys(rows pgx.Rows) ([]control.QuotaKey, error) {
	return pgx.CollectRows(rows, pgx.RowToStructByPos[control.QuotaKey])
}

// MarkRecords notes that records of an epoch are about to be made, or, with made, that
// they are part of its beginning. It returns those that were not noted before: only these
// may be made. A record that is noted in a newer epoch is none of them.
func (s *Store) MarkRecords(ctx context.Context, epoch int64, keys []control.QuotaKey, made bool) ([]control.QuotaKey, error) {
	customers, periods := splitKeys(keys)
	rows, _ := s.pool.Query(ctx, `
		INSERT INTO quota_records AS r (customer_id, period_id, epoch, made)
		SELECT DISTINCT customer_id, period_id, $3::bigint, $4::boolean FROM unnest($1::text[], $2::text[]) AS k (customer_id, period_id)
		ORDER BY customer_id, period_id
		ON CONFLICT (customer_id, period_id) DO UPDATE SET epoch = excluded.epoch, made = excluded.made, made_at = now()
			WHERE r.epoch < excluded.epoch OR r.epoch = excluded.epoch AND excluded.made AND NOT r.made
		RETURNING customer_id, period_id`, customers, periods, epoch, made)
	fresh, err := collectKeys(rows)
	return fresh, explain("note records of the quota", err)
}

// RecordsMade notes that records of an epoch, noted before, are in Redis, or are put there
// next. It returns those that this was not known of, in no order: only these may be put
// there, and only once, for nobody else will have them from here.
func (s *Store) RecordsMade(ctx context.Context, epoch int64, keys []control.QuotaKey) ([]control.QuotaKey, error) {
	customers, periods := splitKeys(keys)
	rows, _ := s.pool.Query(ctx, `
		UPDATE quota_records r SET made = true, made_at = now() FROM (
			SELECT customer_id, period_id FROM quota_records JOIN unnest($1::text[], $2::text[]) AS k (customer_id, period_id) USING (customer_id, period_id)
			WHERE epoch = $3 AND NOT made ORDER BY customer_id, period_id FOR UPDATE
		) AS k
		WHERE r.customer_id = k.customer_id AND r.period_id = k.period_id
		RETURNING r.customer_id, r.period_id`, customers, periods, epoch)
	fresh, err := collectKeys(rows)
	return fresh, explain("note that records of the quota are made", err)
}

// MadeRecords returns those of keys that RecordsMade, or MarkRecords, was told of in an
// epoch, some time ago at least.
func (s *Store) MadeRecords(ctx context.Context, epoch int64, keys []control.QuotaKey, ago time.Duration) ([]control.QuotaKey, error) {
	customers, periods := splitKeys(keys)
	rows, _ := s.pool.Query(ctx, `
		SELECT r.customer_id, r.period_id FROM quota_records r JOIN unnest($1::text[], $2::text[]) AS k (customer_id, period_id)
			ON r.customer_id = k.customer_id AND r.period_id = k.period_id
		WHERE r.epoch = $3 AND r.made AND r.made_at <= now() - make_interval(secs => $4)`, customers, periods, epoch, ago.Seconds())
	made, err := collectKeys(rows)
	return made, explain("records of the quota that were made", err)
}

// UnmadeRecords returns records of an epoch that were to be made some time ago and are
// not known to be, at most limit.
func (s *Store) UnmadeRecords(ctx context.Context, epoch int64, ago time.Duration, limit int) ([]control.QuotaKey, error) {
	rows, _ := s.pool.Query(ctx, `
		SELECT customer_id, period_id FROM quota_records WHERE epoch = $1 AND NOT made AND made_at < now() - make_interval(secs => $2) LIMIT $3`,
		epoch, ago.Seconds(), limit)
	keys, err := collectKeys(rows)
	return keys, explain("records of the quota that are not made", err)
}

// An event is never admitted long before its period begins; the day is for clocks.
const quotaRecords = `
WITH k AS (SELECT * FROM unnest($1::text[], $2::text[]) AS k (customer_id, period_id)), above AS (
	SELECT k.customer_id, k.period_id, sum(e.settled_tokens)::bigint AS tokens
	FROM k LEFT JOIN usage_periods p USING (customer_id, period_id)
	JOIN usage_events e ON e.customer_id = k.customer_id AND e.period_id = k.period_id
		AND e.admitted_at >= coalesce(p.starts_at - interval '1 day', '-infinity')
	JOIN quota_bases b ON b.epoch = $3 AND b.member AND b.replica = e.replica AND e.seq > b.base
	GROUP BY k.customer_id, k.period_id
)
SELECT k.customer_id, k.period_id, p.starts_at, p.ends_at, coalesce(p.limit_tokens, 0), coalesce(p.limit_version, 0),
	coalesce(p.settled_tokens, 0) - coalesce(a.tokens, 0)
FROM k LEFT JOIN usage_periods p USING (customer_id, period_id) LEFT JOIN above a USING (customer_id, period_id)`

// QuotaRecords returns what records of an epoch are made from, whose bases are set. It is
// the same whenever it is asked, until the records are used.
func (s *Store) QuotaRecords(ctx context.Context, epoch int64, keys []control.QuotaKey) ([]control.QuotaRecord, error) {
	customers, periods := splitKeys(keys)
	rows, _ := s.pool.Query(ctx, quotaRecords, customers, periods, epoch)
	list, err := pgx.CollectRows(rows, scanQuotaRecord)
	return list, explain("what records of the quota are made from", err)
}

func scanQuotaRecord(row pgx.CollectableRow) (r control.QuotaRecord, err error) {
	var start, end *time.Time
	var limit *int64
	err = row.Scan(&r.CustomerID, &r.Period.ID, &start, &end, &limit, &r.LimitVersion, &r.Settled)
	r.Period.Start, r.Period.End = orZero(start), orZero(end)
	if limit != nil {
		r.Limit = *limit
	}
	return r, err
}

// Limits returns the limits of periods. Settled is 0 in all of them.
func (s *Store) Limits(ctx context.Context, keys []control.QuotaKey) ([]control.QuotaRecord, error) {
	customers, periods := splitKeys(keys)
	rows, _ := s.pool.Query(ctx, `
		SELECT customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version, 0::bigint
		FROM usage_periods JOIN unnest($1::text[], $2::text[]) AS k (customer_id, period_id) USING (customer_id, period_id)`,
		customers, periods)
	list, err := pgx.CollectRows(rows, scanQuotaRecord)
	return list, explain("limits of periods", err)
}

// LimitsSet returns the limits that were changed since a time that lies so far back.
// Settled is 0 in all of them.
func (s *Store) LimitsSet(ctx context.Context, ago time.Duration) ([]control.QuotaRecord, error) {
	rows, _ := s.pool.Query(ctx, `
		SELECT customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version, 0::bigint FROM usage_periods
		WHERE limit_set_at > now() - make_interval(secs => $1)`, ago.Seconds())
	list, err := pgx.CollectRows(rows, scanQuotaRecord)
	return list, explain("limits that were changed", err)
}

// RequestRepair has all records of the quota made anew, in a new epoch, some time after
// the transaction.
func (t *Tx) RequestRepair(ctx context.Context, reason string) error {
	_, err := t.tx.Exec(ctx, `INSERT INTO quota_repairs (reason) VALUES ($1)`, reason)
	return explain("request that the quota is repaired", err)
}
