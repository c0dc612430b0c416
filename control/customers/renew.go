package customers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	// renewPage is how many customers RenewDue reads at once.
	renewPage = 200
	// renewErrors is how many failures RenewDue returns; the others are only counted.
	renewErrors = 5
	// renewPublish bounds one attempt to publish a renewal. What fails is published
	// with the outbox.
	renewPublish = 2 * time.Second
)

// RenewDue opens the present period of all customers whose last one has ended, those
// that wait longest first, and publishes their grants with it. It returns how many it
// renewed. The periods of customers with a subscription are left to
// ApplySubscription. Customers that cannot be renewed hold up nobody: it goes on with the next,
// and the error tells of the first few and of how many more there are. Any number of
// processes may call it.
func (s *Service) RenewDue(ctx context.Context) (int, error) {
	now := s.now()
	var after store.Due
	var errs []error
	renewed, failed, publishing := 0, 0, true
	fail := func(err error) {
		if failed++; failed <= renewErrors {
			errs = append(errs, err)
		}
	}
	result := func() (int, error) {
		if failed > renewErrors {
			errs = append(errs, fmt.Errorf("%d more failures", failed-renewErrors))
		}
		return renewed, errors.Join(errs...)
	}
	for {
		due, err := s.Store.DueForRenewal(ctx, now, after, renewPage)
		if err != nil {
			fail(fmt.Errorf("renew: %w", err))
			return result()
		}
		for _, d := range due {
			after = d
			// Entering a change opens the period.
			opened := false
			outbox, period, err := s.commit(ctx, d.ID, s.withPeriod(ctx, func(c *change) error {
				opened = c.period.Contains(now)
				return nil
			}))
			if err != nil {
				fail(fmt.Errorf("renew customer %s: %w", d.ID, err))
			} else if opened {
				renewed++ // one that waits for Stripe is not
			}
			if ctx.Err() != nil {
				return result()
			}
			// While Redis is away a try for each would cost the others their turn.
			if err == nil && publishing && len(outbox) > 0 {
				if err := s.publishOnce(ctx, d.ID, period, outbox); err != nil {
					publishing = false
					fail(fmt.Errorf("renew customer %s: %w: %w", d.ID, ErrUnpublished, err))
				}
			}
		}
		if len(due) < renewPage {
			return result()
		}
	}
}

func (s *Service) publishOnce(ctx context.Context, customer, period string, ids []int64) error {
	ctx, cancel := context.WithTimeout(ctx, renewPublish)
	defer cancel()
	if err := s.Limits.Ensure(ctx, customer, period); err != nil {
		return err
	}
	_, _, err := s.publishSome(ctx, ids, len(ids))
	return err
}
