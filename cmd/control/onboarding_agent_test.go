package main_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/internal/telegramsim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// fakeBotToken has the form of a bot's token; it is put together, so that nobody takes it for real.
var fakeBotToken = "1234567:" + strings.Repeat("hushHUSH9", 4)

func onboardingEnv(more ...string) map[string]string {
	env := map[string]string{
		"REDIS_URL": "redis://x", "DATABASE_URL": "postgres://x/y", "PUBLIC_URL": "https://app.example.com",
		"OPENCLAW_TOKEN_PEPPER": "a pepper that is fake", "BOX_SECRETS_KEY": strings.Repeat("0123456789abcdef", 4), "JWT_SECRET": fakeJWTSecret,
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
		args string
		code int
		want []string
	}{
		{"valid", onboardingEnv(), "-check-config", 0, []string{"configuration is valid"}},
		{"all", onboardingEnv("ONBOARDING_PROXY_TOKEN", "ocp_hush", "TOKEN_PROXY_URL", "http://token-proxy:8080/v1", "TELEGRAM_BOT_TOKEN", fakeBotToken,
			"STRIPE_SECRET_KEY", "sk_test_hush", "TRIAL_DAYS", "14", "TELEGRAM_BOT_PAGE", "https://t.me/name_bot", "RETURN_URL", "https://app.example.com/start"), "-check-config", 0, []string{"configuration is valid"}},
		{"nothing", nil, "", 2, []string{"DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "OPENCLAW_TOKEN_PEPPER_FILE", "BOX_SECRETS_KEY_FILE", "JWT_SECRET_FILE"}},
		{"a token without a proxy", onboardingEnv("ONBOARDING_PROXY_TOKEN", "ocp_hush"), "", 2, []string{"TOKEN_PROXY_URL"}},
		{"wrong addresses", onboardingEnv("PUBLIC_URL", "app.example.com", "ORIGINS", "*", "TELEGRAM_URL", "ftp://x", "TOKEN_PROXY_URL", "token-proxy:8080", "TRUSTED_PROXIES", "10.0.0.1",
			"RETURN_URL", "https://x/?hush", "TELEGRAM_BOT_PAGE", "https://t.me"), "--listen nowhere", 2,
			[]string{"--telegram-bot-page", "--public-url", "--origins", "--telegram-url", "--token-proxy-url", "--trusted-proxies", "--return-url", "--listen"}},
		{"wrong secrets", onboardingEnv("OPENCLAW_TOKEN_PEPPER", "hush", "JWT_SECRET", "hush", "BOX_SECRETS_KEY", "hush", "TELEGRAM_BOT_TOKEN", "hush", "STRIPE_SECRET_KEY", "pk_hush"), "", 2,
			[]string{"--openclaw-token-pepper has 4 bytes", "--jwt-secret has 4 bytes", "--box-secrets-key", "--telegram-bot-token is no token", "neither sk_ nor rk_"}},
		{"wrong numbers", onboardingEnv("TRIAL_DAYS", "-1", "MODEL_WITHIN", "0s", "SWEEP_EVERY", "-1s", "DRAIN_WITHIN", "0s"), "", 2,
			[]string{"--trial-days -1", "--model-within", "--sweep-every", "--drain-within"}},
		{"help", nil, "--help", 0, []string{"$ONBOARDING_PROXY_TOKEN_FILE", "$TELEGRAM_BOT_TOKEN", "$TRUSTED_PROXIES", `default ":9000"`, "default 8s", "Examples:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out := run(t, c.env, append([]string{"onboarding-agent"}, strings.Fields(c.args)...)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("%q is not in:\n%s", w, out)
				}
			}
			if strings.Contains(strings.ToLower(out), "hush") {
				t.Errorf("a secret is shown:\n%s", out)
			}
		})
	}
}

