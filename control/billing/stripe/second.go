package stripe

import (
	"context"
	"errors"
	"fmt"

	api "github.com/stripe/stripe-go/v76"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// rivals returns which subscription counts, r or another live one of the same customer, and
// the other one of the two if there is: both as Stripe has them now. The newest that is paid
// counts, so that it does not matter which of them is heard of first.
func (p *Processor) rivals(ctx context.Context, r reading) (counts reading, other *reading, err error) {
	if !r.Status.Live() {
		return r, nil, nil
	}
	var known, live control.Subscription
	err = p.store.InTx(ctx, func(tx *store.Tx) error {
		known, err = tx.Subscription(ctx, r.ID)
		if err != nil && !errors.Is(err, control.ErrNotFound) {
			return err
		}
		live, err = tx.LiveSubscription(ctx, r.CustomerID)
		return err
	})
	if errors.Is(err, control.ErrNotFound) || err == nil && (live.ID == r.ID || known.ReplacedBy != "") {
		return r, nil, nil
	}
	if err != nil {
		return r, nil, err
	}
	held, err := p.read(ctx, live.ID)
	if err != nil {
		return r, nil, err
	}
	if !held.Status.Live() {
		// It has ended, which is still to be heard of; then r is the only one.
		return r, nil, p.sync(ctx, held.ID, nil)
	}
	// What was read first may be older than what was heard of meanwhile.
	if r, err = p.read(ctx, r.ID); err != nil || !r.Status.Live() {
		return r, nil, err
	}
	if newer(r, held) {
		return r, &held, nil
	}
	return held, &r, nil
}

// newer reports whether of two live subscriptions a counts, and not b.
func newer(a, b reading) bool {
	paid := func(r reading) bool {
		return r.Status == control.SubscriptionActive || r.Status == control.SubscriptionTrialing
	}
	switch {
	case paid(a) != paid(b):
		return paid(a)
	case !a.created.Equal(b.created):
		return a.created.After(b.created)
	}
	return a.ID > b.ID
}

// amiss reports whether Stripe bills what it should not: a subscription that does not count, or
// that nobody is served for, or what is used above the limit twice.
func (p *Processor) amiss(ctx context.Context, tx *store.Tx, r reading, b customers.Billed) (bool, error) {
	list, err := tx.ReplacedSubscriptions(ctx, b.Customer.ID)
	if err != nil || len(list) > 0 {
		return len(list) > 0, err
	}
	return unserved(b) || counts(b) && overageAmiss(r), nil
}

// unserved reports whether a subscription is billed of a customer that is cancelled, and stays
// so: it was deleted, or has not paid. A page that was open at the time can begin one.
func unserved(b customers.Billed) bool {
	return counts(b) && b.Customer.Status == control.CustomerCancelled
}

// counts reports whether the customer is served for the subscription.
func counts(b customers.Billed) bool { return b.After.Status.Live() && b.After.ReplacedBy == "" }

// putRight has Stripe bill what our books say. It may be called again, and by several.
func (p *Processor) putRight(ctx context.Context, r reading, b customers.Billed) error {
	var list []control.Subscription
	err := p.store.InTx(ctx, func(tx *store.Tx) (err error) {
		list, err = tx.ReplacedSubscriptions(ctx, b.Customer.ID)
		return err
	})
	if err != nil {
		return err
	}
	for _, v := range list {
		if err := p.cancel(ctx, v, "a customer had two live subscriptions; the older one, or the one that was not paid, is cancelled"); err != nil {
			return err
		}
	}
	if unserved(b) {
		return p.cancel(ctx, b.After, "a cancelled customer had a live subscription, which is cancelled")
	}
	if counts(b) {
		return p.o.Account.priceOverage(ctx, r, false, p.o.Customers.Clock())
	}
	return nil
}

// cancel has Stripe end a subscription that nobody is served for, and says why. What was paid for
// the rest of its period is the customer's credit, against its next invoices, as long as none of
// the period's tokens were used: they are not paid back, and so the time is not, unless someone
// decides it.
func (p *Processor) cancel(ctx context.Context, v control.Subscription, why string) error {
	op := "cancel subscription " + v.ID + ", which does not count"
	credit := v.Status == control.SubscriptionActive && v.FailedPayments == 0
	if credit {
		used, err := p.o.Customers.Used(ctx, v.CustomerID, v.PeriodStart)
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		credit = !used
	}
	params := &api.SubscriptionCancelParams{Prorate: &credit, InvoiceNow: api.Bool(true)}
	params.Context = ctx
	_, err := p.o.Account.subscriptions().Cancel(v.ID, params)
	err = failure(op, err)
	if errors.Is(err, control.ErrNotFound) {
		err = nil // somebody was faster
	} else if err == nil {
		p.second.Inc()
		p.o.Logger.ErrorContext(ctx, why+": see whether money has to go back",
			"customer", v.CustomerID, "cancelled", v.ID, "counts", v.ReplacedBy, "credit", credit)
	}
	if err != nil {
		return err
	}
	r, err := p.read(ctx, v.ID)
	if err != nil {
		return err
	}
	if r.Status.Live() {
		return fmt.Errorf("%s: Stripe still says that it is %s", op, r.Status)
	}
	_, err = p.o.Customers.ApplySubscription(ctx, actor, r.StripeSubscription, r.readAt, nil)
	return err
}
