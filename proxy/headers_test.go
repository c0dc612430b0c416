package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// oddHeaders are what clients, proxies and attackers send besides what is needed.
func oddHeaders() map[string]string {
	return map[string]string{
		"X-Stainless-Lang": "js", "X-Stainless-Package-Version": "6.39.1", "X-Stainless-Runtime": "node",
		"X-Stainless-Retry-Count": "0", "X-Stainless-Timeout": "600", "Anthropic-Dangerous-Direct-Browser-Access": "true",
		"OpenAI-Organization": "org-EXAMPLE", "OpenAI-Project": "proj_EXAMPLE", "OpenAI-Beta": "x", "Api-Key": "sk-fake-other",
		"X-Goog-Api-Key": "sk-fake-other", "Proxy-Authorization": "Basic Zm9v", "Cookie": "session=EXAMPLE",
		"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Host": "evil.example.com", "X-Forwarded-Proto": "https", "X-Real-Ip": "203.0.113.7",
		"Forwarded": "for=203.0.113.7", "Via": "1.1 other", "True-Client-Ip": "203.0.113.7", "Cf-Connecting-Ip": "203.0.113.7",
		"X-Request-Id": "chosen-by-the-client", "Idempotency-Key": "k1", "X-Sim": `{"error":"500 server error"}`,
		"Accept-Encoding": "gzip, br, zstd", "Accept-Language": "de", "Accept-Charset": "utf-8", "Range": "bytes=0-10",
		"If-None-Match": `"x"`, "Cache-Control": "no-cache", "Pragma": "no-cache", "Origin": "https://example.com", "Referer": "https://example.com/",
		"Dnt": "1", "Te": "trailers", "Upgrade-Insecure-Requests": "1", "X-Http-Method-Override": "DELETE",
		"X-Original-Url": "/v1/users/me/balance", "X-Rewrite-Url": "/v1/users/me/balance", "Tracestate": "a=b", "Baggage": "user=1",
		"Sec-Fetch-Mode": "cors", "X-Msh-Platform": "x", "Msh-Org-Id": "org-EXAMPLE", "Keep-Alive": "timeout=5", "Priority": "u=1",
	}
}

// Only what is on the allow-list reaches the upstream, each once, with the platform's own
// key and the upstream's own name.
func TestRequestHeadersAreRebuilt(t *testing.T) {
	t.Parallel()
	const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := newOrigin(t)
			r := w.replica(o.upstreams)
			tok, _ := w.token(nil)
			o.next(func(c net.Conn) { deliveries()[1].write(c, "text/event-stream", []byte("data: [DONE]\n\n")) })
			// The other way to send the credential than the face's usual one.
			a := f.attempt(tok)
			a.header = http.Header{}
			if f.anthropic {
				a.header.Set("Authorization", "bearer "+tok)
			} else {
				a.header.Set("X-Api-Key", tok)
			}
			for k, v := range oddHeaders() {
				a.header.Set(k, v)
			}
			if len(a.header) < 40 {
				t.Fatalf("only %d headers", len(a.header))
			}
			for k, v := range map[string]string{
				"Content-Type": "application/json; charset=utf-8", "Accept": "text/event-stream", "User-Agent": "claude-code/0.1.0",
				"Traceparent": traceparent, "Anthropic-Version": "2023-06-01", "Anthropic-Beta": "tools-2024-04-04",
			} {
				a.header.Set(k, v)
			}
			r.send(a)
			got, n := o.last()
			if n != 1 {
				t.Fatalf("%d requests were sent", n)
			}
			want := map[string]string{
				"Host": o.ln.Addr().String(), "Accept-Encoding": "identity", "User-Agent": "claude-code/0.1.0",
				"Content-Type": "application/json", "Accept": "text/event-stream", "Traceparent": traceparent,
				"Content-Length": fmt.Sprint(len(got.body)),
			}
			line := "POST /base/v1/chat/completions HTTP/1.1"
			if f.anthropic {
				want["X-Api-Key"], want["Anthropic-Version"], want["Anthropic-Beta"] = upstreamKey, "2023-06-01", "tools-2024-04-04"
				line = "POST /base/v1/messages HTTP/1.1"
			} else {
				want["Authorization"] = "Bearer " + upstreamKey
			}
			if got.line != line {
				t.Errorf("request line %q, want %q", got.line, line)
			}
			have := map[string]string{}
			for i, name := range canonical(got.header) {
				if _, twice := have[name]; twice {
					t.Errorf("%s was sent twice", name)
				}
				_, have[name], _ = strings.Cut(got.header[i], ": ")
			}
			if !maps.Equal(have, want) {
				t.Errorf("sent\n%q\nwant\n%q", have, want)
			}
			if all := got.line + strings.Join(got.header, "\n") + got.body; strings.Contains(all, tok) {
				t.Error("the proxy token was sent to the upstream")
			}
		})
	}
}

