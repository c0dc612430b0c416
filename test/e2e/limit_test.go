package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// Customers (ten at full length) with different limits, each with 64 clients on three replicas, on both faces
// and with bodies of up to 60 KB, while the limit is lowered and raised: what is settled never
// exceeds it; afterwards what fits is served; and small requests use at least 0.99 of it
// before the limit counts as reached.
func TestLimitUnderLoad(t *testing.T) {
	t.Log("drawn at random, so no run is like another")
	customers := full(4, 10)
	s := stack.New(t, stack.Options{
		Replicas: 3, Sim: kimisim.Config{MaxLedger: 400_000, TokenizerRatio: 2.5 + rand.Float64()*3},
		Proxy: func(c map[string]any) {
			c["log_level"] = "warn"
			for _, u := range c["upstreams"].([]any) {
				u.(map[string]any)["idle_timeout"] = "1m" // everything waits for the processor here
			}
			c["timeouts"].(map[string]any)["read_request"] = "2m"
		},
	})
	p := newPlatform(t, s, unbound)
	client := newClient()
	var subjects []*subject
	var tokens []stack.Token
	for i := range customers {
		limit := 450_000 + int64(i)*full[int64](30_000, 400_000) + rand.Int64N(20_000)
		tok := p.customer(fmt.Sprint("customer ", i), limit)
		subjects = append(subjects, newSubject(t, s, p, client, i, tok, limit))
		tokens = append(tokens, tok)
	}
	s.Sim.Script(func(r *kimisim.RequestInfo) *kimisim.Behavior {
		if n, ok := numberOf(r); ok && n < len(subjects) {
			subjects[n].arrived.Add(1)
		}
		return nil
	})
	watching, stop := context.WithCancel(t.Context())
	var watchers, all sync.WaitGroup
	gate := make(chan struct{}, full(3, customers)) // so many customers at a time
	for _, c := range subjects {
		watchers.Go(func() { c.watch(watching) })
		all.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			c.upAndDown()
			c.whatFitsIsServed()
			c.smallOnesUseItUp()
		})
	}
	all.Wait()
	stop()
	watchers.Wait()
	statuses := map[string]int{}
	for _, c := range subjects {
		t.Logf("lowered from %d to %d with %d settled and leased; then %d requests that needed all that was left; then limit %d, of which %.2f %% were used when the first small request was refused, %.2f %% in the end; %d samples",
			c.before, c.lowered, c.leftThen, c.fitted, c.limit, 100*float64(c.firstRefused)/float64(c.limit), 100*float64(c.settledNow())/float64(c.limit), c.samples)
		for k, n := range c.statuses {
			statuses[k] += n
		}
	}
	t.Logf("answers: %v", statuses)
	chats, rows := settledDown(t, s)
	compareOnce(t, s, chats, rows)
	compareTotals(t, s, tokens, rows, true)
	lengths := 0
	for _, e := range chats {
		if e.OutputCap > 0 && e.CompletionTokens == e.OutputCap {
			lengths++
		}
	}
	t.Logf("%d requests, %d of them ended at their cap", len(chats), lengths)
}

// subject is one customer whose limit is tried.
type subject struct {
	t      *testing.T
	s      *stack.Stack
	p      *platform
	client *http.Client
	number int
	tok    stack.Token
	key    string // of its record
	rdb    redis.UniversalClient

	limit        int64 // the newest; of the goroutine that sets it
	firstRefused int64
	fitted       int   // requests that needed all that was left
	before       int64 // the limit when it was lowered below what was used
	lowered      int64 // to this
	leftThen     int64 // settled and leased just after

	refusals atomic.Int64 // for good
	arrived  atomic.Int64 // requests, at the upstream

	mu       sync.Mutex // guards the following, and each comparison with bound
	bound    int64      // settled and leased tokens never exceed it
	samples  int
	bad      int
	statuses map[string]int
}

