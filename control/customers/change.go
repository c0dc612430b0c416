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

// change is one transaction on one customer, which it has locked.
type change struct {
	tx       *store.Tx
	tiers    control.Tiers
	customer control.Customer
	period   control.UsagePeriod // the present one; zero within locked
	outbox   []int64             // what is to be published
	wake     func(ctx context.Context, tx *store.Tx, boxID string) error
}

// change runs do in a transaction that has locked the customer and made sure that its
// present period is open, and then publishes what do put into the outbox.
func (s *Service) change(ctx context.Context, customerID string, do func(*change) error) error {
	outbox, period, err := s.commit(ctx, customerID, s.withPeriod(ctx, do))
	if err != nil {
		return err
	}
	// Who has the grant may be served: the limit's record comes first. Without it the
	// proxies ask for it themselves, and refuse until it is there.
	ensured := s.Limits.Ensure(ctx, customerID, period)
	err = s.publishNow(ctx, outbox)
	if err == nil && ensured != nil {
		err = fmt.Errorf("%w: %w", ErrUnpublished, ensured)
	}
	return err
}

// locked is change without a period: what must work whatever is wrong with the
// customer's tier or periods.
func (s *Service) locked(ctx context.Context, customerID string, do func(*change) error) error {
	outbox, _, err := s.commit(ctx, customerID, do)
	if err != nil {
		return err
	}
	return s.publishNow(ctx, outbox)
}

// withPeriod opens the customer's present period before do.
func (s *Service) withPeriod(ctx context.Context, do func(*change) error) func(*change) error {
	return func(c *change) error {
		if err := c.openPeriod(ctx, s.now()); err != nil {
			return err
		}
		return do(c)
	}
}

// commit runs do in a transaction that has locked the customer, and returns what is to
// be published and the id of the present period, if do needed one.
func (s *Service) commit(ctx context.Context, customerID string, do func(*change) error) (outbox []int64, period string, err error) {
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		if err := s.followTiers(ctx, tx); err != nil {
			return err
		}
		c := &change{tx: tx, tiers: s.Tiers.Fixed(), wake: s.wake}
		var err error
		if c.customer, err = tx.LockCustomer(ctx, customerID); err != nil {
			return err
		}
		if err := do(c); err != nil {
			return err
		}
		outbox, period = c.outbox, c.period.ID
		return nil
	})
	return outbox, period, err
}

// openPeriod finds the present period, or opens it if the last one has ended: in the
// chain of months that the customer's first period began, with the tier's limit. It opens
// none for who has not paid or has a subscription.
func (c *change) openPeriod(ctx context.Context, now time.Time) error {
	p, err := c.tx.PeriodAt(ctx, c.customer.ID, now)
	if err == nil {
		c.period = p
		return nil
	}
	if !errors.Is(err, control.ErrNotFound) {
		return err
	}
	if c.customer.Status == control.CustomerPending {
		return fmt.Errorf("%w: customer %s has not paid yet", control.ErrInvalid, c.customer.ID)
	}
	// The periods of who has a subscription are Stripe's, and only Stripe says whether
	// there is a next one. Until then the last one has to do, which admits nothing any more.
	_, err = c.tx.LiveSubscription(ctx, c.customer.ID)
	if err == nil {
		c.period, err = c.tx.LastPeriod(ctx, c.customer.ID)
		return err
	}
	if !errors.Is(err, control.ErrNotFound) {
		return err
	}
	tier, err := c.tiers.Get(c.customer.Tier)
	if err != nil {
		return err
	}
	anchor, err := c.tx.FirstPeriodStart(ctx, c.customer.ID)
	if errors.Is(err, control.ErrNotFound) {
		anchor, err = c.customer.CreatedAt, nil
	}
	if err != nil {
		return err
	}
	if anchor.After(now) {
		return fmt.Errorf("%w: the first period of customer %s begins at %s", control.ErrInvalid, c.customer.ID, anchor.Format(time.RFC3339))
	}
	c.period, err = c.tx.OpenPeriod(ctx, control.PeriodAt(c.customer.ID, anchor, now, tier.MonthlyTokens))
	if err != nil {
		return err
	}
	if err := c.tx.AddAudit(ctx, control.Audit{
		Actor: "system", Action: "period.open", CustomerID: c.customer.ID, Target: c.period.ID,
		Detail: map[string]any{"limit": c.period.LimitTokens, "start": c.period.Start, "end": c.period.End},
	}); err != nil {
		return err
	}
	return c.announceAll(ctx, now)
}

// box returns the customer's box of that id, or its only box.
func (c *change) box(ctx context.Context, id string) (control.Box, error) {
	boxes, err := c.tx.Boxes(ctx, c.customer.ID)
	if err != nil {
		return control.Box{}, err
	}
	var usable []control.Box
	for _, b := range boxes {
		if b.Wants == control.BoxDestroy {
			continue
		}
		if b.ID == id {
			return b, nil
		}
		usable = append(usable, b)
	}
	switch {
	case id != "":
		return control.Box{}, fmt.Errorf("box %s of customer %s: %w", id, c.customer.ID, control.ErrNotFound)
	case len(usable) == 0:
		return control.Box{}, fmt.Errorf("a box of customer %s: %w", c.customer.ID, control.ErrNotFound)
	case len(usable) > 1:
		return control.Box{}, fmt.Errorf("%w: customer %s has %d boxes, say which one", control.ErrInvalid, c.customer.ID, len(usable))
	}
	return usable[0], nil
}

// announceAll gives every token of the customer that is not revoked a new version and
// puts its grant into the outbox.
func (c *change) announceAll(ctx context.Context, now time.Time) error {
	tokens, err := c.tx.Tokens(ctx, c.customer.ID)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.Status == contract.StatusRevoked {
			continue
		}
		if t, err = c.tx.UpdateToken(ctx, t.ID, t.Status, now); err != nil {
			return err
		}
		if err := c.announce(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// announce puts the grant of one token into the outbox.
func (c *change) announce(ctx context.Context, t control.ProxyToken) error {
	g, err := grantOf(c.tiers, c.customer, t, c.period)
	if err != nil {
		return err
	}
	return c.add(ctx, control.Change{Kind: control.ChangeGrant, CustomerID: c.customer.ID, Digest: t.Digest, Grant: g})
}

// grantOf computes the grant of a token; p matters only while it is not revoked.
func grantOf(tiers control.Tiers, c control.Customer, t control.ProxyToken, p control.UsagePeriod) (contract.Grant, error) {
	if t.Status == contract.StatusRevoked {
		return control.RevokedGrant(c, t)
	}
	tier, err := tiers.Get(c.Tier)
	if err != nil {
		return contract.Grant{}, err
	}
	return control.GrantFor(c, t, p, tier)
}

func (c *change) add(ctx context.Context, ch control.Change) error {
	id, err := c.tx.AddChange(ctx, ch)
	if err != nil {
		return err
	}
	c.outbox = append(c.outbox, id)
	return nil
}
