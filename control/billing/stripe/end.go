package stripe

import (
	"context"
	"errors"
	"fmt"

	api "github.com/stripe/stripe-go/v76"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

// End sees to it that Stripe bills a customer nothing more but what it has used: pages on which
// it could still pay are closed, and all subscriptions end now, also one of which no event has
// told yet, with an invoice of what was used above the limit. Of what was paid nothing is paid
// back. It returns the subscriptions that ended; what follows for the customer comes with
// Processor.Sync or by the events. It may be called again.
func (c *Checkout) End(ctx context.Context, customerID string) (ended []string, err error) {
	op := "end the subscriptions of customer " + customerID
	account, err := c.store.Account(ctx, customerID)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if account.StripeID == "" {
		return nil, nil
	}
	// First the pages: from then on no subscription begins.
	if _, _, err := c.openSessions(ctx, account.StripeID, ""); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	params := &api.SubscriptionListParams{Customer: &account.StripeID} // without those that have ended
	params.Context = ctx
	list := c.o.Account.subscriptions().List(params)
	for list.Next() {
		id := list.Subscription().ID
		if err := c.end(ctx, customerID, id); err != nil {
			return ended, fmt.Errorf("%s: %w", op, err)
		}
		ended = append(ended, id)
	}
	return ended, failure(op, list.Err())
}

// end has Stripe end a subscription now, and bill what was used above the limit: it forgets
// that, unless it is asked for a last invoice. Nothing more is used above the limit from here
// on, so that what is reported before is all but what requests that are under way still use.
func (c *Checkout) end(ctx context.Context, customerID, id string) error {
	_, err := c.o.Customers.SetOverage(ctx, actor, customerID, 0)
	if err != nil && !errors.Is(err, control.ErrInvalid) && !errors.Is(err, customers.ErrUnpublished) {
		return err // it is invalid where none is known here
	}
	meter := Meter{Account: c.o.Account, Customers: c.o.Customers}
	if err := meter.settle(ctx, customerID); err != nil {
		return err
	}
	params := &api.SubscriptionCancelParams{InvoiceNow: api.Bool(true)}
	params.Context = ctx
	_, err = c.o.Account.subscriptions().Cancel(id, params)
	return failure("cancel subscription "+id, err)
}
