package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// querier is what a pool and a transaction have in common.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

const (
	selectCustomers = `SELECT id, name, coalesce(email, ''), tier, status, created_at FROM customers`
	boxColumns      = `id, customer_id, namespace, state, wants, generation, observed_generation, message, created_at, changed_at`
	selectBoxes     = `SELECT ` + boxColumns + ` FROM boxes`
	tokenColumns    = `id, customer_id, box_id, digest, hint, version, status, created_at, revoked_at, ends_at` // #nosec G101 -- names of columns
	selectTokens    = `SELECT ` + tokenColumns + ` FROM proxy_tokens`
	periodColumns   = `customer_id, period_id, starts_at, ends_at, coalesce(limit_tokens, 0), limit_version,
		requests, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, settled_tokens, unbilled_tokens`
	selectPeriods = `SELECT ` + periodColumns + ` FROM usage_periods`
)

func scanCustomer(row pgx.CollectableRow) (c control.Customer, err error) {
	err = row.Scan(&c.ID, &c.Name, &c.Email, &c.Tier, &c.Status, &c.CreatedAt)
	c.CreatedAt = c.CreatedAt.UTC()
	return c, err
}

func scanBox(row pgx.CollectableRow) (b control.Box, err error) {
	err = row.Scan(boxFields(&b)...)
	return inUTC(b), err
}

// boxFields are where the columns of a box go.
func boxFields(b *control.Box) []any {
	return []any{&b.ID, &b.CustomerID, &b.Namespace, &b.State, &b.Wants, &b.Generation, &b.Observed, &b.Message, &b.CreatedAt, &b.ChangedAt}
}

func inUTC(b control.Box) control.Box {
	b.CreatedAt, b.ChangedAt = b.CreatedAt.UTC(), b.ChangedAt.UTC()
	return b
}

func scanToken(row pgx.CollectableRow) (k control.ProxyToken, err error) {
	var digest []byte
	var revoked, ends *time.Time
	err = row.Scan(&k.ID, &k.CustomerID, &k.BoxID, &digest, &k.Hint, &k.Version, &k.Status, &k.CreatedAt, &revoked, &ends)
	if err != nil {
		return k, err
	}
	if len(digest) != len(k.Digest) {
		return k, fmt.Errorf("token %s: digest of %d bytes", k.ID, len(digest))
	}
	k.Digest = contract.Digest(digest)
	k.CreatedAt, k.RevokedAt, k.EndsAt = k.CreatedAt.UTC(), orZero(revoked), orZero(ends)
	return k, nil
}

