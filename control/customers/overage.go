package customers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	// overagePage is how many periods ReportOverage reads at once.
	overagePage = 200
	// overageLate is for how long after a period's end what comes late is still reported.
	overageLate = 72 * time.Hour
)

// ReportOverage writes down what customers used of their periods above what the price
// includes, as far as it was not written down yet: as reports that are due to Stripe. It
// returns how many it added. Any number of processes may call it.
func (s *Service) ReportOverage(ctx context.Context) (int, error) {
	var after control.QuotaKey
	var errs []error
	added, since := 0, s.now().Add(-overageLate)
	for {
		page, err := s.Store.PeriodsAboveLimit(ctx, since, after, overagePage)
		if err != nil {
			return added, errors.Join(append(errs, err)...)
		}
		for _, key := range page {
			after = key
			fresh, err := s.reportOverage(ctx, key)
			if fresh {
				added++
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("report overage of customer %s: %w", key.CustomerID, err))
			}
		}
		if len(page) < overagePage || ctx.Err() != nil {
			return added, errors.Join(errs...)
		}
	}
}

// ReportOverageOf is ReportOverage of one customer, whose subscription is about to end.
func (s *Service) ReportOverageOf(ctx context.Context, customerID string) error {
	var periods []control.UsagePeriod
	err := s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		periods, err = tx.PeriodsSince(ctx, customerID, s.now().Add(-overageLate))
		return err
	})
	for _, p := range periods {
		if err == nil {
			_, err = s.reportOverage(ctx, control.QuotaKey{CustomerID: customerID, PeriodID: p.ID})
		}
	}
	if err != nil {
		return fmt.Errorf("report overage of customer %s: %w", customerID, err)
	}
	return nil
}

func (s *Service) reportOverage(ctx context.Context, key control.QuotaKey) (fresh bool, err error) {
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		customer, err := tx.LockCustomer(ctx, key.CustomerID)
		if err != nil {
			return err
		}
		tier, err := s.Tiers.Get(customer.Tier)
		if err != nil {
			return err
		}
		fresh, err = noteOverage(ctx, tx, key, tier)
		return err
	})
	return fresh, err
}

// noteOverage writes down what was used of a period above what the price includes, at the price
// of a tier: before another tier holds it is called with the old one. Without a price nothing
// can be used above it, and what comes late is given away.
func noteOverage(ctx context.Context, tx *store.Tx, key control.QuotaKey, tier control.Tier) (fresh bool, err error) {
	overage, err := tx.PeriodOverage(ctx, key.CustomerID, key.PeriodID)
	if err != nil || overage.Used == 0 || tier.OverageCentsPerMillion == 0 {
		return false, err
	}
	list, err := tx.Subscriptions(ctx, key.CustomerID)
	for _, v := range list {
		if v.Status == control.SubscriptionIncomplete || v.Status == control.SubscriptionIncompleteExpired {
			continue
		}
		_, err := tx.AddMeterReport(ctx, control.NewID(control.MeterID), v, key.PeriodID, overage.Used, tier.OverageCentsPerMillion)
		if errors.Is(err, control.ErrNotFound) {
			return false, nil // all of it was written down
		}
		return err == nil, err
	}
	return false, err
}

// overageOf is how many tokens a subscription pays for above what the price of period includes,
// at the price of a tier. What was used at another price has taken its part of the cap; what
// was paid for stays, also where a larger tier includes it. In a trial there are none: Stripe
// never bills what is metered then. Nor are there any while something is owed.
func (c *change) overageOf(ctx context.Context, tier control.Tier, v control.Subscription, period string) (int64, error) {
	if !pays(v) {
		return 0, nil
	}
	reports, err := c.tx.MeterReports(ctx, c.customer.ID, period)
	if err != nil {
		return 0, err
	}
	var tokens, spent int64
	for _, r := range reports {
		tokens, spent = max(tokens, r.To), spent+r.Microcents()
	}
	if tier.OverageCentsPerMillion == 0 || v.OverageCapCents <= 0 {
		return 0, nil
	}
	return tokens + max(v.OverageCapCents*microcents-spent, 0)/tier.OverageCentsPerMillion, nil
}

// pays reports whether a subscription is past its trial, and nothing of it is owed.
func pays(v control.Subscription) bool {
	return v.Status == control.SubscriptionActive && v.FailedPayments == 0
}

// microcents are a cent.
const microcents = 1_000_000
