package customers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// setTier gives the customer the subscription's tier, and its present period what the
// new one has more, for the rest of it: what an operator added stays.
func (b *billing) setTier(ctx context.Context) error {
	if b.customer.Tier == b.After.Tier {
		return nil
	}
	before := b.customer.Tier
	tier, err := b.tiers.Get(b.After.Tier)
	if err != nil {
		return err
	}
	old, err := b.tiers.Get(before)
	if err != nil {
		old = control.Tier{} // not sold any more: the new one's tokens come on top
	}
	// Only a period of this subscription that has begun already has the old tier's limit.
	p, err := b.tx.LastPeriod(ctx, b.customer.ID)
	unopened := errors.Is(err, control.ErrNotFound)
	if err != nil && !unopened {
		return err
	}
	if !unopened {
		if _, err := noteOverage(ctx, b.tx, control.QuotaKey{CustomerID: p.CustomerID, PeriodID: p.ID}, old); err != nil {
			return err
		}
	}
	if b.customer, err = b.tx.SetCustomerTier(ctx, b.customer.ID, tier.Name, b.now); err != nil {
		return err
	}
	b.changed = true
	if err := b.tx.AddAudit(ctx, control.Audit{
		Actor: b.actor, Action: "customer.tier", CustomerID: b.customer.ID, Target: b.customer.ID,
		Detail: map[string]any{"before": before, "after": tier.Name, "subscription": b.After.ID},
	}); err != nil {
		return err
	}
	if err := b.fitBoxes(ctx, b.actor, map[string]any{"before": before, "after": tier.Name}); err != nil {
		return err
	}
	if unopened || !p.Start.Equal(b.After.PeriodStart) {
		return nil
	}
	overage, err := b.overageOf(ctx, tier, b.After, p.ID)
	if err != nil {
		return err
	}
	return b.addToLimit(ctx, p, proRata(tier.MonthlyTokens-old.MonthlyTokens, p, b.upgradedAt()), overage)
}

// upgradeMax is for how long an upgrade may wait for its payment; at Stripe it is 23 hours.
const upgradeMax = 24 * time.Hour

// upgradedAt is from when on the customer pays for the subscription's tier. What lies further
// back than an upgrade may wait is of another one, and this one is counted from now on.
func (b *billing) upgradedAt() time.Time {
	if b.upgraded.IsZero() || b.upgraded.After(b.now) || b.now.Sub(b.upgraded) > upgradeMax {
		return b.now
	}
	return b.upgraded
}

// proRata is the part of tokens for what is left of a period: as much as Stripe bills of
// their price.
func proRata(tokens int64, p control.UsagePeriod, at time.Time) int64 {
	whole, left := p.End.Sub(p.Start), p.End.Sub(at)
	switch {
	case tokens <= 0 || left >= whole:
		return tokens
	case left <= 0:
		return 0
	}
	return int64(float64(tokens) * (left.Seconds() / whole.Seconds()))
}

// addToLimit changes what the price of a period includes, and how much may be used above
// it: never less than was used of that already, and with an operator's gifts and ceiling.
func (b *billing) addToLimit(ctx context.Context, p control.UsagePeriod, tokens, overage int64) error {
	before, err := b.tx.PeriodOverage(ctx, b.customer.ID, p.ID)
	if err != nil {
		return err
	}
	terms := before
	terms.Included = max(before.Included+tokens, 0)
	free := max(max(p.LimitTokens-before.Tokens, before.Included)+tokens, 0)
	terms.Tokens = max(overage, min(p.Totals.Settled-free, before.Tokens))
	limit := free + terms.Tokens
	if before.Ceiling != nil {
		// An operator's stop is not the customer's to undo; but what a larger tier has more is paid.
		ceiling := *before.Ceiling + max(tokens, 0)
		limit = min(limit, ceiling)
		terms.Ceiling, terms.Tokens = &ceiling, max(limit-free, 0)
	}
	if p.LimitTokens == limit && before.Tokens == terms.Tokens && before.Included == terms.Included {
		return nil
	}
	changed, err := b.tx.SetLimit(ctx, b.customer.ID, p.ID, limit, terms)
	if err != nil {
		return err
	}
	if b.period.ID == p.ID {
		b.period = changed
	}
	b.changed = true
	if err := b.announceLimit(ctx, changed); err != nil {
		return err
	}
	return b.tx.AddAudit(ctx, control.Audit{
		Actor: b.actor, Action: "quota.set", CustomerID: b.customer.ID, Target: p.ID,
		Detail: map[string]any{"before": p.LimitTokens, "after": changed.LimitTokens, "overage": terms.Tokens, "subscription": b.After.ID},
	})
}

// ownOverage has as much of the present period paid for one by one as the subscription allows
// now: nothing while anything is owed, and all of the cap again once that is paid.
func (b *billing) ownOverage(ctx context.Context) error {
	if !b.period.Start.Equal(b.After.PeriodStart) {
		return nil // of a time before this subscription
	}
	tier, err := b.tiers.Get(b.customer.Tier)
	if err != nil {
		return err
	}
	overage, err := b.overageOf(ctx, tier, b.After, b.period.ID)
	if err != nil {
		return err
	}
	return b.addToLimit(ctx, b.period, 0, overage)
}

// announceLimit puts a period's limit into the outbox.
func (c *change) announceLimit(ctx context.Context, p control.UsagePeriod) error {
	return c.add(ctx, control.Change{
		Kind: control.ChangeLimit, CustomerID: c.customer.ID,
		Limit: control.Limit{Period: p.Period(), Tokens: p.LimitTokens, Version: p.LimitVersion},
	})
}

