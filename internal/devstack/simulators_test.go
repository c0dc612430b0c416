package devstack

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func openStack(t *testing.T, cfg Config) *stack {
	t.Helper()
	cfg.RunDir, cfg.Ports = t.TempDir(), DefaultPorts()
	if cfg.BinDir == "" {
		cfg.BinDir = "/nowhere"
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	s, err := open(cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func names(all []service) (out []string) {
	for _, svc := range all {
		out = append(out, svc.name)
	}
	return out
}

func TestSimulatorsWithoutKeys(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	s := openStack(t, Config{Out: &said})
	if err := s.checkKeys(); err != nil {
		t.Fatal(err)
	}
	if got := names(s.simulators()); !slices.Equal(got, []string{"kimisim", "stripesim", "telegramsim"}) {
		t.Errorf("it starts %v", got)
	}
	if args := strings.Join(s.stripeArgs(), " "); !strings.Contains(args, "--stripe-url http://127.0.0.1:9101") {
		t.Errorf("programs are given %s", args)
	}
	if key, err := os.ReadFile(s.cfg.path("stripe-secret-key")); err != nil || string(key) != stripeSimulatorKey+"\n" {
		t.Errorf("the key is %q, %v", key, err)
	}
	s.sayWhatIsSimulated()
	if !strings.Contains(said.String(), "http://127.0.0.1:9101") || !strings.Contains(said.String(), "http://127.0.0.1:9102/openclaw_dev_bot") {
		t.Errorf("it says %s", said.String())
	}
	for _, svc := range []service{s.kimisim(), s.stripesim(), s.telegramsim()} {
		if !slices.Contains(names(s.everyService()), svc.name) {
			t.Errorf("%s is not stopped", svc.name)
		}
	}
}

func TestKeysAreUsed(t *testing.T) {
	t.Parallel()
	s := openStack(t, Config{KimiAPIKey: "sk-fake", StripeSecretKey: "sk_live_fake", TelegramBotToken: "7:fake"})
	if err := s.checkKeys(); err == nil || !strings.Contains(err.Error(), "STRIPE_WEBHOOK_SECRETS") {
		t.Errorf("without a webhook secret: %v", err)
	}
	s.cfg.StripeWebhookSecrets = "whsec_fake_real"
	if err := s.checkKeys(); err != nil {
		t.Fatal(err)
	}
	if err := s.sell(t.Context()); err != nil { // of which the owner of the account has taken care
		t.Fatal(err)
	}
	if got := names(s.simulators()); len(got) != 0 {
		t.Errorf("it starts %v", got)
	}
	if slices.Contains(s.stripeArgs(), "--stripe-url") {
		t.Errorf("programs are given %v", s.stripeArgs())
	}
	for file, want := range map[string]string{"stripe-secret-key": "sk_live_fake\n", "stripe-webhook-secrets": "whsec_fake_real\n", "telegram-bot-token": "7:fake\n"} {
		got, err := os.ReadFile(s.cfg.path(file))
		if err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", file, got, err)
		}
		if info, err := os.Stat(s.cfg.path(file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// Whoever asks what runs need not have the keys with which it was started.
func TestStatusIsOfWhatWasStarted(t *testing.T) {
	t.Parallel()
	both := []string{"billing-worker", "api", "token-proxy", "web", "onboarding-agent"}
	keys := Config{KimiAPIKey: "sk-fake", StripeSecretKey: "sk_live_fake", TelegramBotToken: "7:fake", RedisURL: "redis://127.0.0.1:1", DatabaseURL: "postgres://127.0.0.1:1/x"}
	for _, c := range []struct {
		name         string
		start, asked Config
		want         []string
	}{
		{"with keys, asked without", keys, Config{}, both},
		{"without keys, asked with", Config{}, keys, append([]string{"redis", "postgres", "kimisim", "stripesim", "telegramsim"}, both...)},
	} {
		s := openStack(t, c.start)
		if err := s.checkSettings(); err != nil {
			t.Fatal(err)
		}
		s.close()
		var said bytes.Buffer
		c.asked.RunDir, c.asked.BinDir, c.asked.Ports, c.asked.Out = s.cfg.RunDir, s.cfg.BinDir, DefaultPorts(), &said
		if err := Status(t.Context(), c.asked); !errors.Is(err, ErrDown) {
			t.Errorf("%s: nothing runs, and it says %v", c.name, err)
		}
		var got []string
		for line := range strings.Lines(said.String()) {
			got = append(got, strings.Fields(line)[0])
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: it lists %v instead of %v", c.name, got, c.want)
		}
	}
}

// What has a file is listed, whatever was said at the start: Kubernetes, of which the settings say nothing.
func TestStatusNamesWhatHasAFile(t *testing.T) {
	t.Parallel()
	s := openStack(t, Config{})
	if err := s.checkSettings(); err != nil {
		t.Fatal(err)
	}
	without := names(s.startedServices())
	if slices.Contains(without, s.boxOperator().name) {
		t.Fatalf("without a cluster it lists %v", without)
	}
	if err := writePrivate(s.pidFile(s.boxOperator().name), "99999999 gone\n"); err != nil {
		t.Fatal(err)
	}
	if got := names(s.startedServices()); !slices.Equal(got, append(without, s.boxOperator().name)) {
		t.Errorf("it lists %v", got)
	}
}

// Stripe tells a webhook secret once, so it has to be kept, also those of before: a port of the api may
// come back.
// Not parallel: while another test forks, a program that was just written may be "busy".
func TestWebhookSecretsAreKept(t *testing.T) {
	bin := t.TempDir()
	s := openStack(t, Config{BinDir: bin})
	program := filepath.Join(bin, "openclawctl")
	script := "#!/bin/sh\n[ \"$STRIPE_SECRET_KEY $STRIPE_URL\" = '" + stripeSimulatorKey + " http://127.0.0.1:9101' ] || exit 1\n" +
		"[ \"$1 $2 $3 $4\" = 'billing bootstrap --webhook-url http://127.0.0.1:8000/v1/webhooks/stripe' ] || exit 1\ncat " + program + ".out\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	sell := func(printed string) error {
		t.Helper()
		if err := os.WriteFile(program+".out", []byte(printed), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.sell(t.Context())
	}
	if err := sell(`{"changes":[]}`); err == nil || !strings.Contains(err.Error(), "is lost") {
		t.Errorf("without a secret: %v", err)
	}
	for _, step := range []struct{ printed, want string }{
		{`{"webhook_secret":"whsec_fake_a"}`, "whsec_fake_a\n"},
		{`{"changes":[]}`, "whsec_fake_a\n"},
		{`{"webhook_secret":"whsec_fake_b"}`, "whsec_fake_a\nwhsec_fake_b\n"},
	} {
		if err := sell(step.printed); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(s.webhookSecretsFile()); err != nil || string(got) != step.want {
			t.Errorf("after %s it keeps %q, %v", step.printed, got, err)
		}
	}
}
