package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/andreabadesso/openclaw-cloud/control/api"
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
	database, redis, pepper, seals, jwtSecret secretFlag
	listen, publicURL, returnURL              string
	origins, trustedProxies                   []string
	unsafeRedis                               bool
	drainWithin, sweepEvery                   time.Duration
	proxyURL, model                           string
	proxyToken                                secretFlag
	thinks                                    bool
	modelWithin                               time.Duration
	telegramURL                               string
	telegramToken, stripeKey                  secretFlag
	stripeURL, telegramBot                    string
	trialDays                                 int64

	keys    *secret.Keys   // seals, as validate has read them
	proxies []netip.Prefix // trustedProxies, as validate has read them
}

func onboardingAgentCommand(getenv func(string) string) *cobra.Command {
	var s onboardingSettings
	cmd := &cobra.Command{
		Use:   "onboarding-agent",
		Short: "Have the conversations by which customers come",
		Long: `onboarding-agent has the conversations by which somebody becomes a customer: with the
pages, which reach it under /onboarding of their own origin, and on Telegram if it has a bot.
Without a proxy token, or while token-proxy is away, they go in sentences that are prepared.
Without a key of Stripe they end at the payment.

Any number may run, with the same secrets; one of them polls Telegram, for which no webhook may
be set. SIGTERM finishes what is in hand within a minute, and exits with 0; what Telegram refuses
for the first 40 s of that is not sent.`,
		Example: `  DATABASE_URL=postgres://openclaw@127.0.0.1:5432/openclaw REDIS_URL=redis://127.0.0.1:6379/0 \
  OPENCLAW_TOKEN_PEPPER_FILE=token-pepper BOX_SECRETS_KEY_FILE=box-secrets-key JWT_SECRET_FILE=jwt-secret \
  PUBLIC_URL=https://app.example.com \
  TOKEN_PROXY_URL=http://token-proxy:8080/v1 ONBOARDING_PROXY_TOKEN_FILE=onboarding-proxy-token control onboarding-agent`,
	}
	f := cmd.Flags()
	s.database.flags(f, databaseFlag, databaseUsage)
	s.redis.flags(f, "redis-url", "Redis 6.2 or newer, which must run with noeviction and an append-only file: "+redisclient.Forms)
	f.BoolVar(&s.unsafeRedis, "allow-unsafe-redis", false, "run although Redis may lose data (for development)")
	s.pepper.flags(f, "openclaw-token-pepper", "pepper of the tokens' digests, as token-proxy has it")
	s.seals.flags(f, sealsFlag, sealsUsage+", as api and operator have it")
	s.jwtSecret.flags(f, "jwt-secret", "what access tokens are signed with, as the api has it: who has become a customer in its browser is signed in there")
	f.StringVar(&s.listen, "listen", ":9000", "address of the conversations, and of /healthz, /readyz and /metrics")
	f.StringVar(&s.publicURL, "public-url", "", "where customers reach the pages and the api, as the api has it, such as https://app.example.com")
	f.StringSliceVar(&s.origins, "origins", nil, "origins of the pages that customers use, separated by commas; the public URL by default")
	f.StringSliceVar(&s.trustedProxies, "trusted-proxies", nil, "networks of proxies in front, such as control web, whose X-Forwarded-For is believed, such as 10.0.0.0/8; behind a proxy that is not among them all callers count as one address, with one rate limit")
	f.DurationVar(&s.drainWithin, "drain-within", 20*time.Second, "how long requests in hand may take after SIGTERM")
	f.DurationVar(&s.sweepEvery, "sweep-every", 2*time.Second, "how often to look what became of payments and boxes")
	f.StringVar(&s.proxyURL, "token-proxy-url", "", "token-proxy, with /v1, such as http://token-proxy:8080/v1")
	s.proxyToken.flags(f, "onboarding-proxy-token", "proxy token of the platform's own, by which the language model is asked; without it nobody is asked")
	f.StringVar(&s.model, "model", "kimi-k2.5", "the language model, as token-proxy knows it")
	f.BoolVar(&s.thinks, "model-thinks", false, "do not tell the model not to think, for models that cannot be told")
	f.DurationVar(&s.modelWithin, "model-within", 8*time.Second, "how long the model may take; then the conversation goes on without")
	s.telegramToken.flags(f, "telegram-bot-token", "token of the bot that new customers talk to; without it there is none")
	f.StringVar(&s.telegramURL, "telegram-url", telegramAPI, "where Telegram's Bot API is, also for the check of customers' bots")
	f.StringVar(&s.telegramBot, "telegram-bot-page", "", "page of that bot, as the api has it, to which those who pay from there come back; by default Telegram is asked how the bot is called")
	s.stripeKey.flags(f, "stripe-secret-key", "secret key of the Stripe account, as the api has it; without it nothing can be bought")
	f.StringVar(&s.stripeURL, "stripe-url", "", "where Stripe's API is, for tests")
	f.StringVar(&s.returnURL, "return-url", "", "the page of the conversation, to which Stripe's lead back; /start of the public URL by default")
	f.Int64Var(&s.trialDays, "trial-days", 0, "how many days the first subscription of a customer costs nothing, as the api has it")
	return command(cmd, getenv, s.validate, func(cmd *cobra.Command, log *slog.Logger) error {
		return runOnboardingAgent(cmd.Context(), s, log)
	})
}

