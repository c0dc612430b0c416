package proxy_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/proxy"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// attempt is a request that a test spoils before it is sent.
type attempt struct {
	method, path string
	header       http.Header
	body         string
}

// attempt is a good request on the face.
func (f face) attempt(token string) *attempt {
	h := http.Header{"Content-Type": {"application/json"}}
	if f.anthropic {
		h.Set("X-Api-Key", token)
		h.Set("Anthropic-Version", "2023-06-01")
	} else {
		h.Set("Authorization", "Bearer "+token)
	}
	return &attempt{"POST", f.path, h, chat(true, "hello")}
}

func (r *replica) send(a *attempt) answer {
	r.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, a.method, r.url+a.path, strings.NewReader(a.body))
	if err != nil {
		r.w.t.Fatal(err)
	}
	req.Header = a.header
	resp, err := client.Do(req)
	if err != nil {
		r.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b), err}
}

// refusal is what a client must see of one row of the refusal table. typ is the name on
// the OpenAI face.
type refusal struct {
	status  int
	typ     string
	retry   string // Retry-After, "" for none
	noRetry bool   // x-should-retry: false
	says    string // part of the message
}

// anthropicType is the name of typ on the Anthropic face: its SDKs document two kinds
// under other names; the rest is the same.
func anthropicType(typ string) string {
	switch typ {
	case "rate_limit_exceeded":
		return "rate_limit_error"
	case "model_not_found":
		return "not_found_error"
	}
	return typ
}

// errorBody is an error of either face.
type errorBody struct {
	Type  string
	Error struct {
		Message, Type string
		Code, Param   *string
		Used, Limit   *int64
		ResetsAt      time.Time `json:"resets_at"`
	}
	RequestID string `json:"request_id"`
}

func requestIDs() *regexp.Regexp { return regexp.MustCompile(`^req_[0-9a-f]{24}$`) }

// check fails unless a is the refusal, in the shape of the face.
func (w refusal) check(t *testing.T, f face, a answer) errorBody {
	t.Helper()
	if a.status != w.status || a.err != nil {
		t.Fatalf("status %d (%v), want %d: %.300s", a.status, a.err, w.status, a.body)
	}
	var top map[string]json.RawMessage
	var e errorBody
	if err := json.Unmarshal([]byte(a.body), &top); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	id := a.header.Get("X-Request-Id")
	if f.anthropic {
		if e.Type != "error" || e.Error.Type != anthropicType(w.typ) || e.RequestID != id {
			t.Errorf("not the Anthropic shape of %s: %s", w.typ, a.body)
		}
	} else if len(top) != 1 || e.Error.Type != w.typ || e.Error.Code == nil || *e.Error.Code != w.typ {
		t.Errorf("not the OpenAI shape of %s: %s", w.typ, a.body)
	}
	if e.Error.Message == "" || !strings.Contains(e.Error.Message, w.says) {
		t.Errorf("the message does not say %q: %s", w.says, a.body)
	}
	if !requestIDs().MatchString(id) {
		t.Errorf("X-Request-Id is %q", id)
	}
	if ct := a.header.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") {
		t.Errorf("Content-Type is %q", ct)
	}
	if got := a.header.Get("Retry-After"); got != w.retry {
		t.Errorf("Retry-After is %q, want %q", got, w.retry)
	}
	if got := a.header.Get("X-Should-Retry"); got != map[bool]string{true: "false"}[w.noRetry] {
		t.Errorf("x-should-retry is %q", got)
	}
	return e
}

