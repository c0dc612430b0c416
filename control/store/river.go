package store

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// River keeps its jobs in Postgres as well, and its driver wants pgx's own types. What
// follows lends them to package jobs, and to nobody else: a test in internal/archtest sees to it.

// RiverPool opens a pool of its own for River, which waits on connections for
// notifications and must not take those of requests. The caller closes it.
func (s *Store) RiverPool(ctx context.Context, connections int32) (*pgxpool.Pool, error) {
	cfg := s.pool.Config()
	cfg.MinConns, cfg.MaxConns = 0, connections
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	return pool, explain("open a pool for jobs", err)
}

// RiverTx lends the transaction, so that a job is inserted together with the change that
// wants it.
func (t *Tx) RiverTx() pgx.Tx { return t.tx }

// MigrateAlone runs do while nobody else on this database does: for migrations of tables
// that are not ours and take no turns by themselves.
func (s *Store) MigrateAlone(ctx context.Context, do func(context.Context) error) error {
	return s.InTx(ctx, func(tx *Tx) error {
		// It waits for others, and idles while do works, for longer than requests may.
		if _, err := tx.tx.Exec(ctx, `
			SELECT set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true)`); err != nil {
			return err
		}
		if _, err := tx.tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('openclaw_migrate_alone'))`); err != nil {
			return err
		}
		return do(ctx)
	})
}
