// Package e2e_test holds the tests of the whole system: built binaries, real Redis and
// Postgres, simulated Kimi.
package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// kind is one sort of request in the mix.
type kind struct {
	name    string // its first word is the group that must be a tenth of all
	share   int    // of 100
	sim     kimisim.Behavior
	leave   int    // hang up after so many events; -1 before the head
	model   string // asked for, if not the usual one
	status  int    // that the client gets; 0 if it does not wait for one
	outcome string // of its row; "" when none is due
	basis   string
}

var mix = []kind{
	{name: "complete", share: 36, status: 200, outcome: "ok", basis: "upstream"},
	{name: "gone while streaming", share: 6, sim: kimisim.Behavior{OutputTokens: 190, TokensPerSecond: 60}, leave: 4, status: 200, outcome: "client_gone", basis: "estimated"},
	{name: "gone while silent", share: 4, sim: kimisim.Behavior{StallAfterEvents: 4}, leave: 2, status: 200, outcome: "client_gone", basis: "estimated"},
	{name: "gone before the head", share: 2, sim: kimisim.Behavior{StallBeforeHead: true}, leave: -1, status: 0, outcome: "client_gone", basis: "estimated"},
	{name: "cut in mid-event", share: 6, sim: kimisim.Behavior{CutMidEvent: 6}, status: 200, outcome: "upstream_cut", basis: "estimated"},
	{name: "cut on a boundary", share: 6, sim: kimisim.Behavior{CutAfterEvents: 5}, status: 200, outcome: "upstream_cut", basis: "estimated"},
	{name: "error event", share: 13, sim: kimisim.Behavior{ErrorAfterEvents: 6}, status: 200, outcome: "upstream_error", basis: "estimated"},
	{name: "stall", share: 13, sim: kimisim.Behavior{StallAfterEvents: 5}, status: 200, outcome: "upstream_timeout", basis: "estimated"},
	{name: "refused by the upstream", share: 7, sim: kimisim.Behavior{Error: "400 content filter"}, status: 400, outcome: "upstream_error", basis: "upstream"},
	{name: "refused by the proxy", share: 7, model: "no-such-model", status: 404, outcome: "", basis: ""},
}

// row is what the test reads of usage_events.
type row struct {
	UpstreamRequestID string `json:"upstream_request_id"`
	CustomerID        string `json:"customer_id"`
	Prompt            int64  `json:"prompt_tokens"`
	Cached            int64  `json:"cached_tokens"`
	Completion        int64  `json:"completion_tokens"`
	Reasoning         int64  `json:"reasoning_tokens"`
	Settled           int64  `json:"settled_tokens"`
	Unbilled          int64  `json:"unbilled_tokens"`
	Reserved          int64  `json:"reserved_tokens"`
	Basis             string `json:"basis"`
	Outcome           string `json:"outcome"`
}

// With the simulator's ledger as the truth: one row per forwarded request; complete ones
// equal to the token in the simulator, Redis and Postgres; the others at least what
// was relayed, at most what was reserved, and never 0 once a byte was relayed.
func TestLedgerEqualsTheUpstream(t *testing.T) {
	t.Log("drawn at random, so no run is like another")
	beside(t)
	requests := full(2_500, 10_000)
	s := stack.New(t, stack.Options{
		Replicas: 3,
		Sim:      kimisim.Config{MaxLedger: 2 * requests, TokenizerRatio: 2.5 + rand.Float64()*3},
		Proxy: func(cfg map[string]any) {
			for _, u := range cfg["upstreams"].([]any) {
				u.(map[string]any)["idle_timeout"] = "700ms"
			}
		},
	})
	tokens := newPlatform(t, s, usual).several(60)
	load := newLoad(s, tokens)
	load.run(requests, 160)

	chats := map[string]kimisim.Entry{}
	s.Eventually("the simulator has ended every call", 30*time.Second, func() bool { return s.Sim.InFlight() == 0 })
	for _, e := range s.Sim.Ledger() {
		if e.Kind == "chat" {
			chats[e.ID] = e
		}
	}
	var rows []row
	s.Eventually("every forwarded request has its row", 30*time.Second, func() bool {
		rows = readRows(t, s)
		return len(rows) >= len(chats)
	})
	s.Eventually("the worker has taken every event", 30*time.Second, func() bool {
		return s.Redis.UniversalClient().XLen(context.Background(), contract.UsageStreamKey).Val() == 0
	})
	rows = readRows(t, s) // a row too many would have come by now
	if due := requests * 9 / 10 * 9 / 10; len(chats) < due {
		t.Errorf("only %d requests reached the upstream, want at least %d", len(chats), due)
	}
	compare(t, rows, chats, load)
	compareTotals(t, s, tokens, rows, true)
	load.checkShares(t, requests)
}

