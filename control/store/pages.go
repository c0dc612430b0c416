package store

import (
	"context"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Each list here is read page by page, by a key and not by an offset: whatever is added or
// removed meanwhile, nothing else is seen twice or not at all, and the last page costs
// what the first one does.

const byAge = ` ORDER BY created_at, id LIMIT $4`

// ofCustomer makes the condition that lists of all customers do without.
func ofCustomer(customer string) string {
	if customer == "" {
		return ` WHERE (created_at, id) > ($1, $2) AND $3 = ''` + byAge
	}
	return ` WHERE (created_at, id) > ($1, $2) AND customer_id = $3` + byAge
}

// TokensPage lists proxy tokens by age, oldest first, of one customer or, with "", of all.
func (s *Store) TokensPage(ctx context.Context, customer string, after control.PageKey, limit int) ([]control.ProxyToken, error) {
	rows, _ := s.pool.Query(ctx, selectTokens+ofCustomer(customer), after.At, after.ID, customer, limit)
	list, err := pgx.CollectRows(rows, scanToken)
	return list, explain("list tokens", err)
}

// numberOf makes of the id before which a page begins one that has none before it.
func numberOf(before int64) int64 {
	if before <= 0 {
		return math.MaxInt64
	}
	return before
}

const selectAudit = `SELECT id, at, actor, action, coalesce(customer_id, ''), target, detail FROM audit_log`

// selectAuditForCustomers leaves out what operators read of boxes: see Tx.ReportBox.
const selectAuditForCustomers = `SELECT id, at, actor, action, coalesce(customer_id, ''), target,
	CASE WHEN action LIKE 'box.%' THEN detail - '` + auditedMessage + `' - '` + auditedFailure + `' ELSE detail END FROM audit_log`

func scanAudit(row pgx.CollectableRow) (a control.AuditEntry, err error) {
	err = row.Scan(&a.ID, &a.At, &a.Actor, &a.Action, &a.CustomerID, &a.Target, &a.Detail)
	a.At = a.At.UTC()
	return a, err
}

// AuditPage lists the audit log, newest first, of one customer or, with "", of all, from
// before on: 0 for the first page, then the last id of the page before.
func (s *Store) AuditPage(ctx context.Context, customer string, before int64, limit int) ([]control.AuditEntry, error) {
	return auditPage(ctx, s.pool, selectAudit, customer, before, limit)
}

// AuditPage lists the audit log of a customer as customers may read it: see Store.AuditPage.
func (t *Tx) AuditPage(ctx context.Context, customer string, before int64, limit int) ([]control.AuditEntry, error) {
	return auditPage(ctx, t.tx, selectAuditForCustomers, customer, before, limit)
}

func auditPage(ctx context.Context, q querier, columns, customer string, before int64, limit int) ([]control.AuditEntry, error) {
	where, args := ` WHERE id < $1`, []any{numberOf(before), limit}
	if customer != "" {
		where, args = ` WHERE id < $1 AND customer_id = $3`, append(args, customer)
	}
	rows, _ := q.Query(ctx, columns+where+` ORDER BY id DESC LIMIT $2`, args...)
	list, err := pgx.CollectRows(rows, scanAudit)
	return list, explain("audit log", err)
}

// DeadLettersPage lists what was parked, newest first, from before on: 0 for the first
// page, then the last id of the page before. waiting leaves out what was replayed or dropped.
func (s *Store) DeadLettersPage(ctx context.Context, waiting bool, before int64, limit int) ([]control.DeadLetter, error) {
	where := ` WHERE id < $1`
	if waiting {
		where += ` AND replayed_at IS NULL AND dropped_at IS NULL`
	}
	rows, _ := s.pool.Query(ctx, selectDeadLetters+where+` ORDER BY id DESC LIMIT $2`, numberOf(before), limit)
	list, err := pgx.CollectRows(rows, scanDeadLetter)
	return list, explain("dead letters", err)
}

// StripeEventsPage lists the inbox, newest first, from before on (zero for the first page,
// then time of receipt and id of the last one of the page before).
func (s *Store) StripeEventsPage(ctx context.Context, before control.PageKey, limit int) ([]control.StripeEvent, error) {
	if before.At.IsZero() {
		before.At = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	rows, _ := s.pool.Query(ctx, `SELECT `+stripeEventColumns+` FROM stripe_events
		WHERE (received_at, id) < ($1, $2) ORDER BY received_at DESC, id DESC LIMIT $3`, before.At, before.ID, limit)
	list, err := pgx.CollectRows(rows, scanStripeEvent)
	return list, explain("Stripe events", err)
}
