package customers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// ErrUnpublished says that a change is committed, but that not every proxy may know
// of it yet. It will be published as soon as Redis answers.
var ErrUnpublished = errors.New("saved, but not yet published to the proxies")

// GrantPublisher tells the proxies of grants; see feed.Publisher.
type GrantPublisher interface {
	PutGrantAfter(ctx context.Context, digest contract.Digest, g contract.Grant, newest int64) (seq int64, err error)
	StoreGrants(ctx context.Context, entries []feed.Entry) ([]error, error)
	Reload(ctx context.Context) (seq int64, err error)
	State(ctx context.Context) (feed.State, error)
	Rebuild(ctx context.Context, seq int64, do func(context.Context) error) error
}

// LimitSetter looks after the limits' records in Redis; see limits.Records.
type LimitSetter interface {
	Ensure(ctx context.Context, customer, period string) error
	SetLimit(ctx context.Context, acct quota.Account) error
	Usage(ctx context.Context, acct quota.Account) (quota.Usage, error)
}

// Service changes customers. Its fields are set once; it is safe for concurrent use.
type Service struct {
	Store  *store.Store
	Tiers  control.Tiers
	Grants GrantPublisher
	Limits LimitSetter
	// Hasher is needed by what makes tokens, and by SetTelegramToken.
	Hasher *contract.Hasher
	// Later is needed by RotateToken with an overlap only.
	Later LaterRevoker
	// Wake has the operator of the boxes look at those that were decided on. Without it they wait
	// until it looks at all of them.
	Wake BoxWaker
	// Seals is needed by SetTelegramToken, and by Boxes where a box has such a token.
	Seals *secret.Keys
	// PublishWithin is how long a method retries to publish what it committed, before
	// it returns ErrUnpublished. Default 5 s.
	PublishWithin time.Duration
	// Now and Random are time.Now and crypto/rand outside of tests.
	Now    func() time.Time
	Random io.Reader

	note func(ctx context.Context, tx *store.Tx, result any) error // see WithNote
}

// NewCustomer is what CreateCustomer needs to know.
type NewCustomer struct {
	Name  string
	Email string // optional
	Tier  string
}

// Created is what CreateCustomer made.
type Created struct {
	Customer control.Customer    `json:"customer"`
	Box      control.Box         `json:"box"`
	Period   control.UsagePeriod `json:"period"`
}

// CreateCustomer makes a customer with a box, which is pending, and the first period,
// which begins now. actor goes to the audit log.
func (s *Service) CreateCustomer(ctx context.Context, actor string, n NewCustomer) (Created, error) {
	if n.Name == "" {
		return Created{}, fmt.Errorf("create customer: %w: a name is required", control.ErrInvalid)
	}
	now := s.now()
	id := control.NewID(control.CustomerID)
	out := Created{
		Customer: control.Customer{ID: id, Name: n.Name, Email: n.Email, Tier: n.Tier, Status: control.CustomerActive, CreatedAt: now},
		Box:      newBox(id, "customer-"+id, now),
	}
	err := s.Store.InTx(ctx, func(tx *store.Tx) error {
		if err := s.followTiers(ctx, tx); err != nil {
			return err
		}
		tier, err := s.Tiers.Get(n.Tier)
		if err != nil {
			return err
		}
		if err := tx.InsertCustomer(ctx, out.Customer); err != nil {
			return err
		}
		if err := tx.InsertBox(ctx, out.Box); err != nil {
			return err
		}
		if err := s.wake(ctx, tx, out.Box.ID); err != nil {
			return err
		}
		if out.Period, err = tx.OpenPeriod(ctx, control.FirstPeriod(id, now, tier.MonthlyTokens)); err != nil {
			return err
		}
		if err := tx.AddAudit(ctx, control.Audit{
			Actor: actor, Action: "customer.create", CustomerID: id, Target: id,
			Detail: map[string]any{"tier": tier.Name, "box": out.Box.ID},
		}); err != nil {
			return err
		}
		return s.noted(ctx, tx, out)
	})
	if err != nil {
		return Created{}, fmt.Errorf("create customer: %w", err)
	}
	return out, nil
}

