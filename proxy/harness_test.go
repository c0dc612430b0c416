package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
	"github.com/andreabadesso/openclaw-cloud/proxy/journal"
	"github.com/andreabadesso/openclaw-cloud/proxy/meter"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
	"github.com/andreabadesso/openclaw-cloud/quota"
	"github.com/andreabadesso/openclaw-cloud/quota/quotatest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	upstreamKey = "sk-fake-upstream-key"
	model       = "kimi-k2.5"
)

// world is one Redis, one simulator and any number of replicas.
type world struct {
	t      testing.TB
	redis  *testenv.RedisServer
	rdb    *redis.Client
	sim    *kimisim.Server
	plane  *quotatest.Plane
	hasher *contract.Hasher
	feed   *feed.Publisher
	logs   *syncBuffer
	quota  quota.Options // of replicas that are started from now on
	n      atomic.Int64

	marks    atomic.Int64
	arrivals sync.Map // what to do when a marked request has reached the simulator
}

// syncBuffer collects log lines of several goroutines.
type syncBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	panic string // once, when this is to be written

	discard bool // fixed
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.panic != "" && bytes.Contains(p, []byte(s.panic)) {
		s.panic = ""
		panic("a panic that a test wants")
	}
	if s.discard {
		return len(p), nil
	}
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newWorld(t testing.TB) *world { return newWorldWith(t, kimisim.Config{}) }

func newWorldWith(t testing.TB, sc kimisim.Config) *world {
	t.Helper()
	w := &world{t: t, redis: testenv.Redis(t), logs: &syncBuffer{}, quota: quota.Options{
		SettleEvery: 20 * time.Millisecond, FollowEvery: 50 * time.Millisecond, ReturnAfter: 100 * time.Millisecond,
	}}
	w.rdb = w.redis.Client()
	w.plane = quotatest.New(t, w.redis.Client())
	if sc.Keys == nil {
		sc.Keys = []string{upstreamKey}
	}
	var err error
	if w.sim, err = kimisim.New(sc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.sim.Close() })
	if w.hasher, err = contract.NewHasher([]byte("a pepper for tests only")); err != nil {
		t.Fatal(err)
	}
	w.feed = feed.NewPublisher(w.rdb)
	w.markComplete()
	t.Cleanup(func() {
		if t.Failed() && testing.Verbose() {
			log := w.logs.String()
			t.Log(log[max(0, len(log)-3000):])
		}
	})
	return w
}

// token creates a grant and returns its raw token.
func (w *world) token(change func(*contract.Grant)) (string, contract.Grant) {
	w.t.Helper()
	tok, err := contract.NewToken(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	n := w.n.Add(1)
	now := time.Now().UTC().Truncate(time.Second)
	g := contract.Grant{
		Version: 1, TokenID: fmt.Sprintf("tok%d", n), CustomerID: fmt.Sprintf("cus%d", n), BoxID: fmt.Sprintf("box%d", n),
		Tier: "starter", Status: contract.StatusActive, RequestsPerSecond: 1000, Burst: 10000, Concurrent: 10000,
		MonthlyLimit: 1_000_000_000, LimitVersion: 1,
		Period:  contract.Period{ID: "p1", Start: now.Add(-time.Hour), End: now.Add(240 * time.Hour)},
		Weights: contract.Weights{Prompt: 1, Cached: 1, Completion: 1},
	}
	if change != nil {
		change(&g)
	}
	w.put(tok.Reveal(), g)
	return tok.Reveal(), g
}

func (w *world) put(token string, g contract.Grant) {
	w.t.Helper()
	w.plane.Put(account(g))
	if _, err := w.feed.PutGrant(context.Background(), w.hasher.Digest([]byte(token)), g); err != nil {
		w.t.Fatal(err)
	}
}

// guarded returns a client that the quota's epoch guards.
func (w *world) guarded() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: w.redis.Addr, ContextTimeoutEnabled: true, OnConnect: quota.NewGuard(w.redis.Client()).Check})
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// replica is one running token-proxy.
type replica struct {
	*proxy.Server
	w       *world
	url     string
	admin   *httptest.Server
	name    string // of its journal
	journal *journal.Journal
	leases  *quota.Leases
	meter   *meter.Meter
	cache   *grants.Cache
	metrics *proxy.Metrics
	drain   func() error
}

type option func(*proxy.Config)

