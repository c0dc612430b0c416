package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
)

func TestSignUpInAndOut(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	c := newClient(t, e.customers)
	up := c.want(http.StatusCreated, "POST", "/v1/signup", api.SignUp{Name: " Ada ", Email: "Ada@Example.com", Password: fakePassword, Language: control.Portuguese})
	var account control.Account
	up.into(t, &account)
	if account.Name != "Ada" || account.Email != "ada@example.com" || account.Status != control.CustomerPending || account.Tier != "starter" || account.Language != control.Portuguese {
		t.Errorf("%+v", account)
	}
	cookies := (&http.Response{Header: up.header}).Cookies()
	if len(cookies) != 2 {
		t.Fatalf("cookies %v", cookies)
	}
	for _, k := range cookies {
		if !strings.HasPrefix(k.Name, "__Host-") || !k.HttpOnly || !k.Secure || k.Path != "/" || k.Domain != "" || k.MaxAge <= 0 ||
			k.SameSite != http.SameSiteLaxMode && k.SameSite != http.SameSiteStrictMode {
			t.Errorf("cookie %+v", k)
		}
	}
	if strings.Contains(string(up.body), c.cookies[customerCookie]) || strings.Contains(string(up.body), c.cookies[refreshCookie]) {
		t.Error("a script could read a token")
	}
	c.want(http.StatusOK, "GET", "/v1/me", nil)
	access := c.cookies[customerCookie]

	again := newClient(t, e.customers).do("POST", "/v1/signup", api.SignUp{Name: "Eve", Email: "ADA@example.com", Password: fakePassword})
	if again.status != http.StatusConflict || again.problem() != "exists" || again.header.Get("Set-Cookie") != "" {
		t.Errorf("the same address: %d %s", again.status, again.body)
	}

	c.want(http.StatusNoContent, "DELETE", "/v1/session", nil)
	if len(c.cookies) != 0 {
		t.Errorf("cookies are left: %v", c.cookies)
	}
	c.cookies[customerCookie] = access // a copy of it is worth nothing
	c.want(http.StatusUnauthorized, "GET", "/v1/me", nil)

	for _, in := range []api.SignIn{
		{Email: "ada@example.com", Password: "wrong password!"}, {Email: "nobody@example.com", Password: fakePassword}, {},
		{Email: "ada@example.com", Password: strings.Repeat("x", 5000)},
	} {
		a := newClient(t, e.customers).do("POST", "/v1/session", in)
		if a.problem() != "unauthenticated" || a.header.Get("Set-Cookie") != "" || !strings.Contains(string(a.body), "The e-mail address or the password is wrong.") {
			t.Errorf("%v: %d %s", in, a.status, a.body)
		}
	}
	var in api.SignedIn
	other := newClient(t, e.customers)
	other.want(http.StatusOK, "POST", "/v1/session", api.SignIn{Email: "ADA@example.com", Password: fakePassword}).into(t, &in)
	if in.Subject != (control.Subject{Kind: control.SubjectCustomer, ID: account.ID}) || in.AccessToken != "" || in.RefreshToken != "" || time.Until(in.ExpiresAt) > time.Hour {
		t.Errorf("%+v", in)
	}
	other.want(http.StatusOK, "GET", "/v1/session", nil)
	if n := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM audit_log WHERE action = 'session.refused'")); n != "3" {
		t.Errorf("%s refusals in the audit log", n)
	}
}

// A refresh token is good once, and one that is shown twice ends the session.
func refreshTokenReuse(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, c := e.customer()
	first := map[string]string{customerCookie: c.cookies[customerCookie], refreshCookie: c.cookies[refreshCookie]}
	c.want(http.StatusOK, "POST", "/v1/session/renew", nil)
	if c.cookies[refreshCookie] == first[refreshCookie] || c.cookies[customerCookie] == first[customerCookie] {
		t.Fatal("the same tokens again")
	}
	c.want(http.StatusOK, "GET", "/v1/me", nil)

	thief := newClient(t, e.customers)
	thief.cookies[refreshCookie] = first[refreshCookie]
	if a := thief.do("POST", "/v1/session/renew", nil); a.problem() != "unauthenticated" {
		t.Errorf("reused: %d %s", a.status, a.body)
	}
	c.want(http.StatusUnauthorized, "GET", "/v1/me", nil)
	if a := c.do("POST", "/v1/session/renew", nil); a.status != http.StatusUnauthorized || len(c.cookies) != 0 {
		t.Errorf("the session goes on: %d, cookies %v", a.status, c.cookies)
	}
	for _, bad := range []string{"", "x", api.RefreshPrefix, api.RefreshPrefix + strings.Repeat("A", 52)} {
		c.cookies[refreshCookie] = bad
		c.want(http.StatusUnauthorized, "POST", "/v1/session/renew", nil)
	}
}

