package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Clock returns Postgres' time: the one clock of all processes that ask Stripe, for the
// readAt of PutSubscription.
func (s *Store) Clock(ctx context.Context) (time.Time, error) {
	var now time.Time
	err := s.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	return now.UTC(), explain("clock", err)
}

// PaymentHold reports whether a customer is suspended because a payment is missing, and for
// no other reason. The caller has locked the customer.
func (t *Tx) PaymentHold(ctx context.Context, customer string) (bool, error) {
	var hold bool
	err := t.tx.QueryRow(ctx, `SELECT payment_hold FROM customers WHERE id = $1`, customer).Scan(&hold)
	return hold, explain("payment hold of customer "+customer, err)
}

// SetPaymentHold notes whether a missing payment is why a customer is suspended. It has to be
// taken back before the status is anything else. The caller has locked the customer.
func (t *Tx) SetPaymentHold(ctx context.Context, customer string, hold bool) error {
	_, err := t.tx.Exec(ctx, `UPDATE customers SET payment_hold = $2 WHERE id = $1 AND payment_hold <> $2`, customer, hold)
	return explain("payment hold of customer "+customer, err)
}

// LastPeriod returns the known period of a customer that began last; the error is
// control.ErrNotFound without any.
func (t *Tx) LastPeriod(ctx context.Context, customer string) (control.UsagePeriod, error) {
	rows, _ := t.tx.Query(ctx, selectPeriods+`
		WHERE customer_id = $1 AND starts_at IS NOT NULL ORDER BY starts_at DESC LIMIT 1`, customer)
	p, err := pgx.CollectExactlyOneRow(rows, scanPeriod)
	return p, explain("last period of customer "+customer, err)
}

// MovePeriodEnd changes when a period ends, as when a trial becomes longer. The caller has
// locked the customer and announces the grants.
func (t *Tx) MovePeriodEnd(ctx context.Context, customer, period string, end time.Time) (control.UsagePeriod, error) {
	rows, _ := t.tx.Query(ctx, `
		UPDATE usage_periods SET ends_at = $3, updated_at = now()
		WHERE customer_id = $1 AND period_id = $2 AND starts_at < $3 RETURNING `+periodColumns, customer, period, end)
	p, err := pgx.CollectExactlyOneRow(rows, scanPeriod)
	if err == nil {
		_, err = t.tx.Exec(ctx, `
			UPDATE customers SET renews_at = (SELECT max(ends_at) FROM usage_periods WHERE customer_id = $1) WHERE id = $1`, customer)
	}
	return p, explain("move the end of period "+period+" of customer "+customer, err)
}

// UnpaidBoxes lists boxes of a customer that no subscription pays for, oldest first, without
// those that shall be no more.
func (t *Tx) UnpaidBoxes(ctx context.Context, customer string) ([]control.Box, error) {
	rows, _ := t.tx.Query(ctx, selectBoxes+`
		WHERE customer_id = $1 AND subscription_id IS NULL AND wants <> 'destroy' ORDER BY created_at, id`, customer)
	boxes, err := pgx.CollectRows(rows, scanBox)
	return boxes, explain("boxes of customer "+customer, err)
}

const overdueSubscriptions = selectSubscriptions + `
	WHERE status IN ('trialing', 'active', 'past_due', 'unpaid', 'paused') AND period_end <= $1 ORDER BY period_end, id LIMIT $2`

// OverdueSubscriptions lists live subscriptions, at most limit, whose period has ended as
// far as is known here, those first that wait longest: Stripe knows more of them.
func (s *Store) OverdueSubscriptions(ctx context.Context, at time.Time, limit int) ([]control.Subscription, error) {
	rows, _ := s.pool.Query(ctx, overdueSubscriptions, at, limit)
	list, err := pgx.CollectRows(rows, scanSubscription)
	return list, explain("overdue subscriptions", err)
}

