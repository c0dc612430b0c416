package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/billing"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// apiSettings are the knobs of the api.
type apiSettings struct {
	database        secretFlag
	redis           secretFlag
	listen          string
	listenOperators string
	listenProbes    string
	publicURL       string
	origins         []string
	operatorOrigins []string
	trustedProxies  []string
	jwtSecret       secretFlag
	pepper          secretFlag
	unsafeRedis     bool
	drainWithin     time.Duration
	payments        paymentSettings
	telegramBot     string
	seals           secretFlag
	operatorURL     string
	operatorKey     secretFlag

	keys    *secret.Keys   // seals, as validate has read them; nil without any
	proxies []netip.Prefix // trustedProxies, as validate has read them
}

func apiCommand(getenv func(string) string) *cobra.Command {
	var s apiSettings
	cmd := &cobra.Command{
		Use:   "api",
		Short: "Serve customers and operators",
		Long: `api serves the REST interface: to customers on one address, which is public, and to
operators on another, which must not be. Each serves its OpenAPI document at
/openapi.json. It revokes tokens whose overlap with a new one has ended. Stripe's webhooks
come in at /v1/webhooks/stripe; the billing-worker works them.

Any number may run, with the same secrets. SIGTERM stops taking requests, finishes those in
hand and exits with 0.`,
		Example: `  DATABASE_URL=postgres://openclaw@127.0.0.1:5432/openclaw REDIS_URL=redis://127.0.0.1:6379/0 \
  JWT_SECRET_FILE=jwt-secret OPENCLAW_TOKEN_PEPPER_FILE=token-pepper PUBLIC_URL=https://app.example.com control api`,
	}
	f := cmd.Flags()
	s.database.flags(f, databaseFlag, databaseUsage)
	s.redis.flags(f, "redis-url", "Redis 6.2 or newer, which must run with noeviction and an append-only file: "+redisclient.Forms)
	f.StringVar(&s.listen, "listen", ":8000", "address for customers")
	f.StringVar(&s.listenOperators, "listen-operators", "127.0.0.1:8001", "address for operators, which must not be reachable from outside")
	f.StringVar(&s.listenProbes, "listen-probes", ":8083", "address of /healthz, /readyz and /metrics")
	f.StringVar(&s.publicURL, "public-url", "", "where customers reach the api, such as https://app.example.com")
	f.StringSliceVar(&s.origins, "origins", nil, "origins of the pages that customers use, separated by commas; the public URL by default")
	f.StringSliceVar(&s.operatorOrigins, "operator-origins", nil, "origins of the pages that operators use, separated by commas; without any, no browser can sign in there, and only programs such as openclawctl do")
	f.StringSliceVar(&s.trustedProxies, "trusted-proxies", nil, "networks of proxies in front whose X-Forwarded-For is believed, such as 10.0.0.0/8; behind a proxy that is not among them all callers count as one address, with one rate limit")
	s.jwtSecret.flags(f, "jwt-secret", "what access tokens are signed with, the same in all processes")
	s.pepper.flags(f, "openclaw-token-pepper", "pepper of the tokens' digests, as token-proxy has it")
	f.BoolVar(&s.unsafeRedis, "allow-unsafe-redis", false, "run although Redis may lose data (for development)")
	f.DurationVar(&s.drainWithin, "drain-within", 20*time.Second, "how long requests in hand may take after SIGTERM")
	s.seals.flags(f, sealsFlag, sealsUsage+"; without it no Telegram token can be kept")
	f.StringVar(&s.operatorURL, "operator-url", "", "listener of the operator of the boxes, such as http://operator:8081; without it nobody sees logs and events of boxes")
	s.operatorKey.flags(f, "operator-key", "what the operator of the boxes knows the api by")
	s.payments.flags(f)
	f.StringVar(&s.telegramBot, "telegram-bot-page", "", "page of the bot that new customers talk to, such as https://t.me/name_bot; without it no page leads there")
	return command(cmd, getenv, s.validate, func(cmd *cobra.Command, log *slog.Logger) error {
		return runAPI(cmd.Context(), s, log)
	})
}

func (s *apiSettings) validate() error {
	_, redisErr := redisTarget(&s.redis)
	errs := []error{
		checkDatabaseURL(&s.database), redisErr, positive("drain-within", s.drainWithin),
		checkListen("listen", s.listen, ":8000"), checkListen("listen-operators", s.listenOperators, "127.0.0.1:8001"), checkListen("listen-probes", s.listenProbes, ":8083"),
		checkPublicURL(s.publicURL, "the api"), checkOrigins("origins", s.origins...), checkOrigins("operator-origins", s.operatorOrigins...),
		checkBotPage(s.telegramBot), s.checkOperator(), s.payments.validate(s.publicURL), checkJWTSecret(&s.jwtSecret), checkPepper(&s.pepper),
	}
	if s.listen == s.listenOperators {
		errs = append(errs, errors.New("--listen-operators is the address for customers: operators need one of their own, which is not public"))
	}
	var proxiesErr, sealsErr error
	s.proxies, proxiesErr = trustedProxies(s.trustedProxies)
	s.keys, sealsErr = sealsOf(&s.seals)
	return errors.Join(append(errs, proxiesErr, sealsErr)...)
}

// checkOperator says what is wrong with where the operator of the boxes is.
func (s *apiSettings) checkOperator() error {
	if err := s.operatorKey.read(); err != nil {
		return err
	}
	if (s.operatorURL == "") != (s.operatorKey.Text == "") {
		return errors.New("--operator-url and --operator-key go together")
	}
	return checkURL("operator-url", s.operatorURL, "http://operator:8081")
}

