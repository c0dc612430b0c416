package main_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestWebRefusesToStart(t *testing.T) {
	t.Parallel()
	good := func(more ...string) map[string]string {
		env := map[string]string{"PUBLIC_URL": "https://app.example.com", "API_URL": "http://api:8000"}
		for i := 0; i < len(more); i += 2 {
			env[more[i]] = more[i+1]
		}
		return env
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		args string
		code int
		want []string
	}{
		{"valid", good(), "web -check-config", 0, []string{"configuration is valid"}},
		{"with a console", good("OPERATORS_API_URL", "http://127.0.0.1:8001", "ONBOARDING_URL", "http://onboarding-agent:9000"), "web -check-config", 0, []string{"configuration is valid"}},
		{"nothing", nil, "web", 2, []string{"PUBLIC_URL", "API_URL"}},
		{"wrong addresses", good("PUBLIC_URL", "app.example.com", "API_URL", "http://api:8000/v1"), "web --listen nowhere", 2, []string{"--public-url", "--api-url", "--listen"}},
		{"a console in public", good(), "web --listen :3000 --listen-operators :3000", 2, []string{"the console needs one of its own"}},
		{"help", nil, "web --help", 0, []string{"$API_URL", "$OPERATORS_API_URL", "Examples:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out := run(t, c.env, strings.Fields(c.args)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("%q is not in:\n%s", w, out)
				}
			}
		})
	}
}

// web passes on to each api what belongs to it, ends streams when it is to end, and exits with 0.
func TestWeb(t *testing.T) {
	t.Parallel()
	side := func(name string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/me/events" {
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprintf(w, "data: %s\n\n", name)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				return
			}
			fmt.Fprint(w, name, " ", r.URL.Path)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)) }
	site, console, probes := address(), address(), address()
	cmd := command(t, map[string]string{
		"PUBLIC_URL": "http://" + site, "API_URL": side("customers"), "OPERATORS_API_URL": side("operators"),
		"LISTEN": site, "LISTEN_OPERATORS": console, "LISTEN_PROBES": probes,
	}, "web")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()

	get := func(url string) (int, string) {
		res, err := http.Get(url)
		if err != nil {
			return 0, err.Error()
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		return res.StatusCode, string(text)
	}
	await(t, "web to serve", func() bool {
		status, _ := get("http://" + console + "/v1/x")
		return status == http.StatusOK
	}, func() string { return "" })
	for url, want := range map[string]string{"http://" + site + "/v1/me": "customers /v1/me", "http://" + console + "/v1/me": "operators /v1/me"} {
		if status, text := get(url); status != http.StatusOK || text != want {
			t.Errorf("%s: %d %q", url, status, text)
		}
	}
	if status, text := get("http://" + probes + "/healthz"); status != http.StatusOK {
		t.Errorf("healthz: %d %s", status, text)
	}
	// Built without pages it is not ready, and says why.
	page, _ := get("http://" + site + "/")
	if status, text := get("http://" + probes + "/readyz"); status != page || status == http.StatusServiceUnavailable && !strings.Contains(text, "make build") {
		t.Errorf("readyz: %d %q, while the page is %d", status, text, page)
	}
	if _, text := get("http://" + probes + "/metrics"); !strings.Contains(text, `web_requests_total{class="2xx",kind="api",site="console"}`) {
		t.Error("metrics do not count requests by site")
	}
	if status, _ := get("http://" + site + "/metrics"); status == http.StatusOK {
		t.Error("metrics are public")
	}

	stream, err := http.Get("http://" + site + "/v1/me/events")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(stream.Body); err != nil || string(rest) != "data: customers\n\n" {
		t.Errorf("the stream was %q, %v", rest, err)
	}
	select {
	case err := <-exited:
		if err != nil {
			t.Errorf("%v\n%s", err, log.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}
