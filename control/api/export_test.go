package api

import (
	"context"
	"net/http"

	"github.com/golang-jwt/jwt/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// The prefixes of secrets, and the headers.
const (
	RefreshPrefix  = refreshPrefix
	APIKeyPrefix   = apiKeyPrefix
	ForgeryHeader  = forgeryHeader
	KeyHeader      = keyHeader
	ReplayedHeader = replayedHeader
)

// Row is a route as a test sees it.
type Row struct {
	Method, Path, Operation      string
	Anyone, Customer, SessionKey bool
	Signed                       bool
	Roles                        []control.Role
}

func rows(t table) []Row {
	var out []Row
	for i := range t {
		r := &t[i]
		out = append(out, Row{r.method, r.path, r.op.id, r.who.anyone, r.who.customer, r.who.session, r.who.signed, r.who.roles})
	}
	return out
}

// CustomerRows and OperatorRows are the tables.
func (a *API) CustomerRows() []Row { return rows(a.customers.table) }
func (a *API) OperatorRows() []Row { return rows(a.operators.table) }

// Open opens a session without a password.
func (a *API) Open(ctx context.Context, who control.Subject) (access, refresh string, err error) {
	r := customerRealm()
	if who.Kind == control.SubjectOperator {
		r = operatorRealm()
	}
	s, err := a.openSession(ctx, r, who.ID)
	return s.access, s.refresh, err
}

// SignedFor returns an access token of any content.
func SignedFor(audience string, claims map[string]any, method jwt.SigningMethod, key any) (string, error) {
	m := jwt.MapClaims{"aud": audience}
	for k, v := range claims {
		m[k] = v
	}
	return jwt.NewWithClaims(method, m).SignedString(key)
}

// Panicking returns a handler whose only route panics, after writing what it is asked to.
func (a *API) Panicking() http.Handler {
	s := &side{name: "test", realm: customerRealm(), table: table{{
		method: http.MethodGet, path: "/panic", who: anyone(), maxBody: defaultBody, op: operation{status: 200},
		stream: func(c *call) error {
			if c.r.URL.Query().Has("late") {
				_, _ = c.w.Write([]byte("half an"))
			}
			panic("a secret that nobody may see")
		},
	}, {
		// Not to be made by newTable.
		method: http.MethodGet, path: "/forgotten", maxBody: defaultBody, op: operation{status: 200},
		serve: func(*call) (any, error) { return "served", nil },
	}}}
	return a.handler(s)
}

// CheckTable makes a table of one route that is like a good one but for change.
func CheckTable(change func(anyone, op, handler *bool)) error {
	who, op, handler := true, true, true
	change(&who, &op, &handler)
	r := route{method: http.MethodGet, path: "/x"}
	if who {
		r.who = anyone()
	}
	if op {
		r.op = operation{id: "x", tag: "x", summary: "x", status: 200}
	}
	if handler {
		r.serve = func(*call) (any, error) { return nil, nil }
	}
	_, err := newTable([]route{r})
	return err
}

// PasswordFits compares.
func PasswordFits(password, hash string) (bool, error) { return passwordFits(password, hash) }

// Who says who may call a route of With.
type Who int

// Those who may.
const (
	WhoNobody Who = iota
	WhoAnyone
	WhoCustomer
	WhoSession
)

// With returns the customers' handler with one more route that says that it was served. It is
// not checked as New would.
func (a *API) With(method, path string, w Who) (http.Handler, Row) {
	extra := route{
		method: method, path: path, maxBody: defaultBody, op: operation{id: "extra", status: http.StatusOK},
		who:   map[Who]who{WhoAnyone: anyone(), WhoCustomer: anyCustomer(), WhoSession: customerSession()}[w],
		serve: func(*call) (any, error) { return "served", nil },
	}
	s := *a.customers
	s.table = append(append(table(nil), s.table...), extra)
	return a.handler(&s), rows(table{extra})[0]
}