// upstreams that serve the simulator on both faces.
func (w *world) upstreams() []upstream.Config {
	models := map[string]string{model: model, "alias/k2p5": model, "kimi-for-coding": "kimi-for-coding"}
	short := upstream.Duration(10 * time.Second)
	return []upstream.Config{
		{Name: "kimi", BaseURL: w.sim.OpenAIBase(), Face: "openai", Keys: []upstream.Key{{Name: "k1", Secret: upstreamKey}},
			Models: models, EstimatePath: "/tokenizers/estimate-token-count", AllowPrivate: true, IdleTimeout: short, FirstByteTimeout: short, BreakerFailures: 1 << 30},
		{Name: "kimi-anthropic", BaseURL: w.sim.AnthropicBase(), Face: "anthropic", Keys: []upstream.Key{{Name: "k1", Secret: upstreamKey}},
			Models: models, AllowPrivate: true, IdleTimeout: short, FirstByteTimeout: short, BreakerFailures: 1 << 30},
	}
}

// replica starts one, and waits until it is ready.
func (w *world) replica(opts ...option) *replica {
	w.t.Helper()
	r := w.start(opts...)
	eventually(w.t, "the replica is ready", func() bool { return r.Ready() == nil })
	return r
}

func (w *world) start(opts ...option) *replica {
	t := w.t
	t.Helper()
	cfg := proxy.Config{
		Listen: "127.0.0.1:0", RedisURL: secret.Text(w.redis.URL), TokenPepperFile: os.DevNull, JournalDir: t.TempDir(), Upstreams: w.upstreams(),
		Timeouts: proxy.Timeouts{Redis: proxy.Duration(5 * time.Second), PreStop: proxy.Duration(10 * time.Millisecond), Drain: proxy.Duration(5 * time.Second)},
	}
	cfg.Limits.JournalSlots, cfg.Limits.JournalBytes = 2048, 16<<20
	cfg.Limits.SchedulingDelay = -1 // the machine of a test may have too much to do
	driver(t)(&cfg)
	for _, o := range opts {
		o(&cfg)
	}
	cfg.SetDefaults()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(w.logs, nil))
	name := fmt.Sprintf("r%d", w.n.Add(1))
	rdb := w.redis.Client()
	reg := prometheus.NewRegistry()
	metrics := proxy.NewMetrics(reg)
	pool, err := upstream.NewPool(cfg.Upstreams, upstream.Options{Logger: log, Observe: metrics.Observe()})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := grants.New(rdb, grants.Options{MaxEntries: 1000, Grace: time.Duration(cfg.Timeouts.Grace), ReadTimeout: time.Duration(cfg.Timeouts.Redis), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	qopts := w.quota
	qopts.Timeout, qopts.Grace, qopts.Logger = time.Duration(cfg.Timeouts.Redis), time.Duration(cfg.Timeouts.Grace), log
	j, err := journal.Open(cfg.JournalDir, journal.Options{Slots: cfg.Limits.JournalSlots, LogBytes: cfg.Limits.JournalBytes, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{w: w, cache: cache, journal: j, metrics: metrics, name: j.Replica(), leases: quota.NewLeases(rdb, w.guarded(), j, qopts)}
	r.meter = meter.New(rdb, j, r.leases, meter.Options{Logger: log, Resend: time.Hour}) // nobody acknowledges here
	rates := quota.NewRates(rdb, quota.RateOptions{Replica: name, Logger: log})
	r.Server, err = proxy.New(cfg, proxy.Deps{
		Grants: cache, Ledger: r.leases, Rates: rates, Journal: j, Meter: r.meter,
		Pool: pool, Hasher: w.hasher, Metrics: r.metrics, Logger: log, AccessLog: w.logs,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Listen(); err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + r.Addr().String()
	r.admin = httptest.NewServer(r.Admin(reg))
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = cache.Run(ctx) })
	wg.Go(func() {
		if err := r.Serve(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	r.drain = sync.OnceValue(func() error {
		err := r.Drain(context.Background())
		stop()
		wg.Wait()
		end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = rates.Close(end)
		r.meter.Close()
		_ = j.Close()
		cache.Close()
		pool.Close()
		r.admin.Close()
		return err
	})
	t.Cleanup(func() { _ = r.drain() })
	return r
}

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	const patience = 20 * time.Second // of a machine that does much else
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// face tells the tests of both wire formats apart.
type face struct {
	name, path string
	anthropic  bool
}

var faces = []face{{"openai", "/v1/chat/completions", false}, {"anthropic", "/v1/messages", true}}

// chat is a request body of either face: short, and with room for what a test adds.
func chat(stream bool, text string, more ...string) string {
	body := fmt.Sprintf(`{"model":%q,"max_tokens":64,"stream":%v,"messages":[{"role":"user","content":%q}]`, model, stream, text)
	for _, m := range more {
		body += "," + m
	}
	return body + "}"
}

// sim writes a simulator's behaviour into a prompt.
func sim(b kimisim.Behavior) string {
	raw, err := json.Marshal(b)
	if err != nil {
		panic(err)
	}
	return "hello [[sim:" + string(raw) + "]]"
}

type answer struct {
	status int
	header http.Header
	body   string
	err    error // while reading the body
}

func (r *replica) request(ctx context.Context, f face, token, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", r.url+f.path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if f.anthropic {
		req.Header.Set("X-Api-Key", token)
		req.Header.Set("Anthropic-Version", "2023-06-01")
	} else {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return client.Do(req)
}

// client keeps no idle connections, so that leak checks see only ours.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}

func (r *replica) post(f face, token, body string) answer {
	r.w.t.Helper()
	a := r.answer(f, token, body, func() {})
	if a.header == nil {
		r.w.t.Fatal(a.err)
	}
	return a
}

// begin sends a request. begun is closed when the answer's head has come, or none will; done gets all of it.
func (r *replica) begin(f face, token, body string) (begun chan struct{}, done chan answer) {
	begun, done = make(chan struct{}), make(chan answer, 1)
	head := sync.OnceFunc(func() { close(begun) })
	go func() {
		defer head()
		done <- r.answer(f, token, body, head)
	}()
	return begun, done
}

// answer returns the answer to a request, without a header if there was none, and calls begun when its head has come.
func (r *replica) answer(f face, token, body string, begun func()) answer {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	resp, err := r.request(ctx, f, token, body)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	begun()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b), err}
}

// events returns the usage events in Redis, waiting until there are n.
func (w *world) events(n int) []contract.Event {
	w.t.Helper()
	var out []contract.Event
	eventually(w.t, fmt.Sprintf("%d usage events are in Redis", n), func() bool {
		out = w.readEvents()
		return len(out) >= n
	})
	if len(out) > n {
		w.t.Fatalf("want %d usage events, got %d", n, len(out))
	}
	return out
}

// readEvents returns each event once: an answer of Redis that came too late makes a
// batch come twice, and readers tell by the number.
func (w *world) readEvents() []contract.Event {
	w.t.Helper()
	var out []contract.Event
	seen := map[string]bool{}
	entries, err := w.rdb.XRange(context.Background(), contract.UsageStreamKey, "-", "+").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		b, err := contract.DecodeBatch([]byte(e.Values[contract.UsageField].(string)))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, raw := range b.Events {
			ev, err := contract.DecodeEvent(raw)
			if err != nil {
				w.t.Fatal(err)
			}
			if !seen[ev.ID()] {
				seen[ev.ID()] = true
				out = append(out, ev)
			}
		}
	}
	return out
}

// chats returns the simulator's entries of completions.
func (w *world) chats() []kimisim.Entry {
	var out []kimisim.Entry
	for _, e := range w.sim.Ledger() {
		if e.Kind == "chat" {
			out = append(out, e)
		}
	}
	return out
}

// usage returns a customer's counters of the period that token gives.
func (w *world) usage(customer string) quota.Usage {
	w.t.Helper()
	return w.plane.Usage(quota.Account{Customer: customer, Period: contract.Period{ID: "p1"}})
}

// received counts the completion tokens in the events of a stream that a client read.
func received(text string) int {
	n := 0
	for _, line := range strings.Split(text, "\n") {
		data, ok := strings.CutPrefix(line, "data:")
		if !ok {
			continue
		}
		var ev struct {
			Choices []struct {
				Delta struct {
					Content   string `json:"content"`
					Reasoning string `json:"reasoning_content"`
					ToolCalls []struct {
						Function struct{ Arguments string }
					} `json:"tool_calls"`
				}
			}
			Delta struct {
				Text, Thinking string
				PartialJSON    string `json:"partial_json"`
			}
		}
		if json.Unmarshal([]byte(data), &ev) != nil {
			continue
		}
		s := ev.Delta.Text + ev.Delta.Thinking + ev.Delta.PartialJSON
		for _, c := range ev.Choices {
			s += c.Delta.Content + c.Delta.Reasoning
			for _, tc := range c.Delta.ToolCalls {
				s += tc.Function.Arguments
			}
		}
		n += kimisim.CountTokens(s)
	}
	return n
}

// markComplete says that Redis holds all grants, as the control plane does.
func (w *world) markComplete() {
	w.t.Helper()
	if err := w.rdb.HSet(context.Background(), contract.FeedStateKey, contract.FeedComplete, "test").Err(); err != nil {
		w.t.Fatal(err)
	}
}
