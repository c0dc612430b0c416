package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

// visit is a route, and someone who may call it.
type visit struct {
	api.Row
	doc document
	op  operation
	id  string // for what is named in its path
	c   *client
}

func (v *visit) String() string { return v.Method + " " + v.Path }

// path is the route's path with an id in it.
func (v *visit) path(id string) string { return strings.ReplaceAll(v.Path, "{id}", id) }

// everyRoute calls try for each route of both sides that has an end. again makes a caller
// anew, and what the path names: try may have done away with them.
func (e *env) everyRoute(try func(v visit, again func() visit)) {
	e.t.Helper()
	for _, side := range []struct {
		base string
		rows []api.Row
	}{{e.customers, e.CustomerRows()}, {e.operators, e.OperatorRows()}} {
		var doc document
		newClient(e.t, side.base).want(http.StatusOK, "GET", "/openapi.json", nil).into(e.t, &doc)
		for _, row := range side.rows {
			if row.Operation == "streamEvents" || row.Operation == "streamTraffic" {
				continue // TestEventStream and TestTraffic have them
			}
			op, ok := doc.Paths[row.Path][strings.ToLower(row.Method)]
			if !ok {
				e.t.Fatalf("%s %s is not in the document", row.Method, row.Path)
			}
			again := func() visit {
				v := visit{Row: row, doc: doc, op: op, id: "17"}
				switch {
				case row.Customer:
					_, v.c = e.customer()
				case len(row.Roles) > 0:
					_, v.c = e.operator(control.RoleAdmin)
				default:
					v.c = newClient(e.t, side.base)
				}
				switch {
				case strings.Contains(row.Path, "/api-keys/{id}"):
					var k api.CreatedAPIKey
					v.c.want(http.StatusCreated, "POST", "/v1/me/api-keys", api.NewAPIKey{Name: "x"}).into(e.t, &k)
					v.id = k.ID
				case strings.Contains(row.Path, "/me/boxes/{id}"):
					var boxes api.List[control.BoxDetail]
					v.c.want(http.StatusOK, "GET", "/v1/me/boxes", nil).into(e.t, &boxes)
					v.id = boxes.Items[0].ID
				case strings.Contains(row.Path, "/boxes/{id}"):
					customer, _ := e.customer()
					v.id = strings.TrimSpace(e.pg.Query("SELECT id FROM boxes WHERE customer_id = '" + customer + "'"))
				case strings.Contains(row.Path, "/customers/{id}"):
					v.id, _ = e.customer()
				case strings.Contains(row.Path, "/operators/{id}"):
					v.id, _ = e.operator(control.RoleSupport)
				}
				return v
			}
			try(again(), again)
		}
	}
}

// body is one that the route could take, as far as its schema tells; nil if it has none.
func (v *visit) body() map[string]any {
	c, ok := v.op.RequestBody.Content["application/json"]
	if !ok {
		return nil
	}
	m, _ := v.doc.sample("", c.Schema).(map[string]any)
	return m
}

// sample makes a value of a schema.
func (d *document) sample(name string, s schema) any {
	if s.Ref != "" {
		s = d.Components.Schemas[s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]]
	}
	if len(s.AnyOf) > 0 {
		return d.sample(name, s.AnyOf[0])
	}
	switch s.Type {
	case "object":
		out := map[string]any{}
		for name, p := range s.Properties {
			out[name] = d.sample(name, p)
		}
		return out
	case "array":
		return []any{}
	case "integer", "number":
		return 1
	case "boolean":
		return false
	}
	if len(s.Enum) > 0 {
		return s.Enum[0]
	}
	switch name {
	case "email":
		return control.NewID("x") + "@example.com"
	case "password", "new_password", "current_password":
		return fakePassword
	case "tier":
		return "pro"
	}
	return "x"
}

