package smoke_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/smoke"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

const revision = "0123456789abcdef0123456789abcdef01234567"

// installation is a made-up one: what it answers can be replaced path by path. The tests of
// cmd/openclawctl check a real api, and scripts/smoke a whole installation.
type installation struct {
	t     *testing.T
	token string
	cfg   smoke.Config

	mu    sync.Mutex
	used  int64
	asked map[string]int
	over  map[string]http.HandlerFunc // by service and path, such as "api /readyz"
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	token, err := contract.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	in := &installation{t: t, token: token.Reveal(), asked: map[string]int{}, over: map[string]http.HandlerFunc{}}
	serve := func(service string, routes map[string]http.HandlerFunc) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			in.mu.Lock()
			in.asked[service+" "+r.URL.Path]++
			handler := in.over[service+" "+r.URL.Path]
			in.mu.Unlock()
			if handler == nil {
				handler = routes[r.URL.Path]
			}
			if handler == nil {
				http.NotFound(w, r)
				return
			}
			handler(w, r)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	says := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, text) }
	}
	stranger := answers(http.StatusUnauthorized, "application/problem+json", `{"type":"urn:openclaw:problem:unauthenticated"}`)
	in.cfg = smoke.Config{
		API:         serve("api", map[string]http.HandlerFunc{"/openapi.json": describes(revision), "/v1/session": stranger, "/v1/me": stranger}),
		APIProbes:   serve("probes", map[string]http.HandlerFunc{"/healthz": says("ok"), "/readyz": says("ready")}),
		ProxyProbes: serve("proxy-probes", map[string]http.HandlerFunc{"/healthz": says("ok"), "/readyz": says("ready")}),
		Proxy: serve("proxy", map[string]http.HandlerFunc{
			"/v1/models":           in.owned(answers(http.StatusOK, "application/json", `{"data":[{"id":"kimi-first"},{"id":"kimi-second"}]}`)),
			"/v1/usage":            in.owned(in.usage),
			"/v1/chat/completions": in.owned(in.complete),
		}),
		Revision: revision, Token: in.token, Pause: time.Millisecond,
	}
	return in
}

func answers(status int, media, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", media)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func describes(revision string) http.HandlerFunc {
	return answers(http.StatusOK, "application/json",
		`{"openapi":"3.1.0","info":{"title":"openclaw-cloud for customers","x-revision":"`+revision+`"},"paths":{"/v1/session":{}}}`)
}

// owned serves who has the token.
func (in *installation) owned(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+in.token {
			answers(http.StatusUnauthorized, "application/json", `{"error":{"type":"authentication_error"}}`)(w, r)
			return
		}
		next(w, r)
	}
}

func (in *installation) usage(w http.ResponseWriter, r *http.Request) {
	in.mu.Lock()
	defer in.mu.Unlock()
	answers(http.StatusOK, "application/json", fmt.Sprintf(`{"object":"usage","used":%d}`, in.used))(w, r)
}

func (in *installation) complete(w http.ResponseWriter, r *http.Request) {
	in.mu.Lock()
	in.used += 12
	in.mu.Unlock()
	streams(`{"choices":[{"delta":{"content":"Hello"}}]}`, `{"choices":[],"usage":{"total_tokens":12}}`, `[DONE]`)(w, r)
}

func streams(events ...string) http.HandlerFunc {
	return answers(http.StatusOK, "text/event-stream", "data: "+strings.Join(events, "\n\ndata: ")+"\n\n")
}

func (in *installation) replace(path string, h http.HandlerFunc) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.over[path] = h
}

// run runs all checks until they pass; once tries each once.
func (in *installation) run() ([]smoke.Result, error) {
	in.t.Helper()
	ctx, cancel := context.WithTimeout(in.t.Context(), time.Minute)
	defer cancel()
	return smoke.Run(ctx, in.cfg)
}

func (in *installation) once() ([]smoke.Result, error) {
	in.t.Helper()
	in.cfg.Rounds, in.cfg.Metered = 1, time.Millisecond
	return in.run()
}

func failed(results []smoke.Result) []string {
	var names []string
	for _, r := range results {
		if !r.OK {
			names = append(names, r.Check)
		}
	}
	return names
}

