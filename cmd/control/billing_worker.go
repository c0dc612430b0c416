package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/durableredis"
	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
)

// workerSettings are the knobs of the billing-worker.
type workerSettings struct {
	database     secretFlag
	redis        secretFlag
	listen       string
	unsafeRedis  bool
	publishEvery time.Duration
	renewEvery   time.Duration
	keepChanges  time.Duration
	dropEvery    time.Duration
	replicaGrace time.Duration
	tiersFile    string
	ledger       billing.Options
	stripe       stripeSettings
}

func billingWorkerCommand(getenv func(string) string) *cobra.Command {
	var s workerSettings
	cmd := &cobra.Command{
		Use:   "billing-worker",
		Short: "Write what was used to Postgres, and publish changes of grants and limits",
		Long: `billing-worker reads usage events from Redis and writes each of them to Postgres,
once; publishes changes of grants and limits that were committed and not yet
published, and all of them when Redis has lost its data; makes the records that limits
are leased from, and all of them anew after such a loss; opens the next period of
customers whose last one has ended; puts the tier table into effect; and removes what was
kept for long enough: expired sessions and keys, and the usage events of old months.

With a secret key of Stripe it works Stripe's events, which the api takes in, looks after
subscriptions, and reports what was used above limits. With an SMTP server it sends the
mails; without one they are kept in Postgres.

Any number may run. SIGTERM finishes the batch in hand and exits with 0.`,
		Example: `  DATABASE_URL=postgres://openclaw@127.0.0.1:5432/openclaw REDIS_URL=redis://127.0.0.1:6379/0 control billing-worker`,
	}
	f := cmd.Flags()
	s.database.flags(f, databaseFlag, databaseUsage)
	s.redis.flags(f, "redis-url", "Redis 6.2 or newer, which must run with noeviction and an append-only file: "+redisclient.Forms)
	f.StringVar(&s.listen, "listen", ":8082", "address of /healthz, /readyz and /metrics")
	f.BoolVar(&s.unsafeRedis, "allow-unsafe-redis", false, "run although Redis may lose data (for development)")
	f.DurationVar(&s.publishEvery, "publish-every", time.Second, "how often to look for changes that wait to be published, and whether Redis still has those that were")
	f.DurationVar(&s.renewEvery, "renew-every", 5*time.Second, "how often to look for customers whose period has ended")
	f.DurationVar(&s.keepChanges, "keep-published-changes", 14*24*time.Hour, "how long to keep published changes in Postgres")
	f.DurationVar(&s.dropEvery, "drop-old-events-every", 24*time.Hour, "how often to remove the usage events of months that ended more than two years ago; their totals stay; 0 keeps them")
	f.DurationVar(&s.replicaGrace, "replica-grace", 10*time.Second, "how long a token-proxy that hears nothing from Redis may go on with what it leased, whatever its own timeouts.grace; once it is shorter, declare none lost for as long as it was")
	f.StringVar(&s.tiersFile, "tiers-file", "", "the tier table, as YAML, instead of the one that is built in; it is read again when it changes, and put into effect for all processes. One that is not valid changes nothing")
	f.IntVar(&s.ledger.ReadEntries, "ledger-read-entries", 64, "stream entries to read at once")
	f.IntVar(&s.ledger.TxEvents, "ledger-tx-events", 1000, "about how many events go into one transaction")
	f.DurationVar(&s.ledger.Gather, "ledger-gather", 100*time.Millisecond, "how long stream entries gather for the next transaction")
	f.DurationVar(&s.ledger.ClaimIdle, "ledger-claim-idle", 30*time.Second, "how long an entry may be pending before it is taken from a worker that seems dead")
	f.DurationVar(&s.ledger.CommitTimeout, "ledger-commit-timeout", 15*time.Second, "bound of one attempt to write one transaction")
	f.DurationVar(&s.ledger.FinishWithin, "ledger-finish-within", 10*time.Second, "how long the batch in hand may take after SIGTERM")
	f.DurationVar(&s.ledger.AckedEvery, "ledger-acked-every", 3*time.Second, "how often to tell the proxies again which events they may forget")
	f.DurationVar(&s.ledger.RetryMax, "ledger-retry-max", 2*time.Second, "longest pause between attempts while Redis or Postgres is away")
	s.stripe.flags(f)
	return command(cmd, getenv, s.validate, func(cmd *cobra.Command, log *slog.Logger) error {
		return runWorker(cmd.Context(), s, log)
	})
}

