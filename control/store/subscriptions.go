package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const subscriptionColumns = `id, customer_id, status, tier, period_start, period_end, cancel_at_period_end, failed_payments,
	read_at, coalesce(pending_tier, ''), pending_from, coalesce(overage_cap_cents, 0), created_at, coalesce(replaced_by, '')`

const selectSubscriptions = `SELECT ` + subscriptionColumns + ` FROM subscriptions`

func scanSubscription(row pgx.CollectableRow) (s control.Subscription, err error) {
	var from *time.Time
	err = row.Scan(&s.ID, &s.CustomerID, &s.Status, &s.Tier, &s.PeriodStart, &s.PeriodEnd, &s.CancelAtPeriodEnd, &s.FailedPayments,
		&s.ReadAt, &s.PendingTier, &from, &s.OverageCapCents, &s.CreatedAt, &s.ReplacedBy)
	s.PeriodStart, s.PeriodEnd, s.ReadAt = s.PeriodStart.UTC(), s.PeriodEnd.UTC(), s.ReadAt.UTC()
	s.PendingFrom, s.CreatedAt = orZero(from), s.CreatedAt.UTC()
	return s, err
}

// PutSubscription writes what Stripe said of a subscription when it was asked at readAt,
// and returns what was known before (zero if nothing was) and what is known now. What was read
// earlier than what is there, and what would bring back a subscription that has ended,
// changes nothing: so the order in which events are processed does not matter. A pending
// tier that has come is not pending any more. A second live subscription of the customer
// is control.ErrExists, one of another customer control.ErrInvalid.
func (t *Tx) PutSubscription(ctx context.Context, actor string, v control.StripeSubscription, readAt time.Time) (before, after control.Subscription, err error) {
	return t.putSubscription(ctx, actor, v, readAt, "")
}

func (t *Tx) putSubscription(ctx context.Context, actor string, v control.StripeSubscription, readAt time.Time, replacedBy string) (before, after control.Subscription, err error) {
	op := "put subscription " + v.ID
	if _, err := t.LockCustomer(ctx, v.CustomerID); err != nil {
		return before, after, fmt.Errorf("%s: %w", op, err)
	}
	// Who changes a subscription has locked its customer: nothing changes behind this read.
	before, err = t.Subscription(ctx, v.ID)
	switch {
	case err != nil && !errors.Is(err, control.ErrNotFound):
		return before, after, err
	case err == nil && before.CustomerID != v.CustomerID:
		return before, before, fmt.Errorf("%s: %w: it is another customer's", op, control.ErrInvalid)
	case err == nil && (!readAt.After(before.ReadAt) || before.Status.Final() && before.Status != v.Status):
		return before, before, nil
	}
	rows, _ := t.tx.Query(ctx, `
		INSERT INTO subscriptions AS s (id, customer_id, status, tier, period_start, period_end, cancel_at_period_end, failed_payments, read_at, replaced_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, nullif($10, ''))
		ON CONFLICT (id) DO UPDATE SET status = excluded.status, tier = excluded.tier, period_start = excluded.period_start,
			period_end = excluded.period_end, cancel_at_period_end = excluded.cancel_at_period_end,
			failed_payments = excluded.failed_payments, read_at = excluded.read_at, updated_at = now(),
			replaced_by = coalesce(s.replaced_by, excluded.replaced_by),
			pending_tier = nullif(s.pending_tier, excluded.tier),
			pending_from = CASE WHEN s.pending_tier <> excluded.tier THEN s.pending_from END
		WHERE s.customer_id = excluded.customer_id
		RETURNING `+subscriptionColumns,
		v.ID, v.CustomerID, string(v.Status), v.Tier, v.PeriodStart, v.PeriodEnd, v.CancelAtPeriodEnd, v.FailedPayments, readAt, replacedBy)
	after, err = pgx.CollectExactlyOneRow(rows, scanSubscription)
	if err != nil {
		return before, after, explain(op, err)
	}
	if before.StripeSubscription == after.StripeSubscription && before.PendingTier == after.PendingTier {
		return before, after, nil
	}
	return before, after, t.AddAudit(ctx, control.Audit{
		Actor: actor, Action: "subscription.put", CustomerID: v.CustomerID, Target: v.ID,
		Detail: map[string]any{"before": before.StripeSubscription, "after": after.StripeSubscription},
	})
}

// Subscription reads one subscription.
func (t *Tx) Subscription(ctx context.Context, id string) (control.Subscription, error) {
	rows, _ := t.tx.Query(ctx, selectSubscriptions+` WHERE id = $1`, id)
	v, err := pgx.CollectExactlyOneRow(rows, scanSubscription)
	return v, explain("subscription "+id, err)
}

