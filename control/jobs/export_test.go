package jobs

import (
	"context"

	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// Retain inserts a retention job now, and not only when it is time to.
func (j *Jobs) Retain(ctx context.Context, tx *store.Tx) error {
	return j.insert(ctx, tx, retentionArgs{}, retentionOpts())
}

// Waiting is the query by which WakeBox looks for a job that is due: kind, box.
const Waiting = waiting
