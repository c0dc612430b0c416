package stripe

import (
	"context"
	"errors"
	"fmt"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

// Billing is what customers do about money. What Stripe was asked to change holds here as soon
// as it has answered, and does not wait for its event. It is safe for concurrent use.
type Billing struct {
	*Checkout
	processor *Processor
}

// NewBilling returns the Billing of an account that both speak to.
func NewBilling(c *Checkout, p *Processor) (*Billing, error) {
	if c == nil || p == nil {
		return nil, errors.New("stripe billing: a checkout and a processor are required")
	}
	return &Billing{Checkout: c, processor: p}, nil
}

// ChangeTier is Checkout.ChangeTier, one at a time for a customer: another one meanwhile is
// control.ErrConflict. What Stripe has done that we have not heard of, such as a renewal, holds
// here first. With customers.ErrUnpublished Stripe has it, and the customer will a little later.
func (b *Billing) ChangeTier(ctx context.Context, customerID, tier string) error {
	ran, err := b.store.WithLock(ctx, lockName(customerID), func(ctx context.Context) error {
		id, err := b.Checkout.ChangeTier(ctx, customerID, tier)
		if errors.Is(err, control.ErrConflict) {
			if err := b.catchUp(ctx, customerID); err != nil {
				return err
			}
			id, err = b.Checkout.ChangeTier(ctx, customerID, tier)
		}
		return b.hold(ctx)(id, err)
	})
	if err == nil && !ran {
		return fmt.Errorf("change the tier of customer %s: %w: another change is under way", customerID, control.ErrConflict)
	}
	return err
}

// catchUp has hold here what Stripe has of a customer's live subscription.
func (b *Billing) catchUp(ctx context.Context, customerID string) error {
	r, err := b.live(ctx, customerID)
	if err != nil {
		return fmt.Errorf("catch up with the subscription of customer %s: %w", customerID, err)
	}
	return b.processor.Sync(ctx, r.ID)
}

// Cancel has a customer's subscription end with its period. Its errors are as of ChangeTier.
func (b *Billing) Cancel(ctx context.Context, customerID string) error {
	return b.hold(ctx)(b.Checkout.Cancel(ctx, customerID, false))
}

// Resume takes Cancel back. Its errors are as of ChangeTier.
func (b *Billing) Resume(ctx context.Context, customerID string) error {
	return b.hold(ctx)(b.Checkout.Resume(ctx, customerID))
}

// hold has what Stripe was asked to change hold here.
func (b *Billing) hold(ctx context.Context) func(subscription string, err error) error {
	return func(id string, err error) error {
		if err != nil {
			return err
		}
		if err := b.processor.Sync(ctx, id); err != nil {
			return fmt.Errorf("%w: %w", customers.ErrUnpublished, err) // the event will have it done
		}
		return nil
	}
}

// SetOverage is Checkout.SetOverage.
func (b *Billing) SetOverage(ctx context.Context, actor, customerID string, capCents int64) error {
	_, err := b.Checkout.SetOverage(ctx, actor, customerID, capCents)
	return err
}

// End is Checkout.End: when it returns nil, no subscription of the customer is live here
// either.
func (b *Billing) End(ctx context.Context, customerID string) error {
	ended, err := b.Checkout.End(ctx, customerID)
	if err != nil {
		return err
	}
	for _, id := range ended {
		if err := b.processor.Sync(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
