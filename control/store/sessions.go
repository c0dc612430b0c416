package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// columns returns what a subject is in columns customer_id and operator_id: one of them
// is NULL.
func columns(s control.Subject) (customer, operator *string, err error) {
	switch {
	case s.ID == "":
	case s.Kind == control.SubjectCustomer:
		return &s.ID, nil, nil
	case s.Kind == control.SubjectOperator:
		return nil, &s.ID, nil
	}
	return nil, nil, fmt.Errorf("%w: subject %q %q", control.ErrInvalid, s.Kind, s.ID)
}

func subject(customer, operator *string) control.Subject {
	if customer != nil {
		return control.Subject{Kind: control.SubjectCustomer, ID: *customer}
	}
	return control.Subject{Kind: control.SubjectOperator, ID: *operator}
}

// audit returns an audit entry that says whose it is.
func audit(actor, action string, who control.Subject, target string, detail map[string]any) control.Audit {
	a := control.Audit{Actor: actor, Action: action, Target: target, Detail: detail}
	if who.Kind == control.SubjectCustomer {
		a.CustomerID = who.ID
	}
	return a
}

// welcome finds out whether a subject may have sessions, and keeps that so until the
// transaction ends: nobody is disabled or deleted beside a sign-in that then stays.
const welcome = `
	SELECT 1 FROM customers WHERE id = $1 AND deleted_at IS NULL FOR SHARE`

const welcomeOperator = `
	SELECT 1 FROM operators WHERE id = $1 AND disabled_at IS NULL FOR SHARE`

func (t *Tx) welcome(ctx context.Context, who control.Subject) error {
	query := welcome
	if who.Kind == control.SubjectOperator {
		query = welcomeOperator
	}
	var one int
	return explain(fmt.Sprintf("%s %s", who.Kind, who.ID), t.tx.QueryRow(ctx, query, who.ID).Scan(&one))
}

// CreateSession notes a sign-in and the digest of its first refresh token. A customer
// that was deleted or an operator that is disabled is control.ErrNotFound.
func (s *Store) CreateSession(ctx context.Context, v control.Session, digest contract.Digest) error {
	customer, operator, err := columns(v.Subject)
	if err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	err = s.InTx(ctx, func(tx *Tx) error {
		if err := tx.welcome(ctx, v.Subject); err != nil {
			return err
		}
		if _, err := tx.tx.Exec(ctx, `
			INSERT INTO sessions (id, customer_id, operator_id, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)`,
			v.ID, customer, operator, v.CreatedAt, v.ExpiresAt); err != nil {
			return err
		}
		if err := tx.insertRefreshToken(ctx, v.ID, digest, v.CreatedAt, v.ExpiresAt); err != nil {
			return err
		}
		return tx.AddAudit(ctx, audit(string(v.Subject.Kind)+":"+v.Subject.ID, "session.create", v.Subject, v.ID, nil))
	})
	return explain("create session", err)
}

func (t *Tx) insertRefreshToken(ctx context.Context, session string, digest contract.Digest, at, expires time.Time) error {
	_, err := t.tx.Exec(ctx, `
		INSERT INTO refresh_tokens (digest, session_id, created_at, expires_at) VALUES ($1, $2, $3, $4)`, digest[:], session, at, expires)
	return err
}