// limitHeaders fails unless a carries the state of the limits that are known by then.
func limitHeaders(t *testing.T, a answer, requests, tokens bool) {
	t.Helper()
	for kind, want := range map[string]bool{"Requests": requests, "Tokens": tokens} {
		if !want {
			continue
		}
		for _, what := range []string{"Limit", "Remaining"} {
			name := "X-Ratelimit-" + what + "-" + kind
			if n, err := strconv.ParseInt(a.header.Get(name), 10, 64); err != nil || n < 0 {
				t.Errorf("%s is %q", name, a.header.Get(name))
			}
		}
		if v := a.header.Get("X-Ratelimit-Reset-" + kind); !regexp.MustCompile(`^\d+s$`).MatchString(v) {
			t.Errorf("X-Ratelimit-Reset-%s is %q", kind, v)
		}
	}
}

// account is the ledger's account of a grant.
func account(g contract.Grant) quota.Account {
	return quota.Account{Customer: g.CustomerID, Period: g.Period, Limit: g.MonthlyLimit, LimitVersion: g.LimitVersion}
}

// usage reads the customer's record in Redis.
func (r *replica) usage(g contract.Grant) quota.Usage {
	r.w.t.Helper()
	return r.w.plane.Usage(account(g))
}

// nothingHeld waits until no replica leases tokens for the customer, and returns what is
// settled: then all of it is in Redis.
func (r *replica) nothingHeld(g contract.Grant) int64 {
	r.w.t.Helper()
	var u quota.Usage
	eventually(r.w.t, "nothing is held", func() bool { u = r.usage(g); return u.Held == 0 })
	return u.Settled
}

