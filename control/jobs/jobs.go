package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	// connections of River's own: one waits for notifications, the others fetch and finish.
	connections = 4
	// workers is how many jobs run at once in a process.
	workers = 4
	// timeout of one attempt. Jobs that need longer stop and are tried again.
	timeout = 5 * time.Minute
	// stuckAfter is after how long a job is worked again whose process died. None runs for as long.
	stuckAfter = timeout + time.Minute
)

// Handlers do the jobs of the kinds that are not done here. A process works the queues that
// it has the handlers of, and leaves the others to other processes.
type Handlers struct {
	// SendMails sends the mails that are due. It is called once per mail that was added,
	// at least, and may find that another call has sent it.
	SendMails func(context.Context) error
	// Retention has the process do what the jobs do by themselves: remove what was kept for
	// long enough. It needs nothing but Postgres.
	Retention bool
	// RevokeToken revokes a token for ever. It may be called again.
	RevokeToken func(ctx context.Context, tokenID string) error
	// WakeBox has the operator of the boxes look at one soon. It may be called again, also for a
	// box that is no more.
	WakeBox func(ctx context.Context, boxID string) error
}

// Jobs inserts jobs and, after Start, works them. It is safe for concurrent use.
type Jobs struct {
	// The client is held by what it does: its type would name pgx, whose home is store.
	insert func(context.Context, *store.Tx, river.JobArgs, *river.InsertOpts) error
	start  func(context.Context) error
	stop   func(context.Context) error
	close  func()

	list          func(context.Context, *river.JobListParams) (*river.JobListResult, error)
	retry, cancel func(context.Context, int64) error
	kind          func(context.Context, int64) (string, error)
}

// Migrate brings River's tables to the version that this build needs, and returns how
// many migrations that took. Any number of processes may call it at once.
func Migrate(ctx context.Context, st *store.Store, log *slog.Logger) (applied int, err error) {
	pool, err := st.RiverPool(ctx, 2)
	if err != nil {
		return 0, fmt.Errorf("migrate jobs: %w", err)
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: log})
	if err != nil {
		return 0, fmt.Errorf("migrate jobs: %w", err)
	}
	err = st.MigrateAlone(ctx, func(ctx context.Context) error {
		result, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
		if err == nil {
			applied = len(result.Versions)
		}
		return err
	})
	if err != nil {
		return applied, fmt.Errorf("migrate jobs: %w", err)
	}
	return applied, nil
}