func newSubject(t *testing.T, s *stack.Stack, p *platform, client *http.Client, number int, tok stack.Token, limit int64) *subject {
	t.Helper()
	period, err := p.Store.PeriodAt(t.Context(), tok.Customer, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &subject{
		t: t, s: s, p: p, client: client, number: number, tok: tok, limit: limit, bound: limit,
		key: contract.QuotaKey(tok.Customer, period.ID), rdb: s.Redis.UniversalClient(), statuses: map[string]int{},
	}
}

// record reads what Redis says, at one moment.
func (c *subject) record() (settled, leased int64, err error) {
	v, err := c.rdb.HMGet(context.Background(), c.key, "settled", "leased").Result()
	if err != nil {
		return 0, 0, err
	}
	number := func(i int) int64 {
		text, _ := v[i].(string)
		n, perr := strconv.ParseInt(text, 10, 64)
		if perr != nil && err == nil {
			err = fmt.Errorf("record %s: %w", c.key, perr)
		}
		return n
	}
	return number(0), number(1), err
}

func (c *subject) settledNow() int64 {
	settled, _, err := c.record()
	if err != nil {
		c.t.Error(err)
	}
	return settled
}

// watch compares Redis and Postgres with the bound until ctx ends.
func (c *subject) watch(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		c.mu.Lock()
		settled, leased, err := c.record()
		inPostgres := int64(0)
		if err == nil && n%10 == 0 {
			period, perr := c.p.Store.PeriodAt(context.Background(), c.tok.Customer, time.Now())
			inPostgres, err = period.Totals.Settled, perr
		}
		c.samples++
		if err != nil || settled+leased > c.bound || inPostgres > c.bound {
			if c.bad++; c.bad < 4 {
				c.t.Errorf("customer %s: %d settled and %d leased in Redis, %d settled in Postgres, bound %d: %v", c.tok.Customer, settled, leased, inPostgres, c.bound, err)
			}
		}
		c.mu.Unlock()
		pause(ctx, 20*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// raise sets a higher limit, from when on more may be used.
func (c *subject) raise(limit int64) {
	c.mu.Lock()
	c.bound = max(c.bound, limit)
	c.mu.Unlock()
	c.p.limit(c.tok.Customer, limit)
	c.limit = limit
}

// lower sets a lower limit. What was leased by then may be used, nothing else.
func (c *subject) lower(limit int64) (left int64) {
	c.p.limit(c.tok.Customer, limit)
	c.mu.Lock()
	defer c.mu.Unlock()
	settled, leased, err := c.record()
	if err != nil {
		c.t.Error(err)
	}
	c.bound = max(limit, settled+leased)
	c.limit = limit
	return settled + leased
}

// load has 64 clients send what next makes, each until it returns false, and returns when all
// have ended. Clients go around the replicas.
func (c *subject) load(next func(r *rand.Rand) (chat, bool), answered func(reply) (goOn bool)) {
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
			for n := w; ; n++ {
				ask, ok := next(r)
				if !ok {
					return
				}
				a := send(context.Background(), c.client, c.s.Proxies[n%len(c.s.Proxies)], ask, nil)
				c.note(a)
				if !answered(a) {
					return
				}
				if a.status != http.StatusOK {
					time.Sleep(time.Duration(50+r.IntN(150)) * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
}

// note counts an answer, and reports those that must not be.
func (c *subject) note(a reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.statuses[fmt.Sprintf("%d %s", a.status, a.code)]++
	switch {
	case a.status == http.StatusOK:
	case a.status == http.StatusTooManyRequests && a.code == monthly:
		c.refusals.Add(1)
	case a.status == http.StatusTooManyRequests:
	default:
		if c.bad++; c.bad < 4 {
			c.t.Errorf("customer %s: status %d, %s", c.tok.Customer, a.status, a.code)
		}
	}
}

// until waits for ok.
func (c *subject) until(what string, ok func() bool) {
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Errorf("customer %s: not within a minute: %s", c.tok.Customer, what)
			return
		}
	}
}

// mixed makes a request of 1 to 60 KB.
func (c *subject) mixed(r *rand.Rand) chat {
	ask := chat{token: c.tok.Raw, number: c.number, anthropic: r.IntN(2) == 0, stream: r.IntN(3) > 0}
	limit := int64(50 + r.IntN(2000))
	if !ask.anthropic && r.IntN(10) == 0 {
		limit = 0
	}
	sim := kimisim.Behavior{}
	switch r.IntN(10) {
	case 0:
		sim.OutputTokens = 1500
	case 1, 2:
		sim.OutputTokens, sim.TokensPerSecond = 60, 100
	}
	ask.body = chatBody(1_000+r.IntN(59_000), limit, ask.stream, sim)
	return ask
}

// upAndDown loads the customer while its limit goes down and up.
func (c *subject) upAndDown() {
	whole := c.limit
	var done atomic.Bool
	var loading sync.WaitGroup
	loading.Go(func() {
		c.load(func(r *rand.Rand) (chat, bool) { return c.mixed(r), !done.Load() }, func(reply) bool { return true })
	})
	reach := func(part int64) {
		before := c.refusals.Load()
		c.until(fmt.Sprintf("%d %% are used", part), func() bool {
			return c.settledNow() >= whole*part/100 || c.refusals.Load() > before+64
		})
	}
	reach(25)
	c.lower(whole * 60 / 100)
	reach(45)
	c.raise(whole)
	reach(75)
	// Below what is used: nobody gets anything any more.
	c.before, c.lowered = whole, whole/5
	c.leftThen = c.lower(c.lowered)
	before := c.refusals.Load()
	c.until("all are refused", func() bool { return c.refusals.Load() > before+64 })
	c.raise(whole)
	before = c.refusals.Load()
	c.until("the limit is reached", func() bool { return c.refusals.Load() > before+64 })
	done.Store(true)
	loading.Wait()
}

// settle waits until Redis and Postgres have all that was used. Nothing may be in flight.
func (c *subject) settle() (settled int64) {
	c.until("Redis and Postgres have what was used", func() bool {
		period, err := c.p.Store.PeriodAt(context.Background(), c.tok.Customer, time.Now())
		if err != nil {
			c.t.Error(err)
			return true
		}
		settled = c.settledNow()
		return period.Totals.Requests >= c.arrived.Load() && settled == period.Totals.Settled
	})
	return settled
}

// whatFitsIsServed sends, to each replica in turn, a request that needs all that is left.
func (c *subject) whatFitsIsServed() {
	for i, p := range c.s.Proxies {
		left := c.limit - c.settle()
		size := int(min(left/2, 20_000))
		ask := chat{token: c.tok.Raw, number: c.number, anthropic: i%2 == 0, stream: i%3 == 0}
		ask.body = chatBody(size, 1, ask.stream, kimisim.Behavior{})
		limit := left - int64(len(ask.body)) - 6
		if limit < 1 {
			continue // nothing fits any more
		}
		ask.body = chatBody(size, limit, ask.stream, kimisim.Behavior{})
		if need := int64(len(ask.body)) + limit; need > left {
			c.t.Errorf("a body of %d bytes and %d tokens do not fit into %d", len(ask.body), limit, left)
			return
		}
		c.fitted++
		a := send(context.Background(), c.client, p, ask, nil)
		c.note(a)
		if a.status != http.StatusOK || !a.whole {
			c.t.Errorf("customer %s: %d bytes and %d tokens fit into %d of %d, but got %d %s from replica %d", c.tok.Customer, len(ask.body), limit, left, c.limit, a.status, a.code, i)
		}
	}
}

// smallOnesUseItUp has 64 clients send bodies under 4 KB until each is told that the limit
// is reached.
func (c *subject) smallOnesUseItUp() {
	c.raise(c.settle() + full[int64](150_000, 1_000_000))
	c.load(func(r *rand.Rand) (chat, bool) {
		ask := chat{token: c.tok.Raw, number: c.number, anthropic: r.IntN(2) == 0, stream: r.IntN(2) == 0}
		ask.body = chatBody(300+r.IntN(3_700), int64(50+r.IntN(450)), ask.stream, kimisim.Behavior{})
		return ask, true
	}, func(a reply) bool {
		if a.code != monthly {
			return true
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.firstRefused == 0 {
			c.firstRefused = a.used
		}
		if a.limit != c.limit || a.used*100 < a.limit*99 {
			c.t.Errorf("customer %s: refused with %d of %d used; the limit is %d", c.tok.Customer, a.used, a.limit, c.limit)
		}
		return false
	})
	if settled := c.settle(); settled*100 < c.limit*99 || settled > c.limit {
		c.t.Errorf("customer %s: %d of %d are used", c.tok.Customer, settled, c.limit)
	}
}
