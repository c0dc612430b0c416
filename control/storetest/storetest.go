// Package storetest gives tests databases that the control plane has set up. Each test process
// migrates once; tests get copies, which cost a tenth of that.
package storetest

import (
	"context"
	"log/slog"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// Postgres returns a fresh database with the newest schema, but without the tables of jobs.
func Postgres(t testing.TB) *testenv.PostgresServer {
	t.Helper()
	return testenv.PreparedPostgres(t, "schema", func(url string) error { return migrate(t.Context(), url, false) })
}

// PostgresWithJobs returns a fresh database as "control migrate" leaves it.
func PostgresWithJobs(t testing.TB) *testenv.PostgresServer {
	t.Helper()
	return testenv.PreparedPostgres(t, "schema with jobs", func(url string) error { return migrate(t.Context(), url, true) })
}

// DedicatedPostgres returns a database as "control migrate" leaves it, on a server of its own.
func DedicatedPostgres(t testing.TB) *testenv.PostgresServer {
	t.Helper()
	pg := testenv.DedicatedPostgres(t)
	if err := migrate(t.Context(), pg.URL, true); err != nil {
		t.Fatal(err)
	}
	return pg
}

func migrate(ctx context.Context, url string, withJobs bool) error {
	st, err := store.Open(ctx, url)
	if err != nil {
		return err
	}
	defer st.Close()
	if _, err := st.Migrate(ctx); err != nil || !withJobs {
		return err
	}
	_, err = jobs.Migrate(ctx, st, slog.New(slog.DiscardHandler))
	return err
}