// New returns Jobs on the database of st; without handlers they can only be inserted. The
// error is control.ErrSchema if Migrate has not run, and control.ErrInvalid if
// handlers has none. The caller closes it.
func New(ctx context.Context, st *store.Store, log *slog.Logger, handlers *Handlers) (*Jobs, error) {
	if handlers != nil && handlers.SendMails == nil && handlers.RevokeToken == nil && handlers.WakeBox == nil && !handlers.Retention {
		return nil, fmt.Errorf("jobs: %w: a handler is missing", control.ErrInvalid)
	}
	pool, err := st.RiverPool(ctx, connections)
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	driver := riverpgxv5.New(pool)
	if err := func() error {
		migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: log})
		if err != nil {
			return err
		}
		state, err := migrator.Validate(ctx, nil)
		if err == nil && !state.OK {
			err = fmt.Errorf("%w: %s; run \"control migrate\"", control.ErrSchema, strings.Join(state.Messages, ", "))
		}
		return err
	}(); err != nil {
		pool.Close()
		return nil, fmt.Errorf("jobs: %w", err)
	}
	cfg := &river.Config{Logger: log, JobTimeout: timeout, RescueStuckJobsAfter: stuckAfter}
	retention := &retentionWorker{store: st}
	if handlers != nil {
		cfg.Workers = river.NewWorkers()
		river.AddWorker(cfg.Workers, retention)
		river.AddWorker(cfg.Workers, &mailWorker{send: handlers.SendMails})
		river.AddWorker(cfg.Workers, &revocationWorker{revoke: handlers.RevokeToken})
		river.AddWorker(cfg.Workers, &boxWorker{wake: handlers.WakeBox})
		cfg.Queues = map[string]river.QueueConfig{}
		if handlers.SendMails != nil {
			cfg.Queues[river.QueueDefault] = river.QueueConfig{MaxWorkers: workers}
		}
		if handlers.Retention {
			cfg.Queues[retentionQueue] = river.QueueConfig{MaxWorkers: 1}
		}
		if handlers.RevokeToken != nil {
			cfg.Queues[tokenQueue] = river.QueueConfig{MaxWorkers: workers}
		}
		if handlers.WakeBox != nil {
			cfg.Queues[boxQueue] = river.QueueConfig{MaxWorkers: workers}
		}
		// Whichever process leads inserts them, so all that may lead have to know them.
		cfg.PeriodicJobs = []*river.PeriodicJob{river.NewPeriodicJob(river.PeriodicInterval(retentionEvery),
			func() (river.JobArgs, *river.InsertOpts) { return retentionArgs{}, retentionOpts() }, &river.PeriodicJobOpts{RunOnStart: true})}
	}
	client, err := river.NewClient(driver, cfg)
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("jobs: %w", err)
	}
	retention.drop = func(ctx context.Context, before time.Time) (int64, error) {
		result, err := client.JobDeleteMany(ctx, river.NewJobDeleteManyParams().Kinds(mailArgs{}.Kind(), boxArgs{}.Kind()).States(rivertype.JobStateAvailable).
			Where("created_at < @before", river.NamedArgs{"before": before}).First(pruned))
		if err != nil {
			return 0, fmt.Errorf("remove old jobs: %w", err)
		}
		return int64(len(result.Jobs)), nil
	}
	return &Jobs{
		insert: func(ctx context.Context, tx *store.Tx, args river.JobArgs, opts *river.InsertOpts) error {
			_, err := client.InsertTx(ctx, tx.RiverTx(), args, opts)
			return err
		},
		start: client.Start,
		stop:  client.Stop,
		close: pool.Close,
		list:  client.JobList,
		retry: func(ctx context.Context, id int64) error { _, err := client.JobRetry(ctx, id); return err },
		kind: func(ctx context.Context, id int64) (string, error) {
			job, err := client.JobGet(ctx, id)
			if err != nil {
				return "", err
			}
			return job.Kind, nil
		},
		cancel: func(ctx context.Context, id int64) error {
			_, err := client.JobCancel(ctx, id)
			return err
		},
	}, nil
}

// Start begins to work jobs; Jobs without handlers cannot. They are worked until Stop, or
// until ctx ends, which cuts those that run off.
func (j *Jobs) Start(ctx context.Context) error {
	if err := j.start(ctx); err != nil {
		return fmt.Errorf("start jobs: %w", err)
	}
	return nil
}

// Stop fetches no more jobs and waits for those that run, until ctx ends. Those that still
// run then are tried again later.
func (j *Jobs) Stop(ctx context.Context) error {
	if err := j.stop(ctx); err != nil {
		return fmt.Errorf("stop jobs: %w", err)
	}
	return nil
}

// Close ends the connections. Call it after Stop, if it was started.
func (j *Jobs) Close() { j.close() }

// AddMail puts a mail into the outbox and a job that sends it, in the same transaction,
// and reports whether there was none yet of that kind and cause.
func (j *Jobs) AddMail(ctx context.Context, tx *store.Tx, m control.Mail) (fresh bool, err error) {
	fresh, err = tx.AddMail(ctx, m)
	if err != nil || !fresh {
		return fresh, err
	}
	// Not unique: a job that runs already may have looked before this one is committed.
	if err := j.insert(ctx, tx, mailArgs{}, nil); err != nil {
		return false, fmt.Errorf("add mail %s for customer %s: %w", m.Kind, m.CustomerID, err)
	}
	return true, nil
}
