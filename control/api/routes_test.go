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

// caller is one sort of caller on the walk.
type caller struct {
	name string
	// fresh makes one anew, so that what a route does to it does not matter.
	fresh func() *client
	may   func(api.Row) bool
	// known is false for who is nobody on this side.
	known bool
}

// Every route of both tables, for every sort of caller, answers as its row says, and without
// a row nobody is let in.
func TestEveryRouteForEveryRole(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	customer := func() *client { _, c := e.customer(); return c }
	operator := func(role control.Role) func() *client {
		return func() *client { _, c := e.operator(role); return c }
	}
	// of has a client show its cookies, whatever they are called, on the other side.
	of := func(fresh func() *client, base, access, refresh string) func() *client {
		return func() *client {
			c := fresh()
			other := newClient(t, base)
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
	}
	never := func(r api.Row) bool { return r.Anyone }
	byRole := func(role control.Role) func(api.Row) bool {
		return func(r api.Row) bool { return r.Anyone || slices.Contains(r.Roles, role) }
	}
	sides := []struct {
		name    string
		rows    []api.Row
		callers []caller
	}{
		{"customers", e.CustomerRows(), []caller{
			{"nobody", func() *client { return newClient(t, e.customers) }, never, false},
			{"customer", customer, func(r api.Row) bool { return r.Anyone || r.Customer }, true},
			{"API key", func() *client { return customer().apiKey() }, func(r api.Row) bool { return r.Anyone || r.Customer && !r.SessionKey }, true},
			{"admin", of(operator(control.RoleAdmin), e.customers, customerCookie, refreshCookie), never, false},
		}},
		{"operators", e.OperatorRows(), []caller{
			{"nobody", func() *client { return newClient(t, e.operators) }, never, false},
			{"support", operator(control.RoleSupport), byRole(control.RoleSupport), true},
			{"operator", operator(control.RoleOperator), byRole(control.RoleOperator), true},
			{"admin", operator(control.RoleAdmin), byRole(control.RoleAdmin), true},
			{"customer", of(customer, e.operators, operatorCookie, operatorRefresh), never, false},
		}},
	}
	for _, side := range sides {
		if len(side.rows) < 15 {
			t.Errorf("%s: only %d routes", side.name, len(side.rows))
		}
		for _, row := range side.rows {
			for _, who := range side.callers {
				if row.Operation == "streamEvents" && who.may(row) {
					continue // it does not end; TestEventStream has it
				}
				c := who.fresh()
				path := strings.NewReplacer("{id}", "17").Replace(row.Path)
				a := c.do(row.Method, path, map[string]any{"17": 17})
				what := fmt.Sprintf("%s: %s for %s: %d %s", row.Method, row.Path, who.name, a.status, a.problem())
				refused := a.status == http.StatusUnauthorized || a.status == http.StatusForbidden
				switch {
				case row.Anyone:
					// Renewing the session of nobody is refused in its own way.
					if a.status >= 500 && a.problem() != "unavailable" || refused && row.Operation != "renewSession" {
						t.Error(what)
					}
				case who.may(row):
					if refused || a.status >= 500 && a.problem() != "unavailable" {
						t.Error(what)
					}
				case !who.known && a.problem() != "unauthenticated", who.known && a.problem() != "forbidden":
					t.Error(what)
				}
			}
		}
	}
	// What operators change is for operators only, and what cannot be undone for admins.
	for _, r := range e.OperatorRows() {
		change := r.Method != http.MethodGet && !r.Anyone
		if r.Customer || change && slices.Contains(r.Roles, control.RoleSupport) {
			t.Errorf("%s %s may be called by %v", r.Method, r.Path, r.Roles)
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
