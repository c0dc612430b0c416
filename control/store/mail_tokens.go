package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// PutMailToken keeps the digest of a secret that is about to be mailed. The one of that kind
// that the customer had before is good for nothing any more. A customer that does not sign in
// by that address is control.ErrNotFound.
func (s *Store) PutMailToken(ctx context.Context, t control.MailToken) error {
	tag, err := s.pool.Exec(ctx, `
		INSERT INTO mail_tokens (customer_id, kind, digest, address, created_at, expires_at)
		SELECT customer_id, $2, $3, subject, $5, $6 FROM identities WHERE customer_id = $1 AND provider = 'password' AND subject = lower($4)
		ON CONFLICT (customer_id, kind) DO UPDATE SET digest = excluded.digest, address = excluded.address,
			created_at = excluded.created_at, expires_at = excluded.expires_at`,
		t.CustomerID, t.Kind, t.Digest[:], t.Address, t.CreatedAt, t.ExpiresAt)
	if err == nil && tag.RowsAffected() == 0 {
		err = pgx.ErrNoRows
	}
	return explain("mailed token of customer "+t.CustomerID, err)
}

const selectMailToken = `SELECT customer_id, kind, digest, address, created_at, expires_at FROM mail_tokens
	WHERE digest = $1 AND kind = $2 AND expires_at > $3`

func scanMailToken(row pgx.CollectableRow) (t control.MailToken, err error) {
	var digest []byte
	err = row.Scan(&t.CustomerID, &t.Kind, &digest, &t.Address, &t.CreatedAt, &t.ExpiresAt)
	if err == nil {
		t.Digest = [32]byte(digest)
	}
	t.CreatedAt, t.ExpiresAt = t.CreatedAt.UTC(), t.ExpiresAt.UTC()
	return t, err
}

// MailToken reads a token that is good at that time; any other one is control.ErrNotFound.
func (s *Store) MailToken(ctx context.Context, kind string, digest [32]byte, now time.Time) (control.MailToken, error) {
	rows, _ := s.pool.Query(ctx, selectMailToken, digest[:], kind, now)
	t, err := pgx.CollectExactlyOneRow(rows, scanMailToken)
	return t, explain("mailed token", err)
}

// UseMailToken is MailToken, once: of any number who try one gets the token, and afterwards
// it is not there.
func (t *Tx) UseMailToken(ctx context.Context, kind string, digest [32]byte, now time.Time) (control.MailToken, error) {
	rows, _ := t.tx.Query(ctx, `
		DELETE FROM mail_tokens WHERE digest = $1 AND kind = $2 AND expires_at > $3
		RETURNING customer_id, kind, digest, address, created_at, expires_at`, digest[:], kind, now)
	v, err := pgx.CollectExactlyOneRow(rows, scanMailToken)
	return v, explain("mailed token", err)
}

// ConfirmAddress notes that the address by which a customer signs in was shown to be its
// own. Another address than that is control.ErrNotFound; once more changes nothing.
func (t *Tx) ConfirmAddress(ctx context.Context, actor, customerID, address string, at time.Time) error {
	var before *time.Time
	err := t.tx.QueryRow(ctx, `
		SELECT verified_at FROM identities WHERE customer_id = $1 AND provider = 'password' AND subject = lower($2) FOR UPDATE`,
		customerID, address).Scan(&before)
	if err != nil {
		return explain("address of customer "+customerID, err)
	}
	if before != nil {
		return nil
	}
	if _, err := t.tx.Exec(ctx, `
		UPDATE identities SET verified_at = $2, updated_at = $2 WHERE customer_id = $1 AND provider = 'password'`, customerID, at); err != nil {
		return explain("address of customer "+customerID, err)
	}
	return t.AddAudit(ctx, control.Audit{Actor: actor, Action: "customer.verify_email", CustomerID: customerID, Target: customerID})
}

// AddressConfirmed reports whether the address by which a customer signs in was shown to be
// its own. It may run within Store.ForCustomer.
func (t *Tx) AddressConfirmed(ctx context.Context, customerID string) (confirmed bool, err error) {
	err = t.tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM identities WHERE customer_id = $1 AND provider = 'password' AND verified_at IS NOT NULL)`, customerID).Scan(&confirmed)
	return confirmed, explain("address of customer "+customerID, err)
}