// CreateToken mints a proxy token for a box of a customer; an empty boxID means the
// customer's only box. The raw token is returned here and kept nowhere. With
// ErrUnpublished both are valid: the proxies will know the token a little later.
func (s *Service) CreateToken(ctx context.Context, actor, customerID, boxID string) (contract.Token, control.ProxyToken, error) {
	if s.Hasher == nil {
		return contract.Token{}, control.ProxyToken{}, errors.New("create token: no token pepper is configured")
	}
	raw, err := contract.NewToken(s.Random)
	if err != nil {
		return contract.Token{}, control.ProxyToken{}, fmt.Errorf("create token: %w", err)
	}
	now := s.now()
	token := control.ProxyToken{
		ID: control.NewID(control.TokenID), CustomerID: customerID, Digest: s.Hasher.Digest([]byte(raw.Reveal())),
		Hint: raw.Hint(), Version: 1, Status: contract.StatusActive, CreatedAt: now,
	}
	err = s.change(ctx, customerID, func(c *change) error {
		if st := c.customer.Status; st == control.CustomerCancelled || st == control.CustomerPending {
			return fmt.Errorf("%w: customer %s is %s", control.ErrInvalid, customerID, st)
		}
		box, err := c.box(ctx, boxID)
		if err != nil {
			return err
		}
		token.BoxID = box.ID
		if err := c.tx.InsertToken(ctx, token); err != nil {
			return err
		}
		if err := c.announce(ctx, token); err != nil {
			return err
		}
		if err := c.tx.AddAudit(ctx, control.Audit{
			Actor: actor, Action: "token.create", CustomerID: customerID, Target: token.ID,
			Detail: map[string]any{"box": box.ID, "hint": token.Hint},
		}); err != nil {
			return err
		}
		return s.noted(ctx, c.tx, token)
	})
	if err != nil && !errors.Is(err, ErrUnpublished) {
		return contract.Token{}, control.ProxyToken{}, fmt.Errorf("create token: %w", err)
	}
	return raw, token, err
}

// RevokeToken revokes a token for ever. Revoking it again publishes it again. It works
// whatever is wrong with the customer's tier or periods. A box whose own token it was gets
// another one.
func (s *Service) RevokeToken(ctx context.Context, actor, tokenID string) (control.ProxyToken, error) {
	token, err := s.Store.Token(ctx, tokenID)
	if err != nil {
		return token, fmt.Errorf("revoke token: %w", err)
	}
	err = s.locked(ctx, token.CustomerID, func(c *change) error {
		before, err := c.tx.Token(ctx, tokenID) // now that nobody else changes it
		if err != nil {
			return err
		}
		if token, err = c.tx.UpdateToken(ctx, tokenID, contract.StatusRevoked, s.now()); err != nil {
			return err
		}
		if before.Status != contract.StatusRevoked {
			if err := c.leaves(ctx, actor, token, ""); err != nil {
				return err
			}
		}
		if err := c.announce(ctx, token); err != nil {
			return err
		}
		if err := c.tx.AddAudit(ctx, control.Audit{
			Actor: actor, Action: "token.revoke", CustomerID: token.CustomerID, Target: token.ID,
		}); err != nil {
			return err
		}
		return s.noted(ctx, c.tx, token)
	})
	if err != nil {
		return token, fmt.Errorf("revoke token %s: %w", tokenID, err)
	}
	return token, nil
}

// SetLimit is ChangeLimit to a number of weighted tokens.
func (s *Service) SetLimit(ctx context.Context, actor, customerID string, tokens int64) (control.UsagePeriod, error) {
	changed, err := s.ChangeLimit(ctx, actor, customerID, LimitChange{To: &tokens})
	return changed.Period, err
}

func (s *Service) now() time.Time {
	if s.Now != nil {
		return s.Now().UTC().Truncate(time.Microsecond)
	}
	return time.Now().UTC().Truncate(time.Microsecond)
}

// Clock returns the time by which periods begin and end.
func (s *Service) Clock() time.Time { return s.now() }
