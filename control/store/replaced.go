package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// PutReplaced is PutSubscription of one that does not count, because another one of the same
// customer does, by, which has to be put in the same transaction or before. It stays
// replaced for ever.
func (t *Tx) PutReplaced(ctx context.Context, actor string, v control.StripeSubscription, readAt time.Time, by string) (control.Subscription, error) {
	before, after, err := t.putSubscription(ctx, actor, v, readAt, by)
	if err != nil || before.ReplacedBy == after.ReplacedBy {
		return after, err
	}
	return after, t.AddAudit(ctx, control.Audit{
		Actor: actor, Action: "subscription.replaced", CustomerID: v.CustomerID, Target: v.ID,
		Detail: map[string]any{"by": by, "status": v.Status, "tier": v.Tier},
	})
}

// ReplacedSubscriptions lists the subscriptions of a customer that are replaced and that,
// as far as is known here, Stripe still bills.
func (t *Tx) ReplacedSubscriptions(ctx context.Context, customer string) ([]control.Subscription, error) {
	rows, _ := t.tx.Query(ctx, selectSubscriptions+`
		WHERE customer_id = $1 AND status IN ('trialing', 'active', 'past_due', 'unpaid', 'paused') AND replaced_by IS NOT NULL ORDER BY id`, customer)
	list, err := pgx.CollectRows(rows, scanSubscription)
	return list, explain("replaced subscriptions of customer "+customer, err)
}

// MoveBoxes has another subscription of a customer pay for the boxes of one. The caller has
// locked the customer.
func (t *Tx) MoveBoxes(ctx context.Context, actor, customer, from, to string) error {
	op := fmt.Sprintf("move boxes of subscription %s to %s", from, to)
	rows, _ := t.tx.Query(ctx, `
		UPDATE boxes SET subscription_id = $3, updated_at = now()
		WHERE customer_id = $1 AND subscription_id = $2 AND wants <> 'destroy' RETURNING id`, customer, from, to)
	boxes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return explain(op, err)
	}
	for _, box := range boxes {
		if err := t.AddAudit(ctx, control.Audit{
			Actor: actor, Action: "box.link", CustomerID: customer, Target: box, Detail: map[string]any{"subscription": to, "before": from},
		}); err != nil {
			return err
		}
	}
	return nil
}
