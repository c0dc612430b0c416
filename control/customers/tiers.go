package customers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
)

const (
	rollOutLock = "tiers"
	rollOutPage = 200
	// rollOutErrors is how many failures RollOutTiers returns.
	rollOutErrors = 5
)

// SetTiers puts a tier table into effect, as a file has it: what is sold and what new periods
// have from now on, in all processes, and the grants with RollOutTiers. It reports whether
// it is another one than before. One that is not valid, or that lacks a tier which customers
// have, is control.ErrInvalid; then the old one stays.
func (s *Service) SetTiers(ctx context.Context, actor string, content []byte) (changed bool, err error) {
	table, err := tiers.Parse(content)
	if err != nil {
		return false, fmt.Errorf("set tiers: %w: %w", control.ErrInvalid, err)
	}
	var version int64
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.LockTierTables(ctx); err != nil {
			return err
		}
		newest, err := tx.TierTable(ctx, 0)
		if err != nil && !errors.Is(err, control.ErrNotFound) {
			return err
		}
		if newest.Content == string(content) {
			return nil
		}
		if err := s.followTiers(ctx, tx); err != nil {
			return err
		}
		used, err := tx.TiersInUse(ctx)
		if err != nil {
			return err
		}
		for _, name := range used {
			if _, err := table.Get(name); err != nil {
				return fmt.Errorf("%w: it lacks tier %q, which customers have", control.ErrInvalid, name)
			}
		}
		changed = true
		version, err = tx.AddTierTable(ctx, actor, string(content), map[string]any{"before": s.Tiers.All(), "after": table.All()})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("set tiers: %w", err)
	}
	if changed {
		s.Tiers.Replace(table, version)
	}
	return changed, nil
}

// LoadTiers takes over a tier table that another process has put into effect. Methods that
// change customers do so by themselves. One that cannot be read, as by an older program, is
// an error, and the old one stays.
func (s *Service) LoadTiers(ctx context.Context) error {
	err := s.Store.InTx(ctx, func(tx *store.Tx) error {
		v, err := tx.TierTable(ctx, s.Tiers.Version())
		if errors.Is(err, control.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return s.takeTiers(v)
	})
	if err != nil {
		return fmt.Errorf("load tiers: %w", err)
	}
	return nil
}

// followTiers takes over a newer tier table within a transaction, so that what the
// transaction computes is of the newest. LoadTiers tells of one that cannot be read.
func (s *Service) followTiers(ctx context.Context, tx *store.Tx) error {
	v, err := tx.TierTable(ctx, s.Tiers.Version())
	if errors.Is(err, control.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_ = s.takeTiers(v)
	return nil
}

func (s *Service) takeTiers(v control.TierTable) error {
	table, err := tiers.Parse([]byte(v.Content))
	if err != nil {
		return fmt.Errorf("version %d: %w", v.Version, err)
	}
	s.Tiers.Replace(table, v.Version)
	return nil
}

// RollOutTiers gives the customers of tiers that have changed their new grants, and has their
// boxes changed, and returns how many customers that were. Limits of periods that have begun stay. It does nothing if all
// grants are of the newest table, or another process is at it; what it could not do, and only
// that, it does when it is called again.
func (s *Service) RollOutTiers(ctx context.Context) (int, error) {
	var newest, last control.TierTable
	err := s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		newest, err = tx.TierTable(ctx, 0)
		if err == nil {
			last, err = tx.RolledOutTierTable(ctx)
		}
		if errors.Is(err, control.ErrNotFound) {
			err = nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("roll out tiers: %w", err)
	}
	if newest.Version == 0 || !newest.RolledOutAt.IsZero() {
		return 0, nil
	}
	if err := s.takeTiers(newest); err != nil {
		return 0, fmt.Errorf("roll out tiers: %w", err)
	}
	names, sameBoxes, err := s.changedTiers(last)
	if err != nil {
		return 0, fmt.Errorf("roll out tiers: %w", err)
	}
	done := 0
	_, err = s.Store.WithLock(ctx, rollOutLock, func(ctx context.Context) error {
		if done, err = s.announceTiers(ctx, names, sameBoxes, last.Version, newest.Version); err != nil {
			return err
		}
		return s.Store.InTx(ctx, func(tx *store.Tx) error { return tx.TierTableRolledOut(ctx, newest.Version) })
	})
	if err != nil {
		return done, fmt.Errorf("roll out tiers: %w", err)
	}
	return done, nil
}

// changedTiers lists the tiers whose grants or boxes differ from those of a table, and those of them
// whose boxes do not.
func (s *Service) changedTiers(last control.TierTable) (names, sameBoxes []string, err error) {
	before, err := tiers.Default()
	if last.Content != "" {
		before, err = tiers.Parse([]byte(last.Content))
	}
	if err != nil {
		return nil, nil, err
	}
	for _, tier := range s.Tiers.All() {
		old, err := before.Get(tier.Name)
		same := err == nil && sameBox(old, tier)
		if same && sameGrant(old, tier) {
			continue
		}
		names = append(names, tier.Name)
		if same {
			sameBoxes = append(sameBoxes, tier.Name)
		}
	}
	return names, sameBoxes, nil
}

// sameGrant reports whether two tiers give the same grants.
func sameGrant(a, b control.Tier) bool {
	return a.RequestsPerSecond == b.RequestsPerSecond && a.Burst == b.Burst && a.Concurrent == b.Concurrent &&
		a.Weights == b.Weights && slices.Equal(a.Models, b.Models)
}

// sameBox reports whether boxes of two tiers are alike.
func sameBox(a, b control.Tier) bool {
	return a.PodRequests == b.PodRequests && a.PodLimits == b.PodLimits && a.Thinking == b.Thinking &&
		a.TelegramUsers == b.TelegramUsers && a.CustomSystemPrompt == b.CustomSystemPrompt
}

// announceTiers gives the customers of the tiers, and those who have grants of a table after
// from, the grants of table to, and has their boxes changed unless these are the same. Boxes whose size is
// of another tier than their customer's are found by the operator's sweep. One that fails holds up no
// other, and has no other done again.
func (s *Service) announceTiers(ctx context.Context, names, sameBoxes []string, from, to int64) (done int, err error) {
	var errs []error
	for after := ""; ; {
		page, err := s.Store.CustomersToRollOut(ctx, names, from, to, after, rollOutPage)
		if err != nil {
			return done, errors.Join(append(errs, err)...)
		}
		for _, id := range page {
			after = id
			err := s.change(ctx, id, func(c *change) error {
				if err := c.announceAll(ctx, s.now()); err != nil {
					return err
				}
				if !slices.Contains(sameBoxes, c.customer.Tier) {
					if err := c.fitBoxes(ctx, "system", map[string]any{"tiers": to}); err != nil {
						return err
					}
				}
				return c.tx.GrantsRolledOut(ctx, id, to)
			})
			switch {
			case err == nil || errors.Is(err, ErrUnpublished): // it is in the outbox
				done++
			case len(errs) < rollOutErrors:
				errs = append(errs, fmt.Errorf("customer %s: %w", id, err))
			}
		}
		if len(page) < rollOutPage || ctx.Err() != nil {
			return done, errors.Join(append(errs, ctx.Err())...)
		}
	}
}