// ownPeriod opens Stripe's period, once.
func (b *billing) ownPeriod(ctx context.Context) error {
	tier, err := b.tiers.Get(b.customer.Tier)
	if err != nil {
		return err
	}
	want := control.FirstPeriod(b.customer.ID, b.After.PeriodStart, tier.MonthlyTokens)
	want.End = b.After.PeriodEnd
	overage, err := b.overageOf(ctx, tier, b.After, want.ID)
	if err != nil {
		return err
	}
	want.LimitTokens += overage
	last, err := b.tx.LastPeriod(ctx, b.customer.ID)
	if err != nil && !errors.Is(err, control.ErrNotFound) {
		return err
	}
	fresh := err != nil || last.ID != want.ID
	if fresh && last.Start.After(want.Start) {
		return b.presentPeriod(ctx) // of a time before this subscription; it ends by itself
	}
	p, err := b.tx.OpenPeriod(ctx, want)
	if err != nil {
		return err
	}
	if !p.End.Equal(want.End) {
		if p, err = b.tx.MovePeriodEnd(ctx, b.customer.ID, p.ID, want.End); err != nil {
			return err
		}
		b.changed = true
	}
	b.period = p
	if !fresh {
		return nil
	}
	b.changed = true
	if err := b.tx.SetPeriodOverage(ctx, b.customer.ID, p.ID, overage); err != nil {
		return err
	}
	return b.tx.AddAudit(ctx, control.Audit{
		Actor: b.actor, Action: "period.open", CustomerID: b.customer.ID, Target: p.ID,
		Detail: map[string]any{"limit": p.LimitTokens, "start": p.Start, "end": p.End, "subscription": b.After.ID},
	})
}

// presentPeriod finds the period that grants name: the last one.
func (b *billing) presentPeriod(ctx context.Context) error {
	p, err := b.tx.LastPeriod(ctx, b.customer.ID)
	if err != nil && !errors.Is(err, control.ErrNotFound) {
		return err
	}
	b.period = p
	return nil
}

// ownBoxes has the subscription pay for the customer's boxes that nothing pays for, and
// makes the first one: whoever has paid has a box to come.
func (b *billing) ownBoxes(ctx context.Context) error {
	mine, err := b.tx.BoxesOf(ctx, b.After.ID)
	if err != nil {
		return err
	}
	unpaid, err := b.tx.UnpaidBoxes(ctx, b.customer.ID)
	if err != nil {
		return err
	}
	if len(mine)+len(unpaid) == 0 {
		namespace, err := b.namespace(ctx)
		if err != nil {
			return err
		}
		box := newBox(b.customer.ID, namespace, b.now)
		if b.customer.Status != control.CustomerActive {
			box.Wants = control.BoxSuspend // until whoever suspended its customer lets go of that
		}
		if err := b.tx.InsertBox(ctx, box); err != nil {
			return err
		}
		if err := b.wake(ctx, b.tx, box.ID); err != nil {
			return err
		}
		unpaid = append(unpaid, box)
	}
	for _, box := range unpaid {
		if err := b.tx.LinkBox(ctx, b.actor, box.ID, b.customer.ID, b.After.ID); err != nil {
			return err
		}
	}
	return nil
}

// wantBoxes has the customer's boxes become something else: all of them, for without this
// subscription it is not served, whatever it is that they are of.
func (b *billing) wantBoxes(ctx context.Context, wants control.BoxWants) error {
	boxes, err := b.tx.Boxes(ctx, b.customer.ID)
	if err != nil {
		return err
	}
	return b.want(ctx, b.actor, boxes, wants)
}

// announceChange gives every token a new grant, if anything in it is new.
func (b *billing) announceChange(ctx context.Context) error {
	if !b.changed {
		return nil
	}
	if b.period.ID == "" {
		if err := b.presentPeriod(ctx); err != nil {
			return err
		}
	}
	return b.announceAll(ctx, b.now)
}

// SetOverage lets a customer use more than its limit, for at most capCents a period, or,
// with 0, no more than that. It holds from now on. The tier must have a price for it, and
// to allow more the subscription must be active, not in its trial, and not owe anything:
// otherwise it is control.ErrInvalid.
func (s *Service) SetOverage(ctx context.Context, actor, customerID string, capCents int64) (control.Subscription, error) {
	var out control.Subscription
	outbox, period, err := s.commit(ctx, customerID, func(c *change) error {
		v, err := c.tx.LiveSubscription(ctx, customerID)
		if errors.Is(err, control.ErrNotFound) {
			return fmt.Errorf("%w: customer %s has no subscription", control.ErrInvalid, customerID)
		}
		if err != nil {
			return err
		}
		tier, err := c.tiers.Get(c.customer.Tier)
		if err != nil {
			return err
		}
		switch {
		case capCents < 0:
			return fmt.Errorf("%w: a cap of %d cents", control.ErrInvalid, capCents)
		case capCents > 0 && tier.OverageCentsPerMillion == 0:
			return fmt.Errorf("%w: tier %s has no price above its limit", control.ErrInvalid, tier.Name)
		case capCents > v.OverageCapCents && !pays(v):
			return fmt.Errorf("%w: the subscription is %s, and %d attempts to pay have failed", control.ErrInvalid, v.Status, v.FailedPayments)
		}
		if out, err = c.tx.SetOverage(ctx, actor, v, capCents); err != nil {
			return err
		}
		b := &billing{change: c, Billed: Billed{After: out}, actor: actor, now: s.now()}
		if err := b.presentPeriod(ctx); err != nil {
			return err
		}
		if err := b.ownOverage(ctx); err != nil {
			return err
		}
		return b.announceChange(ctx)
	})
	if err != nil {
		return out, fmt.Errorf("set overage: %w", err)
	}
	return out, s.publishBilled(ctx, customerID, period, outbox)
}