func TestAllPasses(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	results, err := in.run()
	if err != nil {
		t.Fatalf("%v: %+v", err, results)
	}
	var names []string
	for _, r := range results {
		names = append(names, r.Check)
		if !r.OK || r.Attempts != 1 || r.Detail == "" || r.Advice != "" {
			t.Errorf("%+v", r)
		}
	}
	want := "api is alive, api is ready, api describes itself, api refuses strangers, api hides what is not public, api has the revision, " +
		"token-proxy is alive, token-proxy is ready, token-proxy refuses strangers, token-proxy answers, token-proxy meters"
	if got := strings.Join(names, ", "); got != want {
		t.Errorf("checked were %s", got)
	}
	if in.asked["proxy /v1/chat/completions"] != 3 { // two strangers, one completion
		t.Errorf("asked for %d completions", in.asked["proxy /v1/chat/completions"])
	}
	if d := results[9].Detail; !strings.Contains(d, "kimi-first") || !strings.Contains(d, "12 tokens") {
		t.Errorf("the completion: %s", d)
	}
	if d := results[10].Detail; !strings.Contains(d, "grew by 12") {
		t.Errorf("its usage: %s", d)
	}
}

// What has no address is not checked.
func TestOnlyTheAPI(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.cfg = smoke.Config{API: in.cfg.API + "/"}
	results, err := in.run()
	if err != nil || len(results) != 3 {
		t.Errorf("%v: %+v", err, results)
	}
	for path := range in.asked {
		if !strings.HasPrefix(path, "api ") || strings.Contains(path, "//") {
			t.Errorf("asked for %s", path)
		}
	}
}

// Each fault is seen by the check that is for it, and by no other one.
func TestFaults(t *testing.T) {
	t.Parallel()
	text := func(status int, body string) http.HandlerFunc { return answers(status, "text/plain", body) }
	for _, f := range []struct {
		name, path string
		handler    http.HandlerFunc
		checks     string // that fail
		says       string
	}{
		{"dead", "probes /healthz", text(500, "no"), "api is alive", "500 no"},
		{"not ready", "probes /readyz", text(503, "waits for Postgres"), "api is ready", "waits for Postgres"},
		{"a page instead", "api /openapi.json", answers(200, "text/html", "<html>"), "api describes itself, api has the revision", "no OpenAPI document"},
		{"another api", "api /openapi.json", answers(200, "application/json", `{"openapi":"3.1.0","info":{"title":"openclaw-cloud for operators"}}`),
			"api describes itself, api has the revision", "another api"},
		{"an older build", "api /openapi.json", describes("fedcba9876543210fedcba9876543210fedcba98"), "api has the revision", "it was built from fedcba"},
		{"a tree with changes", "api /openapi.json", describes(revision[:12] + "+changes"), "api has the revision", "+changes"},
		{"a build that does not know", "api /openapi.json", describes(""), "api has the revision", "an unknown revision"},
		{"open to strangers", "api /v1/session", answers(200, "application/json", "{}"), "api refuses strangers", "answers a stranger with 200"},
		{"any key opens", "api /v1/me", answers(200, "application/json", "{}"), "api refuses strangers", "/v1/me"},
		{"refused by a load balancer", "api /v1/session", text(401, "401"), "api refuses strangers", "words that are not the api's"},
		{"operators' routes", "api /v1/customers", answers(401, "application/problem+json", "{}"), "api hides what is not public", "should not be there"},
		{"metrics", "api /metrics", text(200, "# HELP go_goroutines x\n"), "api hides what is not public", "/metrics is public"},
		{"profiles", "api /debug/pprof/", text(200, "goroutine"), "api hides what is not public", "pprof/ is public"},
		{"proxy not ready", "proxy-probes /readyz", text(503, "no quota"), "token-proxy is ready", "no quota"},
		{"proxy open", "proxy /v1/chat/completions", streams(`{"choices":[{}]}`, `{"choices":[],"usage":{"total_tokens":1}}`, `[DONE]`),
			"token-proxy refuses strangers, token-proxy meters", "answers a stranger with 200"},
		{"no models", "proxy /v1/models", answers(200, "application/json", `{"data":[]}`), "token-proxy answers, token-proxy meters", "lists none"},
		{"usage is away", "proxy /v1/usage", answers(503, "application/json", `{"error":{}}`), "token-proxy answers, token-proxy meters", "503"},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			in := newInstallation(t)
			in.replace(f.path, f.handler)
			results, err := in.once()
			if !errors.Is(err, smoke.ErrFailed) {
				t.Errorf("the error is %v", err)
			}
			if got := strings.Join(failed(results), ", "); got != f.checks {
				t.Errorf("failed: %s", got)
			}
			var said string
			for _, r := range results {
				if !r.OK {
					said += r.Detail + "\n"
					if r.Advice == "" {
						t.Errorf("%s fails without saying what to do", r.Check)
					}
				}
			}
			if !strings.Contains(said, f.says) {
				t.Errorf("nothing says %q:\n%s", f.says, said)
			}
			if strings.Contains(fmt.Sprint(results), in.token) {
				t.Error("a result holds the token")
			}
		})
	}
}

