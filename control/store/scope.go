package store

import (
	"context"
	"fmt"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// ForCustomer runs do in a transaction that sees and changes rows of one customer only,
// whatever it asks for, and commits it if do returns nil. It runs as a role that owns
// nothing, under policies that Postgres adds to every statement; so a query that forgets
// to name the customer finds less, never more. What that role has no business with, such
// as digests of sign-ins or Stripe's events, it cannot read at all.
func (s *Store) ForCustomer(ctx context.Context, customerID string, do func(*Tx) error) error {
	if customerID == "" {
		return fmt.Errorf("transaction of a customer: %w: no customer", control.ErrInvalid)
	}
	return s.InTx(ctx, func(tx *Tx) error {
		// Both end with the transaction, so that the pool's connection is the owner's again.
		if _, err := tx.tx.Exec(ctx, `
			SELECT set_config('openclaw.customer_id', $1, true), set_config('role', 'openclaw_customer', true)`, customerID); err != nil {
			return explain("transaction of customer "+customerID, err)
		}
		return do(tx)
	})
}