// usedUp says of a period p whether an agent can hardly do anything with what is left: less than 1 %, or than the
// prompts of its last requests and the answer that token-proxy wants room for (limits.min_output). What does not fit
// is refused, so hardly anybody's last token is ever used; and an agent's prompts alone may be 1 % of a small limit.
// Of the last prompts it is the median: one that was larger than all others stops nobody. Tokens weigh 1 here, as in
// all tiers that are built in, and 256 is min_output's default: a mail is no limit.
const usedUp = `(settled_tokens * 100.0 >= limit_tokens * 99.0 OR limit_tokens - settled_tokens < 256 + (
	SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY prompt_tokens) FROM (
		SELECT prompt_tokens FROM usage_events e
		WHERE e.customer_id = p.customer_id AND admitted_at > $1 - interval '7 days' AND admitted_at <= $1
		ORDER BY admitted_at DESC LIMIT 20) last))`

const periodsUsed = selectPeriods + ` p
	WHERE ends_at > $1 AND starts_at <= $1 AND settled_tokens * 100.0 >= limit_tokens * $2::numeric AND coalesce(` + usedUp + `, false) = $3
		AND EXISTS (SELECT FROM customers c WHERE c.id = p.customer_id AND c.status = 'active' AND c.email IS NOT NULL)
		AND NOT EXISTS (SELECT FROM mails m WHERE m.customer_id = p.customer_id AND m.kind = $4
			AND m.cause = p.period_id || '/' || p.limit_tokens)
		-- Prompts may become smaller again. Who was told that it is used up is not told that it comes close.
		AND ($3 OR NOT EXISTS (SELECT FROM mails m WHERE m.customer_id = p.customer_id AND m.kind = '` + control.MailLimitReached + `'
			AND m.cause = p.period_id || '/' || p.limit_tokens))
	LIMIT $5`

// PeriodsUsed lists present periods of active customers with an address, at most limit, that have used at least from
// percent of their limit, and of which no mail of a kind tells with control.LimitCause: those with stopped of which
// so little is left that an agent can hardly do anything, or the others.
func (s *Store) PeriodsUsed(ctx context.Context, at time.Time, from int, stopped bool, kind string, limit int) ([]control.UsagePeriod, error) {
	rows, _ := s.pool.Query(ctx, periodsUsed, at, from, stopped, kind, limit)
	list, err := pgx.CollectRows(rows, scanPeriod)
	return list, explain("periods by use", err)
}

// freeTokens is how many tokens of a period are not billed one by one: those that the price
// includes, and what an operator gives.
const freeTokens = `GREATEST(limit_tokens - overage_tokens, included_tokens)`

// PeriodOverage returns how the tokens of a period are paid for.
func (t *Tx) PeriodOverage(ctx context.Context, customer, period string) (o control.PeriodOverage, err error) {
	err = t.tx.QueryRow(ctx, `
		SELECT overage_tokens, greatest(least(settled_tokens - `+freeTokens+` - forgiven_tokens, overage_most), 0),
			coalesce(included_tokens, limit_tokens - overage_tokens, 0), ceiling_tokens
		FROM usage_periods WHERE customer_id = $1 AND period_id = $2`, customer, period).Scan(&o.Tokens, &o.Used, &o.Included, &o.Ceiling)
	return o, explain("overage of period "+period+" of customer "+customer, err)
}

// SetPeriodOverage says of the limit with which a period was opened how many tokens are paid
// for one by one. Later on it is SetLimit. The caller has locked the customer.
func (t *Tx) SetPeriodOverage(ctx context.Context, customer, period string, tokens int64) error {
	_, err := t.tx.Exec(ctx, `
		UPDATE usage_periods SET overage_tokens = $3, overage_most = GREATEST(overage_most, $3), included_tokens = limit_tokens - $3
		WHERE customer_id = $1 AND period_id = $2 AND overage_tokens <> $3`, customer, period, tokens)
	return explain("overage of period "+period+" of customer "+customer, err)
}

