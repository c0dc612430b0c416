package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// who says who may call a route. The zero value is nobody: a row that forgets to say it is
// refused by newTable, and denied should it be served all the same.
type who struct {
	anyone   bool           // also without signing in
	customer bool           // a customer, by session or API key
	session  bool           // of these only by session: what a leaked key must not reach
	roles    []control.Role // operators with one of these
	// signed marks a route that proves by its content who calls it. It is for anyone, and no
	// browser's cookies mean anything to it.
	signed bool
}

func (w who) nobody() bool { return !w.anyone && !w.customer && len(w.roles) == 0 }

// Those who may call routes. Functions, because a slice in a variable could be changed.
func anyone() who          { return who{anyone: true} }
func anyCustomer() who     { return who{customer: true} }
func customerSession() who { return who{customer: true, session: true} }
func signedOnly() who      { return who{anyone: true, signed: true} }
func everyOperator() who {
	return who{roles: []control.Role{control.RoleSupport, control.RoleOperator, control.RoleAdmin}}
}
func operatorsAndAdmins() who {
	return who{roles: []control.Role{control.RoleOperator, control.RoleAdmin}}
}
func adminsOnly() who { return who{roles: []control.Role{control.RoleAdmin}} }

// may reports whether p may call a route of w. Everything that is not said is denied.
func (w who) may(p principal) bool {
	switch {
	case w.anyone:
		return true
	case p.subject.Kind == control.SubjectCustomer:
		return w.customer && (!w.session || p.by != byAPIKey)
	case p.subject.Kind == control.SubjectOperator:
		return slices.Contains(w.roles, p.role)
	}
	return false
}

// route is one row of a table.
type route struct {
	method string
	path   string // of http.ServeMux, without the method
	who    who
	op     operation
	// maxBody is how many bytes a body may have; 0 means defaultBody.
	maxBody int64
	// publishes marks a change that the proxies must know: 202 instead of its status means
	// that it is saved and not yet known to all of them.
	publishes bool
	// withoutKey marks a POST that Idempotency-Key means nothing to: it changes nothing, or
	// nobody is signed in yet.
	withoutKey bool
	// serve answers with what becomes JSON; nil with a status that has no body.
	serve func(*call) (any, error)
	// stream writes the answer itself, instead of serve.
	stream func(*call) error
}

func (r *route) pattern() string { return r.method + " " + r.path }

// idempotent reports whether the route honours Idempotency-Key.
func (r *route) idempotent() bool {
	return r.method == http.MethodPost && !r.withoutKey && !r.who.anyone
}

// table is the routes of one listener.
type table []route

// newTable checks rows: one that is incomplete is a mistake of ours.
func newTable(rows []route) (table, error) {
	ids, patterns := map[string]bool{}, map[string]bool{}
	for i := range rows {
		r := &rows[i]
		bad := func(what string) (table, error) { return nil, fmt.Errorf("route %s: %s", r.pattern(), what) }
		switch {
		case r.who.nobody():
			return bad("it says for nobody that they may call it")
		case r.op.id == "" || r.op.summary == "" || r.op.tag == "" || r.op.status == 0:
			return bad("its part of the OpenAPI document is incomplete")
		case ids[r.op.id] || patterns[r.pattern()]:
			return bad("it is there twice")
		case (r.serve == nil) == (r.stream == nil):
			return bad("it needs one handler")
		case !strings.HasPrefix(r.path, "/") || strings.HasSuffix(r.path, "/"):
			return bad("its path must begin with a slash, and not end with one")
		}
		ids[r.op.id], patterns[r.pattern()] = true, true
		if r.maxBody == 0 {
			r.maxBody = defaultBody
		}
	}
	return rows, nil
}
