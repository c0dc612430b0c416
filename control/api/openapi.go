package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// operation is a route's part of the OpenAPI document.
type operation struct {
	id       string // what generated clients call it
	tag      string
	summary  string
	about    string // in more words; may be ""
	query    []parameter
	body     any  // a value of the body's type; nil without a body
	optional bool // the body may be left out
	status   int
	answer   any    // a value of the answer's type; nil without a body
	media    string // of the answer if it is not JSON
	// events are values of what events of a stream hold that no other answer does, by their names:
	// so that the document has their types, for which OpenAPI has no place.
	events map[string]any
}

type parameter struct {
	name, about string
	schema      object
}

type object = map[string]any

// Parameters that several routes have.
func paging() []parameter {
	return []parameter{
		{"limit", "How many entries to return.", object{"type": "integer", "minimum": 1, "maximum": maxPageLen, "default": pageLen}},
		{"cursor", "What the page before said is next.", object{"type": "string"}},
	}
}

func times(what string) []parameter {
	return []parameter{
		{"from", what + " from this time on.", object{"type": "string", "format": "date-time"}},
		{"to", what + " before this time.", object{"type": "string", "format": "date-time"}},
	}
}

func ofOne() parameter {
	return parameter{"customer", "Of this customer only.", object{"type": "string"}}
}

// document makes the OpenAPI document of a side from its table, so that it cannot say
// anything else. revision is what the build was made from: who deploys sees by it what answers.
func document(s *side, server, revision string) ([]byte, error) {
	sc := newSchemas()
	problem, err := sc.of(Problem{})
	if err != nil {
		return nil, fmt.Errorf("OpenAPI document: %w", err)
	}
	paths, tags := map[string]object{}, []string{}
	for i := range s.table {
		r := &s.table[i]
		op, err := s.operation(r, sc)
		if err != nil {
			return nil, fmt.Errorf("OpenAPI document: %s: %w", r.pattern(), err)
		}
		if paths[r.path] == nil {
			paths[r.path] = object{}
		}
		paths[r.path][strings.ToLower(r.method)] = op
		if !slices.Contains(tags, r.op.tag) {
			tags = append(tags, r.op.tag)
		}
	}
	named := make([]object, len(tags))
	for i, t := range tags {
		named[i] = object{"name": t, "description": aboutTag(t)}
	}
	info := object{
		"title": "openclaw-cloud for " + s.name, "version": "1.0.0",
		"description": "Errors are application/problem+json. Lists come page by page. What changes something under a cookie needs the header " +
			forgeryHeader + "; a POST can be repeated safely with " + keyHeader + ".",
		"license": object{"name": "Apache 2.0", "identifier": "Apache-2.0"},
	}
	if revision != "" {
		info["x-revision"] = revision
	}
	doc := object{
		"openapi": "3.1.0",
		"info":    info,
		"servers": []object{{"url": server}},
		"tags":    named,
		"paths":   paths,
		"components": object{
			"schemas": sc.components,
			"responses": object{"Refusal": object{ // generated clients have the names of schemas and answers in one place
				"description": "What went wrong.",
				"content":     object{"application/problem+json": object{"schema": problem}},
			}},
			"parameters": object{
				"Forgery": object{
					"name": forgeryHeader, "in": "header", "required": false, "schema": object{"type": "string"},
					"description": "Needed, with any value, unless the credentials are in the Authorization header.",
				},
				"Idempotency": object{
					"name": keyHeader, "in": "header", "required": false, "schema": object{"type": "string", "minLength": 1, "maxLength": 255},
					"description": "A text of the caller's own. The same request with the same key has its effect once within 24 hours; who repeats it gets the first answer, without secrets, and with the header " + replayedHeader + ".",
				},
			},
			"securitySchemes": s.schemes(),
		},
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("OpenAPI document: %w", err)
	}
	return b, nil
}

