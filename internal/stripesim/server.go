package stripesim

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// APIVersion is the version of which it speaks.
const APIVersion = "2023-10-16"

// Key is the secret key that requests must bring. It opens nothing.
const Key = "sk_test_fake"

// maxBody is how many bytes a request may have.
const maxBody = 1 << 20

// Server is one Stripe account. It is safe for concurrent use.
type Server struct {
	http *httptest.Server // of New
	site *site            // of Open

	tag string // in all ids, as accounts share none

	mu       sync.Mutex
	now      time.Time
	next     int // number of the next id
	answered int
	failing  int               // so many requests are answered with 500
	broken   map[string]int    // and so many of a route
	before   map[string]func() // what happens before the next request of a route
	requests map[string]int
	answers  map[string]answer // by idempotency key

	customers     []*customer
	products      []*product
	prices        []*price
	sessions      []*session
	visits        []*visit
	subscriptions []*subscription
	invoices      []*invoice
	endpoints     []*endpoint
	portals       []*portal
	meters        []*meter
	meterEvents   []meterEvent
	events        []Event
}

type answer struct {
	request [32]byte
	status  int
	body    []byte
}

// New starts a server whose clock says now. Close it.
func New(now time.Time) *Server {
	s := newServer(newTag(), now)
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	return s
}

func newTag() string { return strings.ToLower(rand.Text()[:8]) }

func newServer(tag string, now time.Time) *Server {
	return &Server{
		tag: tag, now: now.UTC().Truncate(time.Second), requests: make(map[string]int), broken: make(map[string]int), answers: make(map[string]answer),
		before: make(map[string]func()),
	}
}

// Close stops it.
func (s *Server) Close() {
	if s.http != nil {
		s.http.Close()
	}
	if s.site != nil {
		s.site.close()
	}
}

// Tag is what all ids of this account have behind their prefix, before their number.
func (s *Server) Tag() string { return s.tag }

// URL is where it answers.
func (s *Server) URL() string {
	if s.site != nil {
		return s.site.url
	}
	return s.http.URL
}

// page is where a person opens something, if people are served.
func (s *Server) page(kind, path, id string) string {
	if s.site == nil {
		return "https://" + kind + ".example.invalid/" + id
	}
	return s.site.url + "/" + path + "/" + id
}

// Now is what its clock says.
func (s *Server) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Fail has the next n requests answered with 500, whatever they ask for.
func (s *Server) Fail(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = n
}

// FailRoute has the next n requests for a route, as Requests writes it, answered with 500.
func (s *Server) FailRoute(route string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken[route] = n
}

// Before has something happen, once, when the next request for a route has come, and before it
// is looked at: to whoever sent it Stripe is slow. It may call the server, and send requests.
func (s *Server) Before(route string, do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before[route] = do
}

// happen does what Before asked for.
func (s *Server) happen(r *http.Request) {
	s.mu.Lock()
	route, _ := routeOf(r.Method, r.URL.Path)
	do := s.before[route]
	delete(s.before, route)
	s.mu.Unlock()
	if do != nil {
		do()
	}
}

// Requests returns how often a route was asked, such as "POST /v1/customers". Ids are
// written as {id}.
func (s *Server) Requests(route string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[route]
}

// Writes returns how many requests it was sent that are no mere questions.
func (s *Server) Writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for route, count := range s.requests {
		if !strings.HasPrefix(route, http.MethodGet) {
			n += count
		}
	}
	return n
}

// id returns a new identifier.
func (s *Server) id(prefix string) string {
	s.next++
	return fmt.Sprintf("%s_%s%04d", prefix, s.tag, s.next)
}

// object is what JSON is made from.
type object map[string]any

// problem is an error as Stripe answers it.
type problem struct {
	status  int
	kind    string
	code    string
	message string
}

func (p *problem) Error() string { return p.message }

func invalid(format string, args ...any) error {
	return &problem{http.StatusBadRequest, "invalid_request_error", "parameter_invalid", fmt.Sprintf(format, args...)}
}

func missing(what, id string) error {
	return &problem{http.StatusNotFound, "invalid_request_error", "resource_missing", fmt.Sprintf("No such %s: '%s'", what, id)}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.happen(r)
	// Before the lock: who sends slowly holds up nobody else.
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick()
	var status int
	var body []byte
	if err != nil {
		status, body = encode(nil, unread(err))
	} else {
		status, body = s.answer(r, string(raw))
	}
	w.Header().Set("Content-Type", "application/json")
	// Not numbered with the objects: their ids must not depend on how often someone asks.
	s.answered++
	w.Header().Set("Request-Id", fmt.Sprintf("req_sim%04d", s.answered))
	w.Header().Set("Stripe-Should-Retry", "false") // tests repeat themselves
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have gone
}

// unread is what is answered to a request whose body cannot be read.
func unread(err error) *problem {
	if errors.As(err, new(*http.MaxBytesError)) {
		return &problem{http.StatusRequestEntityTooLarge, "invalid_request_error", "", fmt.Sprintf("The request has more than %d bytes.", maxBody)}
	}
	return &problem{http.StatusBadRequest, "invalid_request_error", "", "The request cannot be read: " + err.Error()}
}

