package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const meterColumns = `id, customer_id, subscription_id, period_id, tokens_from, tokens_to, cents_per_million, created_at, attempts, reported_at,
	sent_at, event_at, coalesce(error, '')`

func scanMeterReport(row pgx.CollectableRow) (m control.MeterReport, err error) {
	var reported, sent, event *time.Time
	err = row.Scan(&m.ID, &m.CustomerID, &m.SubscriptionID, &m.PeriodID, &m.From, &m.To, &m.CentsPerMillion, &m.CreatedAt, &m.Attempts, &reported,
		&sent, &event, &m.Error)
	m.CreatedAt, m.ReportedAt, m.SentAt, m.EventAt = m.CreatedAt.UTC(), orZero(reported), orZero(sent), orZero(event)
	return m, err
}

// AddMeterReport notes that the tokens of a period above its limit have come to upTo, and
// returns the report of those that no earlier one has; without any it is control.ErrNotFound and
// nothing is added. id is the new report's. A million of them cost so many cents. The caller has
// locked the customer, so that reports of a period follow each other.
func (t *Tx) AddMeterReport(ctx context.Context, id string, v control.Subscription, period string, upTo, centsPerMillion int64) (control.MeterReport, error) {
	op := fmt.Sprintf("meter report of customer %s, period %s", v.CustomerID, period)
	rows, _ := t.tx.Query(ctx, `
		INSERT INTO meter_reports (id, customer_id, subscription_id, period_id, tokens_from, tokens_to, cents_per_million)
		SELECT $1, $2, $3, $4, reported, $5, $6 FROM (
			SELECT coalesce(max(tokens_to), 0) AS reported FROM meter_reports WHERE customer_id = $2 AND period_id = $4) AS m
		WHERE reported < $5 RETURNING `+meterColumns, id, v.CustomerID, v.ID, period, upTo, centsPerMillion)
	m, err := pgx.CollectExactlyOneRow(rows, scanMeterReport)
	if err != nil {
		return m, explain(op, err)
	}
	return m, t.AddAudit(ctx, control.Audit{
		Actor: "system", Action: "overage.report", CustomerID: v.CustomerID, Target: id,
		Detail: map[string]any{"period": period, "from": m.From, "to": m.To, "cents_per_million": m.CentsPerMillion},
	})
}

// ClaimMeterReports takes reports that are due in hand for the length of lease, at most
// limit. One may be sent twice, if its sender dies: within a day Stripe counts its identifier once.
func (s *Store) ClaimMeterReports(ctx context.Context, lease time.Duration, limit int) ([]control.MeterReport, error) {
	rows, _ := s.pool.Query(ctx, `
		WITH due AS (
			SELECT id FROM meter_reports WHERE reported_at IS NULL AND next_attempt_at <= now()
			ORDER BY next_attempt_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)
		UPDATE meter_reports SET attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => $1)
		WHERE id IN (SELECT id FROM due) RETURNING `+meterColumns, lease.Seconds(), limit)
	list, err := pgx.CollectRows(rows, scanMeterReport)
	return list, explain("claim meter reports", err)
}

// WaitingMeterReports lists the reports of a customer that Stripe is not known to have, also
// those that another sender has in hand: within a day Stripe counts their identifiers once.
func (t *Tx) WaitingMeterReports(ctx context.Context, customer string) ([]control.MeterReport, error) {
	rows, _ := t.tx.Query(ctx, `SELECT `+meterColumns+` FROM meter_reports
		WHERE customer_id = $1 AND reported_at IS NULL ORDER BY created_at, id`, customer)
	list, err := pgx.CollectRows(rows, scanMeterReport)
	return list, explain("meter reports of customer "+customer, err)
}

// MeterReportsOn lists the reports of a customer of which Stripe was told, or may have been, that they
// happened from a time on, and before another.
func (t *Tx) MeterReportsOn(ctx context.Context, customer string, from, before time.Time) ([]control.MeterReport, error) {
	rows, _ := t.tx.Query(ctx, `SELECT `+meterColumns+` FROM meter_reports
		WHERE customer_id = $1 AND event_at >= $2 AND event_at < $3 ORDER BY event_at, id`, customer, from, before)
	list, err := pgx.CollectRows(rows, scanMeterReport)
	return list, explain("meter reports of customer "+customer, err)
}

// SendMeterReport notes, before it is done, that a report is sent at a time, as of something that
// happened at event. It returns the report: with the times of an earlier sending, if it is not known
// that Stripe does not have it. One that Stripe has is control.ErrNotFound.
func (s *Store) SendMeterReport(ctx context.Context, id string, at, event time.Time) (control.MeterReport, error) {
	rows, _ := s.pool.Query(ctx, `
		UPDATE meter_reports SET sent_at = coalesce(sent_at, $2), event_at = CASE WHEN sent_at IS NULL THEN $3 ELSE event_at END
		WHERE id = $1 AND reported_at IS NULL RETURNING `+meterColumns, id, at, event)
	m, err := pgx.CollectExactlyOneRow(rows, scanMeterReport)
	return m, explain("send meter report "+id, err)
}

// MeterReportNotTaken notes that Stripe does not have a report that was first sent at a time.
func (s *Store) MeterReportNotTaken(ctx context.Context, id string, sent time.Time) error {
	_, err := s.pool.Exec(ctx, `
		UPDATE meter_reports SET sent_at = NULL, event_at = NULL WHERE id = $1 AND sent_at = $2 AND reported_at IS NULL`, id, sent)
	return explain("meter report "+id, err)
}

// MeterReported notes that Stripe has a report.
func (s *Store) MeterReported(ctx context.Context, id string) error {
	_, err := s.pool.Exec(ctx, `UPDATE meter_reports SET reported_at = coalesce(reported_at, now()), error = NULL WHERE id = $1`, id)
	return explain("meter report "+id, err)
}

// MeterReportFailed notes why Stripe did not take a report, and has it sent again after a
// while.
func (s *Store) MeterReportFailed(ctx context.Context, id, reason string, after time.Duration) error {
	_, err := s.pool.Exec(ctx, `
		UPDATE meter_reports SET error = $2, next_attempt_at = now() + make_interval(secs => $3) WHERE id = $1 AND reported_at IS NULL`,
		id, errorText(reason), after.Seconds())
	return explain("meter report "+id, err)
}

// MeterReports lists the reports of one period of a customer in order.
func (t *Tx) MeterReports(ctx context.Context, customer, period string) ([]control.MeterReport, error) {
	rows, _ := t.tx.Query(ctx, `SELECT `+meterColumns+` FROM meter_reports
		WHERE customer_id = $1 AND period_id = $2 ORDER BY tokens_from`, customer, period)
	list, err := pgx.CollectRows(rows, scanMeterReport)
	return list, explain("meter reports of customer "+customer, err)
}
