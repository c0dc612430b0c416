package jobs

import (
	"context"
	"log/slog"
	"time"

	"github.com/riverqueue/river"

	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	retentionEvery = 6 * time.Hour
	// pruned is how many rows of a table are removed at a time.
	pruned = 1000
)

type mailArgs struct{}

// Kind names the job in Postgres, for good.
func (mailArgs) Kind() string { return "mail" }

type mailWorker struct {
	river.WorkerDefaults[mailArgs]
	send func(context.Context) error
}

// Work sends the mails that are due.
func (w *mailWorker) Work(ctx context.Context, _ *river.Job[mailArgs]) error { return w.send(ctx) }

type retentionArgs struct{}

// Kind names the job in Postgres, for good.
func (retentionArgs) Kind() string { return "retention" }

type retentionWorker struct {
	river.WorkerDefaults[retentionArgs]
	store *store.Store
	log   *slog.Logger
}

// Work removes what was kept for long enough, and makes room for the next months.
func (w *retentionWorker) Work(ctx context.Context, _ *river.Job[retentionArgs]) error {
	if err := w.store.EnsurePartitions(ctx); err != nil {
		return err
	}
	dropped, err := w.store.DropOldPartitions(ctx)
	if len(dropped) > 0 {
		w.log.Info("dropped old partitions of the usage events", "partitions", dropped)
	}
	if err != nil {
		return err
	}
	for {
		n, err := w.store.PruneSignIns(ctx, time.Now(), pruned)
		if err != nil || n < pruned {
			return err
		}
	}
}
