package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/billing"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// directNote ends the help of what works on the databases only.
const directNote = `

It works on the databases themselves, of DATABASE_URL and REDIS_URL, and not by the api: it has
to be there when the api is not.`

// session is one command's open connections, and the backend on them.
type session struct {
	a       *app
	store   *store.Store
	limits  *limits.Records
	service *customers.Service
	jobs    *jobs.Jobs // nil where there are none
	redis   redis.UniversalClient
	stderr  io.Writer
}

var errNoPostgres = errors.New("DATABASE_URL must name Postgres, such as postgres://openclaw@127.0.0.1:5432/openclaw")

// redisTimeout bounds one exchange with Redis.
const redisTimeout = 2 * time.Second

// with opens the connections, publishes what an earlier command could not, and calls
// do.
func (a *app) with(cmd *cobra.Command, do func(context.Context, *session) error) error {
	ctx := cmd.Context()
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	s.stderr = cmd.ErrOrStderr()
	s.loadTiers(ctx)
	s.publishPending(ctx)
	return do(ctx, s)
}

func (a *app) open(ctx context.Context) (*session, error) {
	if a.apiURL != "" {
		return nil, usageError{errors.New("this works on the databases themselves: leave out --api-url")}
	}
	database := a.databaseURL()
	target, err := redisclient.Parse(a.setting(a.redisURL, "REDIS_URL"))
	var errs []error
	if !isPostgres(database) {
		errs = append(errs, errNoPostgres)
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("REDIS_URL: %w", err))
	}
	table, err := tiers.Default()
	if err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, usageError{err}
	}
	a.actor = "openclawctl"
	if who := a.getenv("OPENCLAW_ACTOR"); who != "" {
		a.actor = who
	} else if who := a.getenv("USER"); who != "" {
		a.actor = "openclawctl:" + who
	}
	st, err := openStore(ctx, database)
	if err != nil {
		return nil, err
	}
	redis.SetLogger(redisLog{}) // failures are reported by the commands that they hit
	// The service has its own policy of repeating.
	connection := target.Open(redisclient.Options{Timeout: redisTimeout, MaxRetries: -1, DialerRetries: 1})
	records := limits.NewRecords(st, connection, redisTimeout)
	s := &session{
		a: a, store: st, limits: records, redis: connection,
		service: &customers.Service{Store: st, Tiers: table, Grants: feed.NewPublisher(connection), Limits: records},
	}
	// Where there are no jobs, the operator of the boxes looks at all of them now and then.
	if s.jobs, err = jobs.New(ctx, st, slog.New(slog.DiscardHandler), nil); err == nil {
		s.service.Wake = s.jobs
	} else if !errors.Is(err, control.ErrSchema) {
		s.close()
		return nil, err
	}
	return s, nil
}

// openStore connects and makes sure that the schema is there.
func openStore(ctx context.Context, database string) (*store.Store, error) {
	connect, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	st, err := store.Open(connect, database)
	if err != nil {
		return nil, err
	}
	if err := st.CheckSchema(connect); err != nil {
		st.Close()
		return nil, err
	}
	return st, nil
}

type redisLog struct{}

func (redisLog) Printf(context.Context, string, ...any) {}

func (s *session) close() {
	_ = s.redis.Close()
	if s.jobs != nil {
		s.jobs.Close()
	}
	s.store.Close()
}

// loadTiers does not fail the command: what has to do with tiers asks for them again, and
// suspending a customer has to work.
func (s *session) loadTiers(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := s.service.LoadTiers(limited); err != nil {
		fmt.Fprintln(s.stderr, "openclawctl: warning: these are the tiers of this build, and not those in effect:", err)
	}
}

// publishPending does not fail the command: reading works without Redis.
func (s *session) publishPending(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if n, err := s.service.PublishPending(limited); err != nil {
		fmt.Fprintln(s.stderr, "openclawctl: warning: earlier changes are not yet published:", err)
	} else if n > 0 {
		fmt.Fprintf(s.stderr, "openclawctl: published %d earlier changes\n", n)
	}
}

// books is the session's view of the ledger.
func (s *session) books() *billing.Books { return &billing.Books{Store: s.store, Redis: s.redis} }

func (s *session) createCustomer(ctx context.Context, n customers.NewCustomer) (customers.Created, error) {
	return s.service.CreateCustomer(ctx, s.a.actor, n)
}

func (s *session) customers(ctx context.Context, of control.CustomersFilter, most int) ([]control.ListedCustomer, error) {
	list := []control.ListedCustomer{}
	var after control.PageKey
	for {
		n := pageSize
		if most > 0 {
			n = min(n, most-len(list))
		}
		page, err := s.store.CustomersPage(ctx, of, time.Now(), after, n)
		if err != nil {
			return nil, err
		}
		list = append(list, page...)
		if len(page) < n || most > 0 && len(list) >= most {
			return list, nil
		}
		last := page[len(page)-1]
		after = control.PageKey{At: last.CreatedAt, ID: last.ID}
	}
}

// pageSize is how many rows are asked for at once.
const pageSize = 500

