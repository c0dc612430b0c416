package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const (
	selectAccounts = `SELECT id, name, coalesce(email, ''), tier, status, created_at, language, coalesce(stripe_customer_id, ''), deleted_at
		FROM customers`
	selectIdentities = `SELECT id, customer_id, provider, subject, coalesce(secret_hash, ''), created_at, verified_at FROM identities`
	selectOperators  = `SELECT id, email, role, password_hash, created_at, disabled_at FROM operators`
)

func scanAccount(row pgx.CollectableRow) (a control.Account, err error) {
	var deleted *time.Time
	err = row.Scan(&a.ID, &a.Name, &a.Email, &a.Tier, &a.Status, &a.CreatedAt, &a.Language, &a.StripeID, &deleted)
	a.CreatedAt, a.DeletedAt = a.CreatedAt.UTC(), orZero(deleted)
	return a, err
}

func scanIdentity(row pgx.CollectableRow) (i control.Identity, err error) {
	var verified *time.Time
	err = row.Scan(&i.ID, &i.CustomerID, &i.Provider, &i.Subject, &i.SecretHash, &i.CreatedAt, &verified)
	i.CreatedAt, i.VerifiedAt = i.CreatedAt.UTC(), orZero(verified)
	return i, err
}

func scanOperator(row pgx.CollectableRow) (o control.Operator, err error) {
	var disabled *time.Time
	err = row.Scan(&o.ID, &o.Email, &o.Role, &o.PasswordHash, &o.CreatedAt, &disabled)
	o.CreatedAt, o.DisabledAt = o.CreatedAt.UTC(), orZero(disabled)
	return o, err
}

// SignUp adds a customer that has not paid, with the identity that it signs in by, and
// notes it in the audit log, all or nothing. An identity or e-mail address that is taken
// is control.ErrExists. The customer's status must be control.CustomerPending: what it is
// entitled to follows from a subscription only.
func (s *Store) SignUp(ctx context.Context, a control.Account, i control.Identity) error {
	return s.SignUpWith(ctx, a, i, func(*Tx) error { return nil })
}

// SignUpWith is SignUp, with also in the same transaction.
func (s *Store) SignUpWith(ctx context.Context, a control.Account, i control.Identity, also func(*Tx) error) error {
	if a.Status != control.CustomerPending || i.CustomerID != a.ID {
		return fmt.Errorf("sign up: %w: a pending customer with an identity of its own is needed", control.ErrInvalid)
	}
	err := s.InTx(ctx, func(tx *Tx) error {
		if err := tx.InsertCustomer(ctx, a.Customer); err != nil {
			return err
		}
		if _, err := tx.tx.Exec(ctx, `UPDATE customers SET language = $2 WHERE id = $1`, a.ID, string(a.Language)); err != nil {
			return explain("set language", err)
		}
		if err := tx.insertIdentity(ctx, i); err != nil {
			return err
		}
		if err := tx.AddAudit(ctx, control.Audit{
			Actor: "customer:" + a.ID, Action: "customer.signup", CustomerID: a.ID, Target: a.ID,
			Detail: map[string]any{"provider": i.Provider, "tier": a.Tier},
		}); err != nil {
			return err
		}
		return also(tx)
	})
	if err != nil {
		return fmt.Errorf("sign up: %w", err)
	}
	return nil
}

func (t *Tx) insertIdentity(ctx context.Context, i control.Identity) error {
	_, err := t.tx.Exec(ctx, `
		INSERT INTO identities (id, customer_id, provider, subject, secret_hash, created_at, updated_at, verified_at)
		VALUES ($1, $2, $3, CASE $3 WHEN 'password' THEN lower($4) ELSE $4 END, nullif($5, ''), $6, $6, $7)`,
		i.ID, i.CustomerID, i.Provider, i.Subject, i.SecretHash, i.CreatedAt, orNull(i.VerifiedAt))
	return explain("insert identity", err)
}

// Identity looks up who signs in. Capital letters do not count in the e-mail address of
// control.ProviderPassword. Identities of customers that were deleted are gone.
func (s *Store) Identity(ctx context.Context, provider, subject string) (control.Identity, error) {
	rows, _ := s.pool.Query(ctx, selectIdentities+`
		WHERE provider = $1 AND subject = CASE $1 WHEN 'password' THEN lower($2) ELSE $2 END`, provider, subject)
	i, err := pgx.CollectExactlyOneRow(rows, scanIdentity)
	// The subject is a person's: errors and logs do without it.
	return i, explain("identity by "+provider, err)
}

