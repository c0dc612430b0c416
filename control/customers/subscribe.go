package customers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// MaxFailedPayments is with how many failed attempts to pay a customer is suspended.
const MaxFailedPayments = 3

// Turn is what a change of a subscription did to its customer.
type Turn string

// The turns that a customer is told of. With any other change it is "".
const (
	TurnNone      Turn = ""
	TurnActivated Turn = "activated" // it has paid for the first time
	TurnSuspended Turn = "suspended" // a payment is missing
	TurnResumed   Turn = "resumed"   // it has paid after all
	TurnCancelled Turn = "cancelled" // the subscription has ended
)

// Billed is what ApplySubscription found and did.
type Billed struct {
	Before, After control.Subscription // Before is zero if the subscription was not known
	Customer      control.Customer     // as it is now
	Period        control.UsagePeriod  // the present one; zero if the customer has none
	Turn          Turn
	Returned      bool // with TurnActivated: it was cancelled before
}

// ApplySubscription makes a customer what Stripe's answer of readAt entitles it to, in one
// transaction, in which also runs last. It goes by the state and not by what changed: in
// whichever order answers come, and however often, the newest one decides, and a second time
// does nothing. v.Tier is the tier that Stripe bills next.
//
// A tier with more tokens holds at once, if it is paid for; one with less from the next
// period on. Stripe's period is the customer's. With ErrUnpublished all is committed.
func (s *Service) ApplySubscription(ctx context.Context, actor string, v control.StripeSubscription, readAt time.Time,
	also func(context.Context, *store.Tx, Billed) error) (Billed, error) {
	return s.applySubscription(ctx, actor, v, readAt, nil, also)
}

func (s *Service) applySubscription(ctx context.Context, actor string, v control.StripeSubscription, readAt time.Time, instead *Replaced,
	also func(context.Context, *store.Tx, Billed) error) (Billed, error) {
	var b *billing
	outbox, period, err := s.commit(ctx, v.CustomerID, func(c *change) error {
		b = &billing{change: c, actor: actor, now: s.now()}
		if err := b.replace(ctx, instead, v.ID); err != nil {
			return err
		}
		if err := b.put(ctx, v, readAt.Truncate(time.Microsecond)); err != nil {
			return err
		}
		if err := b.takeBoxes(ctx, instead); err != nil {
			return err
		}
		if err := b.apply(ctx); err != nil {
			return err
		}
		if err := b.announceChange(ctx); err != nil {
			return err
		}
		b.Customer, b.Period = c.customer, c.period
		if also == nil {
			return nil
		}
		return also(ctx, c.tx, b.Billed)
	})
	if err != nil {
		return Billed{}, fmt.Errorf("apply subscription %s: %w", v.ID, err)
	}
	return b.Billed, s.publishBilled(ctx, v.CustomerID, period, outbox)
}

// publishBilled publishes what was committed. A customer that has no period yet needs no
// record of its limit.
func (s *Service) publishBilled(ctx context.Context, customer, period string, outbox []int64) error {
	if len(outbox) == 0 {
		return nil
	}
	var ensured error
	if period != "" {
		ensured = s.Limits.Ensure(ctx, customer, period)
	}
	if err := s.publishNow(ctx, outbox); err != nil {
		return err
	}
	if ensured != nil {
		return fmt.Errorf("%w: %w", ErrUnpublished, ensured)
	}
	return nil
}

// billing is a change that follows from a subscription.
type billing struct {
	*change
	Billed
	actor   string
	now     time.Time
	changed bool // the grants are not what they were

	upgraded time.Time // StripeSubscription.UpgradedAt
}

// put writes what Stripe said. Between two tiers it is the customer's present one that is
// written, and the other one as what follows.
func (b *billing) put(ctx context.Context, v control.StripeSubscription, readAt time.Time) error {
	before, err := b.tx.Subscription(ctx, v.ID)
	if err != nil && !errors.Is(err, control.ErrNotFound) {
		return err
	}
	billed := v.Tier
	b.upgraded = v.UpgradedAt
	if v.Tier, err = b.tierOf(before, v); err != nil {
		return err
	}
	b.Before, b.After, err = b.tx.PutSubscription(ctx, b.actor, v, readAt)
	if err != nil || !b.After.ReadAt.Equal(readAt) || b.After.ReplacedBy != "" {
		return err
	}
	follows := ""
	if b.live() && billed != b.After.Tier && !b.raises(b.After.Tier, billed) {
		follows = billed
	}
	if follows != b.After.PendingTier {
		b.After, err = b.tx.SetPendingTier(ctx, b.actor, b.After, follows, b.After.PeriodEnd)
	}
	return err
}

// live reports whether the subscription is one of which a customer can have only one.
func (b *billing) live() bool { return b.After.Status.Live() }

// tierOf returns the tier that holds now.
func (b *billing) tierOf(before control.Subscription, v control.StripeSubscription) (string, error) {
	if _, err := b.tiers.Get(v.Tier); err != nil {
		return "", err
	}
	if !before.Status.Live() || before.Tier == v.Tier {
		return v.Tier, nil
	}
	paid := v.Status == control.SubscriptionActive || v.Status == control.SubscriptionTrialing
	switch raises := b.raises(before.Tier, v.Tier); {
	case raises && paid, !raises && v.PeriodStart.After(before.PeriodStart):
		return v.Tier, nil
	}
	return before.Tier, nil
}

