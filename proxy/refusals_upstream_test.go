package proxy_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

// upstreamError is what a client sees of one error of the upstream.
type upstreamError struct {
	status    int
	openai    string // error type on the OpenAI face
	anthropic string // and on the other, "" if it is the same
	retry     string
	ours      bool // an error of ours took its place
	keyCools  bool // the key is set aside
}

// upstreamErrors has a row for each case that the simulator knows. What is about the
// platform's account becomes an error of ours; what is about the request passes.
func upstreamErrors() map[string]upstreamError {
	limited := upstreamError{status: 429, openai: "rate_limit_reached_error", retry: "1", keyCools: true}
	badRequest := upstreamError{status: 400, openai: "invalid_request_error"}
	key := upstreamError{status: 502, openai: "upstream_error", retry: "30", ours: true, keyCools: true}
	funds := upstreamError{status: 503, openai: "upstream_unavailable", retry: "30", ours: true, keyCools: true}
	return map[string]upstreamError{
		"429 RPM":                  limited,
		"429 concurrency":          limited,
		"429 TPM":                  limited,
		"429 overloaded":           {status: 429, openai: "engine_overloaded_error", retry: "1", keyCools: true},
		"429 quota (do not retry)": funds,
		"429 TPD":                  {status: 429, openai: "rate_limit_reached_error", retry: "3600", keyCools: true},
		"401 bad key":              key,
		"401 incorrect key":        key,
		"402 membership":           funds,
		"403 permission":           key,
		"403 user agent":           {status: 502, openai: "upstream_error", retry: "30", ours: true}, // the client's doing: others need the key
		"Kimi Code anthropic face 403 usage limit": funds,
		"Kimi Code anthropic face 429":             {status: 429, openai: "rate_limit_error"}, // so are User-Agents refused, too
		"404 unknown model":                        {status: 404, openai: "resource_not_found_error", anthropic: "not_found_error"},
		"400 temperature":                          badRequest,
		"400 body size (Kimi Code)":                badRequest,
		"400 token limit":                          badRequest,
		"400 content filter":                       {status: 400, openai: "content_filter", anthropic: "invalid_request_error"},
		"500 server error":                         {status: 500, openai: "server_error", anthropic: "api_error"},
		"500 unexpected output":                    {status: 500, openai: "unexpected_output", anthropic: "api_error"},
		"503 unavailable":                          {status: 503, openai: "server_unavailable", anthropic: "api_error"},
		"504 gateway, HTML not JSON":               {status: 504, openai: "upstream_timeout", ours: true},
		"502 gateway, HTML not JSON":               {status: 503, openai: "upstream_unavailable", retry: "1", ours: true},
	}
}

func TestUpstreamErrors(t *testing.T) {
	t.Parallel()
	want := upstreamErrors()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for i, c := range kimisim.ErrorCases() {
				t.Run(c.Case, func(t *testing.T) {
					row, ok := want[c.Case]
					if !ok {
						t.Fatal("no row for this case")
					}
					// A stream gets the status of the upstream's answer too, not 200 and an error in it.
					w.testUpstreamError(t, f, c, row, i%2 == 0)
					w.testUpstreamError(t, f, c, row, i%2 != 0)
				})
			}
			if logs := w.logs.String(); strings.Contains(logs, "EXAMPLE") || strings.Contains(logs, upstreamKey) {
				t.Error("an account's id or the key is in the log")
			}
		})
	}
}

