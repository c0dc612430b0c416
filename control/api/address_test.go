package api_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
)

// mailed is the secret of the mail of that kind that the customer would get now.
func (e *env) mailed(customer, kind, address string) string {
	e.t.Helper()
	secret, token := control.NewMailToken(customer, kind, address, time.Now().UTC())
	if err := e.store.PutMailToken(e.t.Context(), token); err != nil {
		e.t.Fatal(err)
	}
	return secret
}

// count is how many rows a query counts.
func (e *env) count(from string) string {
	e.t.Helper()
	return strings.TrimSpace(e.pg.Query("SELECT count(*) FROM " + from))
}

func TestConfirmAddress(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	e := newEnv(t, func(o *api.Options) { o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
	account, c := e.signUp("ada@example.com")
	confirmed := func() bool {
		t.Helper()
		var p api.Profile
		c.want(http.StatusOK, "GET", "/v1/me", nil).into(t, &p)
		return p.Confirmed
	}
	if confirmed() || e.count("mails WHERE kind = 'verify_email' AND cause = customer_id AND language = 'en'") != "1" {
		t.Error("nobody was asked to confirm")
	}
	if n := e.count("river_job WHERE kind = 'mail'"); n != "1" {
		t.Errorf("%s jobs send it", n)
	}
	stranger := newClient(t, e.customers) // the link may be opened in another browser
	first := e.mailed(account.ID, control.MailVerifyEmail, "ada@example.com")
	secret := e.mailed(account.ID, control.MailVerifyEmail, "Ada@example.com")
	for name, bad := range map[string]string{
		"one that was replaced": first, "none": "", "nonsense": "ocm_", "a guess": control.MailTokenPrefix + strings.Repeat("A", 52),
		"for a password": e.mailed(account.ID, control.MailResetPassword, "ada@example.com"), "a refresh token": c.cookies[refreshCookie],
	} {
		if a := stranger.do("POST", "/v1/verify-email", api.Confirmation{Token: bad}); a.problem() != "invalid" || confirmed() {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	ahead.Store(int64(73 * time.Hour))
	if a := stranger.do("POST", "/v1/verify-email", api.Confirmation{Token: secret}); a.problem() != "invalid" {
		t.Errorf("three days later: %d %s", a.status, a.body)
	}
	ahead.Store(0)
	stranger.want(http.StatusNoContent, "POST", "/v1/verify-email", api.Confirmation{Token: secret})
	if !confirmed() || len(stranger.cookies) != 0 {
		t.Errorf("confirmed %v, cookies %v", confirmed(), stranger.cookies)
	}
	if a := stranger.do("POST", "/v1/verify-email", api.Confirmation{Token: secret}); a.problem() != "invalid" {
		t.Errorf("a second time: %d %s", a.status, a.body)
	}
	// Asked again: nothing to be done.
	c.want(http.StatusAccepted, "POST", "/v1/me/verify-email", nil)
	if n := e.count("mails"); n != "1" {
		t.Errorf("%s mails", n)
	}
	_, other := e.signUp("eve@example.com")
	for range 3 { // one a minute
		other.want(http.StatusAccepted, "POST", "/v1/me/verify-email", nil)
	}
	if n := e.count("mails WHERE kind = 'verify_email'"); n != "3" && n != "4" { // at a minute's turn two
		t.Errorf("%s mails", n)
	}
	if n := e.count("audit_log WHERE action = 'customer.verify_email' AND customer_id = '" + account.ID + "'"); n != "1" {
		t.Errorf("%s entries in the audit log", n)
	}
}

func TestForgottenPassword(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	account, c := e.signUp("ada@example.com")
	_, other := e.signUp("eve@example.com")
	c.want(http.StatusOK, "PATCH", "/v1/me", `{"language":"pt-BR"}`)
	stranger := newClient(t, e.customers)
	var key, others api.CreatedAPIKey
	c.want(http.StatusCreated, "POST", "/v1/me/api-keys", api.NewAPIKey{Name: "a thief's"}).into(t, &key)
	other.want(http.StatusCreated, "POST", "/v1/me/api-keys", api.NewAPIKey{Name: "x"}).into(t, &others)
	stranger.want(http.StatusAccepted, "POST", "/v1/password-reset", api.ResetRequest{Email: "ADA@example.com"})
	if n := e.count("mails WHERE kind = 'reset_password' AND language = 'pt-BR' AND customer_id = '" + account.ID + "'"); n != "1" {
		t.Errorf("%s mails", n)
	}
	secret := e.mailed(account.ID, control.MailResetPassword, "ada@example.com")
	const next = "another long password"
	for name, weak := range map[string]string{"short": "short", "long": strings.Repeat("x", 300), "the address": "ada@example.com!!"} {
		if a := stranger.do("POST", "/v1/password-reset/confirm", api.Reset{Token: secret, New: weak}); a.problem() != "invalid" || !strings.Contains(string(a.body), "new_password") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	// Of many at once one sets the password.
	var wg sync.WaitGroup
	var good atomic.Int64
	for range 4 {
		wg.Go(func() {
			a := newClient(t, e.customers).do("POST", "/v1/password-reset/confirm", api.Reset{Token: secret, New: next})
			if a.status == http.StatusNoContent {
				good.Add(1)
			} else if a.problem() != "invalid" {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	wg.Wait()
	if good.Load() != 1 {
		t.Errorf("%d of 4 set the password", good.Load())
	}
	// All sessions are over, and only the new password is good; others are not concerned.
	c.want(http.StatusUnauthorized, "GET", "/v1/me", nil)
	c.want(http.StatusUnauthorized, "POST", "/v1/session/renew", nil)
	c.want(http.StatusUnauthorized, "POST", "/v1/session", api.SignIn{Email: "ada@example.com", Password: fakePassword})
	c.want(http.StatusOK, "POST", "/v1/session", api.SignIn{Email: "ada@example.com", Password: next})
	other.want(http.StatusOK, "GET", "/v1/me", nil)
	stranger.want(http.StatusUnauthorized, "GET", "/v1/me", nil, "Authorization", "Bearer "+key.Key)
	stranger.want(http.StatusOK, "GET", "/v1/me", nil, "Authorization", "Bearer "+others.Key)
	var p api.Profile
	c.want(http.StatusOK, "GET", "/v1/me", nil).into(t, &p)
	if !p.Confirmed {
		t.Error("who reads the mailbox has it")
	}
	if n := e.count("mails WHERE kind = 'password_changed' AND customer_id = '" + account.ID + "'"); n != "1" {
		t.Errorf("%s mails that the password was changed", n)
	}
	for action, want := range map[string]string{"password.forgotten": "1", "customer.password": "1", "session.revoke_all": "1", "mail_token.refused": "3"} {
		if n := e.count("audit_log WHERE action = '" + action + "'"); n != want {
			t.Errorf("%s: %s times in the audit log, want %s", action, n, want)
		}
	}
	// A token is gone with its customer.
	secret = e.mailed(account.ID, control.MailResetPassword, "ada@example.com")
	c.want(http.StatusNoContent, "DELETE", "/v1/me", nil)
	if a := stranger.do("POST", "/v1/password-reset/confirm", api.Reset{Token: secret, New: next}); a.problem() != "invalid" || e.count("mail_tokens") != "0" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Nobody learns by asking for a new password which addresses have accounts: neither by the
// answer, nor by how long it takes, nor by when there were too many.
func accountsByReset(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(o *api.Options) { o.SignIns.Mails = api.Rate{PerSecond: 1e-6, Burst: 2} })
	e.signUp("known@example.com")
	ask := func(address string) (answer, time.Duration) {
		began := time.Now()
		a := newClient(t, e.customers).do("POST", "/v1/password-reset", api.ResetRequest{Email: address}, "X-Request-Id", "the-same-one")
		return a, time.Since(began)
	}
	for i := range 3 {
		known, tookKnown := ask("known@example.com")
		unknown, tookUnknown := ask("unknown@example.com")
		if known.status != unknown.status || string(known.body) != string(unknown.body) || len(known.header) != len(unknown.header) {
			t.Errorf("known: %d %s %v\nunknown: %d %s %v", known.status, known.body, known.header, unknown.status, unknown.body, unknown.header)
		}
		if i < 2 && (known.status != http.StatusAccepted || min(tookKnown, tookUnknown) < 300*time.Millisecond) {
			t.Errorf("%d after %v and %v", known.status, tookKnown, tookUnknown)
		}
		if i == 2 && known.problem() != "too-many-requests" {
			t.Errorf("a third one: %d", known.status)
		}
	}
	if a, _ := ask("no address"); a.problem() != "invalid" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestMailsFromOneAddress(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(o *api.Options) { o.SignIns.MailsFrom = api.Rate{PerSecond: 1e-6, Burst: 2} })
	refused := 0
	for range 4 { // however many accounts it asks for
		if a := newClient(t, e.customers).do("POST", "/v1/password-reset", api.ResetRequest{Email: control.NewID("x") + "@example.com"}); a.problem() == "too-many-requests" {
			refused++
		}
	}
	if refused != 2 {
		t.Errorf("%d of 4 were refused", refused)
	}
}

func TestNoMails(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(o *api.Options) { o.Mails = nil })
	_, c := e.signUp("ada@example.com")
	for path, body := range map[string]any{"/v1/password-reset": api.ResetRequest{Email: "ada@example.com"}, "/v1/me/verify-email": nil} {
		if a := c.do("POST", path, body); a.problem() != "unavailable" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	c.want(http.StatusNoContent, "POST", "/v1/me/password", api.PasswordChange{Current: fakePassword, New: "another long password"})
}