func (s *onboardingSettings) validate() error {
	_, redisErr := redisTarget(&s.redis)
	errs := []error{
		checkDatabaseURL(&s.database), redisErr,
		positive("drain-within", s.drainWithin), positive("sweep-every", s.sweepEvery), positive("model-within", s.modelWithin),
		checkPepper(&s.pepper), s.seals.required("what tokens of bots are sealed with"), checkJWTSecret(&s.jwtSecret),
		s.proxyToken.read(), s.telegramToken.read(), s.stripeKey.stripeKey(),
		checkListen("listen", s.listen, ":9000"), checkPublicURL(s.publicURL, "the pages"), checkOrigins("origins", s.origins...),
		checkURL("token-proxy-url", s.proxyURL, "http://token-proxy:8080/v1"), checkURL("telegram-url", s.telegramURL, telegramAPI),
		checkURL("return-url", s.returnURL, "https://app.example.com/start"), checkBotPage(s.telegramBot), checkTrialDays(s.trialDays),
	}
	if len(s.origins) == 0 {
		s.origins = []string{s.publicURL}
	}
	if s.returnURL == "" {
		s.returnURL = s.publicURL + "/start"
	}
	if s.proxyToken.Text != "" && s.proxyURL == "" {
		errs = append(errs, errors.New("--token-proxy-url (TOKEN_PROXY_URL) is required with a proxy token"))
	}
	if s.telegramToken.Text != "" && !onboarding.LooksLikeBotToken(s.telegramToken.Text) {
		errs = append(errs, errors.New("--telegram-bot-token is no token of a bot: those are digits, a colon, and 30 letters at least"))
	}
	var proxiesErr, sealsErr error
	s.proxies, proxiesErr = trustedProxies(s.trustedProxies)
	s.keys, sealsErr = sealsOf(&s.seals)
	return errors.Join(append(errs, proxiesErr, sealsErr)...)
}

// checkout has customers pay: nobody can without a key. Who talks to the bot comes back to it.
func (s *onboardingSettings) checkout(ctx context.Context, to *onboarding.Control, bots onboarding.BotChecker, log *slog.Logger) error {
	if s.stripeKey.Text == "" {
		log.Warn("there is no key of Stripe: nothing can be bought")
		return nil
	}
	_, checkout, err := openCheckout(s.stripeKey.Reveal(), s.stripeURL, leadingBack(s.returnURL), s.trialDays, to.Customers)
	if err != nil { // not a nil *stripe.Checkout, which would be no nil Checkout
		return err
	}
	to.Checkout = checkout
	page := s.botPage(ctx, bots, log)
	if page == "" {
		return nil
	}
	_, checkout, err = openCheckout(s.stripeKey.Reveal(), s.stripeURL, returnTo{page, page, page}, s.trialDays, to.Customers)
	if err != nil {
		return err
	}
	to.FromTelegram = checkout
	return nil
}

// telegramAPI is Telegram's own.
const telegramAPI = "https://api.telegram.org"

