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
				args = append(args, "--telegram-url", "http://"+address(s.cfg.Ports.Telegramsim), "--telegram-bot-page", "http://"+address(s.cfg.Ports.Telegramsim)+"/"+onboardingBot)
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

// platform makes sure that there is a proxy token of the platform's own, of a customer that pays nothing and has
// no agent: its box is suspended. env is openclawctl's.
func (s *stack) platform(ctx context.Context, env []string) error {
	text, err := os.ReadFile(s.onboardingTokenFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("devstack: %w", err)
	}
	known := strings.TrimSpace(string(text))
	box, err := s.platformBox(ctx, env)
	if err != nil {
		return err
	}
	if box.Wants != "suspend" {
		if err := s.openclawctl(ctx, env, nil, "box", "suspend", box.ID, "--reason", "the platform has no agent"); err != nil {
			return err
		}
	}
	token, err := s.platformToken(ctx, env, box, known)
	if err != nil || token == known {
		return err
	}
	// An agent that runs has the token that is not good any more.
	if err := s.stop(s.onboardingAgent()); err != nil {
		return err
	}
	return writePrivate(s.onboardingTokenFile(), token+"\n")
}

// platformToken returns the known token, if that stays good, or another one.
func (s *stack) platformToken(ctx context.Context, env []string, box platformBox, known string) (string, error) {
	if s.cfg.Kubebox != "" {
		// The operator of the boxes makes a token also for one that is suspended, and ends all others sooner or later.
		return s.boxToken(ctx, box.CustomerID)
	}
	if known != "" {
		if ok, err := s.accepted(ctx, known); err != nil || ok {
			return known, err
		}
	}
	var made struct {
		Token string `json:"token"`
	}
	if err := s.openclawctl(ctx, env, &made, "token", "create", "--customer", box.CustomerID, "--box", box.ID); err != nil {
		return "", err
	}
	if made.Token == "" {
		return "", errors.New("openclawctl did not print a token of the platform")
	}
	return made.Token, nil
}

// platformBox is the box of the platform's own customer, as openclawctl prints it.
type platformBox struct {
	ID         string `json:"id"`
	CustomerID string `json:"customer_id"`
	Wants      string `json:"wants"`
}

// platformBox returns the box of the platform's own customer, and makes both if the present database has none.
func (s *stack) platformBox(ctx context.Context, env []string) (platformBox, error) {
	file := s.cfg.path("onboarding-box")
	id, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return platformBox{}, fmt.Errorf("devstack: %w", err)
	}
	if err == nil {
		var box platformBox
		err := s.openclawctl(ctx, env, &box, "box", "show", strings.TrimSpace(string(id)))
		switch {
		case err == nil && box.Wants != "destroy":
			return box, nil
		case err != nil && !strings.Contains(err.Error(), "not found"):
			return platformBox{}, err
		}
	}
	var made struct {
		Box platformBox `json:"box"`
	}
	if err := s.openclawctl(ctx, env, &made, "customer", "create", "--name", "The platform's own requests", "--tier", "starter"); err != nil {
		return platformBox{}, err
	}
	return made.Box, writePrivate(file, made.Box.ID+"\n")
}