func (w *world) testUpstreamError(t *testing.T, f face, c kimisim.ErrorResponse, want upstreamError, stream bool) {
	r := w.replica() // its keys are fresh
	defer func() {
		if err := r.drain(); err != nil {
			t.Error(err)
		}
	}()
	tok, g := w.token(one)
	w.sim.ScriptNext(kimisim.Behavior{Error: c.Case})
	before := len(w.chats())
	sent := time.Now()
	a := r.post(f, tok, chat(stream, "hello"))
	if want.keyCools { // for a second
		next := r.post(f, tok, chat(false, "hello"))
		if in := time.Since(sent) < time.Second; in && (next.status != http.StatusServiceUnavailable || len(w.chats()) != before+1) {
			t.Errorf("the key does not cool down: status %d", next.status)
		} else if !in && next.status == http.StatusOK {
			return // this machine was too slow to see it
		}
	}

	typ := want.openai
	if f.anthropic && want.anthropic != "" {
		typ = want.anthropic
	}
	if want.ours {
		refusal{status: want.status, typ: typ, retry: want.retry}.check(t, f, a)
	} else {
		w.checkPassed(t, f, c, a, want, typ)
	}
	if strings.Contains(a.body, "EXAMPLE") {
		t.Errorf("an account's id is shown: %s", a.body)
	}
	for name, values := range a.header {
		if strings.Contains(strings.Join(values, ","), "EXAMPLE") {
			t.Errorf("an account's id is in %s", name)
		}
	}
	if n := len(w.chats()); n != before+1 {
		t.Errorf("sent %d times", n-before)
	}

	// Forwarded, so there is an event; nothing was produced, so it counts nothing.
	var e contract.Event
	eventually(t, "the event is in Redis", func() bool {
		for _, ev := range w.readEvents() {
			if ev.CustomerID == g.CustomerID {
				e = ev
			}
		}
		return e.RequestID != ""
	})
	if e.Outcome != contract.OutcomeUpstreamError || e.Basis != contract.BasisUpstream || e.Prompt != 0 || e.Completion != 0 || e.Settled != 0 {
		t.Errorf("event %+v", e)
	}
	if e.Status != a.status || e.RequestID != a.header.Get("X-Request-Id") {
		t.Errorf("the event says status %d, request %s; the client got %d, %s", e.Status, e.RequestID, a.status, a.header.Get("X-Request-Id"))
	}
	if n := r.nothingHeld(g); n != 0 {
		t.Errorf("%d tokens are settled", n)
	}
	if n := r.inFlight(); n != "0" {
		t.Errorf("%s requests are in flight", n)
	}
	if want.keyCools {
		return
	}
	if next := r.post(f, tok, chat(false, "hello")); next.status != http.StatusOK {
		t.Errorf("the next request is answered %d: %s", next.status, next.body)
	}
}

// checkPassed fails unless a is the upstream's own error in the shape of the face.
func (w *world) checkPassed(t *testing.T, f face, c kimisim.ErrorResponse, a answer, want upstreamError, typ string) {
	t.Helper()
	entry := w.chats()[len(w.chats())-1]
	if a.header.Get("Msh-Request-Id") != entry.ID {
		t.Errorf("Msh-Request-Id is %q, want %s", a.header.Get("Msh-Request-Id"), entry.ID)
	}
	for _, name := range []string{"Retry-After", "X-Retry-After", "Msh-Cooldown-Seconds"} {
		if got := a.header.Get(name); got != c.Headers[name] || name == "Retry-After" && got != want.retry {
			t.Errorf("%s is %q, want %q", name, got, c.Headers[name])
		}
	}
	if a.status != want.status || a.header.Get("X-Request-Id") == "" {
		t.Errorf("status %d, request id %q: %s", a.status, a.header.Get("X-Request-Id"), a.body)
	}
	limitHeaders(t, a, true, true)
	i := strings.Index(string(c.Body), `"message":"`) + len(`"message":"`)
	message := strings.ReplaceAll(string(c.Body)[i:i+20], "org-EXAMPLE", "[redacted]")
	shape := `"type":"error"`
	if !strings.Contains(a.body, `"type":"`+typ+`"`) || !strings.Contains(a.body, strings.Split(message, "org-")[0]) || strings.Contains(a.body, shape) != f.anthropic {
		t.Errorf("want type %s and %q in %s", typ, message, a.body)
	}
}

// An estimate's errors are those of a completion, but the key does not rest for them: they
// say little about completions.
func TestEstimateErrors(t *testing.T) {
	t.Parallel()
	want := upstreamErrors()
	w := newWorld(t)
	r := w.replica()
	tok, g := w.token(one)
	f := faces[0]
	ask := func() answer {
		a := f.attempt(tok)
		a.path, a.body = "/v1/tokenizers/estimate-token-count", chat(false, "hello")
		return r.send(a)
	}
	for _, c := range kimisim.ErrorCases() {
		t.Run(c.Case, func(t *testing.T) {
			row := want[c.Case]
			w.sim.SetEstimateBehavior(kimisim.Behavior{Error: c.Case})
			a := ask()
			if row.ours {
				refusal{status: row.status, typ: row.openai, retry: row.retry}.check(t, f, a)
			} else if a.status != row.status || !strings.Contains(a.body, `"type":"`+row.openai+`"`) || a.header.Get("Retry-After") != row.retry || a.header.Get("Msh-Request-Id") == "" {
				t.Errorf("status %d, %v: %s; want %d, %s", a.status, a.header, a.body, row.status, row.openai)
			}
			limitHeaders(t, a, true, true)
			if strings.Contains(a.body, "EXAMPLE") {
				t.Errorf("an account's id is shown: %s", a.body)
			}
			w.sim.SetEstimateBehavior(kimisim.Behavior{})
			if a := ask(); a.status != http.StatusOK {
				t.Errorf("the next one is answered %d: %s", a.status, a.body)
			}
		})
	}
	for name, b := range map[string]kimisim.Behavior{"cut": {CutBeforeHead: true}, "silent": {StallBeforeHead: true}} {
		w.sim.SetEstimateBehavior(b)
		want := refusal{status: 503, typ: "upstream_unavailable", retry: "1"}
		if name == "silent" {
			want = refusal{status: 504, typ: "upstream_timeout"}
		}
		want.check(t, f, ask())
	}
	if n := r.nothingHeld(g); n != 0 || r.inFlight() != "0" || len(w.readEvents()) != 0 {
		t.Errorf("%d tokens settled, %s in flight, %d events", n, r.inFlight(), len(w.readEvents()))
	}
}

