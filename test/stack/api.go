package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// API is a running api with one admin.
type API struct {
	*Process
	s         *Stack
	Customers string // base URL
	Operators string // base URL
	env       []string
}

// StartAPI starts an api beside the other processes, with more arguments if need be, and makes an
// admin for Ctl.
func (s *Stack) StartAPI(args ...string) *API {
	s.t.Helper()
	const email, password = "ops@example.com", "correct horse battery staple"
	file := filepath.Join(s.dir, "operator-password")
	secret := filepath.Join(s.dir, "jwt-secret")
	for path, content := range map[string]string{file: password, secret: strings.Repeat("fake", 8)} {
		if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	control := testenv.BuildBinary(s.t, "./cmd/control")
	add := exec.CommandContext(s.t.Context(), control, "add-operator", "--email", email, "--role", "admin")
	add.Env, add.Stdin = s.env, strings.NewReader(password+"\n")
	if out, err := add.CombinedOutput(); err != nil {
		s.t.Fatalf("add-operator: %v\n%s", err, out)
	}
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(s.t)) }
	customers, operators, probes := address(), address(), address()
	a := &API{s: s, Customers: "http://" + customers, Operators: "http://" + operators}
	a.Process = s.Start("api", control, append([]string{"api", "--listen", customers, "--listen-operators", operators, "--listen-probes", probes,
		"--public-url", a.Customers, "--jwt-secret-file", secret}, args...)...)
	s.awaitReady("http://"+probes+"/readyz", a.Process)
	a.env = []string{
		"OPENCLAW_API_URL=" + a.Operators, "OPENCLAW_API_EMAIL=" + email, "OPENCLAW_API_PASSWORD_FILE=" + file,
		"OPENCLAW_SESSION_FILE=" + filepath.Join(s.dir, "session.json"),
	}
	return a
}

// Ctl runs openclawctl by the api and returns its exit code and all that it printed.
func (a *API) Ctl(args ...string) (code int, stdout, stderr string) {
	a.s.t.Helper()
	program := testenv.BuildBinary(a.s.t, "./cmd/openclawctl") // which may take longer than it may
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = a.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
			a.s.t.Fatal(err)
		}
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}
