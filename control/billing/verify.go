package billing

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	// OnTheWay says which events are in one of Redis and Postgres and come to the other,
	// so that the two cannot be compared; "" if there are none.
	OnTheWay string `json:"on_the_way,omitempty"`
}

// RedisDiffers reports whether Redis charges something else than the events do, and no
// event that is on its way explains it. Redis forgets a period some time after its end;
// that is no difference.
func (c *Check) RedisDiffers() bool { return c.OnTheWay == "" && c.unequal() }

func (c *Check) unequal() bool {
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
	// OnTheWay are periods of which Redis and Postgres cannot be compared, because events
	// are on their way between the two; their totals agree with their events.
	OnTheWay []Check `json:"on_the_way"`
	// Parked dead letters wait. Where Redis has more than Postgres, that may be why.
	Parked bool `json:"parked"`
}

// verifyPage is how many customers are verified at once.
const verifyPage = 100

// verifyPause is how long it waits before it looks again.
const verifyPause = 200 * time.Millisecond

// Verify sums up the events of each period, and compares the sums with the totals and
// with Redis. It changes nothing. Where Redis differs it looks whether events are on their
// way, which is told apart exactly.
func (b *Books) Verify(ctx context.Context, o VerifyOptions) (Verified, error) {
	out := Verified{Different: []Check{}, OnTheWay: []Check{}}
	parked, err := b.Store.WaitingDeadLetters(ctx, 1)
	if err != nil {
		return out, fmt.Errorf("verify: %w", err)
	}
	out.Parked = len(parked) > 0
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
		for _, c := range different {
			if c.Differs() {
				out.Different = append(out.Different, c)
			} else {
				out.OnTheWay = append(out.OnTheWay, c)
			}
		}
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

// lookAgain returns those of checks that differ, or would if no event was on its way, after
// it has looked again at those where Redis does, until they agree or deadline.
func (b *Books) lookAgain(ctx context.Context, checks []Check, deadline time.Time) ([]Check, error) {
	checks = slices.DeleteFunc(checks, func(c Check) bool { return !c.TotalsDiffer() && !c.unequal() })
	for {
		again := false
		for i := range checks {
			c := &checks[i]
			if !c.unequal() {
				continue
			}
			if err := b.compare(ctx, c); err != nil {
				return nil, err
			}
			again = again || c.unequal()
		}
		checks = slices.DeleteFunc(checks, func(c Check) bool { return !c.TotalsDiffer() && !c.unequal() })
		if !again || !time.Now().Before(deadline) {
			return checks, nil
		}
		sleep(ctx, verifyPause)
	}
}

// compare looks at one period again, and whether events are on their way. Redis is read
// first, and at one moment; then Postgres, at another one. So if Postgres by then has all
// events that Redis had, and Redis had all that Postgres has, their sums are equal.
func (b *Books) compare(ctx context.Context, c *Check) error {
	k := control.QuotaKey{CustomerID: c.CustomerID, PeriodID: c.PeriodID}
	fields, err := b.Redis.HGetAll(ctx, contract.QuotaKey(k.CustomerID, k.PeriodID)).Result()
	if err != nil {
		return fmt.Errorf("verify: ask Redis: %w", err)
	}
	settled := map[string]int64{} // by replica the number of its last settled event
	var replicas []string
	for name, value := range fields {
		if replica, ok := strings.CutPrefix(name, "w:"); ok {
			if settled[replica], err = strconv.ParseInt(value, 10, 64); err != nil {
				return fmt.Errorf("verify: record of customer %s: %w", c.CustomerID, err)
			}
			replicas = append(replicas, replica)
		}
	}
	epoch, err := b.Store.QuotaEpoch(ctx)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	period, marks, err := b.Store.CheckPeriod(ctx, k, replicas)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	*c = Check{PeriodCheck: period, Known: c.Known}
	if c.Redis, err = settledIn(fields["settled"], fields["epoch"], epoch.Number); err != nil || c.Redis == nil {
		return err
	}
	for _, m := range marks {
		last, heard := settled[m.Replica]
		if !heard && m.Member {
			last = m.Base
		}
		switch {
		case heard && last > m.Acked:
			c.OnTheWay = fmt.Sprintf("Redis has settled events of replica %s up to %d, Postgres has them up to %d", m.Replica, last, m.Acked)
		case m.Member && m.Highest > last:
			c.OnTheWay = fmt.Sprintf("Postgres has event %d of replica %s, which has settled them up to %d", m.Highest, m.Replica, last)
		}
	}
	return nil
}

// settledIn reads what is settled in a record; nil if there is none of this epoch.
func settledIn(settled, epoch string, newest int64) (*int64, error) {
	if settled == "" {
		return nil, nil
	}
	if n, err := strconv.ParseInt(epoch, 10, 64); newest > 0 && (err != nil || n < newest) {
		return nil, nil
	}
	n, err := strconv.ParseInt(settled, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("verify: a record in Redis: %w", err)
	}
	return &n, nil
}

func (b *Books) check(ctx context.Context, customers []string, period string) ([]Check, error) {
	periods, err := b.Store.CheckPeriods(ctx, customers, period)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	epoch, err := b.Store.QuotaEpoch(ctx)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	replies := make([]*redis.SliceCmd, len(periods))
	_, err = b.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, c := range periods {
			replies[i] = p.HMGet(ctx, contract.QuotaKey(c.CustomerID, c.PeriodID), "settled", "epoch")
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("verify: ask Redis: %w", err)
	}
	now := time.Now()
	checks := make([]Check, len(periods))
	for i, c := range periods {
		checks[i] = Check{PeriodCheck: c, Known: !now.Before(c.Start) && now.Before(c.End)}
		settled, _ := replies[i].Val()[0].(string)
		number, _ := replies[i].Val()[1].(string)
		if checks[i].Redis, err = settledIn(settled, number, epoch.Number); err != nil {
			return nil, err
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