// texts are the fields of a body that are texts.
func texts(body map[string]any) []string {
	var out []string
	for name, v := range body {
		if _, ok := v.(string); ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// ours reports whether an answer says that something went wrong here.
func (a answer) ours() bool {
	return a.status >= http.StatusInternalServerError && a.problem() != "unavailable" || a.status >= 400 && a.problem() == ""
}

// rowsOf is a fingerprint of all rows of a customer.
func (e *env) rowsOf(customer string) string {
	e.t.Helper()
	tables := strings.Fields(e.pg.Query(`SELECT c.table_name FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
		WHERE table_schema = 'public' AND column_name = 'customer_id' AND table_type = 'BASE TABLE' ORDER BY 1`))
	if len(tables) < 15 {
		e.t.Fatalf("only %v", tables)
	}
	parts := []string{"(SELECT string_agg(t::text, '|') FROM customers t WHERE id = '" + customer + "')"}
	for _, table := range tables {
		parts = append(parts, "(SELECT string_agg(t::text, '|' ORDER BY t::text) FROM "+table+" t WHERE customer_id = '"+customer+"')")
	}
	return e.pg.Query("SELECT concat_ws(E'\\n', " + strings.Join(parts, ", ") + ")")
}

// Whoever is signed in and names another customer, wherever that could be, reads and changes
// nothing of that one: neither here nor at Stripe.
func crossCustomerOnEveryRoute(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	account, a, sub := s.buyer("victim@example.com", "starter")
	a.want(http.StatusOK, "PATCH", "/v1/me", `{"name":"Private to A"}`)
	s.record(account.ID, 2)
	var key api.CreatedAPIKey
	a.want(http.StatusCreated, "POST", "/v1/me/api-keys", api.NewAPIKey{Name: "Key of A"}).into(t, &key)
	var boxes api.List[control.Box]
	a.want(http.StatusOK, "GET", "/v1/me/boxes", nil).into(t, &boxes)
	private := []string{account.ID, "Private to A", "victim@example.com", key.ID, "Key of A", sub, s.stripeID(account.ID)}
	for _, b := range boxes.Items {
		private = append(private, b.ID)
	}
	before, atStripe := s.rowsOf(account.ID), s.atStripe(sub)
	n := 0
	s.everyRoute(func(v visit, _ func() visit) {
		if !v.Customer {
			return
		}
		n++
		_, b, _ := s.buyer(control.NewID("b")+"@example.com", "starter")
		b.header.Set("X-Customer-Id", account.ID)
		id := key.ID
		if strings.Contains(v.Path, "/boxes/") {
			id = boxes.Items[0].ID
		}
		path := v.path(id) + "?customer=" + account.ID + "&customer_id=" + account.ID + "&id=" + account.ID
		bodies := []any{nil}
		if body := v.body(); body != nil {
			named := maps.Clone(body)
			named["customer_id"], named["id"] = account.ID, account.ID
			bodies = []any{named, body}
		}
		for _, body := range bodies {
			r := b.do(v.Method, path, body)
			if r.ours() {
				t.Errorf("%s: %d %s", &v, r.status, r.body)
			}
			for _, p := range private {
				if bytes.Contains(r.body, []byte(p)) && !strings.Contains(path, p) {
					t.Errorf("%s tells %q: %s", &v, p, r.body)
				}
			}
		}
		if after := s.rowsOf(account.ID); after != before {
			t.Errorf("%s changed what is another's: it was\n%s\nand is\n%s", &v, before, after)
			before = after
		}
		if after := s.atStripe(sub); after != atStripe {
			t.Errorf("%s changed another's subscription: it was\n%s\nand is\n%s", &v, atStripe, after)
			atStripe = after
		}
	})
	if n < 23 {
		t.Errorf("only %d routes of customers", n)
	}
	a.want(http.StatusOK, "GET", "/v1/me", nil)
}

// atStripe is a subscription as Stripe has it.
func (s *shop) atStripe(id string) string {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.sim.URL()+"/v1/subscriptions/"+id, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+stripesim.Key)
	req.Header.Set("Stripe-Version", stripesim.APIVersion)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("%d %s, %v", res.StatusCode, b, err)
	}
	return string(b)
}

// No route that changes something does so for a page of another site. Whose browser it was can
// be read in the audit log.
func crossSiteOnEveryRoute(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	routes := 0
	e.everyRoute(func(v visit, _ func() visit) {
		if v.Method == http.MethodGet || v.Signed {
			return
		}
		routes++
		var body any
		if b := v.body(); b != nil {
			body = b
		}
		entries := e.count("audit_log WHERE action <> 'request.cross_site'")
		tries := [][]string{
			{api.ForgeryHeader, ""}, {api.ForgeryHeader, "", "Content-Type", "text/plain"}, {"Origin", "https://evil.example"},
			{"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"},
		}
		for _, header := range tries {
			if a := v.c.do(v.Method, v.path(v.id), body, header...); a.status != http.StatusForbidden || a.problem() != "cross-site" || a.header.Get("Set-Cookie") != "" {
				t.Errorf("%s with %v: %d %s", &v, header, a.status, a.body)
			}
		}
		if n := e.count("audit_log WHERE action <> 'request.cross_site'"); n != entries {
			t.Errorf("%s: %s entries in the audit log became %s", &v, entries, n)
		}
		want := fmt.Sprint(len(tries))
		if v.Anyone {
			want = "0" // nobody's session was used
		}
		if n := e.count("audit_log WHERE action = 'request.cross_site' AND target = '" + v.String() + "'"); n != want {
			t.Errorf("%s: %s attempts are in the audit log, want %s", &v, n, want)
		}
		e.pg.Query("DELETE FROM audit_log WHERE action = 'request.cross_site'") // both sides have the same paths
	})
	if routes < 30 {
		t.Errorf("only %d routes", routes)
	}
}

