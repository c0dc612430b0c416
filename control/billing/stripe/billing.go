package stripe

import (
	"context"
	"errors"
	"fmt"

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

// ChangeTier is Checkout.ChangeTier. With customers.ErrUnpublished Stripe has it, and the
// customer will a little later.
func (b *Billing) ChangeTier(ctx context.Context, customerID, tier string) error {
	return b.hold(ctx)(b.Checkout.ChangeTier(ctx, customerID, tier))
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
