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
	"github.com/andreabadesso/openclaw-cloud/quota"
)

const (
	// publishBatch bounds how long one transaction holds the rows that it publishes.
	publishBatch = 100
	// renumberRounds is how often one call numbers grants anew before it leaves the
	// rest to the next call.
	renumberRounds = 5
)

// PublishPending publishes changes that were committed and not published, except
// those that another process has in hand. It returns how many.
func (s *Service) PublishPending(ctx context.Context) (int, error) {
	total := 0
	for round := 0; ; {
		n, renumbered, err := s.publishSome(ctx, nil, publishBatch)
		total += n
		if len(renumbered) > 0 {
			round++
		}
		if err != nil || n < publishBatch && (len(renumbered) == 0 || round == renumberRounds) {
			return total, err
		}
	}
}

// publishNow publishes changes that were just committed, and retries for a while.
func (s *Service) publishNow(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	within := s.PublishWithin
	if within <= 0 {
		within = 5 * time.Second
	}
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var last error
	for pause, round := 20*time.Millisecond, 0; ; pause = min(2*pause, time.Second) {
		_, renumbered, err := s.publishSome(limited, ids, len(ids))
		if len(renumbered) > 0 {
			ids = append(ids, renumbered...)
			if round++; err == nil && round < renumberRounds {
				continue
			}
		}
		if err == nil && len(renumbered) == 0 {
			return nil
		}
		// What the end of the time itself broke says less than what came before.
		if err != nil && (last == nil || limited.Err() == nil) {
			last = err
		}
		select {
		case <-limited.Done():
			if last == nil {
				return fmt.Errorf("%w: others keep publishing newer grants", ErrUnpublished)
			}
			return fmt.Errorf("%w: %w", ErrUnpublished, last)
		case <-time.After(pause):
		}
	}
}

// overtaken is a change whose grant is not newer than the one that is stored.
type overtaken struct {
	change control.Change
	stored int64 // version
}

// publishSome is store.PublishChanges with publish, and numbers grants anew that turn
// out to be overtaken: it returns the ids of the changes that it added for them.
func (s *Service) publishSome(ctx context.Context, ids []int64, limit int) (published int, renumbered []int64, err error) {
	var stale []overtaken
	published, err = s.Store.PublishChanges(ctx, ids, limit, func(ctx context.Context, c control.Change) (int64, error) {
		seq, err := s.publish(ctx, c)
		if outdated := (*feed.OutdatedError)(nil); errors.As(err, &outdated) {
			stale = append(stale, overtaken{c, outdated.Stored})
			return 0, store.ErrLeavePending
		}
		return seq, err
	})
	errs := []error{err}
	for _, o := range stale {
		added, err := s.renumber(ctx, o)
		errs = append(errs, err)
		if added != 0 {
			renumbered = append(renumbered, added)
		}
	}
	return published, renumbered, errors.Join(errs...)
}

// renumber settles what becomes of a change that was overtaken. Usually a newer change
// of the same token has been published, and it is void. But if it is the token's
// newest, Postgres has lost versions that it once gave out, as by a restored backup:
// then the token goes on above the stored version, and the change that says so has
// the id that is returned. It takes transactions of its own: within PublishChanges it
// would need a second connection while it holds the first.
func (s *Service) renumber(ctx context.Context, o overtaken) (added int64, err error) {
	g := o.change.Grant
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		if _, err := tx.LockCustomer(ctx, o.change.CustomerID); err != nil {
			return err
		}
		token, err := tx.Token(ctx, g.TokenID)
		if err != nil {
			return err
		}
		if token.Version == g.Version {
			token, err = tx.RaiseTokenVersion(ctx, token.ID, o.stored+1)
			if err != nil {
				return err
			}
			g.Version = token.Version
			if err := tx.AddAudit(ctx, control.Audit{
				Actor: "system", Action: "token.renumber", CustomerID: o.change.CustomerID, Target: token.ID,
				Detail: map[string]any{"published": o.stored, "version": token.Version},
			}); err != nil {
				return err
			}
			added, err = tx.AddChange(ctx, control.Change{
				Kind: control.ChangeGrant, CustomerID: o.change.CustomerID, Digest: o.change.Digest, Grant: g,
			})
			if err != nil {
				return err
			}
		}
		return tx.SupersedeChange(ctx, o.change.ID)
	})
	if err != nil {
		return 0, fmt.Errorf("renumber the grant of token %s above version %d: %w", g.TokenID, o.stored, err)
	}
	return added, nil
}

func (s *Service) publish(ctx context.Context, c control.Change) (int64, error) {
	switch c.Kind {
	case control.ChangeGrant:
		seq, err := s.Grants.PutGrantAfter(ctx, c.Digest, c.Grant, c.Newest)
		if errors.Is(err, feed.ErrRevoked) && c.Grant.Status != contract.StatusRevoked {
			// Overtaken by the token's revocation, which is published.
			return 0, nil
		}
		return seq, err
	case control.ChangeLimit:
		return 0, s.Limits.SetLimit(ctx, quota.Account{
			Customer: c.CustomerID, Period: c.Limit.Period, Limit: c.Limit.Tokens, LimitVersion: c.Limit.Version,
		})
	}
	return 0, fmt.Errorf("unknown kind of change %q", c.Kind)
}