func oversizeOnEveryRoute(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(o *api.Options) { o.Webhook = &webhook{} })
	large := bytes.Repeat([]byte(" "), 1<<20+1)
	e.everyRoute(func(v visit, again func() visit) {
		for _, chunked := range []bool{false, true} {
			v := again()
			var body io.Reader = bytes.NewReader(large)
			if chunked {
				body = io.MultiReader(body)
			}
			if a := v.c.do(v.Method, v.path(v.id), body, "Stripe-Signature", "good"); a.status != http.StatusRequestEntityTooLarge || a.problem() != "too-large" {
				t.Errorf("%s (chunked %v): %d %s", &v, chunked, a.status, a.body)
			}
		}
	})
	if strings.Contains(e.log.String(), `"level":"ERROR"`) {
		t.Error("it was our mistake")
	}
}

func malformedOnEveryRoute(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	routes := 0
	s.everyRoute(func(v visit, again func() visit) {
		body := v.body()
		if body == nil {
			return
		}
		routes++
		good, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		bad := map[string]string{
			"no JSON": "name=x", "cut": string(good[:len(good)-1]), "an array": "[" + string(good) + "]", "a text": `"x"`, "a number": "1e999",
			"two": string(good) + string(good), "no UTF-8": "{\"\xff\":\"\xff\"}", "nested": strings.Repeat(`{"a":`, 9000), "an unknown field": `{"nobody_knows_this":1}`,
		}
		for name, value := range body {
			for _, wrong := range []any{[]any{}, map[string]any{"a": 1}, 1.5, true, "x", -1, json.Number("1e400"), json.Number("99999999999999999999")} {
				if fmt.Sprintf("%T", wrong) == fmt.Sprintf("%T", value) || value == 1 && wrong == -1 {
					continue
				}
				odd := maps.Clone(body)
				odd[name] = wrong
				text, err := json.Marshal(odd)
				if err != nil {
					t.Fatal(err)
				}
				bad[fmt.Sprintf("%s is %v", name, wrong)] = string(text)
			}
		}
		for name, text := range bad {
			if a := v.c.do(v.Method, v.path(v.id), text); a.status < 400 || a.ours() {
				t.Errorf("%s: %s: %d %s", &v, name, a.status, a.body)
				v = again()
			}
		}
	})
	if routes < 15 {
		t.Errorf("only %d routes with a body", routes)
	}
	if strings.Contains(s.log.String(), `"level":"ERROR"`) {
		t.Error("it was our mistake")
	}
}

// Wherever a caller writes a text, what a statement would be made of stays a value: nothing
// fails here, nothing sleeps, and no table is gone.
func injectionOnEveryRoute(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	tables := e.pg.Query("SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind IN ('r', 'p')")
	places := 0
	attacks := []string{`'; DROP TABLE customers CASCADE; --`, `x' OR '1'='1`, `1); SELECT pg_sleep(10); --`, "x\x00y"}
	e.everyRoute(func(v visit, again func() visit) {
		try := func(where string, send func(v visit, attack string) answer) {
			places++
			for _, attack := range attacks {
				if v.Method != http.MethodGet {
					v = again()
				}
				began := time.Now()
				if a := send(v, attack); a.ours() || time.Since(began) > 8*time.Second {
					t.Errorf("%s: %q as %s: %d %s after %v", &v, attack, where, a.status, a.body, time.Since(began))
				}
			}
		}
		var body any
		if b := v.body(); b != nil {
			body = b
			for _, name := range texts(b) {
				try("field "+name, func(v visit, attack string) answer {
					b := v.body()
					b[name] = attack
					return v.c.do(v.Method, v.path(v.id), b)
				})
			}
		}
		if strings.Contains(v.Path, "{id}") {
			try("path", func(v visit, attack string) answer { return v.c.do(v.Method, v.path(escape(attack)), body) })
		}
		for _, p := range v.op.Parameters {
			if p.In == "query" {
				try("parameter "+p.Name, func(v visit, attack string) answer {
					return v.c.do(v.Method, v.path(v.id)+"?"+p.Name+"="+escape(attack), body)
				})
			}
		}
		try("headers", func(v visit, attack string) answer {
			attack = strings.Map(func(r rune) rune {
				if r < ' ' || r > '~' {
					return '?'
				}
				return r
			}, attack)
			return v.c.do(v.Method, v.path(v.id), body, api.KeyHeader, attack, "X-Request-Id", attack, "X-Forwarded-For", attack, "User-Agent", attack, "Origin", "")
		})
	})
	if places < 100 {
		t.Errorf("only %d places", places)
	}
	if now := e.pg.Query("SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind IN ('r', 'p')"); now != tables {
		t.Errorf("tables %s became %s", tables, now)
	}
	for _, word := range []string{"SQLSTATE", "syntax error", `"status":500`} {
		if log := e.log.String(); strings.Contains(log, word) {
			at := strings.Index(log, word)
			t.Errorf("the log has %q: %s", word, log[max(0, at-500):min(len(log), at+200)])
		}
	}
}