// Whatever someone was made to carry before signing in is not what the session is known by.
func fixation(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	e.signUp("victim@example.com")
	_, attacker := e.customer()
	planted := map[string]string{}
	victim := newClient(t, e.customers)
	for name, value := range attacker.cookies {
		planted[name], victim.cookies[name] = value, value
	}
	var in api.SignedIn
	victim.want(http.StatusOK, "POST", "/v1/session", api.SignIn{Email: "victim@example.com", Password: fakePassword}).into(t, &in)
	for name, value := range planted {
		if victim.cookies[name] == value {
			t.Errorf("%s is what it was", name)
		}
	}
	var who api.SignedIn
	attacker.want(http.StatusOK, "GET", "/v1/session", nil).into(t, &who)
	if who.Subject == in.Subject {
		t.Error("the attacker's session became the victim's")
	}
	var profile api.Profile
	victim.want(http.StatusOK, "GET", "/v1/me", nil).into(t, &profile)
	if profile.ID != in.Subject.ID {
		t.Error("the victim is someone else")
	}
}

// Tokens that are not ours, not of this side, or not good any more.
func forgedAccessTokens(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	id, c := e.customer()
	good := c.cookies[customerCookie]
	parsed, _, err := jwt.NewParser().ParseUnverified(good, jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	sid := parsed.Claims.(jwt.MapClaims)["sid"]
	now := time.Now()
	claims := func(change map[string]any) map[string]any {
		m := map[string]any{"iss": issuer, "sub": id, "sid": sid, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
		for k, v := range change {
			if m[k] = v; v == nil {
				delete(m, k)
			}
		}
		return m
	}
	try := func(token string) int {
		c.cookies[customerCookie] = token
		return c.do("GET", "/v1/me", nil).status
	}
	mint := func(audience string, change map[string]any, method jwt.SigningMethod, key any) string {
		t.Helper()
		s, err := api.SignedFor(audience, claims(change), method, key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const audience = "openclaw-customers"
	key := []byte(fakeSecret)
	if s := try(mint(audience, nil, jwt.SigningMethodHS256, key)); s != http.StatusOK {
		t.Fatalf("a token as ours: %d", s)
	}
	_, other := e.customer()
	_, operator := e.operator(control.RoleAdmin)
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"no algorithm":        mint(audience, nil, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"another algorithm":   mint(audience, nil, jwt.SigningMethodHS512, key),
		"another secret":      mint(audience, nil, jwt.SigningMethodHS256, []byte("another secret that is long enough too")),
		"another audience":    mint("openclaw-operators", nil, jwt.SigningMethodHS256, key),
		"another issuer":      mint(audience, map[string]any{"iss": "https://evil.example"}, jwt.SigningMethodHS256, key),
		"expired":             mint(audience, map[string]any{"exp": now.Add(-time.Minute).Unix()}, jwt.SigningMethodHS256, key),
		"without an end":      mint(audience, map[string]any{"exp": nil}, jwt.SigningMethodHS256, key),
		"of the future":       mint(audience, map[string]any{"iat": now.Add(time.Hour).Unix()}, jwt.SigningMethodHS256, key),
		"nobody":              mint(audience, map[string]any{"sub": ""}, jwt.SigningMethodHS256, key),
		"another customer":    mint(audience, map[string]any{"sub": control.NewID(control.CustomerID)}, jwt.SigningMethodHS256, key),
		"no session":          mint(audience, map[string]any{"sid": nil}, jwt.SigningMethodHS256, key),
		"unknown session":     mint(audience, map[string]any{"sid": "s1"}, jwt.SigningMethodHS256, key),
		"an operator's":       operator.cookies[operatorCookie],
		"a refresh token":     other.cookies[refreshCookie],
		"signature of others": parts[0] + "." + parts[1] + "." + strings.Split(other.cookies[customerCookie], ".")[2],
		"no signature":        parts[0] + "." + parts[1] + ".",
		"rubbish":             "a.b.c",
	} {
		if s := try(token); s != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, s)
		}
	}
	// In the header, customers' access tokens are worth nothing either.
	c.cookies = map[string]string{}
	for _, h := range []string{"Bearer " + good, "Basic eDp4", "Bearer", "Bearer " + api.APIKeyPrefix + strings.Repeat("A", 52)} {
		c.want(http.StatusUnauthorized, "GET", "/v1/me", nil, "Authorization", h)
	}
}

func crossSite(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, c := e.customer()
	key := c.apiKey()
	const body = `{"name":"Forged"}`
	none := []string{api.ForgeryHeader, ""}
	for _, k := range []struct {
		name   string
		header []string
		want   int
	}{
		{"no header, as a form", none, http.StatusForbidden},
		{"no header, with our origin", append([]string{"Origin", issuer}, none...), http.StatusForbidden},
		{"another origin", []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		{"an origin that begins like ours", []string{"Origin", issuer + ".evil.example"}, http.StatusForbidden},
		{"our origin without TLS", []string{"Origin", "http://app.example.com"}, http.StatusForbidden},
		{"no origin worth the name", []string{"Origin", "null"}, http.StatusForbidden},
		{"the operators' origin", []string{"Origin", "https://ops.example.com"}, http.StatusForbidden},
		{"another site, as the browser says", []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{"a sibling, as the browser says", []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		{"ours", []string{"Origin", issuer}, http.StatusOK},
		{"ours, as the browser says", []string{"Sec-Fetch-Site", "same-origin"}, http.StatusOK},
		{"no browser", nil, http.StatusOK},
	} {
		a := c.do("PATCH", "/v1/me", body, k.header...)
		if a.status != k.want || k.want == http.StatusForbidden && a.problem() != "cross-site" {
			t.Errorf("%s: %d %s", k.name, a.status, a.body)
		}
	}
	// Signing in, too: or someone could be made to work in another's account.
	for _, path := range []string{"/v1/session", "/v1/signup", "/v1/session/renew"} {
		if a := newClient(t, e.customers).do("POST", path, `{}`, none...); a.problem() != "cross-site" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	// An Authorization header is never sent by a browser on its own. It counts alone: cookies
	// that come along give no rights.
	key.cookies = c.cookies
	if a := key.do("DELETE", "/v1/me", nil); a.problem() != "forbidden" {
		t.Errorf("a key together with cookies: %d %s", a.status, a.body)
	}
	key.want(http.StatusOK, "GET", "/v1/me", nil)
}

func bruteForce(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(o *api.Options) {
		slow := 1e-6
		o.SignIns = api.Guesses{
			PerPair: api.Rate{PerSecond: slow, Burst: 3}, PerAddress: api.Rate{PerSecond: slow, Burst: 8}, PerAccount: api.Rate{PerSecond: slow, Burst: 12},
			SignUps: api.Rate{PerSecond: slow, Burst: 1}, Audited: api.Rate{PerSecond: slow, Burst: 4},
		}
	})
	e.signUp("victim@example.com")
	guess := func(from, email, password string) answer {
		return newClient(t, e.customers).do("POST", "/v1/session", api.SignIn{Email: email, Password: password}, "X-Forwarded-For", from)
	}
	for i := range 3 {
		if a := guess("192.0.2.1", "victim@example.com", "wrong password"); a.status != http.StatusUnauthorized {
			t.Fatalf("guess %d: %d", i, a.status)
		}
	}
	a := guess("192.0.2.1", "VICTIM@example.com", fakePassword)
	if a.problem() != "too-many-requests" || a.header.Get("Retry-After") == "" {
		t.Errorf("the fourth guess, though right: %d %s", a.status, a.body)
	}
	// The owner, elsewhere, is not locked out; and has all guesses again afterwards.
	for range 5 {
		if a := guess("192.0.2.2", "victim@example.com", fakePassword); a.status != http.StatusOK {
			t.Fatalf("the owner: %d %s", a.status, a.body)
		}
	}
	// Nobody tries many accounts from one address, or from many addresses of one network.
	refused := 0
	for _, from := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"} {
		for range 3 {
			if guess(from, control.NewID("x")+"@example.com", "wrong password").status == http.StatusTooManyRequests {
				refused++
			}
		}
	}
	if refused != 4 {
		t.Errorf("%d of 12 guesses from one network were refused, want 4", refused)
	}
	// Nor one account from many addresses.
	refused = 0
	for _, from := range []string{"198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5"} {
		if guess(from, "victim@example.com", "wrong password").status == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused != 1 { // 3 and 5 of the 12 are gone
		t.Errorf("%d of 5 guesses from many addresses were refused, want 1", refused)
	}
	// Someone who writes addresses into the header is known by the one that our proxy saw.
	if a := guess("203.0.113.7, 192.0.2.1", "victim@example.com", "wrong password"); a.status != http.StatusTooManyRequests {
		t.Errorf("a forged X-Forwarded-For: %d", a.status)
	}
	if n := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM audit_log WHERE action = 'session.refused'")); n != "4" {
		t.Errorf("%s refusals in the audit log, want as many as its limit", n)
	}
	if a := newClient(t, e.customers).do("POST", "/v1/signup", api.SignUp{Name: "x", Email: "x@example.com", Password: fakePassword}); a.status != http.StatusTooManyRequests {
		t.Errorf("a second account: %d", a.status)
	}
}

// Whether an address has an account cannot be told by the time that a refusal takes.
func accountsByTime(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	e.signUp("known@example.com")
	took := func(email string) time.Duration {
		began := time.Now()
		newClient(t, e.customers).want(http.StatusUnauthorized, "POST", "/v1/session", api.SignIn{Email: email, Password: "wrong password"})
		return time.Since(began)
	}
	// The fastest of each count, in turn: a busy machine is slow with either at times. A look-up alone
	// takes a tenth of a hash, however often it is tried.
	known, unknown := time.Hour, time.Hour
	for round := 1; ; round++ {
		known, unknown = min(known, took("known@example.com")), min(unknown, took("unknown@example.com"))
		if round >= 3 && unknown >= known/2 && known >= unknown/2 {
			return
		}
		if round == 40 {
			t.Fatalf("known %v, unknown %v", known, unknown)
		}
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	hash := api.HashPassword(fakePassword)
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") || hash == api.HashPassword(fakePassword) {
		t.Errorf("%s", hash)
	}
	if ok, err := api.PasswordFits(fakePassword, hash); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if ok, err := api.PasswordFits(fakePassword+"x", hash); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	for _, bad := range []string{"", "none", "$argon2i$v=19$m=19456,t=2,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA", strings.Replace(hash, "m=19456", "m=99999999", 1),
		strings.Replace(hash, "t=2", "t=0", 1), strings.Replace(hash, "v=19", "v=16", 1), hash[:len(hash)-30]} {
		if ok, err := api.PasswordFits(fakePassword, bad); ok || err == nil {
			t.Errorf("%q: %v, %v", bad, ok, err)
		}
	}
	e := newEnv(t, nil)
	_, c := e.signUp("ada@example.com")
	_, other := e.signUp("other@example.com")
	second := newClient(t, e.customers)
	second.want(http.StatusOK, "POST", "/v1/session", api.SignIn{Email: "ada@example.com", Password: fakePassword})
	if a := c.do("POST", "/v1/me/password", api.PasswordChange{Current: "not the password", New: "another long password"}); a.problem() != "invalid" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, weak := range []string{"short", "ada@example.com!!", strings.Repeat("x", 300)} {
		if a := c.do("POST", "/v1/me/password", api.PasswordChange{Current: fakePassword, New: weak}); a.problem() != "invalid" {
			t.Errorf("%s: %d %s", weak, a.status, a.body)
		}
	}
	c.want(http.StatusNoContent, "POST", "/v1/me/password", api.PasswordChange{Current: fakePassword, New: "another long password"})
	c.want(http.StatusOK, "GET", "/v1/me", nil)
	second.want(http.StatusUnauthorized, "GET", "/v1/me", nil) // whoever else was signed in is out
	other.want(http.StatusOK, "GET", "/v1/me", nil)
	second.want(http.StatusUnauthorized, "POST", "/v1/session", api.SignIn{Email: "ada@example.com", Password: fakePassword})
	second.want(http.StatusOK, "POST", "/v1/session", api.SignIn{Email: "ada@example.com", Password: "another long password"})
}

func TestOperatorsSignIn(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	adminID, admin := e.operator(control.RoleAdmin)
	var o control.Operator
	admin.want(http.StatusCreated, "POST", "/v1/operators", api.NewOperator{Email: "Ops@Example.com", Role: control.RoleOperator, Password: fakePassword}).into(t, &o)
	c := newClient(t, e.operators)
	var in api.SignedIn
	c.want(http.StatusOK, "POST", "/v1/session", `{"email":"ops@example.com","password":"`+fakePassword+`"}`).into(t, &in)
	if in.Role != control.RoleOperator || in.Subject.ID != o.ID || in.AccessToken != "" || len(c.cookies) != 2 {
		t.Errorf("%+v, cookies %v", in, c.cookies)
	}
	c.want(http.StatusOK, "GET", "/v1/customers", nil)

	// A program.
	program := newClient(t, e.operators)
	program.want(http.StatusOK, "POST", "/v1/session", `{"email":"ops@example.com","password":"`+fakePassword+`","tokens":true}`).into(t, &in)
	if len(program.cookies) != 0 || in.AccessToken == "" {
		t.Fatalf("cookies %v", program.cookies)
	}
	program.header = http.Header{"Authorization": {"Bearer " + in.AccessToken}}
	program.want(http.StatusOK, "GET", "/v1/customers", nil)
	var next api.SignedIn
	program.want(http.StatusOK, "POST", "/v1/session/renew", api.Renewal{RefreshToken: in.RefreshToken}, "Authorization", "", api.ForgeryHeader, "1").into(t, &next)
	program.want(http.StatusOK, "GET", "/v1/customers", nil, "Authorization", "Bearer "+next.AccessToken)

	// Disabled, all of it ends at once.
	if a := admin.do("DELETE", "/v1/operators/"+adminID, nil); a.problem() != "conflict" {
		t.Errorf("disables itself: %d %s", a.status, a.body)
	}
	admin.want(http.StatusNoContent, "DELETE", "/v1/operators/"+o.ID, nil)
	c.want(http.StatusUnauthorized, "GET", "/v1/customers", nil)
	program.want(http.StatusUnauthorized, "GET", "/v1/customers", nil)
	c.want(http.StatusUnauthorized, "POST", "/v1/session", `{"email":"ops@example.com","password":"`+fakePassword+`"}`)
	c.want(http.StatusUnauthorized, "POST", "/v1/session/renew", nil)
	if a := admin.do("POST", "/v1/operators", api.NewOperator{Email: "x@example.com", Role: "root", Password: fakePassword}); a.problem() != "invalid" {
		t.Errorf("an unknown role: %d %s", a.status, a.body)
	}
}

// What is refused for want of Postgres says so, and nothing else.
func TestPostgresIsAway(t *testing.T) {
	t.Parallel()
	pg := storetest.DedicatedPostgres(t)
	e := newEnvOn(t, pg, nil)
	_, c := e.customer()
	pg.Stop()
	for _, path := range []string{"/v1/me", "/v1/me/usage", "/v1/me/export"} {
		a := c.do("GET", path, nil)
		if a.status != http.StatusServiceUnavailable || a.problem() != "unavailable" || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		for _, inside := range []string{"SQL", "pgx", "dial", "postgres", "127.0.0.1"} {
			if strings.Contains(string(a.body), inside) {
				t.Errorf("%s tells %q: %s", path, inside, a.body)
			}
		}
	}
	if a := newClient(t, e.customers).do("POST", "/v1/session", api.SignIn{Email: "a@example.com", Password: fakePassword}); a.status != http.StatusServiceUnavailable {
		t.Errorf("signing in: %d %s", a.status, a.body)
	}
	if !strings.Contains(e.log.String(), `"level":"ERROR"`) {
		t.Error("not in the log")
	}
	pg.Start()
	for deadline := time.Now().Add(20 * time.Second); c.do("GET", "/v1/me", nil).status != http.StatusOK; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come back")
		}
	}
	// A schema of another build is no failure of the request's either.
	if err := e.store.InTx(t.Context(), func(tx *store.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	pg.Query("ALTER TABLE boxes RENAME TO crates")
	a := c.do("GET", "/v1/me/boxes", nil)
	if a.status != http.StatusServiceUnavailable || strings.Contains(string(a.body), "boxes") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Who asks is found out within the time that any request has, also of an event stream, which itself has none.
func TestPostgresHangs(t *testing.T) {
	t.Parallel()
	pg := storetest.DedicatedPostgres(t)
	e := newEnvOn(t, pg, nil)
	_, c := e.customer()
	program := c.apiKey()
	pg.Pause()
	defer pg.Resume()
	for _, path := range []string{"/v1/me", "/v1/me/events"} {
		answered := make(chan answer, 1)
		go func() { answered <- program.do("GET", path, nil) }()
		select {
		case a := <-answered:
			if a.status != http.StatusServiceUnavailable || a.problem() != "unavailable" {
				t.Errorf("%s: %d %s", path, a.status, a.body)
			}
		case <-time.After(25 * time.Second):
			t.Errorf("%s is not answered while Postgres hangs", path)
		}
	}
}
