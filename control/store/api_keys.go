package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

const selectAPIKeys = `SELECT k.id, k.customer_id, k.digest, k.hint, k.name, k.created_at, k.last_used_at, k.revoked_at FROM api_keys k` // #nosec G101 -- names of columns

func scanAPIKey(row pgx.CollectableRow) (k control.APIKey, err error) {
	var digest []byte
	var used, revoked *time.Time
	if err = row.Scan(&k.ID, &k.CustomerID, &digest, &k.Hint, &k.Name, &k.CreatedAt, &used, &revoked); err != nil {
		return k, err
	}
	k.Digest = contract.Digest(digest) // of 32 bytes, by a constraint
	k.CreatedAt, k.LastUsedAt, k.RevokedAt = k.CreatedAt.UTC(), orZero(used), orZero(revoked)
	return k, nil
}

// InsertAPIKey adds a key of a customer.
func (t *Tx) InsertAPIKey(ctx context.Context, actor string, k control.APIKey) error {
	_, err := t.tx.Exec(ctx, `
		INSERT INTO api_keys (id, customer_id, digest, hint, name, created_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		k.ID, k.CustomerID, k.Digest[:], k.Hint, k.Name, k.CreatedAt)
	if err != nil {
		return explain("insert API key", err)
	}
	return t.AddAudit(ctx, control.Audit{
		Actor: actor, Action: "api_key.create", CustomerID: k.CustomerID, Target: k.ID, Detail: map[string]any{"hint": k.Hint},
	})
}

// APIKeys lists the keys of a customer, oldest first, revoked ones included.
func (t *Tx) APIKeys(ctx context.Context, customer string) ([]control.APIKey, error) {
	rows, _ := t.tx.Query(ctx, selectAPIKeys+` WHERE k.customer_id = $1 ORDER BY k.created_at, k.id`, customer)
	list, err := pgx.CollectRows(rows, scanAPIKey)
	return list, explain("API keys of customer "+customer, err)
}

// RevokeAPIKey ends a key of a customer for ever. One that is not there, or not this
// customer's, is control.ErrNotFound.
func (t *Tx) RevokeAPIKey(ctx context.Context, actor, customer, id string, at time.Time) error {
	tag, err := t.tx.Exec(ctx, `
		UPDATE api_keys SET revoked_at = coalesce(revoked_at, $3) WHERE id = $1 AND customer_id = $2`, id, customer, at)
	if err == nil && tag.RowsAffected() == 0 {
		err = pgx.ErrNoRows
	}
	if err != nil {
		return explain("revoke API key "+id, err)
	}
	return t.AddAudit(ctx, control.Audit{Actor: actor, Action: "api_key.revoke", CustomerID: customer, Target: id})
}

// RevokeAPIKeys ends all keys of a customer for ever, and returns how many that were.
func (t *Tx) RevokeAPIKeys(ctx context.Context, actor, customer, why string, at time.Time) (int, error) {
	rows, _ := t.tx.Query(ctx, `
		UPDATE api_keys SET revoked_at = $2 WHERE customer_id = $1 AND revoked_at IS NULL RETURNING id`, customer, at)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, explain("revoke API keys of customer "+customer, err)
	}
	for _, id := range ids {
		if err := t.AddAudit(ctx, control.Audit{
			Actor: actor, Action: "api_key.revoke", CustomerID: customer, Target: id, Detail: map[string]any{"reason": why},
		}); err != nil {
			return 0, err
		}
	}
	return len(ids), nil
}

// UseAPIKey looks up a key by its digest and notes that it was used, once a minute. A key
// that is revoked, or whose customer is cancelled, is control.ErrNotFound.
func (s *Store) UseAPIKey(ctx context.Context, digest contract.Digest, at time.Time) (control.APIKey, error) {
	rows, _ := s.pool.Query(ctx, selectAPIKeys+`
		JOIN customers c ON c.id = k.customer_id
		WHERE k.digest = $1 AND k.revoked_at IS NULL AND c.status <> 'cancelled'`, digest[:])
	k, err := pgx.CollectExactlyOneRow(rows, scanAPIKey)
	if err != nil {
		return k, explain("API key", err)
	}
	if at.Sub(k.LastUsedAt) < time.Minute {
		return k, nil
	}
	_, err = s.pool.Exec(ctx, `
		UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)`, k.ID, at)
	k.LastUsedAt = at
	return k, explain("API key "+k.ID, err)
}