// What the client leaves out is left out, but for a User-Agent, which Kimi wants to see.
func TestRequestHeadersThatAreAbsent(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := newOrigin(t)
			r := w.replica(o.upstreams, func(c *proxy.Config) { c.Upstreams[0].DefaultUserAgent = "KimiCLI/1.0" })
			tok, _ := w.token(nil)
			o.next(func(c net.Conn) { deliveries()[1].write(c, "text/event-stream", []byte("data: [DONE]\n\n")) })
			a := f.attempt(tok)
			a.header.Del("Content-Type")
			a.header.Del("Anthropic-Version")
			a.header["User-Agent"] = nil // net/http would send its own
			if got := r.send(a); got.status != http.StatusOK {
				t.Fatalf("status %d: %s", got.status, got.body)
			}
			got, _ := o.last()
			names := canonical(got.header)
			sort.Strings(names)
			key, agent := "Authorization", "KimiCLI/1.0"
			if f.anthropic {
				key, agent = "X-Api-Key", "openclaw-cloud"
			}
			want := []string{"Accept-Encoding", "Content-Length", "Content-Type", "Host", "User-Agent", key}
			sort.Strings(want)
			if !slices.Equal(names, want) {
				t.Errorf("sent %q, want %q", names, want)
			}
			if got, _ := got.field("User-Agent"); got != agent {
				t.Errorf("User-Agent is %q, want %q", got, agent)
			}
		})
	}
}

// allowedAnswerHeaders are all that a client may ever see.
func allowedAnswerHeaders() []string {
	return []string{
		"Content-Type", "Cache-Control", "Retry-After", "X-Retry-After", "Msh-Cooldown-Seconds",
		"Msh-Request-Id", "X-Msh-Trace-Id", "X-Trace-Id", "Request-Id", "Msh-Context-Cache-Token-Saved",
		"X-Request-Id", "X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests",
		"X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens", "X-Token-Warning",
		"X-Accel-Buffering", "X-Should-Retry", "Content-Length", "Date",
	}
}

