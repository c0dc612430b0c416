package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
)

// app is what the commands share. Connections are opened by the command that needs
// them, so that --help works anywhere.
type app struct {
	getenv func(string) string
	output string
	actor  string
}

// session is one command's open connections.
type session struct {
	store   *store.Store
	limits  *limits.Records
	service *customers.Service
	redis   redis.UniversalClient
}

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
	a.publishPending(ctx, s, cmd.ErrOrStderr())
	return do(ctx, s)
}

func (a *app) open(ctx context.Context) (*session, error) {
	database := a.getenv("DATABASE_URL")
	target, err := redisclient.Parse(a.getenv("REDIS_URL"))
	var errs []error
	if u, uerr := url.Parse(database); uerr != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		errs = append(errs, errors.New("DATABASE_URL must name Postgres, such as postgres://openclaw@127.0.0.1:5432/openclaw"))
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
	redis.SetLogger(redisLog{}) // failures are reported by the commands that they hit
	// The service has its own policy of repeating.
	client := target.Open(redisclient.Options{Timeout: redisTimeout, MaxRetries: -1, DialerRetries: 1})
	records := limits.NewRecords(st, client, redisTimeout)
	return &session{
		store: st, limits: records, redis: client,
		service: &customers.Service{Store: st, Tiers: table, Grants: feed.NewPublisher(client), Limits: records},
	}, nil
}

type redisLog struct{}

func (redisLog) Printf(context.Context, string, ...any) {}

func (s *session) close() {
	_ = s.redis.Close()
	s.store.Close()
}

// publishPending does not fail the command: reading works without Redis.
func (a *app) publishPending(ctx context.Context, s *session, stderr io.Writer) {
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if n, err := s.service.PublishPending(limited); err != nil {
		fmt.Fprintln(stderr, "openclawctl: warning: earlier changes are not yet published:", err)
	} else if n > 0 {
		fmt.Fprintf(stderr, "openclawctl: published %d earlier changes\n", n)
	}
}

// hasher reads the pepper. It says nothing of its content, in no error either.
func (a *app) hasher() (*contract.Hasher, error) {
	value, path := a.getenv("OPENCLAW_TOKEN_PEPPER"), a.getenv("OPENCLAW_TOKEN_PEPPER_FILE")
	if file, ok := strings.CutPrefix(value, "file:"); ok {
		value, path = "", file
	}
	switch {
	case value == "" && path == "":
		return nil, usageError{errors.New("the token pepper is needed: set OPENCLAW_TOKEN_PEPPER_FILE to the file that token-proxy uses")}
	case value == "":
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, usageError{fmt.Errorf("read the token pepper: %w", err)}
		}
		value = string(b)
	}
	h, err := contract.NewHasher([]byte(strings.TrimSpace(value)))
	if err != nil {
		return nil, usageError{err}
	}
	return h, nil
}
