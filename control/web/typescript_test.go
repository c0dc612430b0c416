package web_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

var update = flag.Bool("update", false, "write app/src/api/*.gen.ts anew")

// The pages' types of what the api takes and answers are made of its OpenAPI documents. Whoever
// changes the api has the pages not compile where they do not fit any more.
func TestTypesAreThoseOfTheAPI(t *testing.T) {
	t.Parallel()
	hasher, err := contract.NewHasher([]byte("a pepper that is fake"))
	if err != nil {
		t.Fatal(err)
	}
	// Its tables of routes need no database; nothing else of it is asked for.
	a, err := api.New(api.Options{
		Store: new(store.Store), Customers: new(customers.Service), Hasher: hasher, Logger: slog.New(slog.DiscardHandler),
		Secret: []byte("a fake secret of access tokens, for tests only"), Issuer: "https://app.example.com",
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, handler := range map[string]http.Handler{"customers": a.Customers(), "operators": a.Operators()} {
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
		if rec.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", name, rec.Code, rec.Body)
		}
		want, err := typescript(rec.Body.Bytes())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		path := "app/src/api/" + name + ".gen.ts"
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s is not what the api's document says (%v): go test ./control/web -run TestTypesAreThoseOfTheAPI -update", path, err)
		}
	}
}

// schema is what of JSON Schema the api's documents use.
type schema struct {
	Ref                  string            `json:"$ref"`
	Type                 string            `json:"type"`
	Enum                 []string          `json:"enum"`
	AnyOf                []schema          `json:"anyOf"`
	Items                *schema           `json:"items"`
	Properties           map[string]schema `json:"properties"`
	Required             []string          `json:"required"`
	AdditionalProperties json.RawMessage   `json:"additionalProperties"`
	Description          string            `json:"description"`
}

type content map[string]struct {
	Schema schema `json:"schema"`
}

