package customers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// ErrRepublishing says that another process is republishing just now.
var ErrRepublishing = errors.New("another process is republishing")

const (
	republishLock = "republish"
	republishPage = 500 // customers
	// reloadEvery is how often readers are told to read anew while grants are stored, so
	// that those that are there already need not wait for the last.
	reloadEvery = time.Second
	// republishErrors is how many skipped tokens are told of.
	republishErrors = 5
)

// Republished says what was written to Redis.
type Republished struct {
	Customers int `json:"customers"`
	Tokens    int `json:"tokens"` // revoked ones included
	// Skipped tokens have no grant that can be computed, because their tier is not in the
	// table or they have no period, or one that Redis does not take.
	Skipped int `json:"skipped"`
}

// RepublishAll writes to Redis the grants of all tokens, as Postgres has them. What
// Redis has and Postgres does not stays, newer grants and revocations too. Limits and
// what was used of them are package limits' business. It returns ErrRepublishing if
// another process is at it. Tokens that are skipped are no failure of the whole, but
// the error tells of them. Without the newest tier table nothing is written.
func (s *Service) RepublishAll(ctx context.Context) (Republished, error) {
	if err := s.LoadTiers(ctx); err != nil {
		return Republished{}, fmt.Errorf("republish: %w", err)
	}
	return s.republishIf(ctx, func(context.Context) (bool, error) { return true, nil })
}

// RepublishLost does what RepublishAll does if Redis is new, has lost its data or went
// back to an older copy of it. Any number of processes may call it, every second or so:
// one of them does the work.
func (s *Service) RepublishLost(ctx context.Context) (Republished, error) {
	if lost, err := s.lost(ctx); err != nil || !lost {
		return Republished{}, err
	}
	done, err := s.republishIf(ctx, s.lost)
	if errors.Is(err, ErrRepublishing) {
		err = nil
	}
	return done, err
}

// lost asks Postgres before Redis: the number in Redis is never behind, unless Redis
// has forgotten what it published.
func (s *Service) lost(ctx context.Context) (bool, error) {
	seq, err := s.Store.NewestFeedSeq(ctx)
	if err != nil {
		return false, err
	}
	state, err := s.Grants.State(ctx)
	if err != nil {
		return false, err
	}
	return !state.Complete || state.Seq < seq, nil
}

func (s *Service) republishIf(ctx context.Context, wanted func(context.Context) (bool, error)) (done Republished, err error) {
	var skipped error
	ran, err := s.Store.WithLock(ctx, republishLock, func(ctx context.Context) error {
		if yes, err := wanted(ctx); err != nil || !yes {
			return err
		}
		// Redis may have lost its data before this process has ever looked for a newer tier
		// table. One that it cannot read is no reason to leave the proxies without grants.
		if err := s.Store.InTx(ctx, func(tx *store.Tx) error { return s.followTiers(ctx, tx) }); err != nil {
			return err
		}
		seq, err := s.Store.NewestFeedSeq(ctx)
		if err != nil {
			return err
		}
		return s.Grants.Rebuild(ctx, seq, func(ctx context.Context) error {
			done, skipped, err = s.republish(ctx, seq)
			return err
		})
	})
	if err == nil && !ran {
		err = ErrRepublishing
	}
	if err = errors.Join(err, skipped); err != nil {
		return done, fmt.Errorf("republish: %w", err)
	}
	return done, nil
}

func (s *Service) republish(ctx context.Context, seq int64) (done Republished, skipped, err error) {
	var skips []error
	skip := func(token string, err error) {
		if done.Skipped++; done.Skipped <= republishErrors {
			skips = append(skips, fmt.Errorf("token %s: %w", token, err))
		}
	}
	reloaded := time.Now()
	err = s.eachPage(ctx, func(page []store.CustomerState) error {
		var entries []feed.Entry
		for _, c := range page {
			for _, t := range c.Tokens {
				g, err := grantOf(s.Tiers, c.Customer, t, c.Period)
				if err != nil {
					skip(t.ID, err)
					continue
				}
				entries = append(entries, feed.Entry{Digest: t.Digest, Grant: g})
			}
		}
		if err := s.storeGrants(ctx, entries, seq, skip); err != nil {
			return err
		}
		done.Customers += len(page)
		done.Tokens += len(entries)
		if time.Since(reloaded) < reloadEvery {
			return nil
		}
		reloaded = time.Now()
		_, err := s.Grants.Reload(ctx)
		return err
	})
	if done.Skipped > republishErrors {
		skips = append(skips, fmt.Errorf("%d more tokens without a grant", done.Skipped-republishErrors))
	}
	return done, errors.Join(skips...), err
}

// storeGrants stores grants without announcing them. One that is outdated was
// overtaken by a change of the same moment, or Postgres has gone back.
func (s *Service) storeGrants(ctx context.Context, entries []feed.Entry, seq int64, skip func(token string, err error)) error {
	failed, err := s.Grants.StoreGrants(ctx, entries)
	if err != nil {
		return err
	}
	var added []int64
	for i, err := range failed {
		outdated := (*feed.OutdatedError)(nil)
		switch {
		case err == nil, errors.Is(err, feed.ErrRevoked):
		case !errors.As(err, &outdated):
			skip(entries[i].Grant.TokenID, err)
		case entries[i].Grant.Status == contract.StatusRevoked:
			if _, err := s.Grants.PutGrantAfter(ctx, entries[i].Digest, entries[i].Grant, seq); err != nil {
				return err
			}
		default:
			g := entries[i].Grant
			id, err := s.renumber(ctx, overtaken{control.Change{
				Kind: control.ChangeGrant, CustomerID: g.CustomerID, Digest: entries[i].Digest, Grant: g,
			}, outdated.Stored})
			if err != nil {
				return err
			}
			if id != 0 {
				added = append(added, id)
			}
		}
	}
	return s.publishNow(ctx, added)
}

func (s *Service) eachPage(ctx context.Context, do func([]store.CustomerState) error) error {
	for after := ""; ; {
		page, err := s.Store.CustomerStates(ctx, after, s.now(), republishPage)
		if err != nil {
			return err
		}
		if err := do(page); err != nil {
			return err
		}
		if len(page) < republishPage {
			return nil
		}
		after = page[len(page)-1].Customer.ID
	}
}
