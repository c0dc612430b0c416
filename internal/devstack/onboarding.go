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

// onboardingTokenFile has the proxy token by which the onboarding agent asks the language model.
func (s *stack) onboardingTokenFile() string { return s.cfg.path("onboarding-proxy-token") }

func (s *stack) onboardingAgent() service {
	own, pages := address(s.cfg.Ports.Onboarding), "http://"+address(s.cfg.Ports.Web)
	return service{
		name:  "onboarding-agent",
		ports: []int{s.cfg.Ports.Onboarding},
		command: func() (command, error) {
			args := []string{
				"onboarding-agent", "--listen", own, "--public-url", "http://" + address(s.cfg.Ports.API), "--origins", pages, "--return-url", pages + "/start",
				"--trusted-proxies", "127.0.0.0/8", "--jwt-secret-file", s.cfg.path("jwt-secret"), "--box-secrets-key-file", s.cfg.path("box-secrets-key"),
				"--token-proxy-url", "http://" + address(s.cfg.Ports.Proxy) + "/v1", "--onboarding-proxy-token-file", s.onboardingTokenFile(), "--model", askedModel,
				"--telegram-bot-token-file", s.telegramTokenFile(),
			}
			args = append(args, s.stripeArgs()...)
			if s.cfg.TelegramBotToken == "" {
				args = append(args, "--telegram-url", "http://"+address(s.cfg.Ports.Telegramsim))
			}
			if s.cfg.RedisURL != "" {
				args = append(args, "--allow-unsafe-redis")
			}
			return command{program: s.binary("control"), args: args, env: s.controlEnv(), dir: s.cfg.RunDir}, nil
		},
		ready: answers("http://" + own + "/readyz"),
		// It finishes what is in hand, also on Telegram.
		stopWith: syscall.SIGTERM, stopLimit: 75 * time.Second,
	}
}

// platform makes sure that there is a proxy token of the platform's own, of a customer that pays nothing. env
// is openclawctl's.
func (s *stack) platform(ctx context.Context, env []string) error {
	if known, err := os.ReadFile(s.onboardingTokenFile()); err == nil {
		ok, err := s.accepted(ctx, strings.TrimSpace(string(known)))
		if err != nil || ok {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("devstack: %w", err)
	}
	var created struct {
		Customer struct {
			ID string `json:"id"`
		} `json:"customer"`
	}
	if err := s.openclawctl(ctx, env, &created, "customer", "create", "--name", "The platform's own requests", "--tier", "starter"); err != nil {
		return err
	}
	var token struct {
		Token string `json:"token"`
	}
	if err := s.openclawctl(ctx, env, &token, "token", "create", "--customer", created.Customer.ID); err != nil {
		return err
	}
	if token.Token == "" {
		return errors.New("openclawctl did not print a token of the platform")
	}
	return writePrivate(s.onboardingTokenFile(), token.Token+"\n")
}