// startOnboarding starts the role, and ends it at the latest with the test.
func startOnboarding(t *testing.T, more ...string) *worker {
	t.Helper()
	w := &worker{admin: fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))}
	w.cmd = command(t, onboardingEnv(append(more, "LISTEN", w.admin)...), "onboarding-agent")
	w.cmd.Stdout, w.cmd.Stderr = w, w
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.end(os.Kill) })
	return w
}

// ask sends what a page does.
func (w *worker) ask(t *testing.T, path, body string, cookies []*http.Cookie) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.admin+path, strings.NewReader(body))
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

// listening returns an address that passes on to Stripe's, and what is asked for of pages to pay on.
func listening(t *testing.T, stripeURL string) (<-chan url.Values, string) {
	t.Helper()
	to, err := url.Parse(stripeURL)
	if err != nil {
		t.Fatal(err)
	}
	asked, proxy := make(chan url.Values, 10), httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if form, err := url.ParseQuery(string(raw)); err == nil && r.Method == http.MethodPost && r.URL.Path == "/v1/checkout/sessions" {
			asked <- form
		}
		r.Body = io.NopCloser(bytes.NewReader(raw))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return asked, server.URL
}

// It has a conversation without a model, a bot and Stripe, and ends when it is told to.
func TestOnboardingAgentLife(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	w := startOnboarding(t, "REDIS_URL", world.redis.URL, "DATABASE_URL", world.pg.URL)
	await(t, "readiness", func() bool { code, _ := w.get("/readyz"); return code == 200 }, w.said)
	begun := w.ask(t, "/onboarding/v1/conversation", `{"language": "pt-BR"}`, nil)
	if begun.StatusCode != http.StatusCreated || len(begun.Cookies()) != 1 {
		t.Fatalf("%s; %s", begun.Status, w.said())
	}
	if said := w.ask(t, "/onboarding/v1/conversation/messages", `{"choice": "use:work"}`, begun.Cookies()); said.StatusCode != http.StatusOK {
		t.Errorf("%s; %s", said.Status, w.said())
	}
	if state := strings.TrimSpace(world.pg.Query(`SELECT state FROM onboarding_sessions`)); state != "use_case" {
		t.Errorf("the conversation is %s", state)
	}
	if code, metrics := w.get("/metrics"); code != 200 || !strings.Contains(metrics, "go_goroutines") {
		t.Errorf("metrics: %d", code)
	}
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d; %s", code, w.said())
	}
}

// Whoever follows a conversation keeps it from ending for no time at all.
func TestOnboardingAgentDrains(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	w := startOnboarding(t, "REDIS_URL", world.redis.URL, "DATABASE_URL", world.pg.URL, "DRAIN_WITHIN", "15s")
	await(t, "readiness", func() bool { code, _ := w.get("/readyz"); return code == 200 }, w.said)
	begun := w.ask(t, "/onboarding/v1/conversation", `{}`, nil)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.admin+"/onboarding/v1/conversation/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range begun.Cookies() {
		r.AddCookie(k)
	}
	stream, err := http.DefaultClient.Do(r)
	if err != nil || stream.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v; %s", stream, err, w.said())
	}
	defer stream.Body.Close()
	if code := w.end(syscall.SIGTERM); code != 0 || strings.Contains(w.said(), "cut off") {
		t.Errorf("exit code %d; %s", code, w.said())
	}
	if raw, err := io.ReadAll(stream.Body); err != nil || !strings.Contains(string(raw), `"state":"greeting"`) {
		t.Errorf("the stream had %q, %v", raw, err)
	}
}

// While Postgres is away it lives, is not ready, and says so to whoever asks.
func TestOnboardingAgentWaits(t *testing.T) {
	t.Parallel()
	w := startOnboarding(t, "REDIS_URL", "redis://127.0.0.1:1/0", "DATABASE_URL", "postgres://127.0.0.1:1/none")
	await(t, "life", func() bool { code, _ := w.get("/healthz"); return code == 200 }, w.said)
	if code, said := w.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(said, "starting") {
		t.Errorf("ready: %d %s", code, said)
	}
	if begun := w.ask(t, "/onboarding/v1/conversation", `{}`, nil); begun.StatusCode != http.StatusServiceUnavailable || begun.Header.Get("Retry-After") == "" {
		t.Errorf("%s", begun.Status)
	}
	if code := w.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d; %s", code, w.said())
	}
}

