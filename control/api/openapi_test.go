package api_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
)

// Both documents are valid OpenAPI 3.1, say exactly what the tables say, and what is
// answered is what they say.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	for _, side := range []struct {
		name, base string
		rows       []api.Row
	}{{"customers", e.customers, e.CustomerRows()}, {"operators", e.operators, e.OperatorRows()}} {
		spec := newClient(t, side.base).want(http.StatusOK, "GET", "/openapi.json", nil)
		doc, err := libopenapi.NewDocument(spec.body)
		if err != nil {
			t.Fatal(err)
		}
		if doc.GetVersion() != "3.1.0" {
			t.Errorf("version %s", doc.GetVersion())
		}
		v, errs := validator.NewValidator(doc)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		if ok, problems := v.ValidateDocument(); !ok {
			for _, p := range problems {
				t.Errorf("%s: %s: %s", side.name, p.Message, p.Reason)
				for _, s := range p.SchemaValidationErrors {
					t.Errorf("  %s: %s", s.FieldPath, s.Reason)
				}
			}
		}
		if _, err := doc.BuildV3Model(); err != nil {
			t.Error(err)
		}
		var parsed struct {
			Paths map[string]map[string]struct {
				OperationID string           `json:"operationId"`
				Security    []map[string]any `json:"security"`
				Roles       []control.Role   `json:"x-roles"`
				Parameters  []struct {
					Ref string `json:"$ref"`
				} `json:"parameters"`
			} `json:"paths"`
		}
		spec.into(t, &parsed)
		var got, want []string
		for path, methods := range parsed.Paths {
			for method, op := range methods {
				line := strings.ToUpper(method) + " " + path + " " + op.OperationID
				for _, r := range op.Roles {
					line += " " + string(r)
				}
				if op.Security == nil {
					t.Errorf("%s says nothing of who may call it", line)
				}
				if len(op.Security) == 0 {
					line += " anyone"
				}
				keyed := slices.ContainsFunc(op.Parameters, func(p struct {
					Ref string `json:"$ref"`
				}) bool {
					return strings.HasSuffix(p.Ref, "/Idempotency")
				})
				if signedIn := len(op.Security) > 0; keyed != (method == "post" && signedIn && op.OperationID != "createPortal" && op.OperationID != "mailVerification") {
					t.Errorf("%s: an idempotency key: %v", line, keyed)
				}
				got = append(got, line)
			}
		}
		for _, r := range side.rows {
			line := r.Method + " " + r.Path + " " + r.Operation
			for _, role := range r.Roles {
				line += " " + string(role)
			}
			if r.Anyone {
				line += " anyone"
			}
			want = append(want, line)
		}
		sort.Strings(got)
		sort.Strings(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the document has\n%s\nand the table\n%s", side.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// The answers of the routes fit their schemas: every field that is there is described, and
// every one that is required is there.
func TestAnswersFitTheDocument(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	id, c := e.customer()
	e.record(id, 2)
	c.apiKey()
	_, admin := e.operator(control.RoleAdmin)
	admin.want(http.StatusCreated, "POST", "/v1/customers/"+id+"/tokens", nil)
	box := strings.TrimSpace(e.pg.Query("SELECT id FROM boxes"))
	e.pg.Query("INSERT INTO box_steps SELECT id, customer_id, 1, 'gateway', now(), now(), 'x' FROM boxes")
	for _, k := range []struct {
		client *client
		path   string
		route  string
	}{
		{c, "/v1/me", "/v1/me"}, {c, "/v1/me/usage", "/v1/me/usage"}, {c, "/v1/me/boxes", "/v1/me/boxes"}, {c, "/v1/me/api-keys", "/v1/me/api-keys"},
		{c, "/v1/me/boxes/" + box, "/v1/me/boxes/{id}"}, {c, "/v1/me/boxes/" + box + "/settings", "/v1/me/boxes/{id}/settings"},
		{admin, "/v1/boxes", "/v1/boxes"}, {admin, "/v1/boxes/" + box, "/v1/boxes/{id}"},
		{c, "/v1/me/export", "/v1/me/export"}, {c, "/v1/session", "/v1/session"}, {c, "/v1/tiers", "/v1/tiers"}, {c, "/v1/installation", "/v1/installation"},
		{admin, "/v1/customers", "/v1/customers"}, {admin, "/v1/customers/" + id, "/v1/customers/{id}"}, {admin, "/v1/tokens", "/v1/tokens"},
		{admin, "/v1/customers/" + id + "/quota", "/v1/customers/{id}/quota"}, {admin, "/v1/audit", "/v1/audit"}, {admin, "/v1/usage", "/v1/usage"},
		{admin, "/v1/replicas", "/v1/replicas"}, {admin, "/v1/operators", "/v1/operators"}, {admin, "/v1/jobs", "/v1/jobs"},
	} {
		var spec document
		k.client.do("GET", "/openapi.json", nil).into(t, &spec)
		op := spec.Paths[k.route]["get"]
		schema, ok := op.Responses["200"].Content["application/json"]
		if !ok {
			t.Errorf("%s: no schema", k.route)
			continue
		}
		var value any
		k.client.want(http.StatusOK, "GET", k.path, nil).into(t, &value)
		spec.check(t, k.path, schema.Schema, value)
	}
}

// What the api takes of few values, "" among them, its document lists.
func TestEmptyLanguageIsInTheDocument(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	_, c := e.customer()
	var spec document
	c.do("GET", "/openapi.json", nil).into(t, &spec)
	for name, want := range map[string][]string{"BoxSettingsChange": {"", "en", "pt-BR"}, "ProfileChange": {"en", "pt-BR"}} {
		if got := spec.Components.Schemas[name].Properties["language"].Enum; !slices.Equal(got, want) {
			t.Errorf("%s: language is of %q, want %q", name, got, want)
		}
	}
	box := strings.TrimSpace(e.pg.Query("SELECT id FROM boxes"))
	c.want(http.StatusOK, "PATCH", "/v1/me/boxes/"+box+"/settings", `{"language":""}`)
}

type document struct {
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	Parameters []struct {
		Name string `json:"name"`
		In   string `json:"in"`
	} `json:"parameters"`
	RequestBody struct {
		Content map[string]content `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Content map[string]content `json:"content"`
	} `json:"responses"`
}

type content struct {
	Schema schema `json:"schema"`
}

type schema struct {
	Ref        string            `json:"$ref"`
	Type       string            `json:"type"`
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
	Items      *schema           `json:"items"`
	AnyOf      []schema          `json:"anyOf"`
	Enum       []string          `json:"enum"`
	Additional json.RawMessage   `json:"additionalProperties"`
}

func (d *document) check(t *testing.T, at string, s schema, value any) {
	t.Helper()
	if len(s.AnyOf) > 0 { // or null
		if value != nil {
			d.check(t, at, s.AnyOf[0], value)
		}
		return
	}
	if s.Ref != "" {
		name := s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
		next, ok := d.Components.Schemas[name]
		if !ok {
			t.Errorf("%s: there is no schema %s", at, name)
			return
		}
		s = next
	}
	wrong := func() { t.Errorf("%s: %T instead of %s", at, value, s.Type) }
	switch s.Type {
	case "object":
		m, ok := value.(map[string]any)
		if !ok {
			wrong()
			return
		}
		for _, name := range s.Required {
			if _, ok := m[name]; !ok {
				t.Errorf("%s: %s is missing", at, name)
			}
		}
		for name, v := range m {
			p, ok := s.Properties[name]
			if !ok && s.Additional == nil {
				t.Errorf("%s: %s is not described", at, name)
			}
			if ok {
				d.check(t, at+"."+name, p, v)
			}
		}
	case "array":
		list, ok := value.([]any)
		if !ok {
			wrong()
			return
		}
		for _, v := range list {
			d.check(t, at+"[]", *s.Items, v)
		}
	case "string":
		text, ok := value.(string)
		if !ok || s.Enum != nil && !slices.Contains(s.Enum, text) {
			wrong()
		}
	case "integer", "number":
		if _, ok := value.(float64); !ok {
			wrong()
		}
	case "boolean":
		if _, ok := value.(bool); !ok {
			wrong()
		}
	}
}

// Both documents tell what the build was made from, if that is known: openclawctl smoke compares it.
func TestDocumentsTellTheRevision(t *testing.T) {
	t.Parallel()
	for _, revision := range []string{"", "0123456789abcdef"} {
		e := newEnv(t, func(o *api.Options) { o.Revision = revision })
		for _, base := range []string{e.customers, e.operators} {
			var doc struct{ Info map[string]any }
			newClient(t, base).want(http.StatusOK, "GET", "/openapi.json", nil).into(t, &doc)
			got, told := doc.Info["x-revision"]
			if told != (revision != "") || told && got != revision {
				t.Errorf("a build of %q tells %v", revision, got)
			}
		}
	}
}
