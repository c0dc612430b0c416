package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// maxListed is how many jobs River lists at once.
const maxListed = 10_000

// List lists jobs of a state, or with "" of all that are kept, newest first, from before an
// id on (0 for the first page, then the last id of the page before).
func (j *Jobs) List(ctx context.Context, state string, before int64, limit int) ([]control.Job, error) {
	params := river.NewJobListParams().OrderBy(river.JobListOrderByID, river.SortOrderDesc).First(min(limit, maxListed))
	if state != "" {
		params = params.States(rivertype.JobState(state))
	}
	if before > 0 {
		params = params.Where("id < @before", river.NamedArgs{"before": before})
	}
	result, err := j.list(ctx, params)
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	out := make([]control.Job, 0, len(result.Jobs))
	for _, r := range result.Jobs {
		v := control.Job{
			ID: r.ID, Kind: r.Kind, State: string(r.State), Attempt: r.Attempt, MaxAttempts: r.MaxAttempts,
			CreatedAt: r.CreatedAt.UTC(), ScheduledAt: r.ScheduledAt.UTC(),
		}
		if r.FinalizedAt != nil {
			v.FinishedAt = r.FinalizedAt.UTC().Truncate(time.Microsecond)
		}
		if n := len(r.Errors); n > 0 {
			v.Error = r.Errors[n-1].Error
		}
		out = append(out, v)
	}
	return out, nil
}

// Retry has a job worked again now, unless it runs just now. One that is not there is
// control.ErrNotFound.
func (j *Jobs) Retry(ctx context.Context, id int64) error {
	return named("retry", id, j.retry(ctx, id))
}

// Cancel has a job not worked any more; one that runs is told to stop. One that is not there
// is control.ErrNotFound. One that revokes a token is control.ErrInvalid: without it a token
// that was replaced, because somebody has a copy of it, would stay good for ever.
func (j *Jobs) Cancel(ctx context.Context, id int64) error {
	kind, err := j.kind(ctx, id)
	if err == nil && kind == (revocationArgs{}).Kind() {
		err = fmt.Errorf("%w: it revokes a token, which nothing else would do", control.ErrInvalid)
	}
	if err == nil {
		err = j.cancel(ctx, id)
	}
	return named("cancel", id, err)
}

func named(what string, id int64, err error) error {
	if errors.Is(err, rivertype.ErrNotFound) {
		err = control.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("%s job %d: %w", what, id, err)
	}
	return nil
}