// From /start on Telegram to a page to pay on, through the program, with a model, Telegram and Stripe.
func TestOnboardingAgentOnTelegram(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	money, _, _ := newStripe(t)
	people := telegramsim.New()
	t.Cleanup(people.Close)
	ours, own := people.NewBot("openclaw_cloud_bot"), people.NewBot("ada_agent_bot")
	kimi, err := kimisim.New(kimisim.Config{Keys: []string{"sk-fake-1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kimi.Close() })
	kimi.SetDefaults(kimisim.Behavior{Text: `{"lead": "Lovely.", "fields": {}}`, OutputTokens: 20})
	asked, stripeURL := listening(t, money.URL())
	w := startOnboarding(t, "REDIS_URL", world.redis.URL, "DATABASE_URL", world.pg.URL, "TELEGRAM_BOT_PAGE", "https://t.me/openclaw_cloud_bot",
		"TELEGRAM_URL", people.URL(), "TELEGRAM_BOT_TOKEN", ours.Token(), "STRIPE_URL", stripeURL, "STRIPE_SECRET_KEY", stripesim.Key,
		"TOKEN_PROXY_URL", kimi.OpenAIBase(), "ONBOARDING_PROXY_TOKEN", "sk-fake-1")
	ada := telegramsim.User{ID: 4242424242, Name: "Ada", Language: "en"}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var chat []telegramsim.Message
	for _, turn := range [][2]string{
		{"/start", "What would you like your agent to help you with?"}, {"with my work", "Lovely.\n\nWill only you"}, {"just me", "@BotFather"},
		{own.Token(), "@ada_agent_bot answers"}, {"yes", "e-mail address"}, {"ada@example.com", "$49 a month"}, {"yes", "Here is your page to pay for Pro"},
	} {
		before := len(chat)
		ours.Write(ada, turn[0])
		chat, err = ours.Await(ctx, ada.ID, func(m []telegramsim.Message) bool {
			return len(m) > before && m[len(m)-1].FromBot && strings.Contains(m[len(m)-1].Text, turn[1])
		})
		if err != nil {
			t.Fatalf("after %q: %v: %+v; %s", turn[0], err, chat, w.said())
		}
	}
	if markup := string(chat[len(chat)-1].Markup); !strings.Contains(markup, `"url":"http`) {
		t.Errorf("there is no page: %s", markup)
	}
	select {
	case form := <-asked: // it has made one page
		if form.Get("success_url") != "https://t.me/openclaw_cloud_bot" || form.Get("cancel_url") != form.Get("success_url") {
			t.Errorf("the page leads back to %s and %s", form.Get("success_url"), form.Get("cancel_url"))
		}
	default:
		t.Error("no page was made")
	}
	if tier := strings.TrimSpace(world.pg.Query(`SELECT tier || ' ' || status FROM customers WHERE email = 'ada@example.com'`)); tier != "pro pending" {
		t.Errorf("the customer is %q", tier)
	}
	if code := w.end(syscall.SIGTERM); code != 0 || ours.Pending() != 0 {
		t.Errorf("exit code %d, %d messages are left; %s", code, ours.Pending(), w.said())
	}
	for _, secret := range []string{ours.Token(), own.Token(), "sk-fake-1", stripesim.Key, "ada@example.com"} {
		_, half, _ := strings.Cut(secret, ":")
		if said := w.said(); strings.Contains(said, secret) || half != "" && strings.Contains(said, half) {
			t.Errorf("the log has what it should not: %s", said)
		}
	}
}
