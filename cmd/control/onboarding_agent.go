package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/onboarding"
	"github.com/andreabadesso/openclaw-cloud/control/onboarding/chat"
	"github.com/andreabadesso/openclaw-cloud/control/onboarding/telegram"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// onboardingSettings are the knobs of the onboarding-agent.
type onboardingSettings struct {
	database, redis, pepper, seals secretFlag
	listen, publicURL              string
	origins, trustedProxies        []string
	unsafeRedis                    bool
	drainWithin, sweepEvery        time.Duration

	proxyURL, model string
	proxyToken      secretFlag
	think           bool

	telegramURL   string
	telegramToken secretFlag

	stripeKey            secretFlag
	stripeURL, dashboard string
	trialDays            int64

	keys    *secret.Keys
	proxies []netip.Prefix
}

func onboardingAgentCommand(getenv func(string) string) *cobra.Command {
	var s onboardingSettings
	cmd := &cobra.Command{
		Use:   "onboarding-agent",
		Short: "Have the conversations by which customers come",
		Long: `onboarding-agent has the conversations by which somebody becomes a customer: for web pages
over HTTP, and on Telegram if it has a bot. Without a proxy token, or while token-proxy is away,
they go in sentences that are prepared.

Any number may run, with the same secrets; one of them polls Telegram. SIGTERM finishes what is in
hand and exits with 0.`,
	}
	f := cmd.Flags()
	s.database.flags(f, databaseFlag, databaseUsage)
	s.redis.flags(f, "redis-url", "Redis 6.2 or newer, which must run with noeviction and an append-only file: "+redisclient.Forms)
	f.BoolVar(&s.unsafeRedis, "allow-unsafe-redis", false, "run although Redis may lose data (for development)")
	s.pepper.flags(f, "openclaw-token-pepper", "pepper of the tokens' digests, as token-proxy has it")
	s.seals.flags(f, sealsFlag, sealsUsage)
	f.StringVar(&s.listen, "listen", ":9000", "address of the conversations, and of /healthz, /readyz and /metrics")
	f.StringVar(&s.publicURL, "public-url", "", "where customers are, such as https://app.example.com")
	f.StringSliceVar(&s.origins, "origins", nil, "origins of the pages that customers use, separated by commas; the public URL by default")
	f.StringSliceVar(&s.trustedProxies, "trusted-proxies", nil, "networks of proxies in front whose X-Forwarded-For is believed, such as 10.0.0.0/8")
	f.DurationVar(&s.drainWithin, "drain-within", 20*time.Second, "how long requests in hand may take after SIGTERM")
	f.DurationVar(&s.sweepEvery, "sweep-every", 2*time.Second, "how often conversations that wait are looked at")
	f.StringVar(&s.proxyURL, "token-proxy-url", "", "token-proxy, with /v1, such as http://token-proxy:8080/v1")
	s.proxyToken.flags(f, "onboarding-proxy-token", "proxy token of the platform's own, by which the language model is asked; without it nobody is asked")
	f.StringVar(&s.model, "model", "kimi-k2.5", "the language model")
	f.BoolVar(&s.think, "model-thinks", false, "do not tell the model not to think, for models that cannot be told")
	s.telegramToken.flags(f, "telegram-bot-token", "token of the bot that new customers talk to; without it there is none")
	f.StringVar(&s.telegramURL, "telegram-url", "https://api.telegram.org", "where Telegram's Bot API is")
	s.stripeKey.flags(f, "stripe-secret-key", "secret key of the Stripe account; without it nothing can be bought")
	f.StringVar(&s.stripeURL, "stripe-url", "", "where Stripe's API is, for tests")
	f.StringVar(&s.dashboard, "dashboard-url", "", "the customers' pages, to which Stripe's lead back; the public URL by default")
	f.Int64Var(&s.trialDays, "trial-days", 0, "how many days the first subscription of a customer costs nothing")
	return command(cmd, getenv, s.validate, func(cmd *cobra.Command, log *slog.Logger) error {
		return runOnboardingAgent(cmd.Context(), s, log)
	})
}

