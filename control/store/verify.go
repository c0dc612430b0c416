package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// countDays sums up the events of customers $1, of period $2 only unless it is "", as
// usage_days has them.
const countDays = `
SELECT customer_id, period_id, (admitted_at AT TIME ZONE 'UTC')::date AS day, model_served AS model, count(*) AS requests,
	sum(prompt_tokens)::bigint AS prompt, sum(cached_tokens)::bigint AS cached, sum(completion_tokens)::bigint AS completion,
	sum(reasoning_tokens)::bigint AS reasoning, sum(settled_tokens)::bigint AS settled, sum(unbilled_tokens)::bigint AS unbilled
FROM usage_events WHERE customer_id = ANY ($1::text[]) AND ($2 = '' OR period_id = $2)
GROUP BY customer_id, period_id, day, model`

// checkPeriods is one statement, and so sees totals and events of one moment.
const checkPeriods = `
WITH events AS (` + countDays + `), counted AS (
	SELECT customer_id, period_id, sum(requests)::bigint AS requests, sum(prompt)::bigint AS prompt, sum(cached)::bigint AS cached,
		sum(completion)::bigint AS completion, sum(reasoning)::bigint AS reasoning, sum(settled)::bigint AS settled,
		sum(unbilled)::bigint AS unbilled
	FROM events GROUP BY customer_id, period_id
), days AS (
	SELECT customer_id, period_id, count(*) AS wrong
	FROM events e FULL JOIN (
		SELECT * FROM usage_days WHERE customer_id = ANY ($1::text[]) AND ($2 = '' OR period_id = $2)
	) d USING (customer_id, period_id, day, model)
	WHERE (e.requests, e.prompt, e.cached, e.completion, e.reasoning, e.settled, e.unbilled)
		IS DISTINCT FROM (d.requests, d.prompt_tokens, d.cached_tokens, d.completion_tokens, d.reasoning_tokens, d.settled_tokens, d.unbilled_tokens)
	GROUP BY customer_id, period_id
), recorded AS (
	SELECT * FROM usage_periods WHERE customer_id = ANY ($1::text[]) AND ($2 = '' OR period_id = $2)
)
SELECT customer_id, period_id, p.starts_at, p.ends_at,
	coalesce(p.requests, 0), coalesce(p.prompt_tokens, 0), coalesce(p.cached_tokens, 0), coalesce(p.completion_tokens, 0),
	coalesce(p.reasoning_tokens, 0), coalesce(p.settled_tokens, 0), coalesce(p.unbilled_tokens, 0),
	coalesce(c.requests, 0), coalesce(c.prompt, 0), coalesce(c.cached, 0), coalesce(c.completion, 0),
	coalesce(c.reasoning, 0), coalesce(c.settled, 0), coalesce(c.unbilled, 0), coalesce(w.wrong, 0)
FROM recorded p FULL JOIN counted c USING (customer_id, period_id) FULL JOIN days w USING (customer_id, period_id)
ORDER BY customer_id, period_id`

// CheckPeriods sums up the events of customers, of all their periods or, unless it is
// "", of one, and returns the sums beside the totals as they are recorded, those by day too.
func (s *Store) CheckPeriods(ctx context.Context, customers []string, period string) ([]control.PeriodCheck, error) {
	list, err := s.checkPeriods(ctx, s.pool, customers, period)
	return list, explain("check periods", err)
}

// CheckPeriod is CheckPeriods of one period, with how far its events have come: those of
// replicas, and of all others that it has events of. All of it is of one moment. The
// result is zero if nothing is known of the period.
func (s *Store) CheckPeriod(ctx context.Context, k control.QuotaKey, replicas []string) (control.PeriodCheck, []control.Marks, error) {
	var check control.PeriodCheck
	var marks []control.Marks
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, s.pool, snapshot, func(tx pgx.Tx) error {
		list, err := s.checkPeriods(ctx, tx, []string{k.CustomerID}, k.PeriodID)
		if err != nil || len(list) == 0 {
			return err
		}
		check = list[0]
		rows, _ := tx.Query(ctx, `
			SELECT r.id, r.acked_seq, coalesce(e.highest, 0), coalesce(b.member, false), coalesce(b.base, 0)
			FROM replicas r
			LEFT JOIN (SELECT replica, max(seq) AS highest FROM usage_events WHERE customer_id = $1 AND period_id = $2 GROUP BY replica) e
				ON e.replica = r.id
			LEFT JOIN quota_bases b ON b.replica = r.id AND b.epoch = (SELECT max(number) FROM quota_epochs)
			WHERE r.id = ANY ($3) OR e.highest IS NOT NULL`, k.CustomerID, k.PeriodID, replicas)
		marks, err = pgx.CollectRows(rows, pgx.RowToStructByPos[control.Marks])
		return err
	})
	return check, marks, explain("check period "+k.PeriodID+" of customer "+k.CustomerID, err)
}

