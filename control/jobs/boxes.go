package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/riverqueue/river"

	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// boxQueue is worked by the operator of the boxes only.
const boxQueue = "boxes"

type boxArgs struct {
	Box string `json:"box_id"`
}

// Kind names the job in Postgres, for good.
func (boxArgs) Kind() string { return "box" }

type boxWorker struct {
	river.WorkerDefaults[boxArgs]
	wake func(context.Context, string) error
}

// Work has the operator look at a box.
func (w *boxWorker) Work(ctx context.Context, job *river.Job[boxArgs]) error {
	if w.wake == nil {
		return errors.New("BUG: this process does not work the queue of boxes")
	}
	return w.wake(ctx, job.Args.Box)
}

// NextRetry has a box looked at again soon: its operator makes pauses of its own.
func (w *boxWorker) NextRetry(*river.Job[boxArgs]) time.Time { return time.Now().Add(boxPause) }

const (
	boxPause = 5 * time.Second
	// boxAttempts let a wake outlast an hour in which the operator cannot take it.
	boxAttempts = 1000
)

// waiting keeps a job of the box from being worked until the transaction ends, if one is due
// that nobody is about to work. River's own way to have one job only would count those that are
// being worked, which may have looked at the box before this change of it, and those that wait for
// another attempt, which may be long in coming. The box's jobs are found first, by the index of
// arguments: what Postgres thinks of their number would otherwise have it read all jobs.
const waiting = `
	WITH found AS MATERIALIZED (SELECT id FROM river_job WHERE args @> jsonb_build_object('box_id', $2::text))
	SELECT count(*) FROM (
		SELECT job.id FROM river_job job JOIN found ON found.id = job.id
		WHERE job.kind = $1 AND (job.state = 'available' OR job.state IN ('retryable', 'scheduled') AND job.scheduled_at <= now())
		LIMIT 1 FOR SHARE OF job SKIP LOCKED) due`

// WakeBox has the operator of the boxes look at one, once the transaction is committed. There
// is one such job at most that is due.
func (j *Jobs) WakeBox(ctx context.Context, tx *store.Tx, boxID string) error {
	var n int
	err := tx.RiverTx().QueryRow(ctx, waiting, boxArgs{}.Kind(), boxID).Scan(&n)
	if err == nil && n == 0 {
		err = j.insert(ctx, tx, boxArgs{boxID}, &river.InsertOpts{Queue: boxQueue, MaxAttempts: boxAttempts})
	}
	if err != nil {
		return fmt.Errorf("wake box %s: %w", boxID, err)
	}
	return nil
}
