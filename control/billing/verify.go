package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Check is one period in the three places that count it.
type Check struct {
	control.PeriodCheck
	// Redis is what is charged to the limit according to Redis, where the proxies ask;
	// nil if Redis does not know the period.
	Redis *int64 `json:"redis_settled"`
	// Known reports whether Redis should know the period: the present one, with use.
	Known bool `json:"-"`
}

// RedisDiffers reports whether Redis charges something else than the events do. Redis
// forgets a period some time after its end; that is no difference.
func (c *Check) RedisDiffers() bool {
	switch {
	case !c.Kept:
		return false
	case c.Redis == nil:
		return c.Known && c.Counted.Settled > 0
	}
	return *c.Redis != c.Counted.Settled
}

// Differs reports whether any two of the three differ.
func (c *Check) Differs() bool { return c.TotalsDiffer() || c.RedisDiffers() }

// VerifyOptions say what to verify. The zero value means everything, asked once.
type VerifyOptions struct {
	Customer string // only this one's
	Period   string // only those with this id
	// Wait is for how long, in all, to look again where Redis differs: the events that
	// are on their way from one to the other need a moment.
	Wait time.Duration
}

// Verified says what Verify looked at.
type Verified struct {
	Periods   int     `json:"periods"`
	NotKept   int     `json:"not_kept"` // of them: began before the months whose events are kept
	Different []Check `json:"different"`
}

// verifyPage is how many customers are verified at once.
const verifyPage = 100

// verifyPause is how long it waits before it looks again.
const verifyPause = 200 * time.Millisecond

// Verify sums up the events of each period, and compares the sums with the totals and
// with Redis. It changes nothing. Totals and events are seen at one moment; Redis at
// another, so that under load it may differ by what is on its way.
func (b *Books) Verify(ctx context.Context, o VerifyOptions) (Verified, error) {
	out := Verified{Different: []Check{}}
	deadline := time.Now().Add(o.Wait)
	visit := func(customers []string) error {
		checks, err := b.check(ctx, customers, o.Period)
		if err != nil {
			return err
		}
		out.Periods += len(checks)
		for i := range checks {
			if !checks[i].Kept {
				out.NotKept++
			}
		}
		different, err := b.lookAgain(ctx, checks, deadline)
		out.Different = append(out.Different, different...)
		return err
	}
	if o.Customer != "" {
		if _, err := b.Store.Customer(ctx, o.Customer); err != nil {
			return out, fmt.Errorf("verify: %w", err)
		}
		return out, visit([]string{o.Customer})
	}
	for after := ""; ; {
		page, err := b.Store.Customers(ctx, after, verifyPage)
		if err != nil {
			return out, fmt.Errorf("verify: %w", err)
		}
		ids := make([]string, len(page))
		for i, c := range page {
			ids[i] = c.ID
		}
		if len(ids) > 0 {
			if err := visit(ids); err != nil {
				return out, err
			}
		}
		if len(page) < verifyPage {
			return out, nil
		}
		after = ids[len(ids)-1]
	}
}

// lookAgain returns those of checks that differ, after it has looked again at those
// where Redis does, until they agree or deadline.
func (b *Books) lookAgain(ctx context.Context, checks []Check, deadline time.Time) ([]Check, error) {
	for {
		var different []Check
		again := map[string][]string{} // by period
		for _, c := range checks {
			if c.Differs() {
				different = append(different, c)
			}
			if c.RedisDiffers() {
				again[c.PeriodID] = append(again[c.PeriodID], c.CustomerID)
			}
		}
		if len(again) == 0 || !time.Now().Before(deadline) {
			return different, nil
		}
		sleep(ctx, verifyPause)
		checks = slices.DeleteFunc(different, func(c Check) bool { return c.RedisDiffers() })
		for period, customers := range again {
			fresh, err := b.check(ctx, customers, period)
			if err != nil {
				return different, err
			}
			checks = append(checks, fresh...)
		}
		slices.SortFunc(checks, func(a, b Check) int {
			return slices.Compare([]string{a.CustomerID, a.PeriodID}, []string{b.CustomerID, b.PeriodID})
		})
	}
}

func (b *Books) check(ctx context.Context, customers []string, period string) ([]Check, error) {
	periods, err := b.Store.CheckPeriods(ctx, customers, period)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	replies := make([]*redis.StringCmd, len(periods))
	_, err = b.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, c := range periods {
			replies[i] = p.HGet(ctx, contract.QuotaKey(c.CustomerID, c.PeriodID), "settled")
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("verify: ask Redis: %w", err)
	}
	now := time.Now()
	checks := make([]Check, len(periods))
	for i, c := range periods {
		checks[i] = Check{PeriodCheck: c, Known: !now.Before(c.Start) && now.Before(c.End)}
		settled, err := replies[i].Int64()
		switch {
		case err == nil:
			checks[i].Redis = &settled
		case !errors.Is(err, redis.Nil):
			return nil, fmt.Errorf("verify: settled of customer %s in Redis: %w", c.CustomerID, err)
		}
	}
	return checks, nil
}

// RepairTotals sets the totals of each of checks that differ to the sums of their
// events, and returns how many it changed. It goes by what is there now, not by what
// the check saw. What Redis has is left alone.
func (b *Books) RepairTotals(ctx context.Context, actor string, checks []Check) (int, error) {
	repaired := 0
	for i := range checks {
		if !checks[i].TotalsDiffer() {
			continue
		}
		found, err := b.Store.RepairTotals(ctx, actor, checks[i].CustomerID, checks[i].PeriodID)
		if err != nil {
			return repaired, err
		}
		if found.TotalsDiffer() {
			repaired++
		}
	}
	return repaired, nil
}
