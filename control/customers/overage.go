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
		if _, err := tx.LockCustomer(ctx, key.CustomerID); err != nil {
			return err
		}
		list, err := tx.Subscriptions(ctx, key.CustomerID)
		if err != nil {
			return err
		}
		overage, err := tx.PeriodOverage(ctx, key.CustomerID, key.PeriodID)
		if err != nil {
			return err
		}
		for _, v := range list {
			if overage.Used == 0 || v.Status == control.SubscriptionIncomplete || v.Status == control.SubscriptionIncompleteExpired {
				continue
			}
			_, err := tx.AddMeterReport(ctx, control.NewID(control.MeterID), v, key.PeriodID, overage.Used)
			if errors.Is(err, control.ErrNotFound) {
				return nil // all of it was written down
			}
			fresh = err == nil
			return err
		}
		return nil
	})
	return fresh, err
}