// minGrace is the least that replicas may be told.
const minGrace = time.Second

func (s *workerSettings) validate() error {
	_, redisErr := redisTarget(&s.redis)
	errs := []error{
		checkDatabaseURL(&s.database), redisErr,
		positive("publish-every", s.publishEvery), positive("renew-every", s.renewEvery),
		positive("keep-published-changes", s.keepChanges),
		positive("ledger-gather", s.ledger.Gather), positive("ledger-claim-idle", s.ledger.ClaimIdle), positive("ledger-commit-timeout", s.ledger.CommitTimeout),
		positive("ledger-finish-within", s.ledger.FinishWithin), positive("ledger-retry-max", s.ledger.RetryMax),
		positive("ledger-acked-every", s.ledger.AckedEvery), s.stripe.validate(), checkListen("listen", s.listen, ":8082"),
	}
	if s.replicaGrace < minGrace {
		errs = append(errs, fmt.Errorf("--replica-grace must be at least %s, the least that a token-proxy can have", minGrace))
	}
	if s.dropEvery < 0 {
		errs = append(errs, errors.New("--drop-old-events-every must not be negative"))
	}
	if s.ledger.ReadEntries <= 0 || s.ledger.TxEvents <= 0 {
		errs = append(errs, errors.New("--ledger-read-entries and --ledger-tx-events must be positive"))
	}
	s.ledger.RetryMin = min(50*time.Millisecond, s.ledger.RetryMax)
	if errors.Join(errs...) == nil {
		errs = append(errs, s.ledger.Validate()) // the rest, which the options say better
	}
	return errors.Join(errs...)
}

// sendOnce is for clients whose users have their own policy of repeating. A command that
// makes or fills records of an epoch must not be sent again behind the keeper's back: by
// then the epoch may be another one, or Redis one that has lost what the first call made.
var sendOnce = redisclient.Options{MaxRetries: -1, DialerRetries: 1}

func runWorker(ctx context.Context, s workerSettings, log *slog.Logger) error {
	redis.SetLogger(redisLog{log})
	table, err := tiers.Default()
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// Probes are answered while Redis and Postgres are waited for.
	ready := &readiness{}
	admin, err := serveAdmin(s.listen, ready, registry, log)
	if err != nil {
		return err
	}
	defer admin.Close()

	// One client for the ledger's blocking reads alone, another for the rest.
	target, err := redisTarget(&s.redis)
	if err != nil {
		return err
	}
	reader, client := target.Open(sendOnce), target.Open(sendOnce)
	defer reader.Close()
	defer client.Close()
	if err := untilReached(ctx, log, "Redis", func() error { return durableredis.Check(ctx, client) }); err != nil {
		if !errors.Is(err, durableredis.ErrUnsafe) || !s.unsafeRedis {
			return atStart(ctx, err)
		}
		log.Warn("running with an unsafe Redis", "error", err)
	}
	st, err := reachStore(ctx, s.database.Reveal(), registry, log)
	if err != nil {
		return atStart(ctx, err)
	}
	defer st.Close()

	keeper, err := limits.NewKeeper(st, client, limits.Options{Grace: s.replicaGrace, Logger: log, Registerer: registry})
	if err != nil {
		return err
	}
	wake, err := openJobs(ctx, st, log, nil)
	if err != nil {
		return atStart(ctx, err)
	}
	defer wake.Close()
	service := &customers.Service{Store: st, Tiers: table, Grants: feed.NewPublisher(client), Limits: keeper, Wake: wake}
	opts := s.ledger
	opts.Logger, opts.Registerer = log, registry
	ledger, err := billing.NewLedger(reader, st, opts)
	if err != nil {
		return err
	}
	outbox, err := newOutboxMetrics(registry)
	if err != nil {
		return err
	}
	sold, err := newTierFile(s.tiersFile, service, registry)
	if err != nil {
		return err
	}
	evicted, err := newEvictions(client, service, registry, log)
	if err != nil {
		return err
	}
	ready.set(func(ctx context.Context) error { return errors.Join(ledger.Ready(), st.Ping(ctx)) }, notes(evicted.Note, keeper.Note))

	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return ledger.Run(ctx) })
	work.Go(func() error { return keeper.Run(ctx) })
	work.Go(func() error {
		every(ctx, s.publishEvery, log, "publish pending changes", service.PublishPending)
		return nil
	})
	work.Go(func() error {
		every(ctx, tiersEvery, log, "put the tier table into effect", sold.follow)
		return nil
	})
	work.Go(func() error {
		watchRedis(ctx, s.publishEvery, service, log)
		return nil
	})
	work.Go(func() error {
		every(ctx, evictionEvery, log, "write the grants again that Redis may have evicted", evicted.look)
		return nil
	})
	work.Go(func() error {
		every(ctx, outboxEvery, log, "read the state of the outbox", func(ctx context.Context) (int, error) {
			return 0, outbox.update(ctx, st)
		})
		return nil
	})
	work.Go(func() error {
		every(ctx, pruneEvery, log, "prune published changes", func(ctx context.Context) (int, error) {
			return prune(ctx, st, s.keepChanges)
		})
		return nil
	})
	if s.dropEvery > 0 {
		work.Go(func() error {
			every(ctx, s.dropEvery, log, "remove the usage events of old months", func(ctx context.Context) (int, error) {
				dropped, err := st.DropOldPartitions(ctx)
				return len(dropped), err
			})
			return nil
		})
	}
	work.Go(func() error {
		every(ctx, s.renewEvery, log, "renew periods", service.RenewDue)
		return nil
	})
	done, err := s.stripe.start(ctx, work, service, registry, log)
	defer done()
	if err != nil {
		work.Go(func() error { return err })
	}
	return work.Wait()
}

