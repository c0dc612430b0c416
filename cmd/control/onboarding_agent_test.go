package main_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func onboardingEnv(more ...string) map[string]string {
	env := map[string]string{
		"REDIS_URL": "redis://x", "DATABASE_URL": "postgres://x/y", "PUBLIC_URL": "https://app.example.com",
		"OPENCLAW_TOKEN_PEPPER": "a pepper that is fake", "BOX_SECRETS_KEY": strings.Repeat("0123456789abcdef", 4),
	}
	for i := 0; i < len(more); i += 2 {
		env[more[i]] = more[i+1]
	}
	return env
}

func TestOnboardingAgentRefusesToStart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		env  map[string]string
		code int
		want []string
	}{
		{"valid", onboardingEnv(), 0, []string{"configuration is valid"}},
		{"all", onboardingEnv("ONBOARDING_PROXY_TOKEN", "ocp_hush", "TOKEN_PROXY_URL", "http://token-proxy:8080/v1", "TELEGRAM_BOT_TOKEN", "1:hush", "STRIPE_SECRET_KEY", "sk_test_hush"), 0, []string{"configuration is valid"}},
		{"nothing", nil, 2, []string{"DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "OPENCLAW_TOKEN_PEPPER_FILE", "BOX_SECRETS_KEY_FILE"}},
		{"a token without a proxy", onboardingEnv("ONBOARDING_PROXY_TOKEN", "ocp_hush"), 2, []string{"TOKEN_PROXY_URL"}},
		{"wrong addresses", onboardingEnv("PUBLIC_URL", "app.example.com", "TELEGRAM_URL", "ftp://x", "TRUSTED_PROXIES", "10.0.0.1", "LISTEN", "nowhere"), 2,
			[]string{"--origins", "--telegram-url", "--trusted-proxies", "--listen"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out := run(t, c.env, "onboarding-agent", "-check-config")
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("%q is not in:\n%s", w, out)
				}
			}
			if strings.Contains(out, "hush") {
				t.Error("a secret is shown")
			}
		})
	}
}

// It has a conversation without a model, a bot and Stripe, and ends when it is told to.
func TestOnboardingAgentLife(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	address := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	w := &worker{admin: address}
	w.cmd = command(t, onboardingEnv("REDIS_URL", world.redis.URL, "DATABASE_URL", world.pg.URL, "LISTEN", address), "onboarding-agent")
	w.cmd.Stdout, w.cmd.Stderr = w, w
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.end(os.Kill) })
	await(t, "readiness", func() bool { code, _ := w.get("/readyz"); return code == 200 }, w.said)
	ask := func(path, body string, cookies []*http.Cookie) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", "https://app.example.com")
		for _, k := range cookies {
			r.AddCookie(k)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	begun := ask("/v1/onboarding", `{"language": "pt-BR"}`, nil)
	if begun.StatusCode != http.StatusCreated || len(begun.Cookies()) != 1 {
		t.Fatalf("%s; %s", begun.Status, w.said())
	}
	if said := ask("/v1/onboarding/messages", `{"choice": "use:work"}`, begun.Cookies()); said.StatusCode != http.StatusOK {
		t.Errorf("%s; %s", said.Status, w.said())
	}
	if state := strings.TrimSpace(world.pg.Query(`SELECT state FROM onboarding_sessions`)); state != "use_case" {
		t.Errorf("the conversation is %s", state)
	}
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d; %s", code, w.said())
	}
}
