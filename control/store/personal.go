package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// exportedAudit is how many entries of the audit log an export has, at most.
const exportedAudit = 10_000

// Export reads all that is known of a customer, without secrets and their digests, and
// without its usage events: see EachEvent. It may run within Store.ForCustomer.
func (t *Tx) Export(ctx context.Context, customer string) (d control.CustomerData, err error) {
	if d.Account, err = t.Account(ctx, customer); err != nil {
		return d, err
	}
	rows, _ := t.tx.Query(ctx, `
		SELECT id, customer_id, provider, subject, '', created_at, verified_at FROM identities WHERE customer_id = $1 ORDER BY created_at, id`, customer)
	if d.Identities, err = pgx.CollectRows(rows, scanIdentity); err != nil {
		return d, explain("identities of customer "+customer, err)
	}
	if d.Boxes, err = t.BoxDetails(ctx, customer); err != nil {
		return d, err
	}
	if d.Tokens, err = t.Tokens(ctx, customer); err != nil {
		return d, err
	}
	if d.APIKeys, err = t.APIKeys(ctx, customer); err != nil {
		return d, err
	}
	if d.Subscriptions, err = t.Subscriptions(ctx, customer); err != nil {
		return d, err
	}
	rows, _ = t.tx.Query(ctx, selectPeriods+` WHERE customer_id = $1 ORDER BY period_id`, customer)
	if d.Periods, err = pgx.CollectRows(rows, scanPeriod); err != nil {
		return d, explain("periods of customer "+customer, err)
	}
	rows, _ = t.tx.Query(ctx, `SELECT `+mailColumns+` FROM mails m WHERE customer_id = $1 ORDER BY id`, customer)
	if d.Mails, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (control.Mail, error) { return scanMail(row) }); err != nil {
		return d, explain("mails of customer "+customer, err)
	}
	if d.Conversations, err = t.conversations(ctx, customer); err != nil {
		return d, err
	}
	d.Audit, err = t.AuditPage(ctx, customer, 0, exportedAudit)
	return d, err
}

// EraseCustomer removes the personal data of a customer and cancels it, for ever. What is
// billed by stays: periods, events, subscriptions, which boxes there were. It is
// control.ErrInvalid while a subscription is live, a token is not revoked or a box is not to be
// destroyed: the first is for Stripe to end, and of the others the proxies and the operator of
// the boxes have to be told, all by the caller.
func (t *Tx) EraseCustomer(ctx context.Context, actor, id string, at time.Time) error {
	op := "erase customer " + id
	if _, err := t.LockCustomer(ctx, id); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	subscriptions, err := t.Subscriptions(ctx, id)
	if err != nil {
		return err
	}
	for _, v := range subscriptions {
		if v.Status.Live() {
			return fmt.Errorf("%s: %w: subscription %s is %s", op, control.ErrInvalid, v.ID, v.Status)
		}
	}
	tokens, err := t.Tokens(ctx, id)
	if err != nil {
		return err
	}
	for _, k := range tokens {
		if k.Status != contract.StatusRevoked {
			return fmt.Errorf("%s: %w: token %s is %s", op, control.ErrInvalid, k.ID, k.Status)
		}
	}
	boxes, err := t.Boxes(ctx, id)
	if err != nil {
		return err
	}
	for _, b := range boxes {
		if b.Wants != control.BoxDestroy {
			return fmt.Errorf("%s: %w: box %s is not to be destroyed", op, control.ErrInvalid, b.ID)
		}
	}
	for _, statement := range []string{
		// First: a report that is under way adds its mail before this goes on.
		`UPDATE boxes SET settings = '{}', message = '', detail = '', updated_at = now() WHERE customer_id = $1`,
		`UPDATE box_steps SET error = NULL, detail = NULL WHERE customer_id = $1`,
		`DELETE FROM identities WHERE customer_id = $1`,
		`DELETE FROM sessions WHERE customer_id = $1`,
		`DELETE FROM mail_tokens WHERE customer_id = $1`,
		`DELETE FROM api_keys WHERE customer_id = $1`,
		`DELETE FROM onboarding_sessions WHERE customer_id = $1`,
		`DELETE FROM idempotency_keys WHERE customer_id = $1`,
		`DELETE FROM mails WHERE customer_id = $1 AND sent_at IS NULL`,
		`UPDATE mails SET params = '{}', error = NULL WHERE customer_id = $1`,
	} {
		if _, err := t.tx.Exec(ctx, statement, id); err != nil {
			return explain(op, err)
		}
	}
	if _, err := t.tx.Exec(ctx, `
		UPDATE customers SET name = 'deleted', email = NULL, status = 'cancelled', payment_hold = false, deleted_at = coalesce(deleted_at, $2), updated_at = $2
		WHERE id = $1`, id, at); err != nil {
		return explain(op, err)
	}
	return t.AddAudit(ctx, control.Audit{Actor: actor, Action: "customer.delete", CustomerID: id, Target: id})
}

// PruneSignIns removes what can never be used again: sessions, refresh tokens, mailed tokens
// and idempotency keys that have expired by then, at most limit of each, and returns how many
// rows.
func (s *Store) PruneSignIns(ctx context.Context, then time.Time, limit int) (int64, error) {
	var n int64
	for _, statement := range []string{
		`DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM refresh_tokens WHERE digest IN (SELECT digest FROM refresh_tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM mail_tokens WHERE digest IN (SELECT digest FROM mail_tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)`,
		`DELETE FROM idempotency_keys WHERE (who, key) IN (
			SELECT who, key FROM idempotency_keys WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)`,
	} {
		tag, err := s.pool.Exec(ctx, statement, then, limit)
		if err != nil {
			return n, explain("remove what has expired", err)
		}
		n += tag.RowsAffected()
	}
	return n, nil
}
