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
// told yet, with an invoice of what was used above the limit: see end for what requests under
// way still use. Subscriptions of something that is not sold here go on. Of what was paid nothing is paid back. It returns the subscriptions that ended;
// what follows for the customer comes with Processor.Sync or by the events. It may be called again.
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
	// Without those that were cancelled, but with those whose first payment never came.
	params := &api.SubscriptionListParams{Customer: &account.StripeID}
	params.Context = ctx
	list := c.o.Account.subscriptions().List(params)
	for list.Next() {
		s := list.Subscription()
		if control.SubscriptionStatus(s.Status).Final() || !ours(s.Items) {
			continue
		}
		if err := c.end(ctx, customerID, s.ID); err != nil {
			return ended, fmt.Errorf("%s: %w", op, err)
		}
		ended = append(ended, s.ID)
	}
	return ended, failure(op, list.Err())
}

// end has Stripe end a subscription now, and bill what was used above the limit: it forgets
// that, unless it is asked for a last invoice. As soon as the token-proxies know it no request is
// let in above the limit, and what Postgres knows of is reported before.
//
// What comes to Postgres later is not billed: that of requests that are still under way, and that
// of a token-proxy whose events are late. It is reported, as what is used always is, and Stripe
// has no subscription any more to bill it to. Those requests were let in within limit and cap, so
// it is never more than was left of the cap; and there are at most as many of them as the tier
// has "concurrent" for each replica, each with no more tokens than it had reserved.
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
	if err = failure("cancel subscription "+id, err); errors.Is(err, control.ErrNotFound) {
		return nil // it has ended meanwhile
	}
	return err
}