// boxOperator is who is asked for what is in the cluster; nil for nobody.
func (s *apiSettings) boxOperator() *api.BoxOperator {
	if s.operatorURL == "" {
		return nil
	}
	return &api.BoxOperator{URL: s.operatorURL, Key: s.operatorKey.Text}
}

// books has replicas that do not know yet be told later: that is no failure of the request.
type books struct {
	*billing.Books
	log *slog.Logger
}

func (b books) Replay(ctx context.Context, actor string, id int64) (control.Recorded, error) {
	r, err := b.Books.Replay(ctx, actor, id)
	if errors.Is(err, billing.ErrUnacknowledged) {
		b.log.Warn("replicas do not know yet that a dead letter was replayed", "dead_letter", id, "error", err)
		err = nil
	}
	return r, err
}

func runAPI(ctx context.Context, s apiSettings, log *slog.Logger) error {
	redis.SetLogger(redisLog{log})
	table, err := tiers.Default()
	if err != nil {
		return err
	}
	hasher, err := contract.NewHasher([]byte(s.pepper.Reveal()))
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	ready := &readiness{}
	probes, err := serveAdmin(s.listenProbes, ready, registry, log)
	if err != nil {
		return err
	}
	defer probes.Close()

	target, err := redisTarget(&s.redis)
	if err != nil {
		return err
	}
	client := target.Open(sendOnce)
	defer client.Close()
	// Most of the api does without Redis, so it is not waited for.
	if err := checkRedis(ctx, client, s.unsafeRedis, log); err != nil {
		return atStart(ctx, err)
	}
	st, err := reachStore(ctx, s.database.Reveal(), registry, log)
	if err != nil {
		return atStart(ctx, err)
	}
	defer st.Close()

	records, publisher := limits.NewRecords(st, client, 0), feed.NewPublisher(client)
	service := &customers.Service{Store: st, Tiers: table, Grants: publisher, Limits: records, Hasher: hasher, Seals: s.keys}
	work, err := openJobs(ctx, st, log, &jobs.Handlers{RevokeToken: func(ctx context.Context, id string) error {
		_, err := service.RevokeToken(ctx, "system:rotation", id)
		return err
	}})
	if err != nil {
		return atStart(ctx, err)
	}
	defer work.Close()
	service.Later, service.Wake = work, work

	origins := s.origins
	if len(origins) == 0 {
		origins = []string{s.publicURL}
	}
	// Before the first request: what is sold is what the newest tier table says, not the one
	// that this build comes with.
	load := func(ctx context.Context) (int, error) { return 0, service.LoadTiers(ctx) }
	if _, err := load(ctx); err != nil {
		log.Warn("cannot take over the tier table", "error", err)
	}
	following, stop := context.WithCancel(ctx)
	var follower sync.WaitGroup
	follower.Go(func() { every(following, tiersEvery, log, "take over the tier table", load) })
	defer follower.Wait()
	defer stop()
	money, webhook, err := s.payments.open(service, work, registry, log)
	if err != nil {
		return err
	}
	a, err := api.New(api.Options{
		Store: st, Customers: service, Hasher: hasher, Secret: []byte(s.jwtSecret.Reveal()), Issuer: s.publicURL, Logger: log, Revision: builtFrom,
		Origins: origins, OperatorOrigins: s.operatorOrigins, TrustedProxies: s.proxies,
		Books: books{&billing.Books{Store: st, Redis: client}, log}, Live: records, Jobs: work, Feed: publisher,
		Billing: money, Payments: s.payments.mode(), TelegramBot: s.telegramBot, Webhook: webhook, Mails: work, BoxOperator: s.boxOperator(),
		Registerer: registry,
	})
	if err != nil {
		return err
	}
	// River is stopped below, once the requests have ended that add jobs.
	if err := work.Start(context.WithoutCancel(ctx)); err != nil {
		return atStart(ctx, err)
	}
	err = serveUntil(ctx, a, s, log, func() {
		ready.serves(ctx, st.Ping)
	})
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drainWithin)
	defer cancel()
	return errors.Join(err, work.Stop(limited))
}

// serveUntil serves both sides until ctx ends, and then finishes what is in hand. It calls
// listening once whoever connects is served.
func serveUntil(ctx context.Context, a *api.API, s apiSettings, log *slog.Logger, listening func()) error {
	group, ctx := errgroup.WithContext(ctx)
	sides := []struct {
		name, address string
		handler       http.Handler
		listener      net.Listener
	}{{name: "customers", address: s.listen, handler: a.Customers()}, {name: "operators", address: s.listenOperators, handler: a.Operators()}}
	for i := range sides {
		var err error
		if sides[i].listener, err = net.Listen("tcp", sides[i].address); err != nil {
			return fmt.Errorf("listen for %s: %w", sides[i].name, err)
		}
		defer sides[i].listener.Close()
	}
	listening()
	for _, side := range sides {
		listener := side.listener
		server := &http.Server{
			Handler: side.handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 20 * time.Second,
			WriteTimeout: 30 * time.Second, IdleTimeout: 75 * time.Second, MaxHeaderBytes: 16 << 10,
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		}
		group.Go(func() error { return serveUntilEnd(ctx, server, listener, side.name, a.Drain, s.drainWithin, log) })
	}
	return group.Wait()
}
