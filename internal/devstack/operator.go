package devstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// operatorEmail is who signs in at the operators' api.
const operatorEmail = "dev@localhost"

// operator makes sure that there is an admin who can sign in, and returns its e-mail address.
// Its password is kept in the run directory, where openclawctl finds it.
func (s *stack) operator(ctx context.Context) (email string, err error) {
	if known, err := os.ReadFile(s.cfg.path("operator")); err == nil {
		email := strings.TrimSpace(string(known))
		if err := s.openclawctl(ctx, s.operatorEnv(email), nil, "whoami"); err == nil {
			return email, nil
		}
		s.printf("  The operator of the last time cannot sign in any more: making a new one.\n")
	}
	password := rand.Text()
	if err := writePrivate(s.cfg.path("operator-password"), password+"\n"); err != nil {
		return "", err
	}
	if err := removeIfExists(s.cfg.path("operator-session.json")); err != nil {
		return "", err
	}
	email = operatorEmail
	if err = s.addOperator(ctx, email, password); errors.Is(err, errOperatorExists) {
		// The database is older than the run directory.
		email = "dev-" + strings.ToLower(rand.Text()[:6]) + "@localhost"
		err = s.addOperator(ctx, email, password)
	}
	if err != nil {
		return "", err
	}
	// Last: this file says that the password's is the operator's.
	if err := writePrivate(s.cfg.path("operator"), email+"\n"); err != nil {
		return "", err
	}
	return email, s.openclawctl(ctx, s.operatorEnv(email), nil, "whoami")
}

var errOperatorExists = errors.New("there is an operator with this e-mail address")

func (s *stack) addOperator(ctx context.Context, email, password string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary("control"), "add-operator", "--email", email, "--role", "admin")
	cmd.Env, cmd.Stdin = s.controlEnv(), strings.NewReader(password+"\n")
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil && bytes.Contains(out, []byte("already exists")):
		return errOperatorExists
	case err != nil:
		return fmt.Errorf("control add-operator: %w\n%s", err, out)
	}
	return nil
}

// openclawctl runs a command of it and reads its JSON, unless into is nil.
func (s *stack) openclawctl(ctx context.Context, env []string, into any, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary("openclawctl"), append(args, "--output", "json")...)
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("openclawctl %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(out, into); err != nil {
		// Without the output: it may hold a token.
		return fmt.Errorf("openclawctl %s: its output is not the expected JSON", strings.Join(args, " "))
	}
	return nil
}

// writeOpenclawctl writes a wrapper of openclawctl with the settings of this stack, so that the
// lines to paste hold no password.
func (s *stack) writeOpenclawctl(email string) (path string, err error) {
	path = s.cfg.path("openclawctl")
	script := "#!/bin/sh\n# openclawctl with the settings of this development stack.\n"
	for _, setting := range append(s.operatorEnv(email), s.controlEnv()...) {
		name, value, _ := strings.Cut(setting, "=")
		switch {
		case name == "DATABASE_URL", name == "REDIS_URL", strings.HasPrefix(name, "OPENCLAW_") && name != "OPENCLAW_ACTOR":
			script += "export " + name + "=" + quote(value) + "\n"
		}
	}
	script += "exec " + quote(s.binary("openclawctl")) + ` "$@"` + "\n"
	if err := writePrivate(path, script); err != nil {
		return "", err
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return "", fmt.Errorf("devstack: %w", err)
	}
	return path, nil
}
