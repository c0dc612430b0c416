package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const (
	onboardingColumns = `id, key_digest, coalesce(telegram_user, 0), coalesce(customer_id, ''), state, version, data, bot_token, created_at, updated_at, expires_at`
	selectOnboardings = `SELECT ` + onboardingColumns + ` FROM onboarding_sessions`
)

const (
	// wipedFor is how long what is left of a conversation that nobody ended is kept: its id and how far
	// it came, for counting.
	wipedFor = 24 * time.Hour
	// latePayment is how long it is kept whose it was, if there is a customer: a page to pay on is open for a
	// day, and what was paid on it may be heard of days later.
	latePayment = 7 * 24 * time.Hour
)

func scanOnboarding(row pgx.CollectableRow) (v control.OnboardingSession, err error) {
	var digest []byte
	err = row.Scan(&v.ID, &digest, &v.TelegramUser, &v.CustomerID, &v.State, &v.Version, &v.Data, &v.SealedBot, &v.CreatedAt, &v.UpdatedAt, &v.ExpiresAt)
	copy(v.KeyDigest[:], digest)
	v.CreatedAt, v.UpdatedAt, v.ExpiresAt = v.CreatedAt.UTC(), v.UpdatedAt.UTC(), v.ExpiresAt.UTC()
	return v, err
}

// digestOrNull is NULL for a conversation that no browser has.
func digestOrNull(d [32]byte) []byte {
	if d == ([32]byte{}) {
		return nil
	}
	return d[:]
}

// InsertOnboarding adds a conversation, of version 1. A second one of somebody on Telegram whose first
// goes on is control.ErrExists.
func (s *Store) InsertOnboarding(ctx context.Context, v control.OnboardingSession) error {
	_, err := s.pool.Exec(ctx, `
		INSERT INTO onboarding_sessions (id, key_digest, telegram_user, customer_id, state, version, data, bot_token, created_at, updated_at, expires_at)
		VALUES ($1, $2, nullif($3::bigint, 0), nullif($4, ''), $5, 1, $6::jsonb, $7, $8, $8, $9)`,
		v.ID, digestOrNull(v.KeyDigest), v.TelegramUser, v.CustomerID, v.State, []byte(v.Data), v.SealedBot, v.CreatedAt, v.ExpiresAt)
	return explain("insert conversation "+v.ID, err)
}

func (s *Store) oneOnboarding(ctx context.Context, op, where string, args ...any) (control.OnboardingSession, error) {
	rows, _ := s.pool.Query(ctx, selectOnboardings+where, args...)
	v, err := pgx.CollectExactlyOneRow(rows, scanOnboarding)
	return v, explain(op, err)
}

// Onboarding reads a conversation that has not expired; others are control.ErrNotFound.
func (s *Store) Onboarding(ctx context.Context, id string, now time.Time) (control.OnboardingSession, error) {
	return s.oneOnboarding(ctx, "conversation "+id, ` WHERE id = $1 AND expires_at > $2`, id, now)
}

// ForgetOnboardingKey has a browser's cookie be good for nothing any more; once more changes nothing.
func (s *Store) ForgetOnboardingKey(ctx context.Context, digest [32]byte) error {
	_, err := s.pool.Exec(ctx, `UPDATE onboarding_sessions SET key_digest = NULL WHERE key_digest = $1`, digest[:])
	return explain("forget the key of a conversation", err)
}

// OnboardingByKey reads the conversation of a browser's cookie, as Onboarding does.
func (s *Store) OnboardingByKey(ctx context.Context, digest [32]byte, now time.Time) (control.OnboardingSession, error) {
	return s.oneOnboarding(ctx, "conversation of a browser", ` WHERE key_digest = $1 AND expires_at > $2`, digest[:], now)
}

// OnboardingOfTelegram reads the newest conversation of somebody on Telegram that was not given up, as
// Onboarding does.
func (s *Store) OnboardingOfTelegram(ctx context.Context, user int64, now time.Time) (control.OnboardingSession, error) {
	return s.oneOnboarding(ctx, "conversation on Telegram",
		` WHERE telegram_user = $1 AND state <> 'abandoned' AND expires_at > $2 ORDER BY state = 'complete', created_at DESC, id LIMIT 1`, user, now)
}

// conversations lists what a customer said until it was one, oldest first. It may run within
// Store.ForCustomer.
func (t *Tx) conversations(ctx context.Context, customer string) ([]control.Conversation, error) {
	rows, _ := t.tx.Query(ctx, `
		SELECT id, state, created_at, expires_at, coalesce(data->'history', '[]') FROM onboarding_sessions WHERE customer_id = $1 ORDER BY created_at, id`, customer)
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c control.Conversation, err error) {
		err = row.Scan(&c.ID, &c.State, &c.CreatedAt, &c.ExpiresAt, &c.Turns)
		c.CreatedAt, c.ExpiresAt = c.CreatedAt.UTC(), c.ExpiresAt.UTC()
		return c, err
	})
	return list, explain("conversations of customer "+customer, err)
}