// A stream is whole, tells its tokens, and holds an answer.
func TestStreamsThatAreNone(t *testing.T) {
	t.Parallel()
	const chunk, usage = `{"choices":[{"delta":{"content":"Hello"}}]}`, `{"choices":[],"usage":{"total_tokens":12}}`
	for _, f := range []struct {
		name    string
		handler func(token string) http.HandlerFunc
		says    string
	}{
		{"cut off", func(string) http.HandlerFunc { return streams(chunk, usage) }, "after 1 events, without [DONE]"},
		{"without usage", func(string) http.HandlerFunc { return streams(chunk, `[DONE]`) }, "how many tokens"},
		{"empty", func(string) http.HandlerFunc { return streams(usage, `[DONE]`) }, "no answer"},
		{"an error in it", func(string) http.HandlerFunc { return streams(chunk, `{"error":{"message":"cut"}}`) }, `ends with the error {"message":"cut"}`},
		{"no stream", func(string) http.HandlerFunc { return answers(200, "application/json", chunk) }, "instead of a stream"},
		{"refused", func(string) http.HandlerFunc { return answers(429, "application/json", `{"error":{"type":"limit"}}`) }, "429"},
		{"an error that repeats the token", func(token string) http.HandlerFunc { return answers(400, "application/json", "bad "+token) }, "bad ocp_[redacted]"},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			in := newInstallation(t)
			in.replace("proxy /v1/chat/completions", in.owned(f.handler(in.token)))
			results, err := in.once()
			if got := strings.Join(failed(results), ", "); err == nil || got != "token-proxy answers, token-proxy meters" {
				t.Fatalf("%v; failed: %s", err, got)
			}
			if !strings.Contains(results[9].Detail, f.says) || strings.Contains(results[9].Detail, in.token) {
				t.Errorf("it says %q, not %q", results[9].Detail, f.says)
			}
		})
	}
}

// However long it is tried, what each attempt costs is paid three times at most.
func TestFewCompletionsArePaid(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"cut off":   streams(`{"choices":[{"delta":{"content":"Hello"}}]}`),
		"no stream": answers(http.StatusOK, "application/json", "{}"),
	} {
		in := newInstallation(t)
		in.cfg.Rounds = 6
		in.replace("proxy /v1/chat/completions", in.owned(handler))
		results, err := smoke.Run(t.Context(), in.cfg)
		if err == nil || !strings.Contains(results[9].Detail, "3 completions were answered, and none as it should be") {
			t.Errorf("%s: %v; %q", name, err, results[9].Detail)
		}
		if n := in.asked["proxy /v1/chat/completions"]; n != 2+3 { // two strangers
			t.Errorf("%s: asked for %d completions", name, n-2)
		}
	}
}

// A completion that nobody counts is noticed.
func TestNothingIsMetered(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.replace("proxy /v1/usage", in.owned(answers(http.StatusOK, "application/json", `{"object":"usage","used":7}`)))
	results, err := in.once()
	if got := strings.Join(failed(results), ", "); err == nil || got != "token-proxy meters" {
		t.Fatalf("%v; failed: %s", err, got)
	}
	if d := results[10].Detail; !strings.Contains(d, "does not show") {
		t.Errorf("it says %q", d)
	}
}

