package customers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// Replaced is a live subscription that does not count, because another one of the same
// customer does. ReadAt is when Stripe was asked for it.
type Replaced struct {
	control.StripeSubscription
	ReadAt time.Time
}

// ReplaceSubscription is ApplySubscription of the one of two live subscriptions that counts,
// and notes that the other one does not, in the same transaction: that one's boxes are
// v's from now on, and its end ends nothing. Whoever calls it has Stripe cancel the other
// one afterwards, until Tx.ReplacedSubscriptions lists it no more.
func (s *Service) ReplaceSubscription(ctx context.Context, actor string, v control.StripeSubscription, readAt time.Time, other Replaced,
	also func(context.Context, *store.Tx, Billed) error) (Billed, error) {
	if other.CustomerID != v.CustomerID || other.ID == v.ID {
		return Billed{}, fmt.Errorf("replace subscription %s by %s: %w: they are not two of one customer", other.ID, v.ID, control.ErrInvalid)
	}
	return s.applySubscription(ctx, actor, v, readAt, &other, also)
}

// Used reports whether a customer has used tokens of the period that begins at a time, or may
// have by requests of which Postgres does not know yet: Redis does.
func (s *Service) Used(ctx context.Context, customerID string, start time.Time) (bool, error) {
	op := "use of customer " + customerID
	var p control.UsagePeriod
	err := s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		p, err = tx.Period(ctx, customerID, control.FirstPeriod(customerID, start, 0).ID)
		return err
	})
	if errors.Is(err, control.ErrNotFound) {
		return false, nil // it was never opened
	}
	if err != nil || p.Totals.Settled > 0 {
		return err == nil, err
	}
	u, err := s.Limits.Usage(ctx, quota.Account{Customer: customerID, Period: p.Period(), Limit: p.LimitTokens, LimitVersion: p.LimitVersion})
	if err != nil {
		return false, fmt.Errorf("%s: %w", op, err)
	}
	return u.Settled+u.Held > 0, nil
}

// replace notes that other does not count, so that by can.
func (b *billing) replace(ctx context.Context, other *Replaced, by string) error {
	if other == nil {
		return nil
	}
	v := other.StripeSubscription
	known, err := b.tx.Subscription(ctx, v.ID)
	if err != nil && !errors.Is(err, control.ErrNotFound) {
		return err
	}
	if err == nil {
		v.Tier = known.Tier // the one that was held
	}
	_, err = b.tx.PutReplaced(ctx, b.actor, v, other.ReadAt.Truncate(time.Microsecond), by)
	return err
}

// takeBoxes has the subscription pay for the boxes of the one that it replaces.
func (b *billing) takeBoxes(ctx context.Context, other *Replaced) error {
	if other == nil || b.After.ReplacedBy != "" {
		return nil
	}
	return b.tx.MoveBoxes(ctx, b.actor, b.customer.ID, other.ID, b.After.ID)
}

// activateAgain begins the service of a customer anew whose subscription had ended: its
// old tokens stay revoked, and its old boxes go. One that was deleted stays so.
func (b *billing) activateAgain(ctx context.Context) error {
	account, err := b.tx.Account(ctx, b.customer.ID)
	if err != nil || !account.DeletedAt.IsZero() {
		return err
	}
	b.Returned = true
	return b.activate(ctx)
}
