package customers

import (
	"context"
	"errors"
	"fmt"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// DeleteCustomer revokes the tokens of a customer and removes its personal data, for ever;
// what was used and paid stays. A customer with a live subscription is
// control.ErrInvalid: it has to be cancelled first. With ErrUnpublished all is done, and
// the proxies will know a little later. Deleting it again publishes it again.
func (s *Service) DeleteCustomer(ctx context.Context, actor, customerID string) error {
	err := s.locked(ctx, customerID, func(c *change) error {
		tokens, err := c.tx.Tokens(ctx, customerID)
		if err != nil {
			return err
		}
		for _, t := range tokens {
			if t, err = c.tx.UpdateToken(ctx, t.ID, contract.StatusRevoked, s.now()); err != nil {
				return err
			}
			if err := c.announce(ctx, t); err != nil {
				return err
			}
		}
		boxes, err := c.tx.Boxes(ctx, customerID)
		if err != nil {
			return err
		}
		if err := c.want(ctx, actor, boxes, control.BoxDestroy); err != nil {
			return err
		}
		if err := c.tx.EraseCustomer(ctx, actor, customerID, s.now()); err != nil {
			return err
		}
		return s.noted(ctx, c.tx, nil)
	})
	if err != nil && !errors.Is(err, ErrUnpublished) {
		return fmt.Errorf("delete customer %s: %w", customerID, err)
	}
	return err
}
