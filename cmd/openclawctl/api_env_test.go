package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

const (
	fakePassword = "correct horse battery staple"
	admin        = "ops@example.com"
)

// apiEnv runs the built command against a real api.
type apiEnv struct {
	*env
	control   map[string]string // environment of cmd/control
	operators string            // base URL
	customers string
	probes    string
	program   *testenv.Program
	log       string // file
}

// newAPIEnv starts an api with one admin, for whom the command signs in by itself.
func newAPIEnv(t *testing.T) *apiEnv {
	t.Helper()
	return newAPIEnvOn(t, storetest.PostgresWithJobs(t))
}

func newAPIEnvOn(t *testing.T, pg *testenv.PostgresServer) *apiEnv {
	t.Helper()
	e := newEnvOn(t, pg)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)) }
	customers, operators, probes := address(), address(), address()
	a := &apiEnv{
		env: e, operators: "http://" + operators, customers: "http://" + customers, probes: "http://" + probes, log: filepath.Join(dir, "log"),
		control: map[string]string{
			"DATABASE_URL": e.pg.URL, "REDIS_URL": e.redis.URL, "PUBLIC_URL": "http://" + customers,
			"JWT_SECRET": "a fake secret of access tokens, for tests only", "OPENCLAW_TOKEN_PEPPER": pepper,
			"OPERATOR_URL": fakeOperator(t), "OPERATOR_KEY": fakeOperatorKey, "LISTEN": customers, "LISTEN_OPERATORS": operators, "LISTEN_PROBES": probes,
		},
	}
	a.runControl(fakePassword, "add-operator", "--email", admin, "--role", "admin")
	a.start()
	e.vars = map[string]string{
		"OPENCLAW_API_URL": a.operators, "OPENCLAW_API_EMAIL": admin, "OPENCLAW_API_PASSWORD_FILE": file("password", fakePassword+"\n"),
		"OPENCLAW_SESSION_FILE": filepath.Join(dir, "sessions", "session.json"),
	}
	return a
}

// fakeOperatorKey is what the operator of the boxes knows the api by.
const fakeOperatorKey = "a fake key of the operator"

// fakeOperator answers as the operator of the boxes does.
func fakeOperator(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer "+fakeOperatorKey:
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasSuffix(r.URL.Path, "/logs"):
			fmt.Fprintf(w, "tail %s\x1b[2J\n", r.URL.Query().Get("tail"))
		case strings.HasSuffix(r.URL.Path, "/events"):
			fmt.Fprint(w, `[{"time":"2026-01-02T03:04:05Z","type":"Warning","reason":"BackOff","message":"it ends","object":"Pod/p","count":3}]`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func (a *apiEnv) environ() []string {
	var env []string
	for k, v := range a.control {
		env = append(env, k+"="+v)
	}
	return env
}

func (a *apiEnv) runControl(stdin string, args ...string) {
	a.t.Helper()
	cmd := exec.CommandContext(a.t.Context(), testenv.BuildBinary(a.t, "./cmd/control"), args...)
	cmd.Env, cmd.Stdin = a.environ(), strings.NewReader(stdin+"\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("control %v: %v\n%s", args, err, out)
	}
}

func (a *apiEnv) start() {
	a.t.Helper()
	a.program = testenv.Start(a.t, a.environ(), a.log, testenv.BuildBinary(a.t, "./cmd/control"), "api")
	a.await("the api", func() bool {
		res, err := http.Get(a.probes + "/readyz")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// seen is what the api's log says of requests since from bytes: "METHOD route status".
func (a *apiEnv) seen(from int) []string {
	a.t.Helper()
	b, err := os.ReadFile(a.log)
	if err != nil {
		a.t.Fatal(err)
	}
	var out []string
	for lines := bufio.NewScanner(bytes.NewReader(b[from:])); lines.Scan(); {
		var l struct {
			Msg, Side, Method, Route string
			Status                   int
		}
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.Msg == "request" && l.Side == "operators" {
			out = append(out, fmt.Sprintf("%s %s %d", l.Method, l.Route, l.Status))
		}
	}
	return out
}

func (a *apiEnv) logged() int {
	info, err := os.Stat(a.log)
	if err != nil {
		a.t.Fatal(err)
	}
	return int(info.Size())
}

// operations are those of the api's own document: id → "METHOD /path".
func (a *apiEnv) operations() map[string]string {
	a.t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		}
	}
	a.ok(&doc, "openapi")
	out := map[string]string{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			out[op.OperationID] = strings.ToUpper(method) + " " + path
		}
	}
	if len(out) < 30 {
		a.t.Fatalf("only %d operations", len(out))
	}
	return out
}