// aboutTag says what the routes with a tag are about.
func aboutTag(tag string) string {
	switch tag {
	case "session":
		return "Signing up, in and out."
	case "me":
		return "The caller's own account."
	case "billing":
		return "What is bought, and what it costs."
	case "installation":
		return "Where the caller is."
	case "tiers":
		return "What can be bought."
	case "customers":
		return "Customers, and what they used."
	case "tokens":
		return "Proxy tokens, by which boxes are known."
	case "quota":
		return "Limits of customers."
	case "audit":
		return "Who did what, and what was refused."
	case "boxes":
		return "The customers' agents."
	case "jobs":
		return "What is done beside requests."
	case "ledger":
		return "Usage that could not be written."
	case "platform":
		return "The platform as a whole."
	case "operators":
		return "Who runs the platform."
	}
	return ""
}

func (s *side) schemes() object {
	out := object{"session": object{
		"type": "apiKey", "in": "cookie", "name": s.realm.access, "description": "Set by signing in; good for an hour.",
	}}
	if s.realm.kind == control.SubjectCustomer {
		out["key"] = object{"type": "http", "scheme": "bearer", "description": "A personal API key."}
	} else {
		out["token"] = object{"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An access token, from signing in with tokens: true."}
	}
	return out
}

func (s *side) operation(r *route, sc *schemas) (object, error) {
	op := object{"operationId": r.op.id, "summary": r.op.summary, "tags": []string{r.op.tag}}
	about := r.op.about
	switch {
	case r.who.anyone:
		op["security"] = []object{}
	case r.who.session:
		op["security"] = []object{{"session": []string{}}}
	case r.who.customer:
		op["security"] = []object{{"session": []string{}}, {"key": []string{}}}
	default:
		op["security"] = []object{{"session": []string{}}, {"token": []string{}}}
		op["x-roles"] = r.who.roles
		roles := make([]string, len(r.who.roles))
		for i, role := range r.who.roles {
			roles[i] = string(role)
		}
		about = strings.TrimSpace(about + " For: " + strings.Join(roles, ", ") + ".")
	}
	if about != "" {
		op["description"] = about
	}
	params := []object{}
	for rest := r.path; ; {
		_, after, ok := strings.Cut(rest, "{")
		if !ok {
			break
		}
		name, tail, _ := strings.Cut(after, "}")
		params = append(params, object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}})
		rest = tail
	}
	for _, q := range r.op.query {
		params = append(params, object{"name": q.name, "in": "query", "required": false, "description": q.about, "schema": q.schema})
	}
	if r.method != http.MethodGet && !r.who.signed {
		params = append(params, object{"$ref": "#/components/parameters/Forgery"})
	}
	if r.idempotent() {
		params = append(params, object{"$ref": "#/components/parameters/Idempotency"})
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	if r.op.body != nil {
		schema, err := sc.ofBody(r.op.body)
		if err != nil {
			return nil, err
		}
		op["requestBody"] = object{"required": !r.op.optional, "content": object{"application/json": object{"schema": schema}}}
	}
	ok := object{"description": http.StatusText(r.op.status)}
	switch {
	case r.op.media != "":
		text := object{"type": "string"}
		if len(r.op.events) > 0 {
			events := object{}
			for name, v := range r.op.events {
				schema, err := sc.of(v)
				if err != nil {
					return nil, err
				}
				events[name] = schema
			}
			text["$defs"] = events // where a document's readers look for types that it names
		}
		ok["content"] = object{r.op.media: object{"schema": text}}
	case r.op.answer != nil:
		schema, err := sc.of(r.op.answer)
		if err != nil {
			return nil, err
		}
		ok["content"] = object{"application/json": object{"schema": schema}}
	}
	problem := object{"$ref": "#/components/responses/Refusal"}
	answers := object{strconv.Itoa(r.op.status): ok, "4XX": problem, "5XX": problem}
	if r.publishes {
		later := object{"description": "Saved, and not yet known to all proxies: they will know as soon as they can be told."}
		if content := ok["content"]; content != nil {
			later["content"] = content
		}
		answers["202"] = later
	}
	op["responses"] = answers
	return op, nil
}
