package jobs

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/riverqueue/river"

	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	retentionEvery = 6 * time.Hour
	// pruned is how many rows of a table are removed at a time.
	pruned = 1000
	// stripeEventsFor is how long processed events of Stripe are kept, so that duplicates are
	// recognised: Stripe repeats an event by itself for 3 days, and can be made to for 30. One that
	// comes later still is processed like a new one, which changes nothing; it only costs
	// the look.
	stripeEventsFor = 90 * 24 * time.Hour
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
	return errors.Join(
		everything(func() (int64, error) { return w.store.PruneSignIns(ctx, time.Now(), pruned) }),
		everything(func() (int64, error) { return w.store.PruneStripeEvents(ctx, stripeEventsFor, pruned) }))
}

// everything calls prune until it removes less than it may.
func everything(prune func() (int64, error)) error {
	for {
		if n, err := prune(); err != nil || n < pruned {
			return err
		}
	}
}
