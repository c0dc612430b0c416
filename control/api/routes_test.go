package api_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
)

// customerRights and operatorRights say who may call each route: by "session", by "key" (an
// API key), as "support", "operator" or "admin", or "anyone". They repeat what the tables say
// on purpose: who adds a route, or changes who may call it, decides that twice.
func customerRights() map[string]string {
	return rights(`
		GET /openapi.json              anyone
		POST /v1/session               anyone
		GET /v1/session                session key
		DELETE /v1/session             anyone
		POST /v1/session/renew         anyone
		POST /v1/signup                anyone
		POST /v1/verify-email          anyone
		POST /v1/password-reset        anyone
		POST /v1/password-reset/confirm anyone
		GET /v1/tiers                  anyone
		GET /v1/installation           anyone
		POST /v1/webhooks/stripe       anyone

		GET /v1/me                     session key
		GET /v1/me/boxes               session key
		GET /v1/me/boxes/{id}          session key
		GET /v1/me/boxes/{id}/settings session key
		PATCH /v1/me/boxes/{id}/settings session
		PUT /v1/me/boxes/{id}/telegram-token session
		POST /v1/me/boxes/{id}/restart session
		GET /v1/me/usage               session key
		GET /v1/me/events              session key
		PATCH /v1/me                   session
		DELETE /v1/me                  session
		POST /v1/me/password           session
		POST /v1/me/verify-email       session
		GET /v1/me/export              session
		GET /v1/me/api-keys            session
		POST /v1/me/api-keys           session
		DELETE /v1/me/api-keys/{id}    session
		POST /v1/me/checkout           session
		POST /v1/me/portal             session
		GET /v1/me/invoices            session
		POST /v1/me/subscription/tier  session
		POST /v1/me/subscription/cancel session
		POST /v1/me/subscription/resume session
		PUT /v1/me/subscription/overage session`)
}

func operatorRights() map[string]string {
	return rights(`
		GET /openapi.json              anyone
		POST /v1/session               anyone
		GET /v1/session                support operator admin
		DELETE /v1/session             anyone
		POST /v1/session/renew         anyone

		GET /v1/tiers                  support operator admin
		GET /v1/customers              support operator admin
		GET /v1/customers/{id}         support operator admin
		GET /v1/customers/{id}/usage   support operator admin
		GET /v1/customers/{id}/quota   support operator admin
		GET /v1/boxes                  support operator admin
		GET /v1/boxes/{id}             support operator admin
		GET /v1/boxes/{id}/events      support operator admin
		GET /v1/tokens                 support operator admin
		GET /v1/jobs                   support operator admin
		GET /v1/audit                  support operator admin
		GET /v1/usage                  support operator admin
		GET /v1/replicas               support operator admin
		GET /v1/traffic                support operator admin
		GET /v1/stripe-events          support operator admin

		POST /v1/customers             operator admin
		POST /v1/customers/{id}/suspend operator admin
		POST /v1/customers/{id}/resume operator admin
		POST /v1/customers/{id}/quota  operator admin
		POST /v1/customers/{id}/tokens operator admin
		GET /v1/boxes/{id}/logs        operator admin
		POST /v1/customers/{id}/boxes  operator admin
		POST /v1/boxes/{id}/restart    operator admin
		POST /v1/boxes/{id}/suspend    operator admin
		POST /v1/boxes/{id}/resume     operator admin
		POST /v1/boxes/{id}/resize     operator admin
		POST /v1/boxes/{id}/rotate-token operator admin
		POST /v1/tokens/{id}/rotate    operator admin
		DELETE /v1/tokens/{id}         operator admin
		POST /v1/jobs/{id}/retry       operator admin
		POST /v1/jobs/{id}/cancel      operator admin
		GET /v1/dead-letters           operator admin
		GET /v1/dead-letters/{id}      operator admin
		POST /v1/dead-letters/{id}/replay operator admin
		POST /v1/stripe-events/{id}/retry operator admin

		POST /v1/dead-letters/{id}/drop admin
		POST /v1/boxes/{id}/destroy    admin
		DELETE /v1/customers/{id}      admin
		GET /v1/operators              admin
		POST /v1/operators             admin
		DELETE /v1/operators/{id}      admin`)
}

