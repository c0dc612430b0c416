package kimisim_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{Keys: []string{fakeKey}})
	for _, f := range faces {
		if r := ask(t, s, f, "", nil); r.status != 200 {
			t.Errorf("%s: good key: %d %s", f.name, r.status, r.raw)
		}
		for _, bad := range []string{"Bearer sk-fake-2", "", "sk-fake-1x"} {
			r := ask(t, s, f, "", nil, "Authorization", bad)
			e := closedEntry(t, s, r.header.Get("Msh-Request-Id"))
			if r.status != 401 || !strings.Contains(r.raw, "Invalid Authentication") || e.Outcome != kimisim.OutcomeRefused {
				t.Errorf("%s, %q: %d %s %+v", f.name, bad, r.status, r.raw, e)
			}
		}
		if r := ask(t, s, f, "", nil, "Authorization", "", "X-Api-Key", fakeKey); r.status != 200 {
			t.Errorf("%s: x-api-key: %d", f.name, r.status)
		}
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	for _, tc := range []struct {
		path, body string
		status     int
		text       string
	}{
		{"/v1/chat/completions", `{`, 400, "not valid JSON"},
		{"/v1/chat/completions", ``, 400, "not valid JSON"},
		{"/v1/chat/completions", `[]`, 400, "not a JSON object"},
		{"/v1/chat/completions", `{"messages":[]}`, 400, "model is missing"},
		{"/v1/chat/completions", `{"model":"kimi-k2.5"}`, 400, "messages is missing"},
		{"/v1/chat/completions", `{"model":"kimi-k2.5","messages":{}}`, 400, "messages is missing"},
		{"/v1/chat/completions", `{"model":"kimi-k2.5","messages":[],"max_tokens":"5"}`, 400, "max_tokens"},
		{"/v1/chat/completions", `{"model":"kimi-k2.5","messages":[],"max_tokens":-5}`, 400, "max_tokens"},
		{"/v1/chat/completions", `{"model":"kimi-k2.5","messages":[],"stream":"yes"}`, 400, "stream"},
		{"/v1/chat/completions", `{"model":"kimi-k2.5","messages":[],"n":9}`, 400, "n is not"},
		{"/v1/chat/completions", `{"model":"kimi-nope","messages":[]}`, 404, "kimi-nope"},
		{"/v1/messages", `{"model":"kimi-k2.5","messages":[]}`, 400, "max_tokens"},
		{"/coding/v1/messages", `{"model":"kimi-k2.5","max_tokens":1,"messages":[{"role":"user","content":"` + strings.Repeat("a", 2097152) + `"}]}`, 400, "exceeds limit 2097152"},
		{"/v1/chat/completions", `{"model":"kimi-k2.5","messages":[{"role":"user","content":"` + strings.Repeat("a", 2097152) + `"}]}`, 400, "exceeded model token limit: 262144 (requested: 524291)"},
		{"/v1/chat/completions", `{"model":"kimi-k2.5","messages":[{"role":"user","content":"[[sim:{\"odd\":1}]]"}]}`, 400, "unknown field"},
		{"/v1/chat/completions", `{"model":"kimi-k2.5","messages":[{"role":"user","content":"[[sim:{"}]}`, 400, "[[sim:"},
		{"/v1/chat/completions", `{"model":"kimi-k2.5","messages":[{"role":"user","content":"[[sim:{\"error\":\"429\"}]]"}]}`, 400, "is both"},
		{"/v1/nothing", `{}`, 404, "not found"},
		{"/v1/files", `{}`, 404, "not found"},
	} {
		r, err := post(t, s.URL()+tc.path, "", tc.body)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		e := closedEntry(t, s, r.Header.Get("Msh-Request-Id"))
		if r.StatusCode != tc.status || !strings.Contains(e.Error, tc.text) || e.Outcome != kimisim.OutcomeRefused || e.ProducedTokens != 0 {
			t.Errorf("%s %.60s: %d %+.900v", tc.path, tc.body, r.StatusCode, e)
		}
	}
}

