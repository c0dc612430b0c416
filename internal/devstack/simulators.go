package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	// stripeSimulatorKey is the secret key that the simulator takes; it is no secret.
	stripeSimulatorKey = "sk_test_fake"
	// onboardingBot is the bot that there is from the beginning at the simulated Telegram.
	onboardingBot = "openclaw_dev_bot"
)

// simulators are those of services for which no key was given.
func (s *stack) simulators() (all []service) {
	if s.cfg.KimiAPIKey == "" {
		all = append(all, s.kimisim())
	}
	if s.cfg.StripeSecretKey == "" {
		all = append(all, s.stripesim())
	}
	if s.cfg.TelegramBotToken == "" {
		all = append(all, s.telegramsim())
	}
	return all
}

func (s *stack) stripesim() service {
	return service{
		name:  "stripesim",
		ports: []int{s.cfg.Ports.Stripesim},
		command: func() (command, error) {
			// It keeps what happened, as Postgres does: customers there refer to it.
			args := []string{"-addr", address(s.cfg.Ports.Stripesim), "-state", s.cfg.path("stripesim.journal")}
			return command{program: s.binary("stripesim"), args: args, env: s.cleanEnv(), dir: s.cfg.RunDir}, nil
		},
		ready:    answers("http://" + address(s.cfg.Ports.Stripesim) + "/"),
		stopWith: syscall.SIGTERM, stopLimit: 10 * time.Second,
	}
}

func (s *stack) telegramsim() service {
	return service{
		name:  "telegramsim",
		ports: []int{s.cfg.Ports.Telegramsim},
		command: func() (command, error) {
			args := []string{
				"-addr", address(s.cfg.Ports.Telegramsim), "-state", s.cfg.path("telegramsim.json"),
				"-bot", onboardingBot, "-bot-token-file", s.telegramTokenFile(),
			}
			return command{program: s.binary("telegramsim"), args: args, env: s.cleanEnv(), dir: s.cfg.RunDir}, nil
		},
		ready:    answers("http://" + address(s.cfg.Ports.Telegramsim) + "/"),
		stopWith: syscall.SIGTERM, stopLimit: 10 * time.Second,
	}
}

// telegramTokenFile has the token of the bot that new customers talk to, real or simulated.
func (s *stack) telegramTokenFile() string { return s.cfg.path("telegram-bot-token") }

// checkKeys says what is missing beside a key, and keeps those that are given where programs find
// them.
func (s *stack) checkKeys() error {
	if s.cfg.StripeSecretKey != "" && s.cfg.StripeWebhookSecrets == "" {
		return errors.New("STRIPE_SECRET_KEY is set, so STRIPE_WEBHOOK_SECRETS must be: without it no event of Stripe's is believed. " +
			"`stripe listen --print-secret` of Stripe's own command line prints one, and `stripe listen` brings the events here")
	}
	key := s.cfg.StripeSecretKey
	if key == "" {
		key = stripeSimulatorKey
	}
	if err := writePrivate(s.cfg.path("stripe-secret-key"), key+"\n"); err != nil {
		return err
	}
	if s.cfg.TelegramBotToken != "" {
		return writePrivate(s.telegramTokenFile(), s.cfg.TelegramBotToken+"\n")
	}
	return nil
}

// stripeArgs are the flags of a program that speaks to Stripe.
func (s *stack) stripeArgs() []string {
	args := []string{"--stripe-secret-key-file", s.cfg.path("stripe-secret-key")}
	if s.cfg.StripeSecretKey == "" {
		args = append(args, "--stripe-url", "http://"+address(s.cfg.Ports.Stripesim))
	}
	return args
}

func (s *stack) webhookSecretsFile() string {
	if s.cfg.StripeSecretKey != "" {
		return s.cfg.path("stripe-webhook-secrets")
	}
	return s.cfg.path("stripesim-webhook-secrets")
}

// sell has the simulated Stripe sell the tiers and send its events to the api, and keeps by what those
// are known. A real account is its owner's to set up.
func (s *stack) sell(ctx context.Context) error {
	if s.cfg.StripeSecretKey != "" {
		return writePrivate(s.webhookSecretsFile(), s.cfg.StripeWebhookSecrets+"\n")
	}
	env := append(s.controlEnv(), "STRIPE_SECRET_KEY="+stripeSimulatorKey, "STRIPE_URL=http://"+address(s.cfg.Ports.Stripesim))
	var made struct {
		WebhookSecret string `json:"webhook_secret"`
	}
	if err := s.openclawctl(ctx, env, &made, "billing", "bootstrap", "--webhook-url", "http://"+address(s.cfg.Ports.API)+"/v1/webhooks/stripe"); err != nil {
		return err
	}
	known, err := os.ReadFile(s.webhookSecretsFile())
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("devstack: %w", err)
	case made.WebhookSecret == "" && len(known) == 0:
		return errors.New("the secret by which the simulated Stripe's events are known is lost: make clean removes all data")
	case made.WebhookSecret == "":
		return nil
	}
	// One for each port that the api has had.
	return writePrivate(s.webhookSecretsFile(), strings.TrimSpace(string(known)+made.WebhookSecret)+"\n")
}

// sayWhatIsSimulated prints what people find at the simulators.
func (s *stack) sayWhatIsSimulated() {
	if s.cfg.StripeSecretKey == "" {
		s.printf("Stripe is simulated, and no money moves: http://%s (STRIPE_SECRET_KEY=… STRIPE_WEBHOOK_SECRETS=… uses the real one)\n", address(s.cfg.Ports.Stripesim))
	} else {
		s.printf("Payments go by your account of Stripe.\n")
	}
	if s.cfg.TelegramBotToken == "" {
		s.printf("Telegram is simulated: http://%s, with the bot http://%[1]s/%s (TELEGRAM_BOT_TOKEN=… uses the real one)\n", address(s.cfg.Ports.Telegramsim), onboardingBot)
	} else {
		s.printf("Telegram is the real one.\n")
	}
}
