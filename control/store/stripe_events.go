package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const stripeEventColumns = `id, type, api_version, created_at, payload, received_at, processed_at, attempts, next_attempt_at, coalesce(error, '')`

func scanStripeEvent(row pgx.CollectableRow) (e control.StripeEvent, err error) {
	var processed *time.Time
	err = row.Scan(&e.ID, &e.Type, &e.APIVersion, &e.CreatedAt, &e.Payload, &e.ReceivedAt, &processed, &e.Attempts, &e.NextAttempt, &e.Error)
	e.CreatedAt, e.ReceivedAt, e.ProcessedAt, e.NextAttempt = e.CreatedAt.UTC(), e.ReceivedAt.UTC(), orZero(processed), e.NextAttempt.UTC()
	return e, err
}

// InsertStripeEvent puts an event into the inbox and reports whether it was not there
// yet. Whoever gets nil may tell Stripe that it has the event.
func (s *Store) InsertStripeEvent(ctx context.Context, e control.StripeEvent) (fresh bool, err error) {
	tag, err := s.pool.Exec(ctx, `
		INSERT INTO stripe_events (id, type, api_version, created_at, payload) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (id) DO NOTHING`, e.ID, e.Type, e.APIVersion, e.CreatedAt, e.Payload)
	return tag.RowsAffected() == 1, explain("insert Stripe event "+e.ID, err)
}

// ClaimStripeEvents takes events that are due in hand for the length of lease, at most
// limit of them, those first that wait longest. No other caller gets them meanwhile; the
// events of one that dies come back when the lease ends.
func (s *Store) ClaimStripeEvents(ctx context.Context, lease time.Duration, limit int) ([]control.StripeEvent, error) {
	rows, _ := s.pool.Query(ctx, `
		WITH due AS (
			SELECT id FROM stripe_events WHERE processed_at IS NULL AND next_attempt_at <= now()
			ORDER BY next_attempt_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)
		UPDATE stripe_events SET attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => $1)
		WHERE id IN (SELECT id FROM due) RETURNING `+stripeEventColumns, lease.Seconds(), limit)
	list, err := pgx.CollectRows(rows, scanStripeEvent)
	return list, explain("claim Stripe events", err)
}

// FinishStripeEvent marks an event as processed, in the transaction of its effect. If its
// lease had ended and another caller took it, or processed it, it is control.ErrConflict:
// then the effect must not be committed.
func (t *Tx) FinishStripeEvent(ctx context.Context, e control.StripeEvent) error {
	tag, err := t.tx.Exec(ctx, `
		UPDATE stripe_events SET processed_at = now(), error = NULL WHERE id = $1 AND attempts = $2 AND processed_at IS NULL`, e.ID, e.Attempts)
	if err == nil && tag.RowsAffected() == 0 {
		return fmt.Errorf("finish Stripe event %s: %w", e.ID, control.ErrConflict)
	}
	return explain("finish Stripe event "+e.ID, err)
}

// FailStripeEvent notes why an attempt failed, and has it made again after a while. It
// changes nothing if another caller has the event in hand.
func (s *Store) FailStripeEvent(ctx context.Context, e control.StripeEvent, reason string, after time.Duration) error {
	_, err := s.pool.Exec(ctx, `
		UPDATE stripe_events SET error = $3, next_attempt_at = now() + make_interval(secs => $4)
		WHERE id = $1 AND attempts = $2 AND processed_at IS NULL`, e.ID, e.Attempts, errorText(reason), after.Seconds())
	return explain("fail Stripe event "+e.ID, err)
}

// PruneStripeEvents removes processed events that were received longer ago than that, at most
// limit, and returns how many. Of those that are gone a duplicate is taken for new.
func (s *Store) PruneStripeEvents(ctx context.Context, ago time.Duration, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, `
		DELETE FROM stripe_events WHERE id IN (
			SELECT id FROM stripe_events WHERE processed_at IS NOT NULL AND received_at < now() - make_interval(secs => $1)
			ORDER BY received_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)`, ago.Seconds(), limit)
	return tag.RowsAffected(), explain("prune Stripe events", err)
}

// RetryStripeEvent makes an event due now that was not processed, or, with again, that
// was: processing it twice changes nothing.
func (t *Tx) RetryStripeEvent(ctx context.Context, actor, id string, again bool) error {
	tag, err := t.tx.Exec(ctx, `
		UPDATE stripe_events SET next_attempt_at = now(), processed_at = NULL WHERE id = $1 AND (processed_at IS NULL OR $2)`, id, again)
	if err == nil && tag.RowsAffected() == 0 {
		err = pgx.ErrNoRows
	}
	if err != nil {
		return explain("retry Stripe event "+id, err)
	}
	return t.AddAudit(ctx, control.Audit{Actor: actor, Action: "stripe_event.retry", Target: id, Detail: map[string]any{"again": again}})
}

// errorText makes a text that a column error takes.
func errorText(reason string) string {
	reason = strings.ReplaceAll(strings.ToValidUTF8(reason, "\uFFFD"), "\x00", "\uFFFD")
	if reason == "" {
		return "unknown"
	}
	return reason
}
