package main

import (
	"log/slog"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// A process that starts just when Postgres goes away waits for it, and does not end.
func TestJobsWaitForPostgres(t *testing.T) {
	t.Parallel()
	pg := testenv.DedicatedPostgres(t)
	st, err := store.Open(t.Context(), pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	log := slog.New(slog.DiscardHandler)
	if _, err := jobs.Migrate(t.Context(), st, log); err != nil {
		t.Fatal(err)
	}
	pg.Stop()
	type opened struct {
		work *jobs.Jobs
		err  error
	}
	done := make(chan opened, 1)
	go func() {
		work, err := openJobs(t.Context(), st, log, nil)
		done <- opened{work, err}
	}()
	select {
	case o := <-done:
		t.Fatalf("without Postgres: %v", o.err)
	case <-time.After(2 * time.Second):
	}
	pg.Start()
	o := <-done
	if o.err != nil {
		t.Fatal(o.err)
	}
	o.work.Close()
	if _, err := openJobs(t.Context(), st, log, &jobs.Handlers{}); err == nil {
		t.Error("no handler is taken for something that passes")
	}
}