func scanPeriod(row pgx.CollectableRow) (p control.UsagePeriod, err error) {
	var start, end *time.Time
	t := &p.Totals
	err = row.Scan(&p.CustomerID, &p.ID, &start, &end, &p.LimitTokens, &p.LimitVersion,
		&t.Requests, &t.Prompt, &t.Cached, &t.Completion, &t.Reasoning, &t.Settled, &t.Unbilled)
	p.Start, p.End = orZero(start), orZero(end)
	return p, err
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func periodAt(ctx context.Context, q querier, customer string, at time.Time) (control.UsagePeriod, error) {
	rows, _ := q.Query(ctx, selectPeriods+`
		WHERE customer_id = $1 AND starts_at <= $2 AND ends_at > $2 ORDER BY starts_at DESC LIMIT 1`, customer, at)
	p, err := pgx.CollectExactlyOneRow(rows, scanPeriod)
	return p, explain(fmt.Sprintf("period of customer %s at %s", customer, at.UTC().Format(time.RFC3339)), err)
}

// Customer reads one customer.
func (s *Store) Customer(ctx context.Context, id string) (control.Customer, error) {
	rows, _ := s.pool.Query(ctx, selectCustomers+` WHERE id = $1`, id)
	c, err := pgx.CollectExactlyOneRow(rows, scanCustomer)
	return c, explain("customer "+id, err)
}

// Customers lists all customers by age, at most limit of them, from after on ("" for
// the first page, then the last id of the page before).
func (s *Store) Customers(ctx context.Context, after string, limit int) ([]control.Customer, error) {
	rows, _ := s.pool.Query(ctx, selectCustomers+`
		WHERE $1 = '' OR (created_at, id) > (SELECT created_at, id FROM customers WHERE id = $1)
		ORDER BY created_at, id LIMIT $2`, after, limit)
	list, err := pgx.CollectRows(rows, scanCustomer)
	return list, explain("list customers", err)
}

// Token reads one proxy token by its id.
func (s *Store) Token(ctx context.Context, id string) (control.ProxyToken, error) {
	return token(ctx, s.pool, id)
}

func token(ctx context.Context, q querier, id string) (control.ProxyToken, error) {
	rows, _ := q.Query(ctx, selectTokens+` WHERE id = $1`, id)
	k, err := pgx.CollectExactlyOneRow(rows, scanToken)
	return k, explain("token "+id, err)
}

// Tokens lists the proxy tokens of a customer, oldest first.
func (s *Store) Tokens(ctx context.Context, customer string) ([]control.ProxyToken, error) {
	rows, _ := s.pool.Query(ctx, selectTokens+` WHERE customer_id = $1 ORDER BY created_at, id`, customer)
	tokens, err := pgx.CollectRows(rows, scanToken)
	return tokens, explain("tokens of customer "+customer, err)
}

// PeriodAt returns the period of a customer that contains at; the error is
// control.ErrNotFound if none does.
func (s *Store) PeriodAt(ctx context.Context, customer string, at time.Time) (control.UsagePeriod, error) {
	return periodAt(ctx, s.pool, customer, at)
}

// Periods lists the newest periods of a customer, newest first. Those that are not
// known but have usage come first of all, because someone should look at them.
func (s *Store) Periods(ctx context.Context, customer string, limit int) ([]control.UsagePeriod, error) {
	rows, _ := s.pool.Query(ctx, selectPeriods+`
		WHERE customer_id = $1 ORDER BY starts_at DESC NULLS FIRST, period_id DESC LIMIT $2`, customer, limit)
	list, err := pgx.CollectRows(rows, scanPeriod)
	return list, explain("periods of customer "+customer, err)
}

// Due is a customer whose last period has ended.
type Due struct {
	ID  string
	End time.Time // of the period
}

// DueForRenewal lists customers, at most limit, that are not cancelled and whose
// known periods have all ended by at: those that wait longest first, from after on
// (zero for the first page, then the last entry of the page before).
func (s *Store) DueForRenewal(ctx context.Context, at time.Time, after Due, limit int) ([]Due, error) {
	rows, _ := s.pool.Query(ctx, dueForRenewal, at, after.End, after.ID, limit)
	due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Due])
	return due, explain("customers due for renewal", err)
}

const dueForRenewal = `
	SELECT id, renews_at FROM customers
	WHERE status <> 'cancelled' AND renews_at <= $1 AND (renews_at, id) > ($2, $3)
	ORDER BY renews_at, id LIMIT $4`

// eventList is the columns of an event, for scanEvent.
const eventList = `replica, seq, admitted_at, period_id, request_id, upstream_request_id, customer_id, box_id, token_id, tier,
	model_asked, model_served, face, upstream, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
	settled_tokens, unbilled_tokens, reserved_tokens, basis, outcome, status, ttfb_us, duration_us`

func scanEvent(row pgx.CollectableRow) (e contract.Event, err error) {
	err = row.Scan(&e.Replica, &e.Seq, &e.AdmittedAt, &e.PeriodID, &e.RequestID, &e.UpstreamRequestID, &e.CustomerID,
		&e.BoxID, &e.TokenID, &e.Tier, &e.ModelAsked, &e.ModelServed, &e.Face, &e.Upstream, &e.Prompt, &e.Cached,
		&e.Completion, &e.Reasoning, &e.Settled, &e.Unbilled, &e.Reserved, &e.Basis, &e.Outcome, &e.Status,
		&e.TTFBMicros, &e.DurationMicros)
	e.AdmittedAt = e.AdmittedAt.UTC()
	return e, err
}

// Events lists the newest usage events of a customer, newest first.
func (s *Store) Events(ctx context.Context, customer string, limit int) ([]contract.Event, error) {
	rows, _ := s.pool.Query(ctx, `SELECT `+eventList+`
		FROM usage_events WHERE customer_id = $1 ORDER BY admitted_at DESC, replica, seq DESC LIMIT $2`, customer, limit)
	list, err := pgx.CollectRows(rows, scanEvent)
	return list, explain("events of customer "+customer, err)
}