// twoKeys gives both upstreams two keys.
func twoKeys(c *proxy.Config) {
	for i := range c.Upstreams {
		c.Upstreams[i].Keys = []upstream.Key{{Name: "k1", Secret: "sk-fake-1"}, {Name: "k2", Secret: "sk-fake-2"}}
	}
}

// A key that was refused or limited rests while the others work; when all rest the
// client is told when to come back.
func TestKeysCoolDown(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorldWith(t, kimisim.Config{Keys: []string{"sk-fake-1", "sk-fake-2"}})
			r := w.replica(twoKeys)
			tok, _ := w.token(one)
			w.sim.SetKeyBehavior("sk-fake-1", kimisim.Behavior{Error: "429 RPM", RetryAfter: 2 * time.Second})
			limited := 0
			start := time.Now()
			for range 6 {
				switch a := r.post(f, tok, chat(false, "hello")); a.status {
				case 429:
					limited++
					if a.header.Get("Retry-After") != "2" {
						t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
					}
				case 200:
				default:
					t.Errorf("status %d: %s", a.status, a.body)
				}
			}
			if limited != 1 && time.Since(start) < 2*time.Second {
				t.Errorf("the key was used %d times while it should rest", limited)
			}

			// Now the other one too, for longer.
			w.sim.SetKeyBehavior("sk-fake-2", kimisim.Behavior{Error: "429 RPM", RetryAfter: time.Minute})
			down := refusal{status: 503, typ: "upstream_unavailable"}
			var a answer
			eventually(t, "all keys rest", func() bool { a = r.post(f, tok, chat(false, "hello")); return a.status == 503 })
			n, before := 0, len(w.chats())
			if n, _ = strconv.Atoi(a.header.Get("Retry-After")); n < 1 || n > 2 {
				t.Errorf("Retry-After is %q, the first key returns within 2 s", a.header.Get("Retry-After"))
			}
			down.retry = a.header.Get("Retry-After")
			down.check(t, f, a)
			w.events(before)
			w.sim.SetKeyBehavior("sk-fake-1", kimisim.Behavior{})
			eventually(t, "the first key is back", func() bool { return r.post(f, tok, chat(false, "hello")).status == 200 })
			chats := w.chats()
			if len(chats) != before+1 || chats[before].Key != "sk-fake-1" {
				t.Errorf("%d requests were sent, the last with %s", len(chats)-before, chats[len(chats)-1].Key)
			}
			w.events(before + 1) // none for those that were not sent
		})
	}
}

// Kimi Code refuses some User-Agents, in two ways. That one customer's client sends such a
// one is nothing to the others.
func TestUserAgentGateHurtsNobodyElse(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorldWith(t, kimisim.Config{RequireUserAgent: true})
			r := w.replica(func(c *proxy.Config) {
				for i := range c.Upstreams {
					c.Upstreams[i].BaseURL = strings.TrimSuffix(strings.TrimSuffix(c.Upstreams[i].BaseURL, "/v1"), "/anthropic") + "/coding/v1"
				}
			})
			gated, _ := w.token(nil)
			other, _ := w.token(nil)
			send := func(token, agent string) int {
				a := f.attempt(token)
				a.header.Set("User-Agent", agent)
				return r.send(a).status
			}
			for agent, want := range map[string]int{"Anthropic/JS 0.60.0": 429, "curl/8.0": 502} {
				if got := send(gated, agent); got != want {
					t.Errorf("%s gets %d, want %d", agent, got, want)
				}
				if got := send(other, "claude-code/0.1.0"); got != 200 {
					t.Errorf("after %s another customer gets %d", agent, got)
				}
			}
		})
	}
}

// A refused key (401) rests for long; the client never sees the 401.
func TestRefusedKeyRests(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorldWith(t, kimisim.Config{Keys: []string{"sk-fake-2"}})
			r := w.replica(twoKeys)
			tok, _ := w.token(one)
			refused := 0
			for range 8 {
				switch a := r.post(f, tok, chat(false, "hello")); a.status {
				case 502:
					refused++
				case 200:
				default:
					t.Errorf("status %d: %s", a.status, a.body)
				}
			}
			if refused != 1 {
				t.Errorf("%d clients saw the refused key", refused)
			}
		})
	}
}