// RotateSession exchanges a refresh token for the next one, which ends at expires. Of two
// that show the same token at once one gets a successor. One that has its successor
// already ends the whole session and is control.ErrReused; one that is unknown, expired,
// or of a session or subject that is no more is control.ErrNotFound.
func (s *Store) RotateSession(ctx context.Context, shown, next contract.Digest, now, expires time.Time) (control.Session, error) {
	var v control.Session
	reused := false
	err := s.InTx(ctx, func(tx *Tx) error {
		var customer, operator *string
		if err := tx.tx.QueryRow(ctx, `
			SELECT id, customer_id, operator_id, created_at FROM sessions
			WHERE id = (SELECT session_id FROM refresh_tokens WHERE digest = $1)`, shown[:]).
			Scan(&v.ID, &customer, &operator, &v.CreatedAt); err != nil {
			return err
		}
		v.Subject, v.CreatedAt, v.ExpiresAt = subject(customer, operator), v.CreatedAt.UTC(), expires
		// In the lock order: the subject, then the session. From here on nobody else uses
		// the token, so what follows must be read now and not before.
		if err := tx.welcome(ctx, v.Subject); err != nil {
			return err
		}
		var revoked *time.Time
		if err := tx.tx.QueryRow(ctx, `SELECT revoked_at FROM sessions WHERE id = $1 FOR NO KEY UPDATE`, v.ID).Scan(&revoked); err != nil {
			return err
		}
		var used *time.Time
		var ends time.Time
		if err := tx.tx.QueryRow(ctx, `SELECT used_at, expires_at FROM refresh_tokens WHERE digest = $1`, shown[:]).Scan(&used, &ends); err != nil {
			return err
		}
		switch {
		case revoked != nil:
			return fmt.Errorf("it was revoked: %w", control.ErrNotFound)
		case used != nil:
			reused = true // which has to be committed
			return tx.RevokeSession(ctx, "system", v.ID, "refresh token reused", now)
		case !ends.After(now):
			return fmt.Errorf("it expired: %w", control.ErrNotFound)
		}
		if _, err := tx.tx.Exec(ctx, `UPDATE refresh_tokens SET used_at = $2 WHERE digest = $1`, shown[:], now); err != nil {
			return err
		}
		if err := tx.insertRefreshToken(ctx, v.ID, next, now, expires); err != nil {
			return err
		}
		_, err := tx.tx.Exec(ctx, `UPDATE sessions SET expires_at = $2 WHERE id = $1`, v.ID, expires)
		return err
	})
	if err != nil {
		return control.Session{}, explain("rotate session", err)
	}
	if reused {
		return v, fmt.Errorf("rotate session %s: %w", v.ID, control.ErrReused)
	}
	return v, nil
}

// SessionLive returns a session that is neither revoked nor expired; others are
// control.ErrNotFound.
func (s *Store) SessionLive(ctx context.Context, id string, now time.Time) (control.Session, error) {
	var v control.Session
	var customer, operator *string
	err := s.pool.QueryRow(ctx, `
		SELECT id, customer_id, operator_id, created_at, expires_at FROM sessions
		WHERE id = $1 AND revoked_at IS NULL AND expires_at > $2`, id, now).Scan(&v.ID, &customer, &operator, &v.CreatedAt, &v.ExpiresAt)
	if err != nil {
		return v, explain("session "+id, err)
	}
	v.Subject, v.CreatedAt, v.ExpiresAt = subject(customer, operator), v.CreatedAt.UTC(), v.ExpiresAt.UTC()
	return v, nil
}

// SessionByToken returns the session whose refresh token has that digest, whatever became of
// either: to sign out. An unknown one is control.ErrNotFound.
func (s *Store) SessionByToken(ctx context.Context, digest contract.Digest) (id string, err error) {
	err = s.pool.QueryRow(ctx, `SELECT session_id FROM refresh_tokens WHERE digest = $1`, digest[:]).Scan(&id)
	return id, explain("session", err)
}

// RevokeSession ends a session. Ending one that has ended changes nothing.
func (t *Tx) RevokeSession(ctx context.Context, actor, id, reason string, at time.Time) error {
	var customer *string
	err := t.tx.QueryRow(ctx, `
		UPDATE sessions SET revoked_at = $2, revoked_reason = $3 WHERE id = $1 AND revoked_at IS NULL
		RETURNING customer_id`, id, at, reason).Scan(&customer)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return explain("revoke session "+id, err)
	}
	who := control.Subject{Kind: control.SubjectOperator}
	if customer != nil {
		who = subject(customer, nil)
	}
	return t.AddAudit(ctx, audit(actor, "session.revoke", who, id, map[string]any{"reason": reason}))
}

// RevokeSessions ends all sessions of a subject and returns how many there were.
func (t *Tx) RevokeSessions(ctx context.Context, actor string, who control.Subject, reason string, at time.Time) (int64, error) {
	customer, operator, err := columns(who)
	if err != nil {
		return 0, fmt.Errorf("revoke sessions: %w", err)
	}
	tag, err := t.tx.Exec(ctx, `
		UPDATE sessions SET revoked_at = $3, revoked_reason = $4
		WHERE revoked_at IS NULL AND (customer_id = $1 OR operator_id = $2)`, customer, operator, at, reason)
	if err != nil || tag.RowsAffected() == 0 {
		return 0, explain("revoke sessions", err)
	}
	return tag.RowsAffected(), t.AddAudit(ctx, audit(actor, "session.revoke_all", who, who.ID,
		map[string]any{"reason": reason, "sessions": tag.RowsAffected()}))
}
