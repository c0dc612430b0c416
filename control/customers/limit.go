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

// LimitChange is how a limit is changed: To a number, by Add, or, with Reset, to what the
// tier has and the customer pays for on top.
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
// count. The next period begins with the tier's limit again. With ErrUnpublished it is
// done, and the proxies will know a little later. Between two periods, until Stripe says that the
// next one has begun, it is control.ErrConflict.
func (s *Service) ChangeLimit(ctx context.Context, actor, customerID string, ch LimitChange) (LimitChanged, error) {
	var out LimitChanged
	err := s.change(ctx, customerID, func(c *change) error {
		if !c.period.Contains(s.now()) { // it waits for Stripe
			return fmt.Errorf("%w: the present period of customer %s is not open yet", control.ErrConflict, customerID)
		}
		before := c.period.LimitTokens
		tokens, overage, err := ch.apply(ctx, c)
		if err != nil {
			return err
		}
		p, err := c.tx.SetLimit(ctx, customerID, c.period.ID, tokens, overage)
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
		detail := map[string]any{"before": before, "after": tokens, "overage": overage}
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

// apply returns the limit that follows the present one, and how much of it is paid for token
// by token. What is added, an operator gives; what is taken, is taken from what would have to
// be paid for first.
func (l *LimitChange) apply(ctx context.Context, c *change) (tokens, overage int64, err error) {
	before, err := c.tx.PeriodOverage(ctx, c.customer.ID, c.period.ID)
	if err != nil {
		return 0, 0, err
	}
	tokens, overage = c.period.LimitTokens, before.Tokens
	switch {
	case l.To != nil:
		tokens = *l.To
	case l.Reset:
		if tokens, overage, err = c.planned(ctx); err != nil {
			return 0, 0, err
		}
	case l.Add > maxLimit || l.Add < -maxLimit:
		return 0, 0, fmt.Errorf("%w: %d is too much", control.ErrInvalid, l.Add)
	default:
		tokens = max(tokens+l.Add, 0)
	}
	if tokens < 0 {
		return 0, 0, fmt.Errorf("%w: %d is negative", control.ErrInvalid, tokens)
	}
	if tokens > maxLimit {
		return 0, 0, fmt.Errorf("%w: %d is too much", control.ErrInvalid, tokens)
	}
	if !l.Reset {
		overage = max(overage-max(c.period.LimitTokens-tokens, 0), 0)
	}
	return tokens, overage, nil
}

// planned returns what the limit of the present period would be without an operator's changes,
// and how much of it is paid for token by token.
func (c *change) planned(ctx context.Context) (tokens, overage int64, err error) {
	tier, err := c.tiers.Get(c.customer.Tier)
	if err != nil {
		return 0, 0, err
	}
	v, err := c.tx.LiveSubscription(ctx, c.customer.ID)
	switch {
	case err == nil && c.period.Start.Equal(v.PeriodStart):
		overage, err = c.overageOf(ctx, tier, v, c.period.ID)
	case errors.Is(err, control.ErrNotFound):
		err = nil
	}
	if err != nil {
		return 0, 0, err
	}
	return tier.MonthlyTokens + overage, overage, nil
}