// Of the upstream's headers only what is on the allow-list comes back: nothing that names
// the platform's account, and nothing in place of ours.
func TestAnswerHeadersAreRebuilt(t *testing.T) {
	t.Parallel()
	const upstreamHead = "Msh-Request-Id: 00000000-0000-4000-8000-000000000042\r\nX-Msh-Trace-Id: trace-1\r\nX-Trace-Id: trace-2\r\n" +
		"Request-Id: req-3\r\nMsh-Context-Cache-Token-Saved: 1280\r\n" +
		"Msh-Org-Id: org-EXAMPLE\r\nMsh-Uid: uid-EXAMPLE\r\nMsh-Gid: gid-EXAMPLE\r\nMsh-Project-Id: proj-EXAMPLE\r\n" +
		"OpenAI-Organization: org-EXAMPLE\r\nAnthropic-Organization-Id: org-EXAMPLE\r\nSet-Cookie: __cf_bm=EXAMPLE\r\nSet-Cookie: b=EXAMPLE\r\n" +
		"Server: cloudflare\r\nServer-Timing: inner; dur=812\r\nCf-Ray: EXAMPLE\r\nVary: Origin\r\nStrict-Transport-Security: max-age=1\r\n" +
		"X-Request-Id: EXAMPLE\r\nX-Ratelimit-Limit-Tokens: 777777\r\nX-Ratelimit-Remaining-Requests: 777777\r\nX-Token-Warning: EXAMPLE\r\n" +
		"X-Should-Retry: true\r\nWww-Authenticate: Bearer realm=EXAMPLE\r\nAccess-Control-Allow-Origin: *\r\nAlt-Svc: h3\r\nLink: </x>\r\n" +
		"Location: https://example.com/EXAMPLE\r\nRefresh: 0\r\nX-Accel-Redirect: /EXAMPLE\r\nDate: Mon, 01 Jan 2001 00:00:00 GMT\r\n" +
		"Cache-Control: no-store\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTrailer: X-EXAMPLE\r\n"
	answerTo := func(status, contentType, body string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Type: %s\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX-EXAMPLE: EXAMPLE\r\n\r\n",
				status, contentType, upstreamHead, len(body), body)
		}
	}
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := newOrigin(t)
			r := w.replica(o.upstreams)
			tok, g := w.token(nil)
			mark := "data: [DONE]\n\n"
			if f.anthropic {
				mark = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
			}
			for _, c := range []struct{ name, status, contentType, body string }{
				{"stream", "200 OK", "text/event-stream; charset=utf-8", mark},
				{"whole", "200 OK", "application/json; charset=utf-8", `{"choices":[]}`},
				{"error", "400 Bad Request", "application/json", `{"error":{"message":"bad","type":"invalid_request_error"}}`},
				{"our key", "401 Unauthorized", "application/json", `{"error":{"message":"EXAMPLE","type":"invalid_authentication_error"}}`},
			} {
				o.next(answerTo(c.status, c.contentType, c.body))
				a := r.post(f, tok, chat(c.name == "stream", "hello"))
				for name, values := range a.header {
					if !slices.Contains(allowedAnswerHeaders(), name) {
						t.Errorf("%s: %s came through: %q", c.name, name, values)
					}
					if v := strings.Join(values, ", "); len(values) != 1 || strings.Contains(v, "EXAMPLE") || strings.Contains(v, "777777") {
						t.Errorf("%s: %s is %q", c.name, name, values)
					}
				}
				for name, want := range map[string]string{
					"Msh-Request-Id": "00000000-0000-4000-8000-000000000042", "X-Msh-Trace-Id": "trace-1", "X-Trace-Id": "trace-2",
					"Request-Id": "req-3", "Msh-Context-Cache-Token-Saved": "1280", "Cache-Control": "no-store",
					"X-Ratelimit-Limit-Tokens": fmt.Sprint(g.MonthlyLimit), "X-Should-Retry": "", "X-Token-Warning": "",
				} {
					if got := a.header.Get(name); got != want {
						t.Errorf("%s: %s is %q, want %q", c.name, name, got, want)
					}
				}
				limitHeaders(t, a, true, true)
				if !requestIDs().MatchString(a.header.Get("X-Request-Id")) {
					t.Errorf("%s: X-Request-Id is %q", c.name, a.header.Get("X-Request-Id"))
				}
				if date, err := http.ParseTime(a.header.Get("Date")); err != nil || time.Since(date) > time.Minute {
					t.Errorf("%s: Date is %q", c.name, a.header.Get("Date"))
				}
				if c.name == "stream" && (a.header.Get("Content-Type") != c.contentType || a.header.Get("X-Accel-Buffering") != "no") {
					t.Errorf("type %q, buffering %q", a.header.Get("Content-Type"), a.header.Get("X-Accel-Buffering"))
				}
			}
		})
	}
}

// get asks for one of the small answers.
func (r *replica) get(token, path string) answer {
	r.w.t.Helper()
	return r.send(&attempt{"GET", path, http.Header{"Authorization": {"Bearer " + token}}, ""})
}