func rights(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 2 {
			out[f[0]+" "+f[1]] = strings.Join(f[2:], " ")
		}
	}
	return out
}

// caller is one sort of caller on the walk.
type caller struct {
	right string // that it has; "" if it has none on this side
	name  string
	// fresh makes one anew, so that what a route does to it does not matter.
	fresh func() *client
	// elsewhere says that its Authorization header is good on the other side only: that is
	// refused also where none is needed.
	elsewhere bool
}

func (e *env) customersCallers(base string) []caller {
	session := func() *client { _, c := e.customer(); c.base = base; return c }
	return []caller{
		{name: "nobody", fresh: func() *client { return newClient(e.t, base) }},
		{name: "a customer", right: "session", fresh: session},
		{name: "an API key", right: "key", fresh: func() *client { _, c := e.customer(); c = c.apiKey(); c.base = base; return c }},
		{name: "an admin", fresh: func() *client {
			_, c := e.operator(control.RoleAdmin)
			return c.elsewhere(base, customerCookie, refreshCookie)
		}},
	}
}

func (e *env) operatorsCallers() []caller {
	out := []caller{
		{name: "nobody", fresh: func() *client { return newClient(e.t, e.operators) }},
		{name: "a customer", fresh: func() *client { _, c := e.customer(); return c.elsewhere(e.operators, operatorCookie, operatorRefresh) }},
		{name: "an API key", elsewhere: true, fresh: func() *client { _, c := e.customer(); c = c.apiKey(); c.base = e.operators; return c }},
	}
	for _, role := range []control.Role{control.RoleSupport, control.RoleOperator, control.RoleAdmin} {
		out = append(out, caller{name: string(role), right: string(role), fresh: func() *client { _, c := e.operator(role); return c }})
	}
	return out
}

// elsewhere has a client show its cookies, whatever they are called, on the other side.
func (c *client) elsewhere(base, access, refresh string) *client {
	other := newClient(c.t, base)
	for name, value := range c.cookies {
		other.cookies[name] = value
		if strings.HasSuffix(name, "refresh") {
			other.cookies[refresh] = value
		} else {
			other.cookies[access] = value
		}
	}
	return other
}

// walk calls every route as everyone, and says what is not as it should be.
func walk(rows []api.Row, rights map[string]string, callers []caller) (complaints []string) {
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	there := map[string]bool{}
	for _, row := range rows {
		name := row.Method + " " + row.Path
		there[name] = true
		right, ok := rights[name]
		if !ok {
			complain("%s: nobody has said who may call it", name)
			continue
		}
		for _, who := range callers {
			anyone := right == "anyone"
			may := anyone && !who.elsewhere || who.right != "" && slices.Contains(strings.Fields(right), who.right)
			if (row.Operation == "streamEvents" || row.Operation == "streamTraffic") && may {
				continue // they do not end; TestEventStream and TestTraffic have them
			}
			a := who.fresh().do(row.Method, strings.ReplaceAll(row.Path, "{id}", "17"), map[string]any{"17": 17})
			refused := a.status == http.StatusUnauthorized || a.status == http.StatusForbidden
			if row.Operation == "renewSession" {
				refused = false // the session of nobody is refused in its own way
			}
			switch bad := a.status >= 500 && a.problem() != "unavailable"; {
			case may && (refused || bad),
				!may && who.right == "" && a.problem() != "unauthenticated",
				!may && who.right != "" && a.problem() != "forbidden":
				complain("%s for %s, who may: %v: %d %s", name, who.name, may, a.status, a.body)
			}
		}
	}
	for name := range rights {
		if !there[name] {
			complain("%s is not there", name)
		}
	}
	return complaints
}

// Every route of both sides answers every sort of caller as it was decided, and no route is
// there of which it was not.
func TestEveryRouteForEveryRole(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	for _, complaint := range walk(e.CustomerRows(), customerRights(), e.customersCallers(e.customers)) {
		t.Error(complaint)
	}
	for _, complaint := range walk(e.OperatorRows(), operatorRights(), e.operatorsCallers()) {
		t.Error(complaint)
	}
	// What operators change is for operators only, and what cannot be undone for admins.
	for _, r := range e.OperatorRows() {
		change := r.Method != http.MethodGet && !r.Anyone
		if r.Customer || change && slices.Contains(r.Roles, control.RoleSupport) {
			t.Errorf("%s %s may be called by %v", r.Method, r.Path, r.Roles)
		}
	}
}