// deadAddress is an address on which nothing listens, and nothing will: port 1 is given to nobody who asks for any.
const deadAddress = "127.0.0.1:1"

func TestUpstreamDown(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			dead := "http://" + deadAddress
			r := w.replica(func(c *proxy.Config) {
				for i := range c.Upstreams {
					c.Upstreams[i].BaseURL = dead
				}
			})
			tok, g := w.token(one)
			for range 3 {
				refusal{status: 503, typ: "upstream_unavailable", retry: "1"}.check(t, f, r.post(f, tok, chat(false, "hello")))
			}
			if n := r.nothingHeld(g); n != 0 {
				t.Errorf("%d tokens are settled", n)
			}
			if n := len(w.readEvents()); n != 0 || r.inFlight() != "0" {
				t.Errorf("%d events, %s in flight", n, r.inFlight())
			}
		})
	}
}

// While one of two upstreams is down, nobody notices.
func TestOtherUpstreamServes(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			dead := "http://" + deadAddress
			r := w.replica(func(c *proxy.Config) {
				for _, u := range c.Upstreams {
					u.Name, u.BaseURL = u.Name+"-dead", dead
					// With more keys it is picked more often, also twice in a row.
					u.Keys = []upstream.Key{{Name: "a", Secret: "sk-fake-a"}, {Name: "b", Secret: "sk-fake-b"}, {Name: "c", Secret: "sk-fake-c"}}
					c.Upstreams = append(c.Upstreams, u)
				}
			})
			tok, _ := w.token(nil)
			for range 20 {
				r.served(f, tok)
			}
			for _, e := range w.events(20) {
				if strings.HasSuffix(e.Upstream, "-dead") {
					t.Errorf("event %+v", e)
				}
			}
		})
	}
}

func TestBreakerOpensAndCloses(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			const failures, open = 4, 700 * time.Millisecond
			r := w.replica(func(c *proxy.Config) {
				for i := range c.Upstreams {
					c.Upstreams[i].BreakerFailures, c.Upstreams[i].BreakerOpen = failures, proxy.Duration(open)
				}
			})
			tok, g := w.token(one)
			w.sim.SetDefaults(kimisim.Behavior{Error: "500 server error"})
			var opened time.Time
			for range failures {
				opened = time.Now()
				if a := r.post(f, tok, chat(false, "hello")); a.status != 500 {
					t.Fatalf("status %d: %s", a.status, a.body)
				}
			}
			a := r.post(f, tok, chat(false, "hello"))
			if time.Since(opened) < open {
				refusal{status: 503, typ: "upstream_unavailable", retry: "1"}.check(t, f, a)
				if n := len(w.chats()); n != failures {
					t.Errorf("%d requests were sent, want %d", n, failures)
				}
			}
			w.sim.SetDefaults(kimisim.Behavior{})
			eventually(t, "the breaker closes", func() bool { return r.post(f, tok, chat(false, "hello")).status == 200 })
			for range failures + 1 {
				r.served(f, tok)
			}
			r.nothingHeld(g)
			w.events(len(w.chats()))
		})
	}
}

func TestUpstreamTooSlow(t *testing.T) {
	t.Parallel()
	const patience = 150 * time.Millisecond
	slow := func(c *proxy.Config) {
		for i := range c.Upstreams {
			c.Upstreams[i].FirstByteTimeout = proxy.Duration(patience)
		}
	}
	for _, f := range faces {
		for _, stream := range []bool{true, false} {
			t.Run(f.name+"/stream="+strconv.FormatBool(stream), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				r := w.replica(slow)
				tok, g := w.token(one)
				a := r.post(f, tok, chat(stream, sim(kimisim.Behavior{StallBeforeHead: true})))
				refusal{status: 504, typ: "upstream_timeout"}.check(t, f, a)
				e := w.events(1)[0]
				if e.Outcome != contract.OutcomeUpstreamTimeout || e.Settled != 0 || e.Status != 504 {
					t.Errorf("event %+v", e)
				}
				if _, err := w.sim.WaitClosed(w.chats()[0].ID, 10*time.Second); err != nil {
					t.Errorf("the upstream call goes on: %v", err)
				}
				if n := r.nothingHeld(g); n != 0 {
					t.Errorf("%d tokens are settled", n)
				}
				eventually(t, "it serves again", func() bool { return r.post(f, tok, chat(false, "hello")).status == http.StatusOK })
			})
		}
	}
}
