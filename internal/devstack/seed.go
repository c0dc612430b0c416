package devstack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// seed makes sure that there is a customer whose token the proxy accepts, and
// returns the customer's id. env is openclawctl's. The token is kept in the run directory, so that the
// next Up prints the same lines.
func (s *stack) seed(ctx context.Context, env []string) (customer string, err error) {
	known, err := os.ReadFile(s.cfg.path("customer"))
	if err == nil {
		ok, err := s.keptAccepted(ctx)
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
	if err := s.openclawctl(ctx, env, &created, "customer", "create", "--name", "Development", "--tier", "starter"); err != nil {
		return "", err
	}
	var token struct {
		Token string `json:"token"`
	}
	if err := s.openclawctl(ctx, env, &token, "token", "create", "--customer", created.Customer.ID); err != nil {
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
	ok, err := s.accepted(ctx, token.Token)
	if err == nil && !ok {
		err = errors.New("token-proxy refuses the token that was just made")
	}
	return created.Customer.ID, err
}

// keptAccepted asks the proxy whether it takes the kept token, if there is one.
func (s *stack) keptAccepted(ctx context.Context) (bool, error) {
	token, err := os.ReadFile(s.cfg.path("token"))
	if err != nil {
		return false, nil
	}
	return s.accepted(ctx, strings.TrimSpace(string(token)))
}

// accepted asks the proxy whether it takes a token.
func (s *stack) accepted(ctx context.Context, token string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address(s.cfg.Ports.Proxy)+"/v1/models", nil)
	if err != nil {
		return false, fmt.Errorf("devstack: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
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
func (s *stack) instructions(customer, email string) error {
	ctl, err := s.writeOpenclawctl(email)
	if err != nil {
		return err
	}
	ctl = quote(ctl)
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

Change its limit, and see how soon the proxy applies it:

  %s quota set --customer %s --limit 2000000 --reason trial

What else operators can do (it signs in as %s, with the password in %s):

  %s --help

The pages: http://%s for customers (anybody can sign up; nothing can be bought here yet), http://%s for operators
The api: http://%s for customers, http://%s for operators; what it can do is in /openapi.json of each.
Models: %s. Metrics: http://%s/metrics. Logs: %s
Stop it with: make down
`,
		request("-sN", `{"model":"`+askedModel+`","stream":true,`+message+`}`),
		request("-s", `{"model":"`+askedModel+`",`+message+`}`),
		ctl, customer, ctl, customer, email, s.cfg.path("operator-password"), ctl,
		address(s.cfg.Ports.Web), address(s.cfg.Ports.Console), address(s.cfg.Ports.API), address(s.cfg.Ports.Operators), modelNames(), address(s.cfg.Ports.Admin), s.cfg.path("logs"))
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
