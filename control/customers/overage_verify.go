package customers

import (
	"context"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// VerifyOverage computes from the usage events what had to be reported as used above limits, of
// periods that ended after a time or go on, of all customers or of one, and returns those of
// which something else was, and how many it looked at. What was recorded within settle need not
// be reported yet: that is more than the interval at which ReportOverage is called.
func (s *Service) VerifyOverage(ctx context.Context, customer string, ended time.Time, settle time.Duration) (different []control.OverageCheck, looked int, err error) {
	scope := store.OverageScope{Now: s.now(), Ended: ended, Settle: settle, Late: overageLate, Customer: customer, Limit: overagePage}
	for {
		page, err := s.Store.OverageChecks(ctx, scope)
		if err != nil {
			return different, looked, fmt.Errorf("verify overage: %w", err)
		}
		for _, c := range page {
			scope.After = control.QuotaKey{CustomerID: c.CustomerID, PeriodID: c.PeriodID}
			looked++
			if c.Differs() && c.Reported < c.Due {
				if free, err := s.givenAway(ctx, c.CustomerID); err != nil {
					return different, looked, fmt.Errorf("verify overage: %w", err)
				} else if free {
					c.Due = 0
				}
			}
			if c.Differs() {
				different = append(different, c)
			}
		}
		if len(page) < overagePage {
			return different, looked, nil
		}
	}
}

// givenAway reports whether what comes late of a customer has no price: see noteOverage.
func (s *Service) givenAway(ctx context.Context, id string) (bool, error) {
	customer, err := s.Store.Customer(ctx, id)
	if err != nil {
		return false, err
	}
	tier, err := s.Tiers.Get(customer.Tier)
	if err != nil {
		return false, err
	}
	return tier.OverageCentsPerMillion == 0, nil
}
