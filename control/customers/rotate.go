package customers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// LaterRevoker has tokens revoked at a time; see jobs.Jobs. What it arranges is part of the
// transaction.
type LaterRevoker interface {
	RevokeTokenAt(ctx context.Context, tx *store.Tx, tokenID string, at time.Time) error
}

// Rotated is a token that was replaced.
type Rotated struct {
	Token control.ProxyToken // the new one
	// RevokedAfter is when the old one is revoked, at the earliest.
	RevokedAfter time.Time
}

// RotateToken mints a token for the box of another one, which is revoked after overlap, or at
// once if that is 0. The raw token is returned here and kept nowhere. With ErrUnpublished
// all are valid: the proxies will know a little later. If the old one is the box's own, the box
// gets another one of its own.
func (s *Service) RotateToken(ctx context.Context, actor, tokenID string, overlap time.Duration) (contract.Token, Rotated, error) {
	var none contract.Token
	if s.Hasher == nil {
		return none, Rotated{}, errors.New("rotate token: no token pepper is configured")
	}
	if overlap < 0 || overlap > 0 && s.Later == nil {
		return none, Rotated{}, fmt.Errorf("rotate token: %w: nothing here can revoke a token later", control.ErrInvalid)
	}
	old, err := s.Store.Token(ctx, tokenID)
	if err != nil {
		return none, Rotated{}, fmt.Errorf("rotate token: %w", err)
	}
	raw, err := contract.NewToken(s.Random)
	if err != nil {
		return none, Rotated{}, fmt.Errorf("rotate token: %w", err)
	}
	now := s.now()
	out := Rotated{RevokedAfter: now.Add(overlap), Token: control.ProxyToken{
		ID: control.NewID(control.TokenID), CustomerID: old.CustomerID, BoxID: old.BoxID, Digest: s.Hasher.Digest([]byte(raw.Reveal())),
		Hint: raw.Hint(), Version: 1, Status: contract.StatusActive, CreatedAt: now,
	}}
	err = s.change(ctx, old.CustomerID, func(c *change) error {
		if st := c.customer.Status; st == control.CustomerCancelled || st == control.CustomerPending {
			return fmt.Errorf("%w: customer %s is %s", control.ErrInvalid, old.CustomerID, st)
		}
		// Now that nobody else changes it.
		old, err := c.tx.Token(ctx, tokenID)
		if err != nil {
			return err
		}
		if old.Status == contract.StatusRevoked {
			return fmt.Errorf("%w: token %s is revoked", control.ErrInvalid, tokenID)
		}
		if _, err := c.box(ctx, old.BoxID); err != nil {
			return err
		}
		if err := c.tx.InsertToken(ctx, out.Token); err != nil {
			return err
		}
		if err := c.announce(ctx, out.Token); err != nil {
			return err
		}
		if err := c.tx.AddAudit(ctx, control.Audit{
			Actor: actor, Action: "token.rotate", CustomerID: old.CustomerID, Target: out.Token.ID,
			Detail: map[string]any{"replaces": tokenID, "box": old.BoxID, "hint": out.Token.Hint, "overlap": overlap.String()},
		}); err != nil {
			return err
		}
		if err := c.leaves(ctx, actor, old, out.Token.ID); err != nil {
			return err
		}
		if overlap > 0 {
			if err := s.endLater(ctx, c, old, out.RevokedAfter); err != nil {
				return err
			}
			return s.noted(ctx, c.tx, out)
		}
		if old, err = c.tx.UpdateToken(ctx, tokenID, contract.StatusRevoked, now); err != nil {
			return err
		}
		if err := c.announce(ctx, old); err != nil {
			return err
		}
		if err := c.tx.AddAudit(ctx, control.Audit{Actor: actor, Action: "token.revoke", CustomerID: old.CustomerID, Target: tokenID}); err != nil {
			return err
		}
		return s.noted(ctx, c.tx, out)
	})
	if err != nil && !errors.Is(err, ErrUnpublished) {
		return none, Rotated{}, fmt.Errorf("rotate token %s: %w", tokenID, err)
	}
	return raw, out, err
}
