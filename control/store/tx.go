package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Tx is one transaction of the control plane. It is used by one goroutine, within
// the function that was given it.
type Tx struct{ tx pgx.Tx }

// InTx runs do in a transaction and commits it if do returns nil.
func (s *Store) InTx(ctx context.Context, do func(*Tx) error) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return do(&Tx{tx}) })
	if err != nil && sqlState(err) != "" {
		return explain("transaction", err)
	}
	return err
}

// InsertCustomer adds a customer. An e-mail address that another one has, or signs in by, is
// control.ErrExists. One whose subscription has ended may come back, and could not with its
// address taken: it would pay and not be served.
func (t *Tx) InsertCustomer(ctx context.Context, c control.Customer) error {
	tag, err := t.tx.Exec(ctx, `
		INSERT INTO customers (id, name, email, tier, status, created_at, updated_at)
		SELECT $1, $2, nullif($3, ''), $4, $5, $6, $6
		WHERE NOT EXISTS (SELECT FROM identities WHERE provider = 'password' AND subject = lower($3))`,
		c.ID, c.Name, c.Email, c.Tier, c.Status, c.CreatedAt)
	if sqlState(err) == codeUniqueViolation || err == nil && tag.RowsAffected() == 0 {
		return fmt.Errorf("insert customer: a customer with this email: %w", control.ErrExists)
	}
	return explain("insert customer", err)
}

// LockCustomer reads a customer and keeps other changes of it, of its tokens and of
// its periods' limits waiting until the transaction ends. Usage is still recorded.
func (t *Tx) LockCustomer(ctx context.Context, id string) (control.Customer, error) {
	rows, _ := t.tx.Query(ctx, selectCustomers+` WHERE id = $1 FOR NO KEY UPDATE`, id)
	c, err := pgx.CollectExactlyOneRow(rows, scanCustomer)
	return c, explain("customer "+id, err)
}

// SetCustomerStatus changes the status of a customer and returns what it became.
func (t *Tx) SetCustomerStatus(ctx context.Context, id string, status control.CustomerStatus, at time.Time) (control.Customer, error) {
	_, err := t.tx.Exec(ctx, `UPDATE customers SET status = $2, updated_at = $3 WHERE id = $1`, id, string(status), at)
	if err != nil {
		return control.Customer{}, explain("set status of customer "+id, err)
	}
	return t.LockCustomer(ctx, id)
}

// InsertToken adds a proxy token.
func (t *Tx) InsertToken(ctx context.Context, k control.ProxyToken) error {
	_, err := t.tx.Exec(ctx, `
		INSERT INTO proxy_tokens (id, customer_id, box_id, digest, hint, version, status, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)`,
		k.ID, k.CustomerID, k.BoxID, k.Digest[:], k.Hint, k.Version, k.Status, k.CreatedAt)
	return explain("insert proxy token", err)
}

// Tokens lists the proxy tokens of a customer, oldest first.
func (t *Tx) Tokens(ctx context.Context, customer string) ([]control.ProxyToken, error) {
	rows, _ := t.tx.Query(ctx, selectTokens+` WHERE customer_id = $1 ORDER BY created_at, id`, customer)
	tokens, err := pgx.CollectRows(rows, scanToken)
	return tokens, explain("tokens of customer "+customer, err)
}

// UpdateToken sets the status of a token and raises its version, and returns what it
// became.
func (t *Tx) UpdateToken(ctx context.Context, id string, status contract.Status, at time.Time) (control.ProxyToken, error) {
	rows, _ := t.tx.Query(ctx, `
		UPDATE proxy_tokens SET status = $2, version = version + 1, updated_at = $3,
			revoked_at = CASE WHEN $2 = 'revoked' THEN coalesce(revoked_at, $3) END
		WHERE id = $1
		RETURNING `+tokenColumns, id, string(status), at)
	k, err := pgx.CollectExactlyOneRow(rows, scanToken)
	return k, explain("update proxy token "+id, err)
}

// Token reads one proxy token by its id.
func (t *Tx) Token(ctx context.Context, id string) (control.ProxyToken, error) {
	return token(ctx, t.tx, id)
}

// RaiseTokenVersion makes the version of a token at least version, and returns what
// it became.
func (t *Tx) RaiseTokenVersion(ctx context.Context, id string, version int64) (control.ProxyToken, error) {
	rows, _ := t.tx.Query(ctx, `
		UPDATE proxy_tokens SET version = greatest(version, $2), updated_at = now() WHERE id = $1 RETURNING `+tokenColumns, id, version)
	k, err := pgx.CollectExactlyOneRow(rows, scanToken)
	return k, explain("raise the version of proxy token "+id, err)
}

