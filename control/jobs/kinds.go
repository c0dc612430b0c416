package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

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
	// hintsFor is after how long a job that nobody works is removed which is only a hint, as where
	// no mail server or no Kubernetes is set up: whoever sends mails also looks for those without a job,
	// and the operator of the boxes looks at all of them.
	hintsFor = time.Hour
	// retentionQueue is worked by processes that remove what was kept for long enough.
	retentionQueue = "retention"
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

// retentionOpts has one such job wait at most, also where nobody works it.
func retentionOpts() *river.InsertOpts {
	return &river.InsertOpts{Queue: retentionQueue, UniqueOpts: river.UniqueOpts{ByState: []rivertype.JobState{
		rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning, rivertype.JobStateScheduled,
	}}}
}

type retentionWorker struct {
	river.WorkerDefaults[retentionArgs]
	store *store.Store
	// drop removes hints of before a time that nobody works, at most pruned.
	drop func(ctx context.Context, before time.Time) (int64, error)
}

// Work removes what was kept for long enough. The usage events are not its business: how
// long they are kept is for the program that it runs in to know.
func (w *retentionWorker) Work(ctx context.Context, _ *river.Job[retentionArgs]) error {
	now := time.Now()
	return errors.Join(
		everything(func() (int64, error) { return w.store.PruneSignIns(ctx, now, pruned) }),
		everything(func() (int64, error) { return w.store.PruneStripeEvents(ctx, stripeEventsFor, pruned) }),
		everything(func() (int64, error) { return w.drop(ctx, now.Add(-hintsFor)) }))
}

// everything calls prune until it removes less than it may.
func everything(prune func() (int64, error)) error {
	for {
		if n, err := prune(); err != nil || n < pruned {
			return err
		}
	}
}