// answer answers a request that has been read. The caller holds the lock.
func (s *Server) answer(r *http.Request, text string) (int, []byte) {
	if r.Header.Get("Authorization") != "Bearer "+Key {
		return encode(nil, &problem{http.StatusUnauthorized, "invalid_request_error", "", "Invalid API Key provided"})
	}
	if v := r.Header.Get("Stripe-Version"); v != APIVersion {
		return encode(nil, invalid("Invalid Stripe API version: %s", v))
	}
	route, _ := routeOf(r.Method, r.URL.Path)
	s.requests[route]++
	key := r.Header.Get("Idempotency-Key")
	q := request{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Body: text, Key: key}
	digest := q.digest()
	if r.Method == http.MethodPost && key != "" {
		if a, ok := s.answers[key]; ok {
			if a.request != digest {
				return encode(nil, &problem{http.StatusBadRequest, "idempotency_error", "",
					"Keys for idempotent requests can only be used with the same parameters they were first used with."})
			}
			return a.status, a.body
		}
	}
	if s.broken[route] > 0 || s.failing > 0 {
		if s.broken[route] > 0 {
			s.broken[route]--
		} else {
			s.failing--
		}
		status, body := encode(nil, &problem{http.StatusInternalServerError, "api_error", "", "An unknown error occurred"})
		// The first answer to a key is given again, "including 500 errors", for 24 hours at least
		// (docs.stripe.com/api/idempotent_requests).
		if r.Method == http.MethodPost && key != "" {
			s.answers[key] = answer{digest, status, body}
		}
		return status, body
	}
	if r.Method != http.MethodGet {
		if err := s.keep(entry{Request: &q}); err != nil {
			return encode(nil, err)
		}
	}
	return s.perform(q)
}

// request is what one asks for, without what says who asks.
type request struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Query  string `json:"query,omitempty"`
	Body   string `json:"body,omitempty"`
	Key    string `json:"key,omitempty"` // for idempotency
}

func (q *request) digest() [32]byte { return sha256.Sum256([]byte(q.Method + q.Path + "\n" + q.Body)) }

// perform does what a request asks for. The caller holds the lock.
func (s *Server) perform(q request) (int, []byte) {
	route, ids := routeOf(q.Method, q.Path)
	text := q.Body
	if q.Method == http.MethodGet || q.Method == http.MethodDelete && q.Body == "" {
		text = q.Query
	}
	var out any
	form, err := url.ParseQuery(text)
	if err != nil {
		err = invalid("bad form")
	} else {
		p := params{form: form, used: make(map[string]bool)}
		p.expand = p.list("expand")
		if out, err = s.route(strings.Replace(route, "/v1/", "", 1), ids, &p); err == nil {
			err = p.rest()
		}
	}
	status, body := encode(out, err)
	if q.Method == http.MethodPost && q.Key != "" {
		s.answers[q.Key] = answer{q.digest(), status, body}
	}
	return status, body
}

// routeOf returns the route of a request, such as "POST /v1/customers/{id}", and its ids.
func routeOf(method, path string) (route string, ids []string) {
	route, ids = normalize(strings.Split(strings.TrimPrefix(path, "/v1/"), "/"))
	return method + " /v1/" + route, ids
}

// normalize writes the ids of a path as {id}. Products have ids that their maker chose.
func normalize(path []string) (route string, ids []string) {
	out := slices.Clone(path)
	for i, part := range out {
		prefix, _, _ := strings.Cut(part, "_")
		known := slices.Contains([]string{"cus", "price", "cs", "sub", "in", "we", "mtr", "si", "bpc"}, prefix) && part != "in"
		if known || i == 1 && path[0] == "products" {
			ids = append(ids, part)
			out[i] = "{id}"
		}
	}
	return strings.Join(out, "/"), ids
}

func encode(out any, err error) (int, []byte) {
	status := http.StatusOK
	if err != nil {
		p, ok := err.(*problem)
		if !ok {
			p = &problem{http.StatusInternalServerError, "api_error", "", err.Error()}
		}
		status = p.status
		e := object{"type": p.kind, "message": p.message}
		if p.code != "" {
			e["code"] = p.code
		}
		out = object{"error": e}
	}
	body, err := json.Marshal(out)
	if err != nil {
		return http.StatusInternalServerError, []byte(err.Error())
	}
	return status, body
}

// params are a request's parameters. Each has to be asked for: what is left is a mistake.
type params struct {
	form   url.Values
	used   map[string]bool
	expand []string
}

func (p *params) get(key string) string {
	p.used[key] = true
	return p.form.Get(key)
}

// list returns key[], key[0], key[1]…
func (p *params) list(key string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(p.form)) {
		if name, rest, ok := strings.Cut(k, "["); ok && name == key && strings.Count(rest, "]") == 1 {
			p.used[k] = true
			out = append(out, p.form[k]...)
		}
	}
	return out
}

// group returns the maps of key[0][…], key[1][…]…, or of key[…] as one.
func (p *params) group(key string) []map[string]string {
	byIndex := make(map[string]map[string]string)
	for k := range p.form {
		name, rest, ok := strings.Cut(k, "[")
		if !ok || name != key {
			continue
		}
		p.used[k] = true
		index, field := "", strings.TrimSuffix(rest, "]")
		if i, f, two := strings.Cut(rest, "]["); two {
			index, field = i, strings.TrimSuffix(f, "]")
		}
		if byIndex[index] == nil {
			byIndex[index] = make(map[string]string)
		}
		byIndex[index][field] = p.form.Get(k)
	}
	var out []map[string]string
	for _, index := range slices.Sorted(maps.Keys(byIndex)) {
		out = append(out, byIndex[index])
	}
	return out
}

// rest complains about a parameter that nothing asked for.
func (p *params) rest() error {
	for k := range p.form {
		if !p.used[k] {
			return invalid("Received unknown parameter: %s", k)
		}
	}
	return nil
}

func listOf(path string, data []any) object {
	if data == nil {
		data = []any{}
	}
	return object{"object": "list", "url": "/v1/" + path, "has_more": false, "data": data}
}
