package main_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// Who serves others stays ready while Postgres is away, stopped or silent, and answers them itself; whoever looks
// is told. Once it is told to end it is not ready.
func TestReadyWithoutPostgres(t *testing.T) {
	t.Parallel()
	pg := storetest.DedicatedPostgres(t)
	api, _, customers, _ := startAPI(t, &world{redis: testenv.Redis(t), pg: pg})
	agent := startOnboarding(t, "REDIS_URL", "redis://127.0.0.1:1/0", "DATABASE_URL", pg.URL)
	await(t, "readiness", func() bool { code, _ := agent.get("/readyz"); return code == 200 }, agent.said)
	services := map[string]*worker{"the api": api, "the onboarding-agent": agent}
	looked := func(state, text string) {
		t.Helper()
		for name, w := range services {
			if code, said := w.get("/readyz"); code != http.StatusOK || !strings.HasPrefix(said, "ready\n") || strings.Contains(said, "ping Postgres") != (text != "") {
				t.Errorf("%s, Postgres %s: %d %s", name, state, code, said)
			}
			up := "control_postgres_up 1\n"
			if text != "" {
				up = "control_postgres_up 0\n"
			}
			await(t, name+" tells "+up, func() bool { _, said := w.get("/metrics"); return strings.Contains(said, up) }, w.said)
		}
	}
	looked("there", "")
	pg.Pause()
	looked("silent", "note")
	pg.Resume()
	pg.Stop()
	looked("stopped", "note")
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+customers+"/v1/session", strings.NewReader(`{"email":"a@example.com","password":"wrong horse"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-OpenClaw-CSRF", "1")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || !strings.Contains(string(body), `problem:unavailable"`) {
		t.Errorf("the api answers %s %v: %s, %v", res.Status, res.Header, body, err)
	}
	if begun := agent.ask(t, "/onboarding/v1/conversation", `{}`, nil); begun.StatusCode != http.StatusServiceUnavailable || begun.Header.Get("Retry-After") == "" {
		t.Errorf("the onboarding-agent answers %s", begun.Status)
	}
	pg.Start()
	for name, w := range services {
		await(t, name+" finds Postgres again", func() bool { code, said := w.get("/readyz"); return code == 200 && !strings.Contains(said, "note") }, w.said)
	}
}

// Who never reached its database, as with a wrong password, is not ready.
func TestNotReadyWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	database, err := url.Parse(testenv.Postgres(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	database.User = url.UserPassword(database.User.Username(), "wrong")
	wrong := database.String()
	probes, address := testenv.FreePort(t), testenv.FreePort(t)
	api := &worker{admin: fmt.Sprintf("127.0.0.1:%d", probes)}
	api.cmd = command(t, map[string]string{
		"DATABASE_URL": wrong, "REDIS_URL": "redis://127.0.0.1:1/0", "PUBLIC_URL": "http://app.example.invalid", "JWT_SECRET": fakeJWTSecret,
		"OPENCLAW_TOKEN_PEPPER": "a pepper that is fake", "LISTEN": fmt.Sprintf("127.0.0.1:%d", address), "LISTEN_PROBES": api.admin,
	}, "api")
	api.cmd.Stdout, api.cmd.Stderr = api, api
	if err := api.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { api.end(os.Kill) })
	agent := startOnboarding(t, "REDIS_URL", "redis://127.0.0.1:1/0", "DATABASE_URL", wrong)
	for name, w := range map[string]*worker{"the api": api, "the onboarding-agent": agent} {
		await(t, name+" waits", func() bool { return strings.Count(w.said(), "waiting for Postgres") > 1 }, w.said)
		if code, said := w.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(said, "starting") {
			t.Errorf("%s: %d %s", name, code, said)
		}
		if _, said := w.get("/metrics"); !strings.Contains(said, "control_postgres_up 0\n") {
			t.Errorf("%s does not tell that it is without Postgres", name)
		}
		if code := w.end(syscall.SIGTERM); code != 0 {
			t.Errorf("%s: exit code %d; %s", name, code, w.said())
		}
	}
}