func (s *session) suspend(ctx context.Context, id, reason string) (control.Customer, error) {
	return s.service.SuspendCustomer(ctx, s.a.actor, id, reason)
}

func (s *session) resume(ctx context.Context, id, reason string) (control.Customer, error) {
	return s.service.ResumeCustomer(ctx, s.a.actor, id, reason)
}

func (s *session) createToken(ctx context.Context, customer, box string) (api.CreatedToken, error) {
	hasher, err := s.a.hasher()
	if err != nil {
		return api.CreatedToken{}, err
	}
	s.service.Hasher = hasher
	raw, token, err := s.service.CreateToken(ctx, s.a.actor, customer, box)
	if err != nil && !errors.Is(err, customers.ErrUnpublished) {
		return api.CreatedToken{}, err
	}
	return api.CreatedToken{ProxyToken: token, Token: raw.Reveal()}, err
}

func (s *session) tokens(ctx context.Context, customer string) ([]control.ProxyToken, error) {
	if _, err := s.store.Customer(ctx, customer); err != nil {
		return nil, err
	}
	return s.store.Tokens(ctx, customer)
}

func (s *session) revokeToken(ctx context.Context, id string) (control.ProxyToken, error) {
	return s.service.RevokeToken(ctx, s.a.actor, id)
}

func (s *session) changeQuota(ctx context.Context, customer string, change customers.LimitChange) (quotaView, error) {
	changed, err := s.service.ChangeLimit(ctx, s.a.actor, customer, change)
	if err != nil {
		return quotaView{}, err
	}
	return quotaView{periodView: s.view(ctx, changed.Period), Before: changed.Before}, nil
}

func (s *session) quota(ctx context.Context, customer string) (periodView, error) {
	if _, err := s.store.Customer(ctx, customer); err != nil {
		return periodView{}, err
	}
	p, err := s.store.PeriodAt(ctx, customer, time.Now())
	if err != nil {
		return periodView{}, err
	}
	return s.view(ctx, p), nil
}

// view asks Redis what it knows of a period. Without an answer the command goes on with what
// Postgres knows.
func (s *session) view(ctx context.Context, p control.UsagePeriod) periodView {
	v := periodView{UsagePeriod: p, Used: p.Totals.Settled}
	u, err := s.limits.Usage(ctx, quota.Account{
		Customer: p.CustomerID, Period: p.Period(), Limit: p.LimitTokens, LimitVersion: p.LimitVersion,
	})
	if err != nil {
		fmt.Fprintln(s.stderr, "openclawctl: warning:", err)
	} else {
		v.Live, v.Redis, v.Used = true, &liveUsage{Limit: u.Limit, Settled: u.Settled, Held: u.Held}, max(u.Settled, v.Used)
	}
	v.Left = max(p.LimitTokens-v.Used, 0)
	return v
}

func (s *session) usage(ctx context.Context, q usageQuery) (usageView, error) {
	v := usageView{Periods: []periodView{}}
	if _, err := s.store.Customer(ctx, q.customer); err != nil {
		return v, err
	}
	list, err := s.store.Periods(ctx, q.customer, q.periods)
	if err != nil {
		return v, err
	}
	if v.Events, err = s.store.Events(ctx, q.customer, q.events); err != nil {
		return v, err
	}
	now := time.Now()
	if q.from.IsZero() {
		q.from, q.to = now.Add(-30*24*time.Hour), now
	}
	for _, p := range list {
		if q.to.Equal(now) && p.Contains(now) {
			q.from, q.to = p.Start, p.End
		}
		v.Periods = append(v.Periods, s.view(ctx, p))
	}
	days, err := s.store.UsageByDay(ctx, q.customer, q.from, q.to)
	v.Days = nonNil(days)
	return v, err
}

func (s *session) platformUsage(ctx context.Context) (api.PlatformUsage, error) {
	now := time.Now().UTC()
	list, err := s.store.PlatformUsage(ctx, now)
	return api.PlatformUsage{At: now, Tiers: nonNil(list)}, err
}

func (s *session) deadLetters(ctx context.Context, all bool, most int) ([]control.DeadLetter, error) {
	if all {
		return s.store.DeadLetters(ctx, most)
	}
	return s.store.WaitingDeadLetters(ctx, most)
}

func (s *session) deadLetter(ctx context.Context, id int64) (control.DeadLetter, error) {
	return s.store.DeadLetter(ctx, id)
}

func (s *session) replay(ctx context.Context, id int64) (api.Replayed, error) {
	r, err := s.books().Replay(ctx, s.a.actor, id)
	if errors.Is(err, billing.ErrUnacknowledged) {
		fmt.Fprintln(s.stderr, "openclawctl: warning:", err)
		err = nil
	}
	return api.Replayed{Inserted: r.Inserted, Duplicates: r.Duplicates, Parked: len(r.Parked)}, err
}

func (s *session) drop(ctx context.Context, id int64, reason string) error {
	return s.books().Drop(ctx, s.a.actor, id, reason)
}

func (s *session) replicas(ctx context.Context, most int) ([]control.Replica, error) {
	return s.store.Replicas(ctx, most)
}
