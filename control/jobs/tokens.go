package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/riverqueue/river"

	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// tokenQueue is worked by processes that can tell the proxies.
const tokenQueue = "tokens"

type revocationArgs struct {
	Token string `json:"token_id"`
}

// Kind names the job in Postgres, for good.
func (revocationArgs) Kind() string { return "token_revocation" }

type revocationWorker struct {
	river.WorkerDefaults[revocationArgs]
	revoke func(context.Context, string) error
}

// Work revokes a token.
func (w *revocationWorker) Work(ctx context.Context, job *river.Job[revocationArgs]) error {
	if w.revoke == nil {
		return errors.New("BUG: this process does not work the queue of tokens")
	}
	return w.revoke(ctx, job.Args.Token)
}

// revocationAttempts lets a revocation outlast days without Redis: they are made less and
// less often.
const revocationAttempts = 100

// RevokeTokenAt has a token revoked at a time, if the transaction is committed.
func (j *Jobs) RevokeTokenAt(ctx context.Context, tx *store.Tx, tokenID string, at time.Time) error {
	opts := &river.InsertOpts{Queue: tokenQueue, ScheduledAt: at, MaxAttempts: revocationAttempts}
	if err := j.insert(ctx, tx, revocationArgs{tokenID}, opts); err != nil {
		return fmt.Errorf("have token %s revoked later: %w", tokenID, err)
	}
	return nil
}
