package clients_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

func TestMain(m *testing.M) {
	// SDKs read keys and addresses from the environment of whoever runs the tests.
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "OPENAI_") || strings.HasPrefix(name, "ANTHROPIC_") || strings.HasPrefix(name, "OPENCLAW_") {
			_ = os.Unsetenv(name)
		}
	}
	testenv.Main(m)
}

const (
	model = "kimi-k2.5"
	// upstreamKeys is enough for each refusal by the upstream to cost one: a refused
	// key is not used again for a minute.
	upstreamKeys = 12
	// tokenizerRatio is the simulator's; the proxy cannot know it.
	tokenizerRatio = 3.7
	// silence is how long the upstream may say nothing, before and in an answer.
	silence = 6 * time.Second
)

// system is a running system with the customers that the checks need.
type system struct {
	*stack.Stack
	t *testing.T

	main      stack.Token // no limit is in its way
	slow      stack.Token // 2 requests in 5 seconds
	exhausted stack.Token // has reached its monthly limit
	suspended stack.Token
	revoked   stack.Token
	cut       stack.Token // is revoked while it streams
}

func newSystem(t *testing.T) *system {
	t.Helper()
	var accepted []string
	var keys []any
	for i := range upstreamKeys {
		secret := fmt.Sprintf("sk-fake-upstream-%d", i)
		accepted = append(accepted, secret)
		keys = append(keys, map[string]any{"name": fmt.Sprintf("k%d", i), "secret": secret})
	}
	s := &system{t: t, Stack: stack.New(t, stack.Options{
		Sim: kimisim.Config{Keys: accepted, TokenizerRatio: tokenizerRatio, KeepBodies: true},
		Proxy: func(cfg map[string]any) {
			for _, u := range cfg["upstreams"].([]any) {
				u := u.(map[string]any)
				u["keys"], u["idle_timeout"], u["first_byte_timeout"] = keys, silence.String(), silence.String()
			}
		},
	})}
	tokens := s.Customers(6, "team")
	s.main, s.slow, s.exhausted, s.suspended, s.revoked, s.cut = tokens[0], tokens[1], tokens[2], tokens[3], tokens[4], tokens[5]
	s.changeGrant(s.main, func(g *contract.Grant) {
		g.RequestsPerSecond, g.Burst, g.Concurrent = 1000, 1000, 1000
	})
	s.changeGrant(s.slow, func(g *contract.Grant) { g.RequestsPerSecond, g.Burst = 0.4, 1 })
	s.Ctl(nil, "customer", "suspend", s.suspended.Customer)
	s.Ctl(nil, "quota", "set", "--customer", s.exhausted.Customer, "--limit", "0")
	s.Ctl(nil, "token", "revoke", s.revoked.ID)
	return s
}

// changeGrant publishes a grant as no command of openclawctl can make it yet.
func (s *system) changeGrant(tok stack.Token, change func(*contract.Grant)) {
	s.t.Helper()
	ctx := context.Background()
	digest, err := contract.ParseDigest(strings.TrimSpace(s.Postgres.Query(
		"SELECT encode(digest, 'hex') FROM proxy_tokens WHERE id = '" + tok.ID + "'")))
	if err != nil {
		s.t.Fatal(err)
	}
	rdb := s.Redis.UniversalClient()
	raw, err := rdb.Get(ctx, contract.GrantKey(digest)).Bytes()
	if err != nil {
		s.t.Fatal(err)
	}
	g, err := contract.DecodeGrant(raw)
	if err != nil {
		s.t.Fatal(err)
	}
	change(g)
	g.Version++
	if _, err := feed.NewPublisher(rdb).PutGrant(ctx, digest, *g); err != nil {
		s.t.Fatal(err)
	}
}

// Eventually waits until ok holds, at most limit. Unlike the Stack's it may be called in
// a subtest.
func (s *system) Eventually(what string, limit time.Duration, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// row is what the checks read of usage_events.
type row struct {
	UpstreamRequestID string `json:"upstream_request_id"`
	CustomerID        string `json:"customer_id"`
	Prompt            int64  `json:"prompt_tokens"`
	Cached            int64  `json:"cached_tokens"`
	Completion        int64  `json:"completion_tokens"`
	Reasoning         int64  `json:"reasoning_tokens"`
	Settled           int64  `json:"settled_tokens"`
	Basis             string `json:"basis"`
	Outcome           string `json:"outcome"`
	Face              string `json:"face"`
}

func (s *system) rows(customer string) []row {
	s.t.Helper()
	var rows []row
	out := s.Postgres.Query("SELECT coalesce(json_agg(e), '[]') FROM usage_events e WHERE customer_id = '" + customer + "'")
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		s.t.Fatal(err)
	}
	return rows
}

// logLine is what the checks read of the proxy's log: one line per request.
type logLine struct {
	Msg       string `json:"msg"`
	RequestID string `json:"request_id"`
	Customer  string `json:"customer"`
	Status    int    `json:"status"`
	Blocked   string `json:"blocked"`
}

// requests returns the requests that the proxy has ended, oldest first.
func (s *system) requests(customer string) []logLine {
	var lines []logLine
	for text := range strings.Lines(s.Proxies[0].FullLog()) {
		var l logLine
		if json.Unmarshal([]byte(text), &l) == nil && l.Msg == "request" && l.Customer == customer {
			lines = append(lines, l)
		}
	}
	return lines
}

// wantStatuses wants the proxy to have answered a customer's requests so, and no more.
func (s *system) wantStatuses(customer string, want ...int) {
	s.t.Helper()
	var out []int
	s.Eventually("the proxy has ended the customer's requests", 5*time.Second, func() bool {
		out = nil
		for _, l := range s.requests(customer) {
			out = append(out, l.Status)
		}
		return len(out) >= len(want)
	})
	if !slices.Equal(out, want) {
		s.t.Errorf("the proxy answered the customer's requests with %v, want %v", out, want)
	}
}

// tagged returns the simulator's entries with a tag.
func (s *system) tagged(tag string) []kimisim.Entry {
	var out []kimisim.Entry
	for _, e := range s.Sim.Ledger() {
		if e.Kind == kimisim.KindChat && e.Tag == tag {
			out = append(out, e)
		}
	}
	return out
}