func readRows(t *testing.T, s *stack.Stack) []row {
	t.Helper()
	out := s.Postgres.Query("SELECT coalesce(json_agg(e), '[]') FROM usage_events e")
	var rows []row
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

func compare(t *testing.T, rows []row, chats map[string]kimisim.Entry, load *load) {
	t.Helper()
	if len(rows) != len(chats) {
		t.Errorf("%d rows for %d forwarded requests", len(rows), len(chats))
	}
	var equal, estimated, nameless, bad int
	report := func(format string, args ...any) {
		if bad++; bad <= 20 {
			t.Errorf(format, args...)
		}
	}
	for _, r := range rows {
		if r.UpstreamRequestID == "" {
			nameless++ // no head came, so the upstream's name for it is not known
			if r.Outcome != "client_gone" {
				report("a row without the upstream's id: %+v", r)
			}
			load.ended("gone before the head")
			continue
		}
		e, ok := chats[r.UpstreamRequestID]
		if !ok {
			report("a row twice, or of a request that the upstream never saw: %+v", r)
			continue
		}
		delete(chats, r.UpstreamRequestID)
		load.checkEnding(r, e, report)
		if r.Settled > r.Reserved || r.Unbilled != 0 {
			report("settled %d of %d reserved, %d unbilled", r.Settled, r.Reserved, r.Unbilled)
		}
		switch {
		case r.Basis == "upstream" && r.Outcome == "upstream_error":
			if r.Settled != 0 || e.ProducedTokens != 0 {
				report("refused by the upstream, but settled %d and produced %d", r.Settled, e.ProducedTokens)
			}
		case r.Basis == "upstream":
			equal++
			if r.Prompt != int64(e.PromptTokens) || r.Completion != int64(e.CompletionTokens) ||
				r.Cached != int64(e.CachedTokens) || r.Reasoning != int64(e.ReasoningTokens) || r.Settled != r.Prompt+r.Completion {
				report("metered %+v, upstream counted %d (%d cached) + %d (%d reasoning)", r, e.PromptTokens, e.CachedTokens, e.CompletionTokens, e.ReasoningTokens)
			}
		default:
			estimated++
			got := load.receivedBy(e.Tag)
			if r.Outcome == "ok" {
				report("complete with usage, but estimated: %+v", r)
			}
			if r.Completion < int64(got) || got > 0 && (r.Settled == 0 || r.Prompt < int64(e.PromptTokens)) {
				report("%s: %d+%d metered, %d relayed of a prompt of %d", r.Outcome, r.Prompt, r.Completion, got, e.PromptTokens)
			}
		}
	}
	if nameless != len(chats) {
		t.Errorf("%d rows without the upstream's id, %d forwarded requests without a row that names them", nameless, len(chats))
	}
	t.Logf("%d rows: %d equal to the upstream's count, %d estimated, %d without an upstream id; %d wrong", len(rows), equal, estimated, nameless, bad)
}

// compareTotals checks that Postgres' totals, Redis and the rows agree per customer.
// With nothingHeld it also wants every hold gone.
func compareTotals(t *testing.T, s *stack.Stack, tokens []stack.Token, rows []row, nothingHeld bool) {
	t.Helper()
	want := map[string]int64{}
	for _, r := range rows {
		want[r.CustomerID] += r.Settled
	}
	totals := map[string]int64{}
	for _, line := range strings.Fields(s.Postgres.Query("SELECT customer_id, sum(settled_tokens) FROM usage_periods GROUP BY 1")) {
		id, n, _ := strings.Cut(line, "|")
		totals[id], _ = strconv.ParseInt(n, 10, 64)
	}
	for _, tok := range tokens {
		w := want[tok.Customer]
		if totals[tok.Customer] != w {
			t.Errorf("customer %s: rows %d, totals %d", tok.Customer, w, totals[tok.Customer])
		}
		if w == 0 {
			t.Errorf("customer %s used nothing", tok.Customer)
		}
		s.Eventually(fmt.Sprintf("Redis says %d for %s", w, tok.Customer), 30*time.Second, func() bool {
			settled, held := counters(t, s, tok.Customer)
			return settled == w && (held == 0 || !nothingHeld)
		})
	}
}

// counters adds up what Redis knows of a customer, over its periods: what is settled, and
// what replicas hold beside it.
func counters(t *testing.T, s *stack.Stack, customer string) (settled, held int64) {
	t.Helper()
	ctx, rdb := context.Background(), s.Redis.UniversalClient()
	for _, k := range keys(t, rdb, contract.QuotaKey(customer, "*")) {
		h, err := rdb.HGetAll(ctx, k).Result()
		if err != nil {
			t.Fatal(err)
		}
		for field, sum := range map[string]*int64{"settled": &settled, "leased": &held} {
			n, _ := strconv.ParseInt(h[field], 10, 64) // absent is 0
			*sum += n
		}
	}
	return settled, held
}

// keys lists the keys that match a pattern, on all servers of Redis.
func keys(t *testing.T, rdb redis.UniversalClient, pattern string) (all []string) {
	t.Helper()
	var mu sync.Mutex
	list := func(ctx context.Context, c *redis.Client) error {
		some, err := c.Keys(ctx, pattern).Result()
		mu.Lock()
		defer mu.Unlock()
		all = append(all, some...)
		return err
	}
	var err error
	if cluster, ok := rdb.(*redis.ClusterClient); ok {
		err = cluster.ForEachMaster(context.Background(), list)
	} else {
		err = list(context.Background(), rdb.(*redis.Client))
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// load sends the mix and remembers what each client received.
type load struct {
	s      *stack.Stack
	tokens []stack.Token
	client *http.Client

	mu       sync.Mutex
	received map[string]int // completion tokens by tag
	endings  map[string]int // requests that ended as their kind should, by group
	statuses map[string]int
}

func newLoad(s *stack.Stack, tokens []stack.Token) *load {
	return &load{
		s: s, tokens: tokens,
		client:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200, DisableCompression: true}},
		received: map[string]int{}, endings: map[string]int{}, statuses: map[string]int{},
	}
}

func (l *load) receivedBy(tag string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.received[tag]
}

func (l *load) run(n, workers int) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				l.one(i)
			}
		})
	}
	wg.Wait()
}

