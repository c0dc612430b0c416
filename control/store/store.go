package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Store is a pool of connections to Postgres.
type Store struct {
	pool *pgxpool.Pool
	now  func() time.Time

	monthsMu sync.Mutex
	months   map[string]bool // UTC months known to have their partition

	locksMu sync.Mutex
	locks   map[string]bool // that WithLock has, or asks for
}

// statementTimeout bounds every statement on the server's side, so that a client
// that gave up does not leave work and locks behind.
const statementTimeout = "60000" // milliseconds

// idleInTransaction bounds how long a transaction may wait for its client: a process that
// was stopped, or whose host is gone, must not keep the rows that it locked from others. It
// is less than the ledger's attempts may take, so that those outlast it.
const idleInTransaction = "10000" // milliseconds

// Open connects to the database at url (postgres://…) and checks that it answers.
func Open(ctx context.Context, url string) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		// pgx leaves the password out of this error.
		return nil, fmt.Errorf("open store: %w", err)
	}
	params := cfg.ConnConfig.RuntimeParams
	if params["application_name"] == "" {
		params["application_name"] = "openclaw"
	}
	if params["statement_timeout"] == "" {
		params["statement_timeout"] = statementTimeout
	}
	if params["idle_in_transaction_session_timeout"] == "" {
		params["idle_in_transaction_session_timeout"] = idleInTransaction
	}
	params["timezone"] = "UTC"
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{pool: pool, now: time.Now, months: make(map[string]bool), locks: make(map[string]bool)}
	if err := s.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

// Close ends all connections. It waits for those in use.
func (s *Store) Close() { s.pool.Close() }

// Ping asks whether Postgres answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("ping Postgres: %w", err)
	}
	return nil
}

// SQLSTATE codes that are told apart.
const (
	codeUniqueViolation = "23505"
	codeUndefinedTable  = "42P01"
	codeUndefinedColumn = "42703"
	codeUndefinedFunc   = "42883"
)

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// explain turns what pgx reports into the kinds of package control, and names op.
func explain(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%s: %w", op, control.ErrNotFound)
	}
	switch sqlState(err) {
	case codeUniqueViolation:
		return fmt.Errorf("%s: %w: %w", op, control.ErrExists, err)
	case codeUndefinedTable, codeUndefinedColumn, codeUndefinedFunc:
		return fmt.Errorf("%s: %w: %w", op, control.ErrSchema, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}