func (s *Store) checkPeriods(ctx context.Context, q querier, customers []string, period string) ([]control.PeriodCheck, error) {
	since := keptSince(s.now())
	rows, _ := q.Query(ctx, checkPeriods, customers, period)
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (c control.PeriodCheck, err error) {
		var start, end *time.Time
		r, n := &c.Recorded, &c.Counted
		err = row.Scan(&c.CustomerID, &c.PeriodID, &start, &end,
			&r.Requests, &r.Prompt, &r.Cached, &r.Completion, &r.Reasoning, &r.Settled, &r.Unbilled,
			&n.Requests, &n.Prompt, &n.Cached, &n.Completion, &n.Reasoning, &n.Settled, &n.Unbilled, &c.WrongDays)
		c.Start, c.End = orZero(start), orZero(end)
		c.Kept = start == nil || !c.Start.Before(since)
		return c, err
	})
}

// RepairTotals sets the totals of one period, those by day too, to the sums of its events if
// they differ, and writes that to the audit log. Events that are recorded meanwhile are
// counted once. It returns what it found. A period whose events are not all kept is
// control.ErrInvalid.
func (s *Store) RepairTotals(ctx context.Context, actor, customer, period string) (control.PeriodCheck, error) {
	op := fmt.Sprintf("repair totals of customer %s, period %s", customer, period)
	var found control.PeriodCheck
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// The ledger inserts events and adds to the totals in one statement, which waits
		// here: for the row that we lock, with events that we do not see and whose tokens
		// it adds to what we wrote. What we do see it has added before. That needs two
		// statements: the second one sees all that was committed while the first waited.
		if _, err := tx.Exec(ctx, `
			INSERT INTO usage_periods (customer_id, period_id)
			SELECT DISTINCT customer_id, period_id FROM usage_events WHERE customer_id = $1 AND period_id = $2
			ON CONFLICT DO NOTHING`, customer, period); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT FROM usage_periods WHERE customer_id = $1 AND period_id = $2 FOR NO KEY UPDATE`, customer, period); err != nil {
			return err
		}
		list, err := s.checkPeriods(ctx, tx, []string{customer}, period)
		if err != nil {
			return err
		}
		if period == "" || len(list) != 1 {
			return control.ErrNotFound
		}
		found = list[0]
		if !found.Kept {
			return fmt.Errorf("%w: its events are not all kept any more", control.ErrInvalid)
		}
		if !found.TotalsDiffer() {
			return nil
		}
		n := found.Counted
		if _, err := tx.Exec(ctx, `
			UPDATE usage_periods SET requests = $3, prompt_tokens = $4, cached_tokens = $5, completion_tokens = $6,
				reasoning_tokens = $7, settled_tokens = $8, unbilled_tokens = $9, updated_at = now()
			WHERE customer_id = $1 AND period_id = $2`,
			customer, period, n.Requests, n.Prompt, n.Cached, n.Completion, n.Reasoning, n.Settled, n.Unbilled); err != nil {
			return err
		}
		for _, statement := range []string{
			`DELETE FROM usage_days WHERE customer_id = ANY ($1::text[]) AND period_id = $2`,
			`INSERT INTO usage_days (customer_id, period_id, day, model, requests, prompt_tokens, cached_tokens, completion_tokens,
				reasoning_tokens, settled_tokens, unbilled_tokens) ` + countDays,
		} {
			if _, err := tx.Exec(ctx, statement, []string{customer}, period); err != nil {
				return err
			}
		}
		if found.Recorded.Settled != n.Settled {
			if err := (&Tx{tx}).RequestRepair(ctx, "totals of customer "+customer+" were repaired"); err != nil {
				return err
			}
		}
		return (&Tx{tx}).AddAudit(ctx, control.Audit{
			Actor: actor, Action: "ledger.repair_totals", CustomerID: customer, Target: period,
			Detail: map[string]any{"before": found.Recorded, "after": n, "wrong_days": found.WrongDays},
		})
	})
	return found, explain(op, err)
}