// AddPassword gives a customer that has none a password to sign in by. control.ErrExists: it has one, or
// another customer signs in by the address.
func (t *Tx) AddPassword(ctx context.Context, actor string, i control.Identity) error {
	if i.Provider != control.ProviderPassword {
		return fmt.Errorf("add a password: %w: the identity is of %q", control.ErrInvalid, i.Provider)
	}
	if _, err := t.LockCustomer(ctx, i.CustomerID); err != nil { // two at once would add one each
		return err
	}
	var has bool
	err := t.tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM identities WHERE customer_id = $1 AND provider = 'password')`, i.CustomerID).Scan(&has)
	if err != nil {
		return explain("password of customer "+i.CustomerID, err)
	}
	if has {
		return fmt.Errorf("add a password of customer %s: %w", i.CustomerID, control.ErrExists)
	}
	if err := t.insertIdentity(ctx, i); err != nil {
		return err
	}
	return t.AddAudit(ctx, control.Audit{Actor: actor, Action: "customer.password", CustomerID: i.CustomerID, Target: i.CustomerID})
}

// SetPassword changes the secret of a customer's password, and ends all of its sessions, and the conversations
// that have made it: whoever had one may have named somebody else's address, and would go on to have its bot in
// the box of that person, and to be signed in.
func (t *Tx) SetPassword(ctx context.Context, actor, customerID, secretHash string, at time.Time) error {
	tag, err := t.tx.Exec(ctx, `
		UPDATE identities SET secret_hash = $2, updated_at = $3 WHERE customer_id = $1 AND provider = 'password'`, customerID, secretHash, at)
	if err == nil && tag.RowsAffected() == 0 {
		err = pgx.ErrNoRows
	}
	if err != nil {
		return explain("password of customer "+customerID, err)
	}
	if _, err := t.RevokeSessions(ctx, actor, control.Subject{Kind: control.SubjectCustomer, ID: customerID}, "password changed", at); err != nil {
		return err
	}
	if _, err := t.tx.Exec(ctx, `DELETE FROM onboarding_sessions WHERE customer_id = $1`, customerID); err != nil {
		return explain("conversations of customer "+customerID, err)
	}
	return t.AddAudit(ctx, control.Audit{Actor: actor, Action: "customer.password", CustomerID: customerID, Target: customerID})
}

// Account reads one customer.
func (t *Tx) Account(ctx context.Context, id string) (control.Account, error) {
	return accountByID(ctx, t.tx, id)
}

// Account reads one customer.
func (s *Store) Account(ctx context.Context, id string) (control.Account, error) {
	return accountByID(ctx, s.pool, id)
}

func accountByID(ctx context.Context, q querier, id string) (control.Account, error) {
	rows, _ := q.Query(ctx, selectAccounts+` WHERE id = $1`, id)
	a, err := pgx.CollectExactlyOneRow(rows, scanAccount)
	return a, explain("customer "+id, err)
}

// AccountByStripeID reads the customer that Stripe knows by that id.
func (s *Store) AccountByStripeID(ctx context.Context, stripeID string) (control.Account, error) {
	rows, _ := s.pool.Query(ctx, selectAccounts+` WHERE stripe_customer_id = $1`, stripeID)
	a, err := pgx.CollectExactlyOneRow(rows, scanAccount)
	return a, explain("customer with Stripe id "+stripeID, err)
}

// SetProfile changes what customers may change themselves.
func (t *Tx) SetProfile(ctx context.Context, actor, id, name string, language control.Language, at time.Time) error {
	tag, err := t.tx.Exec(ctx, `UPDATE customers SET name = $2, language = $3, updated_at = $4 WHERE id = $1`, id, name, string(language), at)
	if err == nil && tag.RowsAffected() == 0 {
		err = pgx.ErrNoRows
	}
	if err != nil {
		return explain("profile of customer "+id, err)
	}
	return t.AddAudit(ctx, control.Audit{Actor: actor, Action: "customer.profile", CustomerID: id, Target: id})
}

// SetCustomerTier changes the tier of a customer. Its grants have to be announced in the
// same transaction.
func (t *Tx) SetCustomerTier(ctx context.Context, id, tier string, at time.Time) (control.Customer, error) {
	if _, err := t.tx.Exec(ctx, `UPDATE customers SET tier = $2, updated_at = $3 WHERE id = $1`, id, tier, at); err != nil {
		return control.Customer{}, explain("set tier of customer "+id, err)
	}
	return t.LockCustomer(ctx, id)
}

// SetStripeID notes which customer of Stripe a customer is, once: another one later is
// control.ErrExists, and so is one that another customer has.
func (t *Tx) SetStripeID(ctx context.Context, actor, id, stripeID string) error {
	var before *string
	if err := t.tx.QueryRow(ctx, `SELECT stripe_customer_id FROM customers WHERE id = $1 FOR NO KEY UPDATE`, id).Scan(&before); err != nil {
		return explain("customer "+id, err)
	}
	if before != nil {
		if *before == stripeID {
			return nil
		}
		return fmt.Errorf("set Stripe id of customer %s: %w", id, control.ErrExists)
	}
	if _, err := t.tx.Exec(ctx, `UPDATE customers SET stripe_customer_id = $2, updated_at = now() WHERE id = $1`, id, stripeID); err != nil {
		return explain("Stripe id of customer "+id, err)
	}
	return t.AddAudit(ctx, control.Audit{
		Actor: actor, Action: "customer.stripe", CustomerID: id, Target: id, Detail: map[string]any{"stripe_id": stripeID},
	})
}

// InsertOperator adds an operator. An e-mail address that is taken is control.ErrExists.
func (t *Tx) InsertOperator(ctx context.Context, actor string, o control.Operator) error {
	_, err := t.tx.Exec(ctx, `
		INSERT INTO operators (id, email, role, password_hash, created_at, updated_at) VALUES ($1, lower($2), $3, $4, $5, $5)`,
		o.ID, o.Email, string(o.Role), o.PasswordHash, o.CreatedAt)
	if err != nil {
		return explain("insert operator", err)
	}
	return t.AddAudit(ctx, control.Audit{Actor: actor, Action: "operator.create", Target: o.ID, Detail: map[string]any{"role": o.Role}})
}

// Operator reads an operator by id, disabled ones included.
func (s *Store) Operator(ctx context.Context, id string) (control.Operator, error) {
	rows, _ := s.pool.Query(ctx, selectOperators+` WHERE id = $1`, id)
	o, err := pgx.CollectExactlyOneRow(rows, scanOperator)
	return o, explain("operator "+id, err)
}

// OperatorByEmail reads an operator, disabled ones included. Capital letters do not count.
func (s *Store) OperatorByEmail(ctx context.Context, email string) (control.Operator, error) {
	rows, _ := s.pool.Query(ctx, selectOperators+` WHERE email = lower($1)`, email)
	o, err := pgx.CollectExactlyOneRow(rows, scanOperator)
	return o, explain("operator by e-mail", err)
}

// Operators lists all operators, oldest first.
func (s *Store) Operators(ctx context.Context) ([]control.Operator, error) {
	rows, _ := s.pool.Query(ctx, selectOperators+` ORDER BY created_at, id`)
	list, err := pgx.CollectRows(rows, scanOperator)
	return list, explain("operators", err)
}

// DisableOperator keeps an operator out for good, and ends all of its sessions.
func (t *Tx) DisableOperator(ctx context.Context, actor, id string, at time.Time) error {
	tag, err := t.tx.Exec(ctx, `UPDATE operators SET disabled_at = coalesce(disabled_at, $2), updated_at = $2 WHERE id = $1`, id, at)
	if err == nil && tag.RowsAffected() == 0 {
		err = pgx.ErrNoRows
	}
	if err != nil {
		return explain("disable operator "+id, err)
	}
	if _, err := t.RevokeSessions(ctx, actor, control.Subject{Kind: control.SubjectOperator, ID: id}, "disabled", at); err != nil {
		return err
	}
	return t.AddAudit(ctx, control.Audit{Actor: actor, Action: "operator.disable", Target: id})
}

// orNull is the way back from orZero.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
