package devstack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

// seed makes sure that there is a customer whose token the proxy accepts and who can log in at the
// pages, and returns the customer's id. env is openclawctl's. The token and how to log in are kept in the
// run directory, so that the next Up prints the same lines.
func (s *stack) seed(ctx context.Context, env []string) (customer string, err error) {
	known, err := os.ReadFile(s.cfg.path("customer"))
	if err == nil {
		ok, err := s.keptAccepted(ctx)
		if err != nil {
			return "", err
		}
		_, err = os.Stat(s.cfg.path("customer-email"))
		switch {
		case ok && err == nil:
			return strings.TrimSpace(string(known)), nil
		case ok: // the run directory is older than the pages
			s.printf("  The customer of the last time cannot log in: making a new one.\n")
		default:
			s.printf("  The token of the last time is not valid any more: making a new customer.\n")
		}
	}
	// It would be taken for the owner of what is written next, should this be interrupted.
	if err := removeIfExists(s.cfg.path("customer")); err != nil {
		return "", err
	}
	customer, err = s.newCustomer(ctx, env)
	if err != nil {
		return "", err
	}
	var token struct {
		Token string `json:"token"`
	}
	if err := s.openclawctl(ctx, env, &token, "token", "create", "--customer", customer); err != nil {
		return "", err
	}
	if token.Token == "" {
		return "", errors.New("openclawctl did not print a token")
	}
	// The customer last: its file says that the others' are whole.
	if err := writePrivate(s.cfg.path("token"), token.Token+"\n"); err != nil {
		return "", err
	}
	if err := writePrivate(s.cfg.path("customer"), customer+"\n"); err != nil {
		return "", err
	}
	ok, err := s.accepted(ctx, token.Token)
	if err == nil && !ok {
		err = errors.New("token-proxy refuses the token that was just made")
	}
	return customer, err
}

// customerEmail is who logs in at the pages.
const customerEmail = "customer@example.com"

// newCustomer makes a customer who can log in. Its password is as good as chance makes it: the database
// may be somebody else's.
func (s *stack) newCustomer(ctx context.Context, env []string) (id string, err error) {
	var created struct {
		Customer struct {
			ID string `json:"id"`
		} `json:"customer"`
	}
	create := func(email string) error {
		return s.openclawctl(ctx, env, &created, "customer", "create", "--name", "Development", "--tier", "starter", "--email", email)
	}
	email := customerEmail
	err = create(email)
	if isTaken(err) {
		// The database is older than the run directory.
		email = "customer-" + strings.ToLower(rand.Text()[:6]) + "@example.com"
		err = create(email)
	}
	if err != nil {
		return "", err
	}
	if created.Customer.ID == "" {
		return "", errors.New("openclawctl did not print a customer's id")
	}
	password := rand.Text()
	if err := writePrivate(s.cfg.path("customer-password"), password+"\n"); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary("control"), "add-login", "--customer", created.Customer.ID)
	cmd.Env, cmd.Stdin = s.controlEnv(), strings.NewReader(password+"\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("control add-login: %w\n%s", err, out)
	}
	return created.Customer.ID, writePrivate(s.cfg.path("customer-email"), email+"\n")
}

// isTaken says whether openclawctl was refused because somebody has the e-mail address, by the words of the
// api or of the databases. Anything else is to be told, and no other address helps.
func isTaken(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "exists already") || strings.Contains(err.Error(), "already exists"))
}

// loginEmail is with which address the first customer logs in.
func (s *stack) loginEmail() (string, error) {
	email, err := os.ReadFile(s.cfg.path("customer-email"))
	if err != nil {
		return "", fmt.Errorf("devstack: %w", err)
	}
	return strings.TrimSpace(string(email)), nil
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
	login, err := s.loginEmail()
	if err != nil {
		return err
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

Change its limit, and see how soon the proxy applies it:

  %s quota set --customer %s --limit 2000000 --reason trial

What else operators can do (it signs in as %s, with the password in %s):

  %s --help

The pages, where anybody can become a customer: http://%s
  log in as %s, with the password in %s
The operations console: http://%s
  log in as %s, with the password in %s
The api: http://%s for customers, http://%s for operators; what it can do is in /openapi.json of each.
Models: %s. Metrics: http://%s/metrics. Logs: %s
Stop it with: make down
`,
		request("-sN", `{"model":"`+askedModel+`","stream":true,`+message+`}`),
		request("-s", `{"model":"`+askedModel+`",`+message+`}`),
		ctl, customer, ctl, customer, email, s.cfg.path("operator-password"), ctl,
		address(s.cfg.Ports.Web), login, s.cfg.path("customer-password"), address(s.cfg.Ports.Console), email, s.cfg.path("operator-password"), address(s.cfg.Ports.API), address(s.cfg.Ports.Operators), modelNames(), address(s.cfg.Ports.Admin), s.cfg.path("logs"))
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