func TestModels(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	all, _ := w.token(nil)
	some, _ := w.token(func(g *contract.Grant) { g.Models = []string{"kimi-for-coding", "not-served"} })
	none, _ := w.token(func(g *contract.Grant) { g.Models = []string{"not-served"} })
	for tok, want := range map[string][]string{
		all: {"alias/k2p5", "kimi-for-coding", model}, some: {"kimi-for-coding"}, none: {},
	} {
		a := r.get(tok, "/v1/models")
		var list struct {
			Object string
			Data   []struct {
				ID, Object, Type string
				DisplayName      string `json:"display_name"`
				OwnedBy          string `json:"owned_by"`
			}
		}
		if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.status != http.StatusOK || list.Object != "list" || !strings.Contains(a.body, `"data":[`) {
			t.Fatalf("status %d, %v: %s", a.status, err, a.body)
		}
		ids := []string{}
		for _, m := range list.Data {
			ids = append(ids, m.ID)
			if m.Object != "model" || m.Type != "model" || m.DisplayName != m.ID || m.OwnedBy == "moonshot" {
				t.Errorf("model %+v", m)
			}
		}
		if !slices.Equal(ids, want) {
			t.Errorf("models %q, want %q", ids, want)
		}
		limitHeaders(t, a, true, true)
		if a.header.Get("Content-Type") != "application/json" || !requestIDs().MatchString(a.header.Get("X-Request-Id")) {
			t.Errorf("headers %v", a.header)
		}
	}
	if n := len(w.sim.Ledger()); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(patientUpstream)
	tok, g := w.token(func(g *contract.Grant) { g.MonthlyLimit = 10_000 })
	type state struct {
		Object                       string
		Used, Held, Limit, Remaining int64
		ResetsAt                     time.Time `json:"resets_at"`
		Period                       contract.Period
	}
	read := func() state {
		t.Helper()
		a := r.get(tok, "/v1/usage")
		var s state
		dec := json.NewDecoder(strings.NewReader(a.body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&s); err != nil || a.status != http.StatusOK {
			t.Fatalf("status %d, %v: %s", a.status, err, a.body)
		}
		limitHeaders(t, a, true, true)
		if got := a.header.Get("X-Ratelimit-Remaining-Tokens"); got != fmt.Sprint(s.Remaining) {
			t.Errorf("the header says that %s remain, the body %d", got, s.Remaining)
		}
		return s
	}
	if s := read(); s.Object != "usage" || s.Used != 0 || s.Held != 0 || s.Limit != 10_000 || s.Remaining != 10_000 ||
		!s.ResetsAt.Equal(g.Period.End) || s.Period.ID != g.Period.ID {
		t.Errorf("fresh: %+v", s)
	}
	r.served(faces[0], tok)
	used := r.nothingHeld(g)
	end := r.occupy(faces[1], tok, 500)
	if s := read(); s.Used != used || s.Held < 500 || s.Remaining != 10_000-used-s.Held {
		t.Errorf("with a stream: %+v, %d used", s, used)
	}
	end()
	r.nothingHeld(g)
	if s := read(); s.Limit != 10_000 || s.Used <= used {
		t.Errorf("after it: %+v", s)
	}
}

func TestEstimate(t *testing.T) {
	t.Parallel()
	const path = "/v1/tokenizers/estimate-token-count"
	w := newWorldWith(t, kimisim.Config{KeepBodies: true})
	r := w.replica()
	tok, g := w.token(nil)
	limited, _ := w.token(func(g *contract.Grant) { g.Models = []string{"kimi-for-coding"} })
	post := func(token, body string) answer {
		a := faces[0].attempt(token)
		a.path, a.body = path, body
		a.header.Set("User-Agent", "KimiCLI/0.77")
		return r.send(a)
	}
	a := post(tok, strings.Replace(chat(false, "hello"), model, "alias/k2p5", 1))
	if a.status != http.StatusOK || a.body != `{"data":{"total_tokens":5}}` {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	limitHeaders(t, a, true, true)
	entries := w.sim.Ledger()
	if len(entries) != 1 || entries[0].Kind != kimisim.KindEstimate || entries[0].Key != upstreamKey || entries[0].Body != chat(false, "hello") {
		t.Fatalf("entries %+v", entries)
	}
	if got := entries[0].UserAgent; got != "KimiCLI/0.77" {
		t.Errorf("User-Agent is %q", got)
	}
	refusal{status: 404, typ: "model_not_found"}.check(t, faces[0], post(limited, chat(false, "x")))
	refusal{status: 404, typ: "model_not_found"}.check(t, faces[0], post(tok, strings.Replace(chat(false, "x"), model, "nope", 1)))
	refusal{status: 400, typ: "invalid_request_error"}.check(t, faces[0], post(tok, "{"))
	refusal{status: 401, typ: "authentication_error"}.check(t, faces[0], post("nonsense", chat(false, "x")))
	if n := len(w.sim.Ledger()); n != 1 {
		t.Errorf("%d requests reached the upstream", n)
	}
	w.sim.SetEstimateBehavior(kimisim.Behavior{Error: "429 RPM"})
	if bad := post(tok, chat(false, "x")); bad.status != 429 || bad.header.Get("Retry-After") != "1" {
		t.Errorf("status %d: %s", bad.status, bad.body)
	}
	// It is free: nothing is metered, nothing stays in flight.
	if n := r.nothingHeld(g); n != 0 || r.inFlight() != "0" {
		t.Errorf("%d tokens settled, %s in flight", n, r.inFlight())
	}
	w.sim.SetEstimateBehavior(kimisim.Behavior{})
	eventually(t, "it is answered again", func() bool { return post(tok, chat(false, "x")).status == 200 })
	if n := len(w.readEvents()); n != 0 {
		t.Errorf("%d usage events", n)
	}
}

// Headers that fit into what a client may send, but not into what goes upstream, are the
// client's fault, not the upstream's.
func TestForwardedHeadersTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) {
		c.Limits.HeaderBytes = 128 << 10
		c.Upstreams[0].BreakerFailures, c.Upstreams[1].BreakerFailures = 1, 1
	})
	tok, g := w.token(func(g *contract.Grant) { g.Concurrent = 1 })
	want := refusal{status: 400, typ: "invalid_request_error", says: "headers"}
	for _, f := range faces {
		for _, path := range []string{f.path, "/v1/tokenizers/estimate-token-count"} {
			shape := f
			if path != f.path {
				shape = faces[0] // what it speaks
			}
			a := f.attempt(tok)
			a.path = path
			a.header.Set("User-Agent", strings.Repeat("x", 40<<10))
			want.check(t, shape, r.send(a))
		}
		r.served(f, tok)
	}
	r.nothingHeld(g)
	w.events(2)
}