// A route that somebody adds and forgets, or opens by mistake, does not pass the walk.
func TestTheWalkComplains(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	for _, k := range []struct {
		name         string
		who          api.Who
		rights, want string
	}{
		{"as it should be", api.WhoSession, "GET /v1/new session", ""},
		{"nobody decided", api.WhoSession, "", "GET /v1/new: nobody has said who may call it"},
		{"without a role", api.WhoNobody, "GET /v1/new session", "GET /v1/new for a customer, who may: true: 403"},
		{"open to anyone", api.WhoAnyone, "GET /v1/new session", "GET /v1/new for nobody, who may: false: 200"},
		{"open to keys", api.WhoCustomer, "GET /v1/new session", "GET /v1/new for an API key, who may: false: 200"},
		{"gone", api.WhoSession, "GET /v1/new session\nGET /v1/old session", "GET /v1/old is not there"},
	} {
		handler, row := e.With("GET", "/v1/new", k.who)
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		complaints := strings.Join(walk([]api.Row{row}, rights(k.rights), e.customersCallers(server.URL)), "\n")
		if (complaints == "") != (k.want == "") || !strings.Contains(complaints, k.want) {
			t.Errorf("%s: %q", k.name, complaints)
		}
	}
}

func TestRowsThatAreIncompleteAreRefused(t *testing.T) {
	t.Parallel()
	if err := api.CheckTable(func(_, _, _ *bool) {}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(who, op, handler *bool){
		"nobody":     func(who, _, _ *bool) { *who = false },
		"no op":      func(_, op, _ *bool) { *op = false },
		"no handler": func(_, _, handler *bool) { *handler = false },
	} {
		if api.CheckTable(change) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPathsThatAreNotThere(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, c := e.customer()
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/me/", "//v1/me", "/v1/./me", "/v1/customers", "/v1/me/boxes/../../operators", "/v1/%6de/x", "/internal/customers"} {
		if a := c.do("GET", path, nil); a.problem() != "not-found" || a.status != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	a := c.do("PUT", "/v1/me", `{}`)
	if a.problem() != "method-not-allowed" || a.header.Get("Allow") != "GET, HEAD, PATCH, DELETE" {
		t.Errorf("PUT /v1/me: %d, Allow %q", a.status, a.header.Get("Allow"))
	}
	if a := c.do("BREW", "/v1/me", nil); a.status != http.StatusMethodNotAllowed {
		t.Errorf("BREW: %d", a.status)
	}
	for _, header := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Strict-Transport-Security", "X-Frame-Options", "X-Request-Id", "Referrer-Policy"} {
		if a.header.Get(header) == "" {
			t.Errorf("no %s on an error", header)
		}
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers: %v", a.header)
	}
	if id := c.do("GET", "/v1/me", nil, "X-Request-Id", "my-own-id-123").header.Get("X-Request-Id"); id != "my-own-id-123" {
		t.Errorf("request id %q", id)
	}
	if id := c.do("GET", "/v1/me", nil, "X-Request-Id", `bad"id{}`).header.Get("X-Request-Id"); strings.Contains(id, "bad") {
		t.Errorf("request id %q", id)
	}
}

func TestPanicsAreContained(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	s := httptest.NewServer(e.Panicking())
	t.Cleanup(s.Close)
	c := newClient(t, s.URL)
	a := c.do("GET", "/panic", nil)
	if a.status != http.StatusInternalServerError || a.problem() != "internal" || strings.Contains(string(a.body), "secret") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if !strings.Contains(e.log.String(), "a handler panicked") {
		t.Error("not in the log")
	}
	res, err := http.Get(s.URL + "/panic?late")
	if err == nil {
		_, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	if err == nil {
		t.Error("half an answer looked whole")
	}
	// A row that says nobody may is denied, though it is served.
	if a := c.do("GET", "/forgotten", nil); a.problem() != "unauthenticated" {
		t.Errorf("%d %s", a.status, a.body)
	}
}