// botPage is where the bot is that new customers talk to; "" if there is none, or it is not known.
func (s *onboardingSettings) botPage(ctx context.Context, bots onboarding.BotChecker, log *slog.Logger) string {
	if s.telegramBot != "" || s.telegramToken.Text == "" || strings.TrimSuffix(s.telegramURL, "/") != telegramAPI {
		return s.telegramBot
	}
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	bot, err := bots.Check(limited, s.telegramToken.Text)
	if err != nil {
		log.Warn("Telegram does not say what our bot is called: who pays from there is led back to the pages; set --telegram-bot-page", "error", err)
		return ""
	}
	return "https://t.me/" + bot.Name
}

// languageModel returns who is asked; nil for nobody.
func (s *onboardingSettings) languageModel(log *slog.Logger) onboarding.Model {
	if s.proxyToken.Text == "" {
		log.Warn("there is no proxy token: conversations go in prepared sentences")
		return nil
	}
	// No proxy of the environment and no other host: what is asked is what customers write.
	client := &http.Client{
		Timeout: s.modelWithin, Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &onboarding.ProxyModel{URL: s.proxyURL, Token: s.proxyToken.Text, Name: s.model, NoThinking: !s.thinks, Client: client}
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
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	front, err := serveConversations(s.listen, s.modelWithin, registry, log)
	if err != nil {
		return err
	}
	defer front.close()
	target, err := redisTarget(&s.redis)
	if err != nil {
		return err
	}
	client := target.Open(sendOnce)
	defer client.Close()
	// A conversation does without Redis, so it is not waited for.
	if err := checkRedis(ctx, client, s.unsafeRedis, log); err != nil {
		return atStart(ctx, err)
	}
	st, err := reachStore(ctx, s.database.Reveal(), registry, log)
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
	// Before the first message: what is offered is what the newest tier table says.
	load := func(ctx context.Context) (int, error) { return 0, service.LoadTiers(ctx) }
	if _, err := load(ctx); err != nil {
		log.Warn("cannot take over the tier table", "error", err)
	}
	bots := &onboarding.BotAPI{URL: s.telegramURL, Client: &http.Client{Timeout: 10 * time.Second}}
	platform := &onboarding.Control{Customers: service, Mails: work, HashPassword: api.HashPassword}
	if err := s.checkout(ctx, platform, bots, log); err != nil {
		return err
	}
	var bot *telegram.Bot
	o := onboarding.Options{
		Sessions: st, Platform: platform,
		Tiers: table, Seals: s.keys, Model: s.languageModel(log), ModelWithin: s.modelWithin, Logger: log,
		Bots:   bots,
		Notify: func(ctx context.Context, user int64, c onboarding.Conversation) { bot.Notify(ctx, user, c) },
	}
	if s.telegramToken.Text == "" {
		o.Notify = nil
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
	signIns, err := api.NewSignIns(st, hasher, []byte(s.jwtSecret.Reveal()), s.publicURL)
	if err != nil {
		return err
	}
	handler, err := chat.New(chat.Options{
		Conversations: conversations, Origins: s.origins, SignIn: signIns.SignIn, Proxies: s.proxies, Logger: log,
	})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { every(ctx, tiersEvery, log, "take over the tier table", load); return nil })
	group.Go(func() error {
		every(ctx, s.sweepEvery, log, "look at conversations that wait", func(ctx context.Context) (int, error) {
			_, err := conversations.Sweep(ctx) // how many is no news
			return 0, err
		})
		return nil
	})
	var until time.Time // when what is in hand on Telegram has to be done
	if bot != nil {
		group.Go(func() error {
			<-ctx.Done()
			until = time.Now().Add(telegram.FinishWithin)
			return nil
		})
		group.Go(func() error { return bot.Deliver(ctx) })
		group.Go(func() error { pollAlone(ctx, st, bot, log); return nil })
	}
	group.Go(func() error { return front.serve(ctx, handler, st, s.drainWithin) })
	err = group.Wait()
	if bot != nil { // now that nobody sends any more
		limited, cancel := context.WithDeadline(context.WithoutCancel(ctx), until)
		defer cancel()
		bot.Finish(limited)
	}
	return err
}

// pollAlone polls Telegram while no other process does.
func pollAlone(ctx context.Context, st *store.Store, bot *telegram.Bot, log *slog.Logger) {
	every(ctx, 2*time.Second, log, "poll Telegram", func(ctx context.Context) (int, error) {
		_, err := st.WithLock(ctx, "onboarding telegram", bot.Run)
		return 0, err
	})
}