func (s *onboardingSettings) validate() error {
	_, redisErr := redisTarget(&s.redis)
	errs := []error{
		checkDatabaseURL(&s.database), redisErr, positive("drain-within", s.drainWithin), positive("sweep-every", s.sweepEvery),
		s.pepper.required("the pepper that token-proxy has"), s.seals.required("what tokens of bots are sealed with"),
		s.proxyToken.read(), s.telegramToken.read(), s.stripeKey.stripeKey(),
	}
	if _, _, err := net.SplitHostPort(s.listen); err != nil {
		errs = append(errs, fmt.Errorf("--listen %q: write it with a port, like :9000", s.listen))
	}
	if s.publicURL == "" {
		errs = append(errs, errors.New("--public-url (PUBLIC_URL) is required: where customers are, such as https://app.example.com"))
	}
	if len(s.origins) == 0 {
		s.origins = []string{s.publicURL}
	}
	for _, origin := range s.origins {
		if err := api.CheckOrigin(origin); err != nil && origin != "" {
			errs = append(errs, fmt.Errorf("--origins: %w", err))
		}
	}
	if s.dashboard == "" {
		s.dashboard = s.publicURL
	}
	for name, text := range map[string]string{"token-proxy-url": s.proxyURL, "telegram-url": s.telegramURL} {
		if u, err := url.Parse(text); text != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "") {
			errs = append(errs, fmt.Errorf("--%s: write it like http://token-proxy:8080/v1", name))
		}
	}
	if s.proxyToken.Text != "" && s.proxyURL == "" {
		errs = append(errs, errors.New("--token-proxy-url (TOKEN_PROXY_URL) is required with a proxy token"))
	}
	if n := len(s.pepper.Reveal()); n > 0 && n < contract.MinPepperLen {
		errs = append(errs, fmt.Errorf("--openclaw-token-pepper has %d bytes, and needs %d", n, contract.MinPepperLen))
	}
	if s.trialDays < 0 || s.trialDays > maxTrialDays {
		errs = append(errs, fmt.Errorf("--trial-days %d: it must be in 0…%d", s.trialDays, maxTrialDays))
	}
	s.proxies = nil
	for _, text := range s.trustedProxies {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--trusted-proxies: %q is no network, such as 10.0.0.0/8", text))
			continue
		}
		s.proxies = append(s.proxies, p)
	}
	var err error
	s.keys, err = sealsOf(&s.seals)
	return errors.Join(append(errs, err)...)
}

// checkout returns the pages to pay on; nil without a key.
func (s *onboardingSettings) checkout(service *customers.Service, log *slog.Logger) (onboarding.Checkout, error) {
	if s.stripeKey.Text == "" {
		log.Warn("there is no key of Stripe: nothing can be bought")
		return nil, nil
	}
	account, err := stripe.NewAccount(s.stripeKey.Reveal(), s.stripeURL)
	if err != nil {
		return nil, err
	}
	return stripe.NewCheckout(stripe.CheckoutOptions{
		Account: account, Customers: service, TrialDays: s.trialDays,
		SuccessURL: s.dashboard + "?checkout=paid", CancelURL: s.dashboard + "?checkout=cancelled", ReturnURL: s.dashboard,
	})
}

// languageModel returns who is asked; nil for nobody.
func (s *onboardingSettings) languageModel(log *slog.Logger) onboarding.Model {
	if s.proxyToken.Text == "" {
		log.Warn("there is no proxy token: conversations go in prepared sentences")
		return nil
	}
	return &onboarding.ProxyModel{URL: s.proxyURL, Token: s.proxyToken.Text, Name: s.model, NoThinking: !s.think, Client: &http.Client{Timeout: 30 * time.Second}}
}

