package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const selectTierTables = `SELECT version, content, created_at, rolled_out_at FROM tier_tables`

func scanTierTable(row pgx.CollectableRow) (v control.TierTable, err error) {
	var rolled *time.Time
	err = row.Scan(&v.Version, &v.Content, &v.CreatedAt, &rolled)
	v.CreatedAt, v.RolledOutAt = v.CreatedAt.UTC(), orZero(rolled)
	return v, err
}

// TierTable reads the newest tier table, if it is newer than a version: otherwise the error is
// control.ErrNotFound.
func (t *Tx) TierTable(ctx context.Context, after int64) (control.TierTable, error) {
	rows, _ := t.tx.Query(ctx, selectTierTables+` WHERE version > $1 ORDER BY version DESC LIMIT 1`, after)
	v, err := pgx.CollectExactlyOneRow(rows, scanTierTable)
	return v, explain("tier table", err)
}

// RolledOutTierTable reads the newest tier table of which all grants were once; without any
// the error is control.ErrNotFound.
func (t *Tx) RolledOutTierTable(ctx context.Context) (control.TierTable, error) {
	rows, _ := t.tx.Query(ctx, selectTierTables+` WHERE rolled_out_at IS NOT NULL ORDER BY version DESC LIMIT 1`)
	v, err := pgx.CollectExactlyOneRow(rows, scanTierTable)
	return v, explain("tier table", err)
}

// AddTierTable puts a tier table into effect, and returns its version. The caller has called
// LockTierTables. detail goes to the audit log.
func (t *Tx) AddTierTable(ctx context.Context, actor, content string, detail map[string]any) (version int64, err error) {
	if err := t.tx.QueryRow(ctx, `INSERT INTO tier_tables (content) VALUES ($1) RETURNING version`, content).Scan(&version); err != nil {
		return 0, explain("add tier table", err)
	}
	return version, t.AddAudit(ctx, control.Audit{Actor: actor, Action: "tiers.set", Target: "tiers", Detail: detail})
}

// LockTierTables keeps others from adding a tier table until the transaction ends.
func (t *Tx) LockTierTables(ctx context.Context) error {
	_, err := t.tx.Exec(ctx, `LOCK TABLE tier_tables IN SHARE ROW EXCLUSIVE MODE`)
	return explain("lock tier tables", err)
}

// TierTableRolledOut notes that all grants are of a version of the tier table.
func (t *Tx) TierTableRolledOut(ctx context.Context, version int64) error {
	tag, err := t.tx.Exec(ctx, `UPDATE tier_tables SET rolled_out_at = now() WHERE version = $1 AND rolled_out_at IS NULL`, version)
	if err != nil || tag.RowsAffected() == 0 {
		return explain("tier table rolled out", err)
	}
	return t.AddAudit(ctx, control.Audit{Actor: "system", Action: "tiers.rolled_out", Target: "tiers", Detail: map[string]any{"version": version}})
}

// GrantsRolledOut notes that a customer's grants, which have to be announced in the same
// transaction, are of a version of the tier table.
func (t *Tx) GrantsRolledOut(ctx context.Context, customer string, version int64) error {
	if _, err := t.tx.Exec(ctx, `UPDATE customers SET grants_tiers = $2 WHERE id = $1`, customer, version); err != nil {
		return explain("grants rolled out", err)
	}
	return t.AddAudit(ctx, control.Audit{
		Actor: "system", Action: "grants.tiers", CustomerID: customer, Target: customer, Detail: map[string]any{"version": version},
	})
}

// TiersInUse lists the tiers that customers have who are not cancelled, or that a
// subscription of theirs has or will have.
func (t *Tx) TiersInUse(ctx context.Context) ([]string, error) {
	rows, _ := t.tx.Query(ctx, `
		SELECT tier FROM customers WHERE status <> 'cancelled'
		UNION SELECT tier FROM subscriptions WHERE status IN ('trialing', 'active', 'past_due', 'unpaid', 'paused')
		UNION SELECT pending_tier FROM subscriptions WHERE pending_tier IS NOT NULL ORDER BY 1`)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return list, explain("tiers in use", err)
}

// CustomersToRollOut lists customers, at most limit, that are served or suspended, by id from
// after on, whose grants are not of version to of the tier table yet and need to be: they
// have one of the tiers, or grants of a version after from, which was not rolled out to its
// end.
func (s *Store) CustomersToRollOut(ctx context.Context, tiers []string, from, to int64, after string, limit int) ([]string, error) {
	rows, _ := s.pool.Query(ctx, `
		SELECT id FROM customers
		WHERE id > $2 AND (tier = ANY($1) OR grants_tiers > $4) AND grants_tiers < $5 AND status IN ('active', 'suspended')
		ORDER BY id LIMIT $3`, tiers, after, limit, from, to)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return list, explain("customers to roll out to", err)
}