// Subscriptions lists the subscriptions of a customer, newest first. At most one is live and
// not replaced.
func (t *Tx) Subscriptions(ctx context.Context, customer string) ([]control.Subscription, error) {
	rows, _ := t.tx.Query(ctx, selectSubscriptions+` WHERE customer_id = $1 ORDER BY created_at DESC, id`, customer)
	list, err := pgx.CollectRows(rows, scanSubscription)
	return list, explain("subscriptions of customer "+customer, err)
}

// LiveSubscription reads the one live subscription of a customer that counts.
func (t *Tx) LiveSubscription(ctx context.Context, customer string) (control.Subscription, error) {
	rows, _ := t.tx.Query(ctx, selectSubscriptions+`
		WHERE customer_id = $1 AND status IN ('trialing', 'active', 'past_due', 'unpaid', 'paused') AND replaced_by IS NULL`, customer)
	v, err := pgx.CollectExactlyOneRow(rows, scanSubscription)
	return v, explain("live subscription of customer "+customer, err)
}

// SetPendingTier notes the tier that follows from a time on; "" takes it back. The tier
// that it has already is control.ErrInvalid. The caller has locked the customer.
func (t *Tx) SetPendingTier(ctx context.Context, actor string, v control.Subscription, tier string, from time.Time) (control.Subscription, error) {
	if tier == v.Tier {
		return v, fmt.Errorf("pending tier of subscription %s: %w: it has tier %s", v.ID, control.ErrInvalid, tier)
	}
	var at *time.Time
	if tier != "" {
		at = &from
	}
	rows, _ := t.tx.Query(ctx, `
		UPDATE subscriptions SET pending_tier = nullif($3, ''), pending_from = $4, updated_at = now()
		WHERE id = $1 AND customer_id = $2 RETURNING `+subscriptionColumns, v.ID, v.CustomerID, tier, at)
	out, err := pgx.CollectExactlyOneRow(rows, scanSubscription)
	if err != nil {
		return out, explain("pending tier of subscription "+v.ID, err)
	}
	return out, t.AddAudit(ctx, control.Audit{
		Actor: actor, Action: "subscription.pending_tier", CustomerID: v.CustomerID, Target: v.ID,
		Detail: map[string]any{"before": v.PendingTier, "after": tier},
	})
}

// SetOverage notes how much more than its price a period may cost, in cents; 0 ends it.
// The caller has locked the customer.
func (t *Tx) SetOverage(ctx context.Context, actor string, v control.Subscription, capCents int64) (control.Subscription, error) {
	rows, _ := t.tx.Query(ctx, `
		UPDATE subscriptions SET overage_cap_cents = nullif($3, 0), updated_at = now()
		WHERE id = $1 AND customer_id = $2 RETURNING `+subscriptionColumns, v.ID, v.CustomerID, capCents)
	out, err := pgx.CollectExactlyOneRow(rows, scanSubscription)
	if err != nil {
		return out, explain("overage of subscription "+v.ID, err)
	}
	return out, t.AddAudit(ctx, control.Audit{
		Actor: actor, Action: "subscription.overage", CustomerID: v.CustomerID, Target: v.ID,
		Detail: map[string]any{"before_cents": v.OverageCapCents, "after_cents": capCents},
	})
}

// LinkBox notes which subscription pays for a box. One of another customer, or a box that
// another subscription pays for, is refused: control.ErrNotFound.
func (t *Tx) LinkBox(ctx context.Context, actor, box, customer, subscription string) error {
	tag, err := t.tx.Exec(ctx, `
		UPDATE boxes b SET subscription_id = s.id, updated_at = now() FROM subscriptions s
		WHERE b.id = $1 AND b.customer_id = $2 AND s.id = $3 AND s.customer_id = $2
			AND coalesce(b.subscription_id, s.id) = s.id`, box, customer, subscription)
	if err == nil && tag.RowsAffected() == 0 {
		err = pgx.ErrNoRows
	}
	if err != nil {
		return explain(fmt.Sprintf("link box %s to subscription %s", box, subscription), err)
	}
	return t.AddAudit(ctx, control.Audit{
		Actor: actor, Action: "box.link", CustomerID: customer, Target: box, Detail: map[string]any{"subscription": subscription},
	})
}

// BoxesOf lists the boxes that a subscription pays for, oldest first.
func (t *Tx) BoxesOf(ctx context.Context, subscription string) ([]control.Box, error) {
	rows, _ := t.tx.Query(ctx, selectBoxes+` WHERE subscription_id = $1 ORDER BY created_at, id`, subscription)
	boxes, err := pgx.CollectRows(rows, scanBox)
	return boxes, explain("boxes of subscription "+subscription, err)
}
