package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// The metrics that operators are promised exist under their names, move with what they
// count, and have no label that grows with the customers.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(patientUpstream, goingOn(time.Hour, 10), func(c *proxy.Config) {
		c.Timeouts.Drain = proxy.Duration(50 * time.Millisecond)
		for i := range c.Upstreams {
			c.Upstreams[i].BreakerFailures = 2
		}
	})
	tok, g := w.token(nil)
	number := func(name string) float64 {
		t.Helper()
		v, err := strconv.ParseFloat(r.metric(name), 64)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return v
	}
	want := func(name string, v float64) {
		t.Helper()
		if got := number(name); got != v {
			t.Errorf("%s is %v, want %v", name, got, v)
		}
	}
	for _, name := range []string{
		"token_proxy_streams", "token_proxy_requests_in_flight", "token_proxy_request_bytes", `token_proxy_calls_without_client{upstream="kimi"}`,
		`token_proxy_upstream_breaker_open{upstream="kimi"}`, `token_proxy_upstream_keys_cooling{upstream="kimi"}`, `token_proxy_upstream_requests_in_flight{upstream="kimi"}`,
		`token_proxy_grant_lookups_total{result="hit"}`, `token_proxy_grant_lookups_total{result="negative"}`, `token_proxy_grant_lookups_total{result="miss"}`,
		"token_proxy_journal_open", "token_proxy_journal_used_bytes", "token_proxy_journal_refused_total",
		"token_proxy_usage_events_queued", "token_proxy_usage_events_unacknowledged", "token_proxy_connections", "token_proxy_panics_total",
	} {
		want(name, 0)
	}
	want(`token_proxy_upstream_keys{upstream="kimi"}`, 1)
	want("token_proxy_journal_slots", 2048)

	// Two answers, one of them a stream; a token that does not exist, twice.
	r.served(faces[0], tok)
	want(`token_proxy_grant_lookups_total{result="miss"}`, 1)
	if a := r.post(faces[0], tok, chat(true, "hello")); a.status != http.StatusOK {
		t.Fatal(a.status)
	}
	if number(`token_proxy_grant_lookups_total{result="hit"}`) < 2 {
		t.Error("no hits")
	}
	unknown, err := contract.NewToken(nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger := unknown.Reveal()
	r.post(faces[0], stranger, chat(false, "x"))
	want(`token_proxy_grant_lookups_total{result="miss"}`, 2)
	r.post(faces[0], stranger, chat(false, "x"))
	want(`token_proxy_grant_lookups_total{result="negative"}`, 1)
	want(`token_proxy_blocked_total{reason="bad_token"}`, 2)

	prompt, completion := 0, 0
	for _, e := range w.chats() {
		prompt, completion = prompt+e.PromptTokens, completion+e.ProducedTokens
	}
	eventually(t, "both are counted", func() bool {
		return r.metric(`token_proxy_request_duration_seconds_count{upstream="kimi"}`) == "2" &&
			r.metric(`token_proxy_upstream_ttfb_seconds_count{stream="true",upstream="kimi"}`) == "1"
	})
	want(`token_proxy_tokens_total{kind="prompt",model="kimi-k2.5",tier="starter"}`, float64(prompt))
	want(`token_proxy_tokens_total{kind="completion",model="kimi-k2.5",tier="starter"}`, float64(completion))
	want(`token_proxy_upstream_ttfb_seconds_count{stream="false",upstream="kimi"}`, 1)
	want(`token_proxy_upstream_ttfb_seconds_count{stream="true",upstream="kimi"}`, 1)
	want("token_proxy_admission_seconds_count", 2)
	want(`token_proxy_outcomes_total{basis="upstream",outcome="ok"}`, 2)
	want("token_proxy_usage_events_unacknowledged", 2)
	if number("token_proxy_journal_used_bytes") == 0 || number("token_proxy_feed_age_seconds") > 5 {
		t.Error("the journal is empty, or the feed is not heard")
	}

	// A stream in flight; then one that goes on without its client.
	l, arrived := r.leaver(faces[0], tok, chat(true, sim(kimisim.Behavior{StallAfterEvents: 4})), 2)
	<-arrived
	want("token_proxy_streams", 1)
	want("token_proxy_requests_in_flight", 1)
	want("token_proxy_journal_open", 1)
	want(`token_proxy_upstream_requests_in_flight{upstream="kimi"}`, 1)
	want(`token_proxy_upstream_connections{state="busy",upstream="kimi"}`, 1)
	l.leave()
	eventually(t, "it goes on", func() bool { return r.metric(`token_proxy_calls_without_client{upstream="kimi"}`) == "1" })

	// Errors of the upstream: a key cools down, a breaker opens.
	w.sim.ScriptNext(kimisim.Behavior{Error: "429 TPD"})
	r.post(faces[0], tok, chat(false, "x"))
	want(`token_proxy_upstream_errors_total{status_code="429"}`, 1)
	want(`token_proxy_upstream_keys_cooling{upstream="kimi"}`, 1)
	want(`token_proxy_upstream_cooldowns_total{refused="false",upstream="kimi"}`, 1)
	r.post(faces[0], tok, chat(false, "x"))
	want(`token_proxy_blocked_total{reason="upstream_down"}`, 1)
	for range 2 {
		w.sim.ScriptNext(kimisim.Behavior{Error: "500 server error"})
		r.post(faces[1], tok, chat(false, "x"))
	}
	want(`token_proxy_upstream_errors_total{status_code="500"}`, 2)
	want(`token_proxy_upstream_breaker_open{upstream="kimi-anthropic"}`, 1)
	want(`token_proxy_upstream_breaker_open{upstream="kimi"}`, 0)
	want(`token_proxy_upstream_breaker_opened_total{upstream="kimi-anthropic"}`, 1)

	resp, err := http.Get(r.admin.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	// Who adds up the kinds must know what is in them.
	if !regexp.MustCompile(`# HELP token_proxy_tokens_total .*cached tokens are part of prompt`).Match(text) {
		t.Error("nothing says that cached tokens are prompt tokens")
	}
	for _, name := range []string{g.CustomerID, g.TokenID, g.BoxID, tok} {
		if regexp.MustCompile(`"[^"]*` + name + `\b[^"]*"`).Match(text) {
			t.Errorf("%s is in a label", name)
		}
	}
	if n := strings.Count(string(text), "\n"); n > 700 {
		t.Errorf("%d lines", n)
	}
}

// A request that finds nothing listening at the only upstream is told that it is down, and each attempt to reach
// it is counted: also the one that opened the breaker, after which there is none to try again with.
func TestFailedAttemptsAreCounted(t *testing.T) {
	t.Parallel()
	nobody := testenv.FreePort(t)
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) {
		c.Upstreams[0].BaseURL, c.Upstreams[0].BreakerFailures = fmt.Sprintf("http://127.0.0.1:%d/v1", nobody), 1
	})
	tok, _ := w.token(nil)
	if a := r.post(faces[0], tok, chat(false, "x")); a.status != http.StatusServiceUnavailable && a.status != http.StatusBadGateway {
		t.Errorf("answered with %d", a.status)
	}
	if got := r.metric(`token_proxy_upstream_errors_total{status_code="connection"}`); got != "1" {
		t.Errorf("%q attempts that failed were counted, want 1", got)
	}
	if got := r.metric(`token_proxy_upstream_breaker_open{upstream="kimi"}`); got != "1" {
		t.Errorf("the breaker is %q", got)
	}
}