// inFlight reads the gauge of requests in flight.
func (r *replica) inFlight() string {
	r.w.t.Helper()
	resp, err := client.Get(r.admin.URL + "/metrics")
	if err != nil {
		r.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.w.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\ntoken_proxy_requests_in_flight ")
	n, _, _ := strings.Cut(rest, "\n")
	return n
}

// served fails unless a good request is served.
func (r *replica) served(f face, token string) answer {
	r.w.t.Helper()
	a := r.post(f, token, chat(false, "hello"))
	if a.status != http.StatusOK || a.err != nil {
		r.w.t.Errorf("a good request is answered %d (%v): %s", a.status, a.err, a.body)
	}
	return a
}

// one lets a customer have one request in flight, so that a leaked place shows at once.
// It is for answers that are not streamed: the place of a stream is free only after the
// client has seen its end.
func one(g *contract.Grant) { g.Concurrent = 1 }

// Each reason that needs neither a limit nor the upstream: the client sees the right
// error, nothing is forwarded, nothing is metered, nothing stays in flight.
func TestRefusedBeforeAdmission(t *testing.T) {
	t.Parallel()
	var (
		noCredential  = refusal{status: 401, typ: "authentication_error", says: "no proxy token"}
		badToken      = refusal{status: 401, typ: "authentication_error", says: "malformed, unknown or revoked"}
		twoCredential = refusal{status: 401, typ: "authentication_error", says: "more than one credential"}
		badJSON       = refusal{status: 400, typ: "invalid_request_error"}
		unbounded     = refusal{status: 400, typ: "invalid_request_error", says: "cannot be bounded"}
		noModel       = refusal{status: 404, typ: "model_not_found"}
		noMethod      = refusal{status: 405, typ: "invalid_request_error"}
		noPath        = refusal{status: 404, typ: "not_found_error"}
		tooLarge      = refusal{status: 413, typ: "request_too_large"}
		badRequest    = refusal{status: 400, typ: "invalid_request_error"}
	)
	bare := func(a *attempt) { a.header.Del("Authorization"); a.header.Del("X-Api-Key") }
	credential := func(name string, values ...string) func(*attempt, string) {
		return func(a *attempt, _ string) {
			bare(a)
			a.header[http.CanonicalHeaderKey(name)] = values
		}
	}
	body := func(s string) func(*attempt, string) { return func(a *attempt, _ string) { a.body = s } }
	user := func(content string) string {
		return `{"model":"` + model + `","max_tokens":64,"messages":[{"role":"user","content":` + content + `}]}`
	}
	with := func(more string) string { return chat(true, "hello", more) }
	stranger, err := contract.NewToken(nil)
	if err != nil {
		t.Fatal(err)
	}
	const bodyLimit = 20_000
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(func(c *proxy.Config) { c.Limits.BodyBytes = bodyLimit })
			good, goodGrant := w.token(one)
			revoked, _ := w.token(func(g *contract.Grant) { g.Status = contract.StatusRevoked })
			suspended, _ := w.token(func(g *contract.Grant) { g.Status = contract.StatusSuspended })
			limited, _ := w.token(func(g *contract.Grant) { g.Models = []string{"kimi-for-coding"} })
			swapped := good[:len(good)-1] + string("0123456789"[(good[len(good)-1]+1)%10])
			for _, c := range []struct {
				name  string
				token string
				spoil func(a *attempt, token string)
				want  refusal
			}{
				{"no credential", good, func(a *attempt, _ string) { bare(a) }, noCredential},
				{"empty bearer", good, credential("Authorization", "Bearer "), noCredential},
				{"empty api key", good, credential("X-Api-Key", ""), badToken},
				{"other scheme", good, credential("Authorization", "Basic dXNlcjpwYXNz"), noCredential},
				{"token without a scheme", good, credential("Authorization", good), noCredential},
				{"credential in the query", good, func(a *attempt, token string) { bare(a); a.path += "?api_key=" + token }, noCredential},
				{"malformed", good, credential("Authorization", "Bearer nonsense"), badToken},
				{"an upstream's key", good, credential("X-Api-Key", upstreamKey), badToken},
				{"bad checksum", good, credential("Authorization", "Bearer "+swapped), badToken},
				{"token and more", good, credential("Authorization", "Bearer "+good+" x"), badToken},
				{"unknown", stranger.Reveal(), nil, badToken},
				{"revoked", revoked, nil, badToken},
				{"both headers", good, func(a *attempt, token string) {
					a.header.Set("X-Api-Key", token)
					a.header.Set("Authorization", "Bearer "+token)
				}, twoCredential},
				{"two bearers", good, credential("Authorization", "Bearer "+good, "Bearer "+good), twoCredential},
				{"two api keys", good, credential("X-Api-Key", good, stranger.Reveal()), twoCredential},
				{"suspended", suspended, nil, refusal{status: 403, typ: "permission_error", says: "suspended"}},
				{"unknown model", good, body(strings.Replace(chat(true, "x"), model, "gpt-nope", 1)), noModel},
				{"model not allowed", limited, nil, noModel},
				{"upstream's id of an alias", good, body(strings.Replace(chat(true, "x"), model, "k2p5", 1)), noModel},
				{"no body", good, body(""), badJSON},
				{"not JSON", good, body("model=kimi"), badJSON},
				{"cut JSON", good, body(chat(false, "hello")[:40]), badJSON},
				{"array", good, body("[]"), badJSON},
				{"two objects", good, body(chat(true, "a") + chat(true, "b")), badJSON},
				{"no model", good, body(`{"messages":[]}`), badJSON},
				{"no messages", good, body(`{"model":"` + model + `"}`), badJSON},
				{"two models", good, body(with(`"model":"gpt-nope"`)), badJSON},
				{"model in another case", good, body(with(`"Model":"gpt-nope"`)), badJSON},
				{"negative cap", good, body(with(`"max_completion_tokens":-1`)), badJSON},
				{"invalid UTF-8", good, body(with("\"x\":\"\xff\"")), badJSON},
				{"web search", good, body(with(`"web_search_options":{}`)), unbounded},
				{"built-in tool", good, body(with(`"tools":[{"type":"builtin_function","function":{"name":"$web_search"}}]`)), unbounded},
				{"document", good, body(user(`[{"type":"document","source":{"type":"url","url":"https://example.com/a.pdf"}}]`)), unbounded},
				{"part of unknown type", good, body(user(`[{"type":"hologram","data":"x"}]`)), unbounded},
				{"GET", good, func(a *attempt, _ string) { a.method, a.body = "GET", "" }, noMethod},
				{"PUT", good, func(a *attempt, _ string) { a.method = "PUT" }, noMethod},
				{"OPTIONS", good, func(a *attempt, _ string) { a.method, a.body = "OPTIONS", "" }, noMethod},
				{"path below", good, func(a *attempt, _ string) { a.path += "/batches" }, noPath},
				{"path with a slash more", good, func(a *attempt, _ string) { a.path += "/" }, noPath},
				{"body too large", good, body(chat(true, strings.Repeat("x", bodyLimit))), tooLarge},
				{"compressed body", good, func(a *attempt, _ string) { a.header.Set("Content-Encoding", "gzip") }, badRequest},
				{"form", good, func(a *attempt, _ string) { a.header.Set("Content-Type", "application/x-www-form-urlencoded") }, badRequest},
			} {
				a := f.attempt(c.token)
				if c.spoil != nil {
					c.spoil(a, c.token)
				}
				got := r.send(a)
				t.Run(c.name, func(t *testing.T) {
					c.want.check(t, f, got)
					if c.want == badJSON && c.name != "compressed body" && c.name != "form" || c.want == unbounded || c.want == noModel || c.want.status == 403 {
						limitHeaders(t, got, true, true) // every answer to a customer who is known
					}
				})
			}
			if n := len(w.sim.Ledger()); n != 0 {
				t.Errorf("%d requests reached the upstream", n)
			}
			if n := r.inFlight(); n != "0" {
				t.Errorf("%s requests are in flight", n)
			}
			if n := r.nothingHeld(goodGrant); n != 0 {
				t.Errorf("%d tokens are settled", n)
			}
			r.served(f, good)
			w.events(1) // that one alone
			if logs := w.logs.String(); strings.Contains(logs, good) || strings.Contains(logs, stranger.Reveal()) {
				t.Error("a token is in the log")
			}
		})
	}
}

