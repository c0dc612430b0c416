package devstack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

// seed makes sure that there is a customer whose token the proxy accepts, and
// returns the customer's id. The token is kept in the run directory, so that the
// next Up prints the same lines.
func (s *stack) seed(ctx context.Context) (customer string, err error) {
	known, err := os.ReadFile(s.cfg.path("customer"))
	if err == nil {
		ok, err := s.accepted(ctx)
		if err != nil {
			return "", err
		}
		if ok {
			return strings.TrimSpace(string(known)), nil
		}
		s.printf("  The token of the last time is not valid any more: making a new customer.\n")
	}
	var created struct {
		Customer struct {
			ID string `json:"id"`
		} `json:"customer"`
	}
	if err := s.openclawctl(ctx, &created, "customer", "create", "--name", "Development", "--tier", "starter"); err != nil {
		return "", err
	}
	var token struct {
		Token string `json:"token"`
	}
	if err := s.openclawctl(ctx, &token, "token", "create", "--customer", created.Customer.ID); err != nil {
		return "", err
	}
	if created.Customer.ID == "" || token.Token == "" {
		return "", errors.New("openclawctl did not print a customer id and a token")
	}
	// The customer last: its file says that the token's is whole.
	if err := writePrivate(s.cfg.path("token"), token.Token+"\n"); err != nil {
		return "", err
	}
	if err := writePrivate(s.cfg.path("customer"), created.Customer.ID+"\n"); err != nil {
		return "", err
	}
	ok, err := s.accepted(ctx)
	if err == nil && !ok {
		err = errors.New("token-proxy refuses the token that was just made")
	}
	return created.Customer.ID, err
}

// openclawctl runs a command of it and reads its JSON.
func (s *stack) openclawctl(ctx context.Context, into any, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary("openclawctl"), append(args, "--output", "json")...)
	cmd.Env = s.controlEnv()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("openclawctl %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	if err := json.Unmarshal(out, into); err != nil {
		// Without the output: it may hold a token.
		return fmt.Errorf("openclawctl %s: its output is not the expected JSON", strings.Join(args, " "))
	}
	return nil
}

// accepted asks the proxy whether it takes the kept token.
func (s *stack) accepted(ctx context.Context) (bool, error) {
	token, err := os.ReadFile(s.cfg.path("token"))
	if err != nil {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address(s.cfg.Ports.Proxy)+"/v1/models", nil)
	if err != nil {
		return false, fmt.Errorf("devstack: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, fmt.Errorf("devstack: ask token-proxy: %w", err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusUnauthorized:
		return false, nil
	}
	return false, fmt.Errorf("token-proxy answers GET /v1/models with %s; its log: %s", res.Status, s.logFile("token-proxy"))
}

// instructions prints the lines to paste.
func (s *stack) instructions(customer string) error {
	// A wrapper, so that the line to paste holds no password.
	ctl := s.cfg.path("openclawctl")
	script := "#!/bin/sh\n# openclawctl with the settings of this development stack.\n"
	for _, setting := range s.controlEnv() {
		name, value, _ := strings.Cut(setting, "=")
		switch name {
		case "DATABASE_URL", "REDIS_URL", "OPENCLAW_TOKEN_PEPPER_FILE":
			script += "export " + name + "=" + quote(value) + "\n"
		}
	}
	script += "exec " + quote(s.binary("openclawctl")) + ` "$@"` + "\n"
	if err := writePrivate(ctl, script); err != nil {
		return err
	}
	if err := os.Chmod(ctl, 0o700); err != nil {
		return fmt.Errorf("devstack: %w", err)
	}
	request := func(flags, body string) string {
		return fmt.Sprintf(`curl %s http://%s/v1/chat/completions -H "Authorization: Bearer $(cat %s)" -H 'Content-Type: application/json' -d '%s'`,
			flags, address(s.cfg.Ports.Proxy), quote(s.cfg.path("token")), body)
	}
	const message = `"messages":[{"role":"user","content":"Say hello in one sentence."}]`
	s.printf(`
Ready. A streamed answer:

  %s

The same, not streamed:

  %s

What it used, in tokens:

  %s usage --customer %s

What the api can do: http://%s/openapi.json for customers, http://%s/openapi.json for operators.
Models: %s. Metrics: http://%s/metrics. Logs: %s
Stop it with: make down
`,
		request("-sN", `{"model":"`+askedModel+`","stream":true,`+message+`}`),
		request("-s", `{"model":"`+askedModel+`",`+message+`}`),
		quote(ctl), customer, address(s.cfg.Ports.API), address(s.cfg.Ports.Operators), modelNames(), address(s.cfg.Ports.Admin), s.cfg.path("logs"))
	return nil
}

// quote makes text one word for a shell.
func quote(text string) string {
	safe := func(r rune) bool {
		return r == '/' || r == '.' || r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	}
	if text != "" && strings.IndexFunc(text, func(r rune) bool { return !safe(r) }) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
