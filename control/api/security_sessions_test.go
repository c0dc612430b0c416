package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
)

// A session of one side means nothing on the other, whatever its tokens are called there, and
// a refresh token of the one renews nothing on the other.
func sessionsOfTheOtherSide(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, customer := e.customer()
	_, admin := e.operator(control.RoleAdmin)
	for _, k := range []struct {
		from, to        *client
		access, refresh string // what they are called there
		own, ownRefresh string
		path            string
	}{
		{customer, newClient(t, e.operators), operatorCookie, operatorRefresh, customerCookie, refreshCookie, "/v1/customers"},
		{admin, newClient(t, e.customers), customerCookie, refreshCookie, operatorCookie, operatorRefresh, "/v1/me"},
	} {
		access, refresh := k.from.cookies[k.own], k.from.cookies[k.ownRefresh]
		k.to.cookies[k.access], k.to.cookies[k.own] = access, access
		k.to.want(http.StatusUnauthorized, "GET", k.path, nil)
		k.to.want(http.StatusUnauthorized, "GET", k.path, nil, "Authorization", "Bearer "+access)
		k.to.cookies = map[string]string{k.refresh: refresh}
		k.to.want(http.StatusUnauthorized, "POST", "/v1/session/renew", nil)
	}
}

func guessedLinks(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(o *api.Options) {
		o.SignIns.PerAddress = api.Rate{PerSecond: 1e-6, Burst: 6}
		o.SignIns.Audited = api.Rate{PerSecond: 1e-6, Burst: 4}
	})
	account, _ := e.signUp("ada@example.com")
	secret := e.mailed(account.ID, control.MailResetPassword, "ada@example.com")
	guess := func(from, token string) answer {
		return newClient(t, e.customers).do("POST", "/v1/password-reset/confirm", api.Reset{Token: token, New: fakePassword + "!"}, "X-Forwarded-For", from)
	}
	last := secret[len(secret)-1:]
	other := "A"
	if last == other {
		other = "B"
	}
	for _, token := range []string{secret[:len(secret)-1] + other, secret + "A", strings.ToLower(secret), strings.TrimPrefix(secret, control.MailTokenPrefix), " " + secret, "%" + secret[1:]} {
		if a := guess("192.0.2.1", token); a.problem() != "invalid" {
			t.Errorf("%q: %d %s", token, a.status, a.body)
		}
	}
	if a := guess("192.0.2.1", secret); a.problem() != "too-many-requests" {
		t.Errorf("a seventh guess, though right: %d %s", a.status, a.body)
	}
	if n := e.count("audit_log WHERE action = 'mail_token.refused'"); n != "4" {
		t.Errorf("%s refusals in the audit log, want as many as its limit", n)
	}
	if a := guess("192.0.2.2", secret); a.status != http.StatusNoContent {
		t.Errorf("the owner: %d %s", a.status, a.body)
	}
}

// Who tries what is for others is named in the audit log.
func forbiddenIsAudited(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(o *api.Options) { o.SignIns.Audited = api.Rate{PerSecond: 1e-6, Burst: 3} })
	id, c := e.customer()
	supportID, support := e.operator(control.RoleSupport)
	for range 5 {
		support.want(http.StatusForbidden, "POST", "/v1/customers/"+id+"/quota", `{"action":"add","tokens":1000,"reason":"x"}`)
	}
	if n := e.count("audit_log WHERE action = 'request.forbidden' AND actor = 'operator:" + supportID + "' AND target = 'POST /v1/customers/{id}/quota'"); n != "3" {
		t.Errorf("%s entries in the audit log, want as many as its limit", n)
	}
	if n := e.count("audit_log WHERE action LIKE 'quota%' OR action LIKE 'limit%'"); n != "0" {
		t.Errorf("%s changes", n)
	}
	key := c.apiKey()
	if a := key.do("DELETE", "/v1/me", nil); a.problem() != "forbidden" {
		t.Errorf("%d %s", a.status, a.body)
	}
	c.want(http.StatusOK, "GET", "/v1/me", nil)
}