// What would show the platform's own account does not exist here, whoever asks.
func TestPlatformPathsNeverReachTheUpstream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	tok, _ := w.token(nil)
	for _, path := range []string{
		"/v1/users/me/balance", "/v1/users/me/balance/", "/v1/models/" + model, "/v1/files", "/v1/batches", "/v1/embeddings", "/v1/responses",
		"/v1/usages", "/coding/v1/usages", "/anthropic/v1/messages", "/v1", "/", "/v1/chat", "/V1/models", "/v1/models/", "/metrics", "/healthz",
		"/debug/pprof/", "/sim/ledger",
	} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			a := &attempt{method, path, http.Header{"Authorization": {"Bearer " + tok}}, ""}
			got := r.send(a)
			refusal{status: 404, typ: "not_found_error"}.check(t, faces[0], got)
		}
	}
	for _, path := range []string{"/v1/../v1/users/me/balance", "/v1/models/../users/me/balance", "/v1/%75sers/me/balance", "/v1/models%2f..%2fusers", "//v1/users/me/balance", "/v1/models;x=/v1/users/me/balance"} {
		c := dial(t, r)
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\nConnection: close\r\n\r\n", path, tok); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		if !strings.HasPrefix(string(b), "HTTP/1.1 400 ") && !strings.HasPrefix(string(b), "HTTP/1.1 404 ") {
			t.Errorf("%s: %.100q, %v", path, b, err)
		}
	}
	if n := len(w.sim.Ledger()); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	if got, err := w.rdb.Exists(context.Background(), contract.UsageStreamKey).Result(); err != nil || got != 0 {
		t.Errorf("usage events were written (%v)", err)
	}
}
