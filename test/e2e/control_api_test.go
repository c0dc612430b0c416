package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

const (
	fakePassword  = "correct horse battery staple"
	webhookSecret = "whsec_fake"
)

// controlAPI is a running "control api". It keeps its addresses when it is started again.
type controlAPI struct {
	*stack.Process
	t                            *testing.T
	s                            *stack.Stack
	customers, operators, probes string // host:port
	secret                       string // file
	more                         []string
	access                       string // the token of an operator who has signed in

	hooks       atomic.Int64 // webhooks that are not answered
	cut         atomic.Int64 // those whose connection ended without an answer: it was killed meanwhile
	redelivered atomic.Int64 // those, and what came while it was away
}

// newControlAPI starts one, with more arguments.
func newControlAPI(t *testing.T, s *stack.Stack, more ...string) *controlAPI {
	t.Helper()
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)) }
	a := &controlAPI{t: t, s: s, customers: address(), operators: address(), probes: address(), secret: filepath.Join(t.TempDir(), "jwt"), more: more}
	if err := os.WriteFile(a.secret, []byte(strings.Repeat("fake", 12)), 0o600); err != nil {
		t.Fatal(err)
	}
	a.start()
	return a
}

// start starts it and waits until it is ready.
func (a *controlAPI) start() {
	a.t.Helper()
	a.Process = a.s.Start("api", testenv.BuildBinary(a.t, "./cmd/control"), append([]string{
		"api", "--listen", a.customers, "--listen-operators", a.operators,
		"--listen-probes", a.probes, "--public-url", "http://" + a.customers, "--jwt-secret-file", a.secret,
	}, a.more...)...)
	a.s.Eventually("the api is ready", 30*time.Second, func() bool {
		if a.Ended() {
			a.t.Fatalf("the api ended: %s", a.Log())
		}
		r, err := http.Get("http://" + a.probes + "/readyz")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

// addOperator makes an operator by the command, and signs it in.
func (a *controlAPI) addOperator() {
	a.t.Helper()
	cmd := exec.CommandContext(a.t.Context(), testenv.BuildBinary(a.t, "./cmd/control"), "add-operator", "--email", "ops@example.com", "--role", "operator")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+a.s.Postgres.URL)
	cmd.Stdin = strings.NewReader(fakePassword + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("add-operator: %v\n%s", err, out)
	}
	status, body, err := a.post(a.operators, "/v1/session", "", map[string]any{"email": "ops@example.com", "password": fakePassword, "tokens": true})
	if err != nil || status != http.StatusOK {
		a.t.Fatalf("sign in: %d %s, %v", status, body, err)
	}
	var in struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &in); err != nil || in.AccessToken == "" {
		a.t.Fatalf("sign in: %s, %v", body, err)
	}
	a.access = in.AccessToken
}

// post sends JSON to one of the two listeners, as the operator if one has signed in. key is
// the idempotency key, "" for none. An error says that no whole answer came.
func (a *controlAPI) post(listener, path, key string, body any) (status int, answer []byte, err error) {
	b, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	header := http.Header{"Content-Type": {"application/json"}, "X-Openclaw-Csrf": {"1"}}
	if a.access != "" {
		header.Set("Authorization", "Bearer "+a.access)
	}
	if key != "" {
		header.Set("Idempotency-Key", key)
	}
	status, answer, _, err = a.send(listener, path, header, b)
	return status, answer, err
}

// patience is how long one change may take.
const patience = time.Minute

// deliver sends an event as Stripe does: again until it is acknowledged, which must not take
// the api a second.
func (a *controlAPI) deliver(ev stripesim.Event) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		header := http.Header{"Content-Type": {"application/json"}, "Stripe-Signature": {stripesim.Sign(ev.Body, webhookSecret, time.Now())}}
		sent := time.Now()
		a.hooks.Add(1)
		status, answer, _, err := a.send(a.customers, "/v1/webhooks/stripe", header, ev.Body)
		a.hooks.Add(-1)
		switch {
		case err == nil && status == http.StatusOK:
			if took := time.Since(sent); took > aSecond() {
				return fmt.Errorf("%s is acknowledged after %v", ev.Type, took)
			}
			return nil
		case err == nil && status != http.StatusTooManyRequests && status < 500:
			return fmt.Errorf("%s is refused: %d %s", ev.Type, status, answer)
		case time.Now().After(deadline):
			return fmt.Errorf("%s is not acknowledged: %d %s, %v", ev.Type, status, answer, err)
		case err != nil && !errors.Is(err, syscall.ECONNREFUSED):
			a.cut.Add(1)
		}
		a.redelivered.Add(1)
	}
}

func (a *controlAPI) send(listener, path string, header http.Header, body []byte) (status int, answer []byte, cookies []*http.Cookie, err error) {
	r, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, "http://"+listener+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	r.Header = header
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, res.Cookies(), err
}
