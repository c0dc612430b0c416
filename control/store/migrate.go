package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/andreabadesso/openclaw-cloud/control"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// How long a process waits for another one that is migrating.
const (
	lockPollSeconds = 1
	lockPolls       = 300
)

// Migrate brings the schema to the newest version. Any number of processes may call
// it at once: they take turns under a session lock, and the later ones find nothing
// to do. It returns how many migrations this call applied.
func (s *Store) Migrate(ctx context.Context) (int, error) {
	var applied int
	err := s.withMigrations(func(p *goose.Provider) error {
		results, err := p.Up(ctx)
		applied = len(results)
		return err
	})
	if err != nil {
		return applied, fmt.Errorf("migrate: %w", err)
	}
	return applied, nil
}

// MigrateDownTo takes the schema back to version; 0 removes everything, data
// included. It exists for tests and for the way back from a failed release.
func (s *Store) MigrateDownTo(ctx context.Context, version int64) error {
	err := s.withMigrations(func(p *goose.Provider) error {
		_, err := p.DownTo(ctx, version)
		return err
	})
	if err != nil {
		return fmt.Errorf("migrate down to %d: %w", version, err)
	}
	s.forgetMonths()
	return nil
}

// CheckSchema returns control.ErrSchema if the database has not the newest schema.
// One that is newer than this build is accepted: releases overlap.
func (s *Store) CheckSchema(ctx context.Context) error {
	return s.withMigrations(func(p *goose.Provider) error {
		want := p.ListSources()[len(p.ListSources())-1].Version
		// Asked by hand: the provider would create its table, and wait for the lock.
		var have int64
		row := s.pool.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`)
		if err := row.Scan(&have); err != nil && sqlState(err) != codeUndefinedTable {
			return explain("check schema", err)
		}
		if have < want {
			return fmt.Errorf("check schema: %w: it has version %d, this build needs %d; run \"control migrate\"",
				control.ErrSchema, have, want)
		}
		return nil
	})
}

// withMigrations lends a provider with a connection of its own: goose speaks
// database/sql, and its lock belongs to one session.
func (s *Store) withMigrations(do func(*goose.Provider) error) (err error) {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	cfg := s.pool.Config().ConnConfig.Copy()
	delete(cfg.RuntimeParams, "statement_timeout") // a migration may take its time
	db := stdlib.OpenDB(*cfg)
	defer func() {
		if cerr := db.Close(); err == nil && cerr != nil {
			err = cerr
		}
	}()
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(lockPollSeconds, lockPolls))
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	return do(p)
}