// OpenPeriod writes a period and its limit. Where the ledger has opened the row
// already, what it did not know is filled in; where the period is known, nothing
// changes. It returns the row. DueForRenewal goes by the last period opened so.
func (t *Tx) OpenPeriod(ctx context.Context, p control.UsagePeriod) (control.UsagePeriod, error) {
	rows, _ := t.tx.Query(ctx, `
		INSERT INTO usage_periods AS p (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version, included_tokens)
		VALUES ($1, $2, $3, $4, $5, $6, $5)
		ON CONFLICT (customer_id, period_id) DO UPDATE SET
			starts_at = coalesce(p.starts_at, excluded.starts_at),
			ends_at = coalesce(p.ends_at, excluded.ends_at),
			included_tokens = CASE WHEN p.limit_tokens IS NULL THEN excluded.included_tokens ELSE p.included_tokens END,
			limit_tokens = coalesce(p.limit_tokens, excluded.limit_tokens),
			limit_version = CASE WHEN p.limit_version = 0 THEN excluded.limit_version ELSE p.limit_version END,
			updated_at = now()
		RETURNING `+periodColumns,
		p.CustomerID, p.ID, p.Start, p.End, p.LimitTokens, p.LimitVersion)
	out, err := pgx.CollectExactlyOneRow(rows, scanPeriod)
	if err == nil {
		_, err = t.tx.Exec(ctx, `
			UPDATE customers SET renews_at = $2 WHERE id = $1 AND (renews_at IS NULL OR renews_at < $2)`, out.CustomerID, out.End)
	}
	return out, explain("open period of customer "+p.CustomerID, err)
}

// PeriodAt returns the period of a customer that contains at; the error is
// control.ErrNotFound if none does.
func (t *Tx) PeriodAt(ctx context.Context, customer string, at time.Time) (control.UsagePeriod, error) {
	return periodAt(ctx, t.tx, customer, at)
}

// FirstPeriodStart returns when the first known period of a customer began.
func (t *Tx) FirstPeriodStart(ctx context.Context, customer string) (time.Time, error) {
	var start *time.Time
	err := t.tx.QueryRow(ctx, `SELECT min(starts_at) FROM usage_periods WHERE customer_id = $1`, customer).Scan(&start)
	if err == nil && start == nil {
		err = pgx.ErrNoRows
	}
	if err != nil {
		return time.Time{}, explain("first period of customer "+customer, err)
	}
	return start.UTC(), nil
}

// SetLimit changes the limit of a period, and how its tokens are paid for, and raises the limit's
// version; o.Used is not looked at. What was used stays billed, or free, as it was when it was
// used, and what the price includes is free also where the limit is less.
func (t *Tx) SetLimit(ctx context.Context, customer, period string, tokens int64, o control.PeriodOverage) (control.UsagePeriod, error) {
	rows, _ := t.tx.Query(ctx, `
		UPDATE usage_periods SET limit_tokens = $3, limit_version = limit_version + 1, limit_set_at = clock_timestamp(), updated_at = now(),
			overage_tokens = $4, overage_most = GREATEST(overage_most, $4), included_tokens = $5, ceiling_tokens = $6,
			forgiven_tokens = GREATEST(LEAST(settled_tokens, `+freeTokens+` + forgiven_tokens) - GREATEST($3 - $4, $5), 0)
		WHERE customer_id = $1 AND period_id = $2 AND starts_at IS NOT NULL
		RETURNING `+periodColumns, customer, period, tokens, o.Tokens, o.Included, o.Ceiling)
	p, err := pgx.CollectExactlyOneRow(rows, scanPeriod)
	return p, explain("set limit of customer "+customer, err)
}

// AddChange puts c into the outbox and returns its id.
func (t *Tx) AddChange(ctx context.Context, c control.Change) (int64, error) {
	var digest, payload []byte
	var err error
	switch c.Kind {
	case control.ChangeGrant:
		digest = c.Digest[:]
		payload, err = contract.EncodeGrant(c.Grant)
	case control.ChangeLimit:
		payload, err = json.Marshal(c.Limit)
	default:
		err = fmt.Errorf("unknown kind %q", c.Kind)
	}
	if err != nil {
		return 0, fmt.Errorf("add change: %w", err)
	}
	var id int64
	err = t.tx.QueryRow(ctx, `
		INSERT INTO config_changes (kind, customer_id, digest, payload) VALUES ($1, $2, $3, $4) RETURNING id`,
		string(c.Kind), c.CustomerID, digest, payload).Scan(&id)
	return id, explain("add change", err)
}

// AddAudit writes to the audit log.
func (t *Tx) AddAudit(ctx context.Context, a control.Audit) error {
	detail, err := json.Marshal(a.Detail)
	if err != nil {
		return fmt.Errorf("add audit entry %s: %w", a.Action, err)
	}
	if a.Detail == nil {
		detail = []byte("{}")
	}
	_, err = t.tx.Exec(ctx, `
		INSERT INTO audit_log (actor, action, customer_id, target, detail) VALUES ($1, $2, nullif($3, ''), $4, $5)`,
		a.Actor, a.Action, a.CustomerID, a.Target, detail)
	return explain("add audit entry "+a.Action, err)
}