type operation struct {
	Summary    string `json:"summary"`
	Parameters []struct {
		Name   string `json:"name"`
		In     string `json:"in"`
		Schema schema `json:"schema"`
	} `json:"parameters"`
	RequestBody *struct {
		Required bool    `json:"required"`
		Content  content `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Content content `json:"content"`
	} `json:"responses"`
}

// typescript makes types of an OpenAPI document: one of each schema, and Routes, which says what each
// route takes and answers.
func typescript(document []byte) (string, error) {
	var doc struct {
		Paths      map[string]map[string]operation `json:"paths"`
		Components struct {
			Schemas map[string]schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return "", err
	}
	var out strings.Builder
	out.WriteString("// Code generated from the api's OpenAPI document by TestTypesAreThoseOfTheAPI. DO NOT EDIT.\n")
	for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas)) {
		s := doc.Components.Schemas[name]
		text, err := properties(s, "  ")
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(&out, "\nexport interface %s {\n%s}\n", name, text)
	}
	out.WriteString("\n/** What each route takes and answers. */\nexport interface Routes {\n")
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			op := doc.Paths[path][method]
			input, answer, err := op.types()
			if err != nil {
				return "", fmt.Errorf("%s %s: %w", method, path, err)
			}
			fmt.Fprintf(&out, "  /** %s. */\n  %q: { input: %s; answer: %s };\n", op.Summary, strings.ToUpper(method)+" "+path, input, answer)
		}
	}
	out.WriteString("}\n")
	return out.String(), nil
}

func (op operation) types() (input, answer string, err error) {
	var inPath, inQuery, fields []string
	for _, p := range op.Parameters {
		t, err := p.Schema.typescript()
		switch {
		case err != nil:
			return "", "", err
		case p.In == "path":
			inPath = append(inPath, p.Name+": "+t)
		case p.In == "query":
			inQuery = append(inQuery, p.Name+"?: "+t)
		}
	}
	if len(inPath) > 0 {
		fields = append(fields, "path: { "+strings.Join(inPath, "; ")+" }")
	}
	if len(inQuery) > 0 {
		fields = append(fields, "query?: { "+strings.Join(inQuery, "; ")+" }")
	}
	if b := op.RequestBody; b != nil {
		t, err := b.Content["application/json"].Schema.typescript()
		if err != nil {
			return "", "", err
		}
		name := "body?: "
		if b.Required {
			name = "body: "
		}
		fields = append(fields, name+t)
	}
	input = "{}"
	if len(fields) > 0 {
		input = "{ " + strings.Join(fields, "; ") + " }"
	}
	answer = "undefined"
	for _, status := range []string{"200", "201"} {
		for media, c := range op.Responses[status].Content {
			if answer = "string"; media == "application/json" {
				if answer, err = c.Schema.typescript(); err != nil {
					return "", "", err
				}
			}
		}
	}
	return input, answer, nil
}

func (s schema) typescript() (string, error) {
	switch {
	case s.Ref != "":
		return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:], nil
	case len(s.AnyOf) > 0:
		return union(s.AnyOf)
	case len(s.Enum) > 0:
		quoted := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			quoted[i] = fmt.Sprintf("%q", v)
		}
		return strings.Join(quoted, " | "), nil
	}
	switch s.Type {
	case "":
		return "unknown", nil
	case "null", "string", "boolean":
		return s.Type, nil
	case "integer", "number":
		return "number", nil
	case "array":
		items, err := s.Items.typescript()
		if strings.Contains(items, " ") {
			items = "(" + items + ")"
		}
		return items + "[]", err
	case "object":
		if s.Properties != nil {
			text, err := properties(s, " ")
			return "{" + strings.ReplaceAll(text, "\n", "") + " }", err
		}
		var values schema
		if err := json.Unmarshal(s.AdditionalProperties, &values); err != nil {
			return "", fmt.Errorf("an object without properties: %w", err)
		}
		t, err := values.typescript()
		return "Record<string, " + t + ">", err
	}
	return "", fmt.Errorf("the type %q has no equivalent yet", s.Type)
}

func union(of []schema) (string, error) {
	var texts []string
	for _, s := range of {
		t, err := s.typescript()
		if err != nil {
			return "", err
		}
		texts = append(texts, t)
	}
	return strings.Join(texts, " | "), nil
}

func properties(s schema, indent string) (string, error) {
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		t, err := p.typescript()
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if p.Description != "" {
			fmt.Fprintf(&out, "%s/** %s */\n", indent, p.Description)
		}
		optional := "?"
		if slices.Contains(s.Required, name) {
			optional = ""
		}
		fmt.Fprintf(&out, "%s%s%s: %s;\n", indent, name, optional, t)
	}
	return out.String(), nil
}

func TestTypesComplain(t *testing.T) {
	t.Parallel()
	for document, want := range map[string]string{
		`{"components":{"schemas":{"A":{"type":"object","properties":{"x":{"type":"tuple"}}}}}}`:                `"tuple"`,
		`{"components":{"schemas":{"A":{"type":"object","properties":{"x":{"type":"object"}}}}}}`:               "without properties",
		`{"paths":{"/a":{"get":{"parameters":[{"name":"q","in":"query","schema":{"type":"tuple"}}]}}}}`:         "get /a",
		`{"paths":{"/a":{"get":{"responses":{"200":{"content":{"application/json":{"schema":{"type":1}}}}}}}}}`: "json",
	} {
		if _, err := typescript([]byte(document)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", document, err, want)
		}
	}
	got, err := typescript([]byte(`{"components":{"schemas":{"A":{"type":"object","required":["b"],"properties":{` +
		`"b":{"type":"array","items":{"type":"string","enum":["x","y"]}},"c":{"anyOf":[{"$ref":"#/components/schemas/A"},{"type":"null"}],"description":"Or not."}}}}},` +
		`"paths":{"/a/{id}":{"post":{"summary":"Do","parameters":[{"name":"id","in":"path","schema":{"type":"string"}}],` +
		`"requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/A"}}}},"responses":{"204":{}}}}}}`))
	want := "\nexport interface A {\n  b: (\"x\" | \"y\")[];\n  /** Or not. */\n  c?: A | null;\n}\n" +
		"\n/** What each route takes and answers. */\nexport interface Routes {\n  /** Do. */\n  \"POST /a/{id}\": { input: { path: { id: string }; body: A }; answer: undefined };\n}\n"
	if _, text, _ := strings.Cut(got, "DO NOT EDIT.\n"); err != nil || text != want {
		t.Errorf("%v\n%s\nwant\n%s", err, text, want)
	}
}