// raises reports whether tier to gives more tokens than tier from. One that is not in the
// table any more gives none.
func (b *billing) raises(from, to string) bool {
	f, _ := b.tiers.Get(from)
	t, _ := b.tiers.Get(to)
	return t.MonthlyTokens > f.MonthlyTokens
}

// entitled reports whether the customer may be served for this subscription.
func entitled(v control.Subscription) bool {
	switch v.Status {
	case control.SubscriptionTrialing, control.SubscriptionActive, control.SubscriptionPastDue:
		// An active one, too: its newest invoice is paid, and an older one may be open.
		return v.FailedPayments < MaxFailedPayments
	}
	return false
}

// apply makes the customer what its subscription entitles it to.
func (b *billing) apply(ctx context.Context) error {
	cancelled := b.customer.Status == control.CustomerCancelled
	switch {
	case b.After.ReplacedBy != "":
		return nil
	case b.After.Status == control.SubscriptionCanceled && b.Before.Status.Live() && !cancelled:
		return b.cancel(ctx)
	case !b.live():
		return nil
	case cancelled && !entitled(b.After):
		return nil
	case cancelled:
		return b.activateAgain(ctx)
	case !entitled(b.After):
		return b.suspend(ctx)
	case b.customer.Status == control.CustomerPending:
		return b.activate(ctx)
	default:
		return b.serve(ctx)
	}
}

// activate begins the service of a customer that has paid for the first time.
func (b *billing) activate(ctx context.Context) error {
	if err := b.setStatus(ctx, control.CustomerActive, "customer.activate"); err != nil {
		return err
	}
	b.Turn = TurnActivated
	return b.serve(ctx)
}

// serve sees to it that the customer has the tier, the period, the boxes and the status
// that it pays for.
func (b *billing) serve(ctx context.Context) error {
	if err := b.setTier(ctx); err != nil {
		return err
	}
	if err := b.ownPeriod(ctx); err != nil {
		return err
	}
	if err := b.ownOverage(ctx); err != nil {
		return err
	}
	if err := b.ownBoxes(ctx); err != nil {
		return err
	}
	hold, err := b.tx.PaymentHold(ctx, b.customer.ID)
	if err != nil {
		return err
	}
	if hold {
		if err := b.tx.SetPaymentHold(ctx, b.customer.ID, false); err != nil {
			return err
		}
		if err := b.setStatus(ctx, control.CustomerActive, "customer.resume"); err != nil {
			return err
		}
		b.Turn = TurnResumed
	}
	// Whom an operator suspended gets its boxes when an operator resumes it; whom one resumed
	// before it had paid gets them now.
	if b.customer.Status != control.CustomerActive {
		return nil
	}
	return b.wantBoxes(ctx, control.BoxRun)
}

// suspend stops the service until the payment is there. Whom an operator suspended stays
// the operator's.
func (b *billing) suspend(ctx context.Context) error {
	if b.customer.Status != control.CustomerActive {
		// Its period may be over meanwhile; the grants say suspended in any case.
		if err := b.presentPeriod(ctx); err != nil {
			return err
		}
		// Whoever suspended it may have left boxes as they were.
		if hold, err := b.tx.PaymentHold(ctx, b.customer.ID); err != nil || !hold {
			return err
		}
		return b.wantBoxes(ctx, control.BoxSuspend)
	}
	if err := b.setStatus(ctx, control.CustomerSuspended, "customer.suspend"); err != nil {
		return err
	}
	if err := b.tx.SetPaymentHold(ctx, b.customer.ID, true); err != nil {
		return err
	}
	b.Turn = TurnSuspended
	if err := b.presentPeriod(ctx); err != nil {
		return err
	}
	return b.wantBoxes(ctx, control.BoxSuspend)
}

// cancel ends the service for good: the tokens are revoked before the boxes go.
func (b *billing) cancel(ctx context.Context) error {
	if b.customer.Status == control.CustomerPending {
		return nil // it never had any, and may begin another subscription
	}
	if err := b.tx.SetPaymentHold(ctx, b.customer.ID, false); err != nil {
		return err
	}
	if err := b.setStatus(ctx, control.CustomerCancelled, "customer.cancel"); err != nil {
		return err
	}
	b.Turn, b.changed = TurnCancelled, false // what is revoked is announced here
	tokens, err := b.tx.Tokens(ctx, b.customer.ID)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.Status == contract.StatusRevoked {
			continue
		}
		if t, err = b.tx.UpdateToken(ctx, t.ID, contract.StatusRevoked, b.now); err != nil {
			return err
		}
		if err := b.announce(ctx, t); err != nil {
			return err
		}
		if err := b.tx.AddAudit(ctx, control.Audit{Actor: b.actor, Action: "token.revoke", CustomerID: b.customer.ID, Target: t.ID}); err != nil {
			return err
		}
	}
	return b.wantBoxes(ctx, control.BoxDestroy)
}

func (b *billing) setStatus(ctx context.Context, status control.CustomerStatus, action string) error {
	before := b.customer.Status
	var err error
	if b.customer, err = b.tx.SetCustomerStatus(ctx, b.customer.ID, status, b.now); err != nil {
		return err
	}
	b.changed = true
	return b.tx.AddAudit(ctx, control.Audit{
		Actor: b.actor, Action: action, CustomerID: b.customer.ID, Target: b.customer.ID,
		Detail: map[string]any{"before": before, "subscription": b.After.ID, "subscription_status": b.After.Status},
	})
}