func runOnboardingAgent(ctx context.Context, s onboardingSettings, log *slog.Logger) error {
	redis.SetLogger(redisLog{log})
	table, err := tiers.Default()
	if err != nil {
		return err
	}
	hasher, err := contract.NewHasher([]byte(s.pepper.Reveal()))
	if err != nil {
		return err
	}
	target, err := redisTarget(&s.redis)
	if err != nil {
		return err
	}
	client := target.Open(sendOnce)
	defer client.Close()
	if err := checkRedis(ctx, client, s.unsafeRedis, log); err != nil {
		return atStart(ctx, err)
	}
	st, err := reachStore(ctx, s.database.Reveal(), log)
	if err != nil {
		return atStart(ctx, err)
	}
	defer st.Close()
	work, err := openJobs(ctx, st, log, nil)
	if err != nil {
		return atStart(ctx, err)
	}
	defer work.Close()
	service := &customers.Service{
		Store: st, Tiers: table, Grants: feed.NewPublisher(client), Limits: limits.NewRecords(st, client, 0), Hasher: hasher, Seals: s.keys, Later: work, Wake: work,
	}
	pages, err := s.checkout(service, log)
	if err != nil {
		return err
	}
	platform := &onboarding.Control{Customers: service, Checkout: pages, Mails: work, HashPassword: api.HashPassword}
	o := onboarding.Options{
		Sessions: st, Platform: platform, Tiers: table, Seals: s.keys, Model: s.languageModel(log), Logger: log,
		Bots: &onboarding.BotAPI{URL: s.telegramURL, Client: &http.Client{Timeout: 10 * time.Second}},
	}
	var bot *telegram.Bot
	o.Notify = func(ctx context.Context, user int64, c onboarding.Conversation) {
		if bot != nil {
			bot.Tell(ctx, user, c)
		}
	}
	conversations, err := onboarding.New(o)
	if err != nil {
		return err
	}
	if s.telegramToken.Text != "" {
		if bot, err = telegram.New(telegram.Options{URL: s.telegramURL, Token: s.telegramToken.Text, Conversations: conversations, Logger: log}); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	load := func(ctx context.Context) (int, error) { return 0, service.LoadTiers(ctx) }
	group.Go(func() error { every(ctx, tiersEvery, log, "take over the tier table", load); return nil })
	group.Go(func() error {
		every(ctx, s.sweepEvery, log, "look at conversations that wait", func(ctx context.Context) (int, error) {
			_, err := conversations.Sweep(ctx)
			return 0, err
		})
		return nil
	})
	if bot != nil {
		group.Go(func() error { pollAlone(ctx, st, bot, log); return nil })
	}
	group.Go(func() error { return s.serve(ctx, conversations, st, log) })
	return group.Wait()
}

// pollAlone polls Telegram while no other process does.
func pollAlone(ctx context.Context, st *store.Store, bot *telegram.Bot, log *slog.Logger) {
	every(ctx, 2*time.Second, log, "poll Telegram", func(ctx context.Context) (int, error) {
		_, err := st.WithLock(ctx, "onboarding telegram", bot.Run)
		return 0, err
	})
}

// serve serves pages and probes until ctx ends, and then finishes what is in hand.
func (s *onboardingSettings) serve(ctx context.Context, conversations *onboarding.Service, st *store.Store, log *slog.Logger) error {
	handler, err := chat.New(chat.Options{Conversations: conversations, Origins: s.origins, Address: chat.Behind(s.proxies), Logger: log})
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	ready := &readiness{}
	ready.set(func(check context.Context) error {
		if ctx.Err() != nil {
			return errors.New("draining")
		}
		return st.Ping(check)
	}, func() string { return "" })
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("GET /readyz", ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("/", handler)
	listener, err := net.Listen("tcp", s.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: 75 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	server.RegisterOnShutdown(handler.Drain)
	log.Info("serving conversations", "address", listener.Addr().String())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drainWithin)
	defer cancel()
	if err := server.Shutdown(limited); err != nil {
		log.Warn("requests were cut off", "error", err)
		_ = server.Close()
	}
	return nil
}
