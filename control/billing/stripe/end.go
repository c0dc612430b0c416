package stripe

import (
	"context"
	"fmt"

	api "github.com/stripe/stripe-go/v76"
)

// Resume takes back that a subscription ends with its period. It returns the subscription's
// id; without a live one it is control.ErrInvalid.
func (c *Checkout) Resume(ctx context.Context, customerID string) (string, error) {
	op := "resume the subscription of customer " + customerID
	r, err := c.live(ctx, customerID)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	params := &api.SubscriptionParams{CancelAtPeriodEnd: api.Bool(false)}
	params.Context = ctx
	_, err = c.o.Account.subscriptions().Update(r.ID, params)
	return r.ID, failure(op, err)
}

// End sees to it that Stripe bills a customer nothing more: pages on which it could still pay
// are closed, and all subscriptions end now, also one of which no event has told yet. Of
// what was paid nothing is paid back. It returns the subscriptions that ended; what follows
// for the customer comes with Processor.Sync or by the events. It may be called again.
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
		params := &api.SubscriptionCancelParams{}
		params.Context = ctx
		if _, err := c.o.Account.subscriptions().Cancel(id, params); err != nil {
			return ended, failure(op, err)
		}
		ended = append(ended, id)
	}
	return ended, failure(op, list.Err())
}