// SaveOnboarding changes a conversation that still is of the version that v has, and returns it as it
// is then; if it was changed since, that is control.ErrConflict, and if it is gone, control.ErrNotFound.
func (s *Store) SaveOnboarding(ctx context.Context, v control.OnboardingSession) (control.OnboardingSession, error) {
	op := "save conversation " + v.ID
	rows, _ := s.pool.Query(ctx, `
		UPDATE onboarding_sessions SET version = version + 1, customer_id = nullif($3, ''), state = $4, data = $5::jsonb, bot_token = $6,
			updated_at = $7, expires_at = $8
		WHERE id = $1 AND version = $2 RETURNING `+onboardingColumns,
		v.ID, v.Version, v.CustomerID, v.State, []byte(v.Data), v.SealedBot, v.UpdatedAt, v.ExpiresAt)
	out, err := pgx.CollectExactlyOneRow(rows, scanOnboarding)
	if !errors.Is(err, pgx.ErrNoRows) {
		return out, explain(op, err)
	}
	var there bool
	if err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM onboarding_sessions WHERE id = $1)`, v.ID).Scan(&there); err != nil {
		return out, explain(op, err)
	}
	if !there {
		return out, fmt.Errorf("%s: %w", op, control.ErrNotFound)
	}
	return out, fmt.Errorf("%s: %w", op, control.ErrConflict)
}

// WaitingOnboardings lists conversations that have not expired and of which there may be news: those that
// wait for a box, and of those that wait for a payment, or whose customer may pay meanwhile, the ones whose
// customer has paid or is gone. The others, which are many, stay in Postgres. By id from after on, at most
// limit.
func (s *Store) WaitingOnboardings(ctx context.Context, after string, now time.Time, limit int) ([]control.OnboardingSession, error) {
	rows, _ := s.pool.Query(ctx, selectOnboardings+` o
		WHERE id > $1 AND (state IN ('awaiting_payment', 'provisioning', 'failed') OR state = 'recommending' AND customer_id IS NOT NULL) AND expires_at > $2
			AND (state IN ('provisioning', 'failed') OR (SELECT c.status = 'active' OR c.deleted_at IS NOT NULL FROM customers c WHERE c.id = o.customer_id))
		ORDER BY id LIMIT $3`, after, now, limit)
	list, err := pgx.CollectRows(rows, scanOnboarding)
	return list, explain("conversations that wait", err)
}

// PaidLateOnboardings lists conversations that have expired and whose customer has paid all the same. By id
// from after on, at most limit.
func (s *Store) PaidLateOnboardings(ctx context.Context, after string, now time.Time, limit int) ([]control.OnboardingSession, error) {
	rows, _ := s.pool.Query(ctx, selectOnboardings+` o
		WHERE id > $1 AND state = 'abandoned' AND customer_id IS NOT NULL AND expires_at > $2
			AND (SELECT c.status = 'active' FROM customers c WHERE c.id = o.customer_id)
		ORDER BY id LIMIT $3`, after, now, limit)
	list, err := pgx.CollectRows(rows, scanOnboarding)
	return list, explain("conversations that were paid for late", err)
}

// ExpireOnboardings forgets what was said in conversations that have expired by then, at most limit of
// them, and returns how many: those that nobody ended become abandoned, and nothing is left of them but whose
// they were, if there is a customer; those that were ended are removed.
func (s *Store) ExpireOnboardings(ctx context.Context, then time.Time, limit int) (int64, error) {
	var n int64
	for _, q := range []struct {
		statement string
		args      []any
	}{
		{`DELETE FROM onboarding_sessions WHERE id IN (
			SELECT id FROM onboarding_sessions WHERE expires_at <= $1 AND state IN ('complete', 'abandoned')
			ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)`, []any{then, limit}},
		{`UPDATE onboarding_sessions SET state = 'abandoned', version = version + 1, data = jsonb_build_object('left', state), bot_token = NULL,
			key_digest = NULL, telegram_user = NULL, updated_at = $1, expires_at = CASE WHEN customer_id IS NULL THEN $3::timestamptz ELSE $4::timestamptz END
		WHERE id IN (SELECT id FROM onboarding_sessions WHERE expires_at <= $1 AND state NOT IN ('complete', 'abandoned')
			ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)`, []any{then, limit, then.Add(wipedFor), then.Add(latePayment)}},
	} {
		tag, err := s.pool.Exec(ctx, q.statement, q.args...)
		if err != nil {
			return n, explain("expire conversations", err)
		}
		n += tag.RowsAffected()
	}
	return n, nil
}