func TestUserAgentGate(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{RequireUserAgent: true})
	for agent, want := range map[string]int{
		"claude-code/0.1.0": 200, "KimiCLI/0.77": 200, "OpenAI/JS 6.39.1": 200,
		"Anthropic/JS 0.50": 429, "Go-http-client/1.1": 403, "": 403, "fasthttp": 403, "curl/8": 403,
	} {
		for _, path := range []string{"/coding/v1/messages", "/coding/v1/chat/completions"} {
			r := ask(t, s, face{"openai", path}, "", nil, "User-Agent", agent)
			if r.status != want {
				t.Errorf("%q on %s: %d, want %d", agent, path, r.status, want)
			}
			if want == 403 && !strings.Contains(r.raw, "only available for Coding Agents") || want == 429 && !strings.Contains(r.raw, "overloaded") {
				t.Errorf("%q: %s", agent, r.raw)
			}
		}
		if r := ask(t, s, faces[0], "", nil, "User-Agent", agent); r.status != 200 {
			t.Errorf("%q on the platform: %d", agent, r.status)
		}
	}
}

func TestConcurrencyLimit(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{KeyLimits: map[string]kimisim.KeyLimit{fakeKey: {Concurrency: 1}}})
	_, id, stop := firstEvents(t, s, faces[0], `{"stall_after_events":1}`, 1, nil)
	r := ask(t, s, faces[0], "", nil)
	if r.status != 429 || r.header.Get("Retry-After") != "1" || r.header.Get("X-Retry-After") != "1" ||
		r.header.Get("Msh-Cooldown-Seconds") != "1" || !strings.Contains(r.raw, "org-EXAMPLE<ak-EXAMPLE> request reached organization max concurrency: 1") {
		t.Errorf("second request: %d %v %s", r.status, r.header, r.raw)
	}
	if r := ask(t, s, faces[0], "", nil, "Authorization", "Bearer other"); r.status != 200 {
		t.Errorf("another key: %d", r.status)
	}
	stop()
	closedEntry(t, s, id)
	if r := ask(t, s, faces[0], "", nil); r.status != 200 {
		t.Errorf("after the first ended: %d", r.status)
	}
}

func TestRequestsPerMinuteLimit(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{KeyLimits: map[string]kimisim.KeyLimit{fakeKey: {RPM: 3}}})
	for i := range 5 {
		r := ask(t, s, faces[1], "", nil)
		if want := map[bool]int{true: 200, false: 429}[i < 3]; r.status != want {
			t.Errorf("request %d: %d, want %d", i, r.status, want)
		}
		if r.status == 429 && (!strings.Contains(r.raw, "max RPM: 3") || r.header.Get("Retry-After") != "60") {
			t.Errorf("%v %s", r.header, r.raw)
		}
	}
	if got := s.Totals()[fakeKey]; got.Requests != 5 || got.Refused != 2 || got.Answered != 3 {
		t.Errorf("totals %+v", got)
	}
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	conf, ca, err := kimisim.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, kimisim.Config{TLS: conf})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	send := func(sim string) (*http.Response, error) {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", s.AnthropicBase()+"/messages", strings.NewReader(body(t, nil)))
		req.Header.Set("X-Api-Key", fakeKey)
		req.Header.Set("X-Sim", sim)
		return (&http.Client{Transport: transport}).Do(req)
	}
	res, err := send(`{}`)
	if err != nil || res.StatusCode != 200 || !strings.HasPrefix(s.URL(), "https://") {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
	for _, sim := range []string{`{"reset":true}`, `{"cut_before_head":true}`} {
		if res, err := send(sim); err == nil {
			t.Errorf("%s: answered %d", sim, res.StatusCode)
		}
	}
	res, err = send(`{"cut_mid_event":3}`)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b strings.Builder
	if _, err := fmt.Fprint(&b, res.Header); err != nil {
		t.Fatal(err)
	}
	if e, err := s.WaitClosed(res.Header.Get("Msh-Request-Id"), time.Minute); err != nil || e.Outcome != kimisim.OutcomeCut || e.EventsSent != 3 {
		t.Errorf("%v %+v", err, e)
	}
	if _, err := http.Get(s.URL() + "/healthz"); err == nil {
		t.Error("a client without the root trusted the certificate")
	}
}
