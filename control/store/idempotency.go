package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// BeginIdempotent takes a request in hand until now+lease, or returns the answer that it
// got before. Exactly one of attempt, which FinishIdempotent needs, and answer is set. A
// request that another caller has in hand is control.ErrConflict, and a key that was used
// for another request control.ErrInvalid. Keys are forgotten at expires.
func (s *Store) BeginIdempotent(ctx context.Context, r control.IdempotentRequest, now time.Time, lease time.Duration, expires time.Time) (attempt int64, answer *control.Answer, err error) {
	customer, operator, err := columns(r.Subject)
	if err != nil {
		return 0, nil, fmt.Errorf("idempotency key: %w", err)
	}
	err = s.pool.QueryRow(ctx, `
		INSERT INTO idempotency_keys AS k (customer_id, operator_id, key, request_digest, leased_until, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (who, key) DO UPDATE SET attempt = k.attempt + 1, request_digest = excluded.request_digest,
			leased_until = excluded.leased_until, status = NULL, body = NULL, created_at = excluded.created_at, expires_at = excluded.expires_at
		WHERE k.expires_at <= $6 OR k.status IS NULL AND k.leased_until <= $6 AND k.request_digest = excluded.request_digest
		RETURNING attempt`, customer, operator, r.Key, r.Digest[:], now.Add(lease), now, expires).Scan(&attempt)
	if !errors.Is(err, pgx.ErrNoRows) {
		return attempt, nil, explain("idempotency key", err)
	}
	var digest []byte
	var status *int
	var a control.Answer
	err = s.pool.QueryRow(ctx, `
		SELECT request_digest, status, body FROM idempotency_keys
		WHERE who = coalesce('c:' || $1::text, 'o:' || $2::text) AND key = $3`, customer, operator, r.Key).Scan(&digest, &status, &a.Body)
	switch {
	case errors.Is(err, pgx.ErrNoRows): // abandoned just now
		return 0, nil, fmt.Errorf("idempotency key: %w", control.ErrConflict)
	case err != nil:
		return 0, nil, explain("idempotency key", err)
	case !bytes.Equal(digest, r.Digest[:]):
		return 0, nil, fmt.Errorf("idempotency key: %w: it was used for another request", control.ErrInvalid)
	case status == nil:
		return 0, nil, fmt.Errorf("idempotency key: %w: the request is in hand", control.ErrConflict)
	}
	a.Status = *status
	return 0, &a, nil
}

// FinishIdempotent notes the answer in the transaction of the request's effect, so that
// both are there or neither. If another caller has taken the request over meanwhile it is
// control.ErrConflict: then the effect must not be committed.
func (t *Tx) FinishIdempotent(ctx context.Context, r control.IdempotentRequest, attempt int64, a control.Answer) error {
	customer, operator, err := columns(r.Subject)
	if err != nil {
		return fmt.Errorf("idempotency key: %w", err)
	}
	body := a.Body
	if body == nil {
		body = []byte{}
	}
	tag, err := t.tx.Exec(ctx, `
		UPDATE idempotency_keys SET status = $5, body = $6
		WHERE who = coalesce('c:' || $1::text, 'o:' || $2::text) AND key = $3 AND attempt = $4 AND status IS NULL`,
		customer, operator, r.Key, attempt, a.Status, body)
	if err == nil && tag.RowsAffected() == 0 {
		return fmt.Errorf("idempotency key: %w: the request was taken over", control.ErrConflict)
	}
	return explain("idempotency key", err)
}

// AbandonIdempotent forgets a request that had no effect, so that it can be repeated.
func (s *Store) AbandonIdempotent(ctx context.Context, r control.IdempotentRequest, attempt int64) error {
	customer, operator, err := columns(r.Subject)
	if err != nil {
		return fmt.Errorf("idempotency key: %w", err)
	}
	_, err = s.pool.Exec(ctx, `
		DELETE FROM idempotency_keys
		WHERE who = coalesce('c:' || $1::text, 'o:' || $2::text) AND key = $3 AND attempt = $4 AND status IS NULL`,
		customer, operator, r.Key, attempt)
	return explain("idempotency key", err)
}