func pick(i int) *kind {
	for k, at := 0, (i*61)%100; ; k++ {
		if at < mix[k].share {
			return &mix[k]
		}
		at -= mix[k].share
	}
}

// one sends request i until the proxy takes it, at most some times: the rate limit is
// not what this test is about.
func (l *load) one(i int) {
	k := pick(i)
	tag := fmt.Sprintf("t%d", i)
	b := k.sim
	b.Tag = tag
	raw, _ := json.Marshal(b)
	model := k.model
	if model == "" {
		model = "kimi-k2.5"
	}
	// Whatever depends on events coming one by one is a stream.
	stream := k.name != "complete" || i%3 != 0
	body := fmt.Sprintf(`{"model":%q,"max_tokens":200,"stream":%v,"messages":[{"role":"user","content":%q}]}`,
		model, stream, strings.Repeat("lorem ipsum ", rand.IntN(40))+"[[sim:"+string(raw)+"]]")
	for range 200 {
		status, got := l.try(i, k, body, stream)
		l.mu.Lock()
		l.statuses[fmt.Sprintf("%s: %d", k.name, status)]++
		l.mu.Unlock()
		if status != http.StatusTooManyRequests {
			l.mu.Lock()
			l.received[tag] = got
			l.mu.Unlock()
			if k.outcome == "" && status == k.status {
				l.ended(k.name)
			}
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (l *load) try(i int, k *kind, body string, stream bool) (status, got int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if k.leave < 0 {
		time.AfterFunc(time.Second, cancel)
	}
	path, anthropic := "/v1/chat/completions", i%2 == 0
	if anthropic {
		path = "/v1/messages"
	}
	req, err := http.NewRequestWithContext(ctx, "POST", l.s.Proxies[i%len(l.s.Proxies)].URL+path, strings.NewReader(body))
	if err != nil {
		return 0, 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+l.tokens[i%len(l.tokens)].Raw)
	resp, err := l.client.Do(req)
	if err != nil {
		return 0, 0
	}
	defer resp.Body.Close()
	if !stream || resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, contentTokens(b)
	}
	sc := bufio.NewScanner(resp.Body)
	events := 0
	for sc.Scan() {
		data, ok := strings.CutPrefix(sc.Text(), "data:")
		if !ok {
			continue
		}
		got += contentTokens([]byte(data))
		if events++; k.leave > 0 && events == k.leave {
			cancel()
			break
		}
	}
	return resp.StatusCode, got
}

// contentTokens counts the completion tokens of an event or a whole answer.
func contentTokens(b []byte) int {
	type text struct {
		Content   string `json:"content"`
		Reasoning string `json:"reasoning_content"`
	}
	var v struct {
		Choices []struct{ Delta, Message text }
		Delta   struct{ Text, Thinking string }
	}
	if json.Unmarshal(b, &v) != nil {
		return 0
	}
	s := v.Delta.Text + v.Delta.Thinking
	for _, c := range v.Choices {
		s += c.Delta.Content + c.Delta.Reasoning + c.Message.Content + c.Message.Reasoning
	}
	return kimisim.CountTokens(s)
}

// ended counts a request that ended as its kind should.
func (l *load) ended(name string) {
	group, _, _ := strings.Cut(name, " ")
	l.mu.Lock()
	l.endings[group]++
	l.mu.Unlock()
}

// checkEnding compares how a request ended with what its kind asks for. On a starved
// machine a stream may end as a stall, or before its client leaves; nothing else may.
func (l *load) checkEnding(r row, e kimisim.Entry, report func(string, ...any)) {
	n, err := strconv.Atoi(strings.TrimPrefix(e.Tag, "t"))
	if err != nil {
		report("the upstream saw a request that was not sent: %q", e.Tag)
		return
	}
	k := pick(n)
	switch {
	case r.Outcome == k.outcome && (r.Basis == k.basis || k.leave > 0 && e.UsageSent):
		l.ended(k.name) // who leaves between the usage and the end mark is billed exactly
	case r.Outcome == "upstream_timeout" && e.Stream:
	case r.Outcome == "ok" && k.leave != 0:
	default:
		report("%s: outcome %s, basis %s", k.name, r.Outcome, r.Basis)
	}
}

// checkShares makes sure that the run was the mix it claims to be: by how requests
// ended, not by how they were meant to.
func (l *load) checkShares(t *testing.T, n int) {
	t.Helper()
	t.Logf("endings %v, statuses %v", l.endings, l.statuses)
	for _, g := range []string{"complete", "gone", "cut", "error", "stall", "refused"} {
		if l.endings[g] < n/10 {
			t.Errorf("only %d of %d requests ended as %q", l.endings[g], n, g)
		}
	}
}
