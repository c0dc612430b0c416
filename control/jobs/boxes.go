package jobs

import (
	"context"
	"errors"
	"fmt"

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

// waiting keeps a job of the box from being worked until the transaction ends, if one waits that
// nobody is about to work. River's own way to have one job only would count those that are being
// worked, which may have looked at the box before this change of it.
const waiting = `
	SELECT count(*) FROM (
		SELECT id FROM river_job WHERE kind = $1 AND state IN ('available', 'retryable', 'scheduled') AND args @> jsonb_build_object('box_id', $2::text)
		ORDER BY id LIMIT 1 FOR SHARE SKIP LOCKED) job`

// WakeBox has the operator of the boxes look at one, once the transaction is committed. There
// is one such job at most that waits.
func (j *Jobs) WakeBox(ctx context.Context, tx *store.Tx, boxID string) error {
	var n int
	err := tx.RiverTx().QueryRow(ctx, waiting, boxArgs{}.Kind(), boxID).Scan(&n)
	if err == nil && n == 0 {
		err = j.insert(ctx, tx, boxArgs{boxID}, &river.InsertOpts{Queue: boxQueue})
	}
	if err != nil {
		return fmt.Errorf("wake box %s: %w", boxID, err)
	}
	return nil
}