// Period reads one period.
func (t *Tx) Period(ctx context.Context, customer, period string) (control.UsagePeriod, error) {
	rows, _ := t.tx.Query(ctx, selectPeriods+` WHERE customer_id = $1 AND period_id = $2`, customer, period)
	p, err := pgx.CollectExactlyOneRow(rows, scanPeriod)
	return p, explain("period "+period+" of customer "+customer, err)
}

// PeriodsSince lists the known periods of a customer that ended after a time, oldest first.
func (t *Tx) PeriodsSince(ctx context.Context, customer string, at time.Time) ([]control.UsagePeriod, error) {
	rows, _ := t.tx.Query(ctx, selectPeriods+` WHERE customer_id = $1 AND ends_at > $2 ORDER BY starts_at`, customer, at)
	list, err := pgx.CollectRows(rows, scanPeriod)
	return list, explain("periods of customer "+customer, err)
}

const periodsAboveLimit = `
	SELECT customer_id, period_id FROM usage_periods
	WHERE ends_at > $1 AND overage_most > 0 AND settled_tokens > ` + freeTokens + ` + forgiven_tokens
		AND (customer_id, period_id) > ($2, $3)
	ORDER BY customer_id, period_id LIMIT $4`

// PeriodsAboveLimit lists periods, at most limit, that ended after a time, and of which
// tokens are used that are paid for one by one, from after on (zero for the first page, then
// the last entry of the page before).
func (s *Store) PeriodsAboveLimit(ctx context.Context, ended time.Time, after control.QuotaKey, limit int) ([]control.QuotaKey, error) {
	rows, _ := s.pool.Query(ctx, periodsAboveLimit, ended, after.CustomerID, after.PeriodID, limit)
	list, err := collectKeys(rows)
	return list, explain("periods above their limit", err)
}

// MeteredCustomers lists customers, at most limit, with reports of overage on periods that
// ended after a time, from the id after on.
func (s *Store) MeteredCustomers(ctx context.Context, ended time.Time, after string, limit int) ([]string, error) {
	rows, _ := s.pool.Query(ctx, `
		SELECT DISTINCT customer_id FROM meter_reports JOIN usage_periods USING (customer_id, period_id)
		WHERE ends_at > $1 AND customer_id > $2 ORDER BY customer_id LIMIT $3`, ended, after, limit)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return list, explain("customers with overage", err)
}

// StripeQueue says what waits, from Stripe or for it.
type StripeQueue struct {
	Waiting int           // what is not done yet
	Failing int           // that of it which was tried in vain
	Oldest  time.Duration // age of the oldest; 0 without any
}

// StripeInbox reads what waits of Stripe's events: those that are not processed.
func (s *Store) StripeInbox(ctx context.Context) (StripeQueue, error) {
	return s.stripeQueue(ctx, "Stripe inbox", "received_at", "stripe_events WHERE processed_at IS NULL")
}

// MeterQueue reads what waits to be reported to Stripe: what Stripe is not known to have.
func (s *Store) MeterQueue(ctx context.Context) (StripeQueue, error) {
	return s.stripeQueue(ctx, "meter reports that wait", "created_at", "meter_reports WHERE reported_at IS NULL")
}

func (s *Store) stripeQueue(ctx context.Context, what, since, rows string) (q StripeQueue, err error) {
	var seconds float64
	err = s.pool.QueryRow(ctx, `
		SELECT count(*), count(*) FILTER (WHERE error IS NOT NULL), coalesce(extract(epoch FROM now() - min(`+since+`)), 0)
		FROM `+rows).Scan(&q.Waiting, &q.Failing, &seconds)
	q.Oldest = time.Duration(seconds * float64(time.Second))
	return q, explain(what, err)
}

// NoteStripeEvent finishes an event, as FinishStripeEvent does, that has no effect.
func (s *Store) NoteStripeEvent(ctx context.Context, e control.StripeEvent) error {
	err := s.InTx(ctx, func(tx *Tx) error { return tx.FinishStripeEvent(ctx, e) })
	if errors.Is(err, control.ErrConflict) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("note Stripe event %s: %w", e.ID, err)
	}
	return nil
}