// awayFromTheMinute waits until the next minute is far: failures of the last one count for less.
func awayFromTheMinute() {
	for time.Now().Second() >= 45 {
		time.Sleep(100 * time.Millisecond)
	}
}

// Guessing tokens is slowed down by address; customers who share the address are not.
func TestFailedAuthenticationsAreLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	late, _ := w.token(nil) // whose grant the feed does not announce any more
	r := w.replica(func(c *proxy.Config) { c.Limits.AuthFailures = 5 })
	known, g := w.token(nil)
	for _, f := range faces {
		r.served(f, known)
	}
	awayFromTheMinute()
	for i := range 5 {
		if a := r.post(faces[0], "nonsense", chat(false, "x")); a.status != 401 {
			t.Fatalf("failure %d is answered %d", i+1, a.status)
		}
	}
	flood := refusal{status: 429, typ: "rate_limit_exceeded", retry: "10", says: "failed authentications"}
	for _, f := range faces {
		flood.check(t, f, r.post(f, "nonsense", chat(false, "x")))
		flood.check(t, f, r.post(f, late, chat(false, "x"))) // would need a look-up
		r.served(f, known)
	}
	// Nor are they when their grants have changed, and are no longer in memory as they were.
	g.Version, g.LimitVersion, g.MonthlyLimit = 2, 2, 2*g.MonthlyLimit
	w.put(known, g)
	fresh, _ := w.token(nil)
	for _, tok := range []string{known, fresh} {
		d := w.hasher.Digest([]byte(tok))
		eventually(t, "the feed has announced the grant", func() bool { return r.cache.Known(d) })
		eventually(t, "it must be looked up", func() bool { _, ok := r.cache.Cached(d); return !ok })
	}
	for _, f := range faces {
		r.served(f, known)
		r.served(f, fresh)
		flood.check(t, f, r.post(f, late, chat(false, "x")))
	}
	w.events(8)
}
