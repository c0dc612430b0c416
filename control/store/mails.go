package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const mailColumns = `m.id, m.customer_id, m.kind, m.cause, m.language, m.params, m.created_at, m.attempts, m.sent_at, coalesce(m.error, '')`

func scanMail(row pgx.CollectableRow, more ...any) (m control.Mail, err error) {
	var sent *time.Time
	err = row.Scan(append([]any{&m.ID, &m.CustomerID, &m.Kind, &m.Cause, &m.Language, &m.Params, &m.CreatedAt, &m.Attempts, &sent, &m.Error}, more...)...)
	m.CreatedAt, m.SentAt = m.CreatedAt.UTC(), orZero(sent)
	return m, err
}

// AddMail puts a mail into the outbox, in the customer's language, and reports whether
// there was none yet of that kind and cause. A customer without address gets none.
func (t *Tx) AddMail(ctx context.Context, m control.Mail) (fresh bool, err error) {
	params := []byte("{}")
	if m.Params != nil {
		if params, err = json.Marshal(m.Params); err != nil {
			return false, explain("add mail", err)
		}
	}
	tag, err := t.tx.Exec(ctx, `
		INSERT INTO mails (customer_id, kind, cause, language, params)
		SELECT id, $2, $3, language, $4 FROM customers WHERE id = $1 AND email IS NOT NULL
		ON CONFLICT (customer_id, kind, cause) DO NOTHING`, m.CustomerID, m.Kind, m.Cause, params)
	return tag.RowsAffected() == 1, explain("add mail "+m.Kind+" for customer "+m.CustomerID, err)
}

// ClaimMails takes mails that are due in hand, at most limit, those first that wait
// longest, with the address that the customer has now. Nobody else ever gets them, unless
// MailFailed gives them back: of a caller that dies it is not known whether they went out, and
// none may go out twice. See UncertainMails.
func (s *Store) ClaimMails(ctx context.Context, limit int) ([]control.Mail, error) {
	rows, _ := s.pool.Query(ctx, `
		WITH due AS (
			SELECT id FROM mails WHERE sent_at IS NULL AND claimed_at IS NULL AND failed_at IS NULL AND next_attempt_at <= now()
			ORDER BY next_attempt_at, id LIMIT $1 FOR UPDATE SKIP LOCKED)
		UPDATE mails m SET attempts = attempts + 1, claimed_at = now() FROM customers c
		WHERE m.id IN (SELECT id FROM due) AND c.id = m.customer_id RETURNING `+mailColumns+`, coalesce(c.email, ''),
			EXISTS (SELECT FROM identities i WHERE i.customer_id = c.id AND i.provider = 'password' AND i.verified_at IS NULL)`, limit)
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (control.Mail, error) {
		var to string
		var unconfirmed bool
		m, err := scanMail(row, &to, &unconfirmed)
		m.To, m.Unconfirmed = to, unconfirmed
		return m, err
	})
	return list, explain("claim mails", err)
}

// MailSent notes that a mail that was claimed has gone out.
func (s *Store) MailSent(ctx context.Context, id int64) error {
	_, err := s.pool.Exec(ctx, `
		UPDATE mails SET sent_at = now(), error = NULL WHERE id = $1 AND claimed_at IS NOT NULL AND sent_at IS NULL`, id)
	return explain("mail sent", err)
}

// MailFailed notes that a mail that was claimed has certainly not gone out. It is tried
// again after a while, or, without retry, never.
func (s *Store) MailFailed(ctx context.Context, id int64, reason string, retry bool, after time.Duration) error {
	_, err := s.pool.Exec(ctx, `
		UPDATE mails SET claimed_at = NULL, error = $2, next_attempt_at = now() + make_interval(secs => $4),
			failed_at = CASE WHEN $3 THEN NULL ELSE now() END
		WHERE id = $1 AND sent_at IS NULL`, id, errorText(reason), retry, after.Seconds())
	return explain("mail failed", err)
}

// UncertainMails lists mails that were claimed some time ago and of which nobody said what became
// of them, oldest first.
func (s *Store) UncertainMails(ctx context.Context, ago time.Duration, limit int) ([]control.Mail, error) {
	rows, _ := s.pool.Query(ctx, `SELECT `+mailColumns+` FROM mails m
		WHERE sent_at IS NULL AND claimed_at < now() - make_interval(secs => $1) ORDER BY id LIMIT $2`, ago.Seconds(), limit)
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (control.Mail, error) { return scanMail(row) })
	return list, explain("uncertain mails", err)
}