// openStore connects and makes sure that the schema is there.
func openStore(ctx context.Context, url string) (*store.Store, error) {
	st, err := store.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	if err := st.CheckSchema(ctx); err != nil {
		st.Close()
		return nil, err
	}
	return st, nil
}

// checkRedis looks once whether Redis keeps what it is given. One that is away is told of and no error,
// for a process that does most things without it; one that may lose data is an error unless that is
// allowed.
func checkRedis(ctx context.Context, client redis.UniversalClient, allowUnsafe bool, log *slog.Logger) error {
	err := durableredis.Check(ctx, client)
	if errors.Is(err, durableredis.ErrUnsafe) && !allowUnsafe {
		return err
	}
	if err != nil {
		log.Warn("Redis is away, or unsafe", "error", err)
	}
	return nil
}

// untilReached repeats try until what it needs answers. A wrong set-up is no outage:
// it is returned at once.
func untilReached(ctx context.Context, log *slog.Logger, what string, try func() error) error {
	for {
		err := try()
		if err == nil || errors.Is(err, durableredis.ErrUnsafe) || errors.Is(err, control.ErrSchema) || errors.Is(err, control.ErrInvalid) || ctx.Err() != nil {
			return err
		}
		log.Warn("waiting for "+what, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// openJobs is jobs.New, which it repeats while Postgres is away: that may have begun after the
// store was opened.
func openJobs(ctx context.Context, st *store.Store, log *slog.Logger, handlers *jobs.Handlers) (work *jobs.Jobs, err error) {
	err = untilReached(ctx, log, "Postgres", func() (err error) { work, err = jobs.New(ctx, st, log, handlers); return err })
	return work, err
}

// atStart makes being told to stop before the work began no failure.
func atStart(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// every calls do until ctx ends, and logs what it did.
func every(ctx context.Context, interval time.Duration, log *slog.Logger, what string, do func(context.Context) (int, error)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		n, err := do(ctx)
		if err != nil && ctx.Err() == nil {
			log.Warn("cannot "+what, "error", err)
		}
		if n > 0 {
			log.Info(what, "count", n)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// serveAdmin starts the listener of probes and metrics, and of what more adds.
func serveAdmin(addr string, ready *readiness, metrics prometheus.Gatherer, log *slog.Logger, more ...func(*http.ServeMux)) (*http.Server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for probes: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("GET /readyz", ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	for _, add := range more {
		add(mux)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("probes and metrics are not served any more", "error", err)
		}
	}()
	log.Info("serving probes and metrics", "address", listener.Addr().String())
	return server, nil
}