// What comes late in a roll-out is waited for; what has passed is not asked again, and costs
// nothing twice.
func TestWaitsForARollOut(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	var told []string
	in.cfg.Failed = func(r smoke.Result) { told = append(told, r.Check+": "+r.Detail) }
	asked := 0
	in.replace("api /openapi.json", func(w http.ResponseWriter, r *http.Request) {
		// The old pods answer the first questions, and then each third one.
		if asked++; asked < 5 || asked < 20 && asked%3 == 0 {
			describes("fedcba9876543210")(w, r)
			return
		}
		describes(revision)(w, r)
	})
	results, err := in.run()
	if err != nil {
		t.Fatalf("%v: %+v", err, results)
	}
	if results[5].Check != "api has the revision" || results[5].Attempts != 9 {
		t.Errorf("the revision passed although old pods answered: %+v", results[5])
	}
	if len(told) != results[5].Attempts-1 || !strings.Contains(told[0], "fedcba") {
		t.Errorf("told of %q", told)
	}
	if in.asked["proxy /v1/chat/completions"] != 3 || in.asked["probes /readyz"] != 1 {
		t.Errorf("what had passed was asked again: %v", in.asked)
	}
}

// A service that does not answer uses up neither the time of the others nor the reason why it fails.
func TestNothingListens(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	in.cfg.APIProbes = gone.URL
	hangs := make(chan struct{})
	in.replace("proxy-probes /readyz", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hangs:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(hangs) })
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
	defer cancel()
	results, err := smoke.Run(ctx, in.cfg)
	if !errors.Is(err, smoke.ErrFailed) {
		t.Fatal(err)
	}
	if r := results[0]; r.OK || !strings.Contains(r.Detail, "nothing listens there") {
		t.Errorf("%+v", r)
	}
	if r := results[7]; r.Check != "token-proxy is ready" || r.OK || !strings.Contains(r.Detail, "in time") {
		t.Errorf("%+v", r)
	}
	if r := results[8]; r.OK || r.Detail != "no time was left to try it" {
		t.Errorf("%+v", r)
	}
}

func TestConfigsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	good := in.cfg
	for says, change := range map[string]func(*smoke.Config){
		"address is needed":         func(c *smoke.Config) { c.API = "" },
		"must be like":              func(c *smoke.Config) { c.API = "api.example.com" },
		"of the probes of the api":  func(c *smoke.Config) { c.APIProbes = "ftp://x" },
		"to read":                   func(c *smoke.Config) { c.Proxy = "http://proxy.example.com" },
		"needs the address":         func(c *smoke.Config) { c.Proxy = "" },
		"is none":                   func(c *smoke.Config) { c.Token = "secret" },
		"too short for a revision":  func(c *smoke.Config) { c.Revision = "0123" },
		"address of the api must":   func(c *smoke.Config) { c.API = "https://ada:secret@api.example.com" },
		"address of the token-prox": func(c *smoke.Config) { c.Proxy = "https://proxy.example.com/?secret" },
	} {
		cfg := good
		change(&cfg)
		_, err := smoke.Run(t.Context(), cfg)
		if !errors.Is(err, smoke.ErrConfig) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", says, err)
		}
	}
}

// A short revision and a long one of the same commit are the same.
func TestShortRevisions(t *testing.T) {
	t.Parallel()
	for _, f := range []struct {
		has, wanted string
		same        bool
	}{
		{revision, revision[:12], true}, {revision[:12], revision, true}, {revision[:8], revision, false},
		{revision + "+changes", revision, false}, {revision[:12] + "+changes", revision[:12] + "+changes", true},
	} {
		in := newInstallation(t)
		in.cfg = smoke.Config{API: in.cfg.API, Revision: f.wanted}
		in.replace("api /openapi.json", describes(f.has))
		if results, err := in.once(); (err == nil) != f.same {
			t.Errorf("%s for %s: %v %+v", f.has, f.wanted, err, results)
		}
	}
}
