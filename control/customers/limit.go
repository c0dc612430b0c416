package customers

import (
	"context"
	"fmt"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// maxLimit is the largest limit: numbers up to it are exact also in JSON readers that have
// floating point only.
const maxLimit = 1 << 53

// LimitChange is how a limit is changed: To a number, by Add, or, with Reset, to what the
// tier has.
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
		tokens, err := ch.apply(c, before)
		if err != nil {
			return err
		}
		p, err := c.tx.SetLimit(ctx, customerID, c.period.ID, tokens)
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
		detail := map[string]any{"before": before, "after": tokens}
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

// apply returns the limit that follows before.
func (l *LimitChange) apply(c *change, before int64) (int64, error) {
	tokens := before
	switch {
	case l.To != nil:
		tokens = *l.To
	case l.Reset:
		tier, err := c.tiers.Get(c.customer.Tier)
		if err != nil {
			return 0, err
		}
		tokens = tier.MonthlyTokens
	case l.Add > maxLimit || l.Add < -maxLimit:
		return 0, fmt.Errorf("%w: %d is too much", control.ErrInvalid, l.Add)
	default:
		tokens = max(before+l.Add, 0)
	}
	if tokens < 0 {
		return 0, fmt.Errorf("%w: %d is negative", control.ErrInvalid, tokens)
	}
	if tokens > maxLimit {
		return 0, fmt.Errorf("%w: %d is too much", control.ErrInvalid, tokens)
	}
	return tokens, nil
}
