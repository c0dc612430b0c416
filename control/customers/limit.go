package customers

import (
	"context"
	"errors"
	"fmt"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// maxLimit is the largest limit: numbers up to it are exact also in JSON readers that have
// floating point only.
const maxLimit = 1 << 53

// LimitChange is how a limit is changed: To a number, by Add, or, with Reset, to what the price
// of the period includes, with what the customer pays for on top.
type LimitChange struct {
	To     *int64 // weighted tokens
	Add    int64  // may be negative; the limit does not fall below 0
	Reset  bool
	Reason string // for the audit log; may be empty
}

// LimitChanged is a limit that was changed.
type LimitChanged struct {
	Period control.UsagePeriod
	Before int64 // the limit, in weighted tokens
}

// ChangeLimit changes the limit of a customer's present period. Two that add at once both
// count. A limit that was lowered is the most that it may be, whatever the customer then allows
// itself to use on top, until another change; with a larger tier it grows by what that has
// more. The next period begins with the tier's limit again. With ErrUnpublished it is
// done, and the proxies will know a little later. Between two periods, until Stripe says that the
// next one has begun, it is control.ErrConflict.
func (s *Service) ChangeLimit(ctx context.Context, actor, customerID string, ch LimitChange) (LimitChanged, error) {
	var out LimitChanged
	err := s.change(ctx, customerID, func(c *change) error {
		if !c.period.Contains(s.now()) { // it waits for Stripe
			return fmt.Errorf("%w: the present period of customer %s is not open yet", control.ErrConflict, customerID)
		}
		before := c.period.LimitTokens
		tokens, terms, err := ch.apply(ctx, c)
		if err != nil {
			return err
		}
		p, err := c.tx.SetLimit(ctx, customerID, c.period.ID, tokens, terms)
		if err != nil {
			return err
		}
		out, c.period = LimitChanged{Period: p, Before: before}, p
		if err := c.add(ctx, control.Change{
			Kind: control.ChangeLimit, CustomerID: customerID,
			Limit: control.Limit{Period: p.Period(), Tokens: p.LimitTokens, Version: p.LimitVersion},
		}); err != nil {
			return err
		}
		if err := c.announceAll(ctx, s.now()); err != nil {
			return err
		}
		detail := map[string]any{"before": before, "after": tokens, "overage": terms.Tokens}
		if ch.Reason != "" {
			detail["reason"] = ch.Reason
		}
		if err := c.tx.AddAudit(ctx, control.Audit{
			Actor: actor, Action: "quota.set", CustomerID: customerID, Target: p.ID, Detail: detail,
		}); err != nil {
			return err
		}
		return s.noted(ctx, c.tx, out)
	})
	if err != nil {
		return out, fmt.Errorf("set limit: %w", err)
	}
	return out, nil
}

// apply returns the limit that follows the present one, and how it is paid for. What is added, an
// operator gives; what is taken, is taken from what would have to be paid for first, and what the
// price includes stays paid.
func (l *LimitChange) apply(ctx context.Context, c *change) (tokens int64, terms control.PeriodOverage, err error) {
	if terms, err = c.tx.PeriodOverage(ctx, c.customer.ID, c.period.ID); err != nil {
		return 0, terms, err
	}
	before := c.period.LimitTokens
	switch {
	case l.To != nil:
		tokens = *l.To
	case l.Reset:
		if terms.Tokens, err = c.plannedOverage(ctx); err != nil {
			return 0, terms, err
		}
		tokens, terms.Ceiling = terms.Included+terms.Tokens, nil
	case l.Add > maxLimit || l.Add < -maxLimit:
		return 0, terms, fmt.Errorf("%w: %d is too much", control.ErrInvalid, l.Add)
	default:
		tokens = max(before+l.Add, 0)
	}
	if tokens < 0 {
		return 0, terms, fmt.Errorf("%w: %d is negative", control.ErrInvalid, tokens)
	}
	if tokens > maxLimit {
		return 0, terms, fmt.Errorf("%w: %d is too much", control.ErrInvalid, tokens)
	}
	if l.Reset {
		return tokens, terms, nil
	}
	terms.Tokens = max(terms.Tokens-max(before-tokens, 0), 0)
	if tokens < before || terms.Ceiling != nil {
		ceiling := tokens
		terms.Ceiling = &ceiling
	}
	return tokens, terms, nil
}

// plannedOverage is how many tokens of the present period would be paid for one by one without an
// operator's changes.
func (c *change) plannedOverage(ctx context.Context) (int64, error) {
	v, err := c.tx.LiveSubscription(ctx, c.customer.ID)
	if errors.Is(err, control.ErrNotFound) {
		return 0, nil
	}
	if err != nil || !c.period.Start.Equal(v.PeriodStart) {
		return 0, err
	}
	tier, err := c.tiers.Get(c.customer.Tier)
	if err != nil {
		return 0, err
	}
	return c.overageOf(ctx, tier, v, c.period.ID)
}
