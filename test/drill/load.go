package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

// models is how many names of models there are. Each customer's requests use them in
// turn, so that a row names its request even when nobody lived to learn its request id.
const models = 4096

func modelName(n int) string { return fmt.Sprintf("m%d", n%models) }

// customer is one of the load's.
type customer struct {
	id, token string
	small     bool // its limit is reached during the run
	next      atomic.Int64
}

// load is what the system is given to do.
type load struct {
	customers []*customer
	clients   []*client     // by proxy
	ready     []atomic.Bool // whether a proxy is given requests, as a load balancer would see it
	streams   int           // long streams to keep open
	perSecond int           // short requests

	mu       sync.Mutex // guards the following
	attempts []*attempt
	answers  map[int]kimisim.Behavior // by attempt in flight
	hang     map[*attempt]context.CancelFunc
	rng      *rand.Rand
	// The longest time in which no answer began, when it ended, and the last that began.
	longest               time.Duration
	longestAt, lastServed time.Time

	open     []atomic.Int64 // streams with a head and no end, by proxy
	inFlight atomic.Int64
	statuses sync.Map // "status refusal" → *atomic.Int64
	working  sync.WaitGroup
}

func newLoad(seed uint64, customers []*customer, urls []string, streams, perSecond int) *load {
	l := &load{
		customers: customers, ready: make([]atomic.Bool, len(urls)), open: make([]atomic.Int64, len(urls)),
		streams: streams, perSecond: perSecond,
		answers: map[int]kimisim.Behavior{}, hang: map[*attempt]context.CancelFunc{},
		rng: rand.New(rand.NewPCG(seed, 0x10ad)),
	}
	for _, u := range urls {
		l.clients = append(l.clients, newClient(u))
	}
	return l
}

// answer is the simulator's script: what it does with a request was decided when the
// request was made.
func (l *load) answer(r *kimisim.RequestInfo) *kimisim.Behavior {
	id, _ := attemptOf(r.Header.Get("Traceparent"))
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.answers[id]
	return &b
}

// run keeps the load up until ctx ends, and returns when all of it has ended.
func (l *load) run(ctx context.Context) {
	for i := range l.streams {
		l.working.Go(func() {
			pause(ctx, time.Duration(i)*2*time.Second/time.Duration(l.streams))
			for ctx.Err() == nil {
				a := l.request(pick(longKinds(), l.random()), false, l.leastOpen())
				if l.do(a); a.status != http.StatusOK {
					pause(ctx, 500*time.Millisecond)
				}
			}
		})
	}
	tick := time.NewTicker(time.Second / time.Duration(l.perSecond))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			if l.inFlight.Load() > int64(l.streams+400) {
				continue // nothing gets through just now
			}
			l.working.Go(func() { l.do(l.request(pick(shortKinds(), l.random()), true, l.anyProxy())) })
		}
	}
	l.working.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// random returns a generator of the caller's own.
func (l *load) random() *rand.Rand {
	l.mu.Lock()
	defer l.mu.Unlock()
	return rand.New(rand.NewPCG(l.rng.Uint64(), l.rng.Uint64()))
}

// leastOpen returns the ready proxy with the fewest streams, anyProxy one at random; any
// at all when none is ready.
func (l *load) leastOpen() int {
	best := -1
	for i := range l.clients {
		if l.ready[i].Load() && (best < 0 || l.open[i].Load() < l.open[best].Load()) {
			best = i
		}
	}
	if best < 0 {
		return l.anyProxy()
	}
	return best
}

func (l *load) anyProxy() int {
	r := l.random()
	for range 8 {
		if i := r.IntN(len(l.clients)); l.ready[i].Load() {
			return i
		}
	}
	return r.IntN(len(l.clients))
}

// request makes an attempt of a kind by a customer. Those whose limits are small send
// short requests only: a long stream would hold most of what they have.
func (l *load) request(k *kind, small bool, proxy int) *attempt {
	r := l.random()
	c := r.IntN(len(l.customers))
	for l.customers[c].small && (!small || k.noCap) {
		c = r.IntN(len(l.customers))
	}
	return l.requestOf(c, k, proxy, r)
}

func (l *load) requestOf(c int, k *kind, proxy int, r *rand.Rand) *attempt {
	b := k.answer(r)
	a := &attempt{
		customer: c, kind: k, proxy: proxy, model: modelName(int(l.customers[c].next.Add(1))),
		stream: k.mode == streamed || k.mode == either && r.IntN(3) > 0,
		cap:    int64(b.OutputTokens + r.IntN(200)), start: time.Now(),
	}
	switch {
	case k.noCap:
		a.cap = defaultCap
	case b.ExceedCap:
		a.cap = int64(1 + r.IntN(b.OutputTokens/2))
	case r.IntN(10) == 0:
		a.cap = int64(1 + r.IntN(b.OutputTokens)) // the answer is longer than was asked for
	}
	l.mu.Lock()
	a.id = len(l.attempts) + 1
	l.attempts = append(l.attempts, a)
	l.answers[a.id] = b
	l.mu.Unlock()
	return a
}

// do sends an attempt and waits for its end.
func (l *load) do(a *attempt) {
	r := l.random()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if a.kind.leave != nil {
		defer time.AfterFunc(a.kind.leave(r), cancel).Stop()
	}
	text := 20 + r.IntN(1500)
	if a.kind.body != nil {
		text = a.kind.body(r)
	}
	path := "/v1/chat/completions"
	if r.IntN(2) == 0 {
		path = "/v1/messages"
	}
	body := bodyOf(a, text)
	a.bodyLen = int64(len(body))

	l.mu.Lock()
	l.hang[a] = cancel
	l.mu.Unlock()
	l.inFlight.Add(1)
	opened := false
	l.clients[a.proxy].send(ctx, a, path, l.customers[a.customer].token, body, func() {
		opened = true
		l.open[a.proxy].Add(1)
		l.served()
	})
	if opened {
		l.open[a.proxy].Add(-1)
	}
	l.inFlight.Add(-1)
	a.abandoned = ctx.Err() != nil
	l.mu.Lock()
	delete(l.hang, a)
	a.done = true
	l.mu.Unlock()
	l.count(a)
}

// count notes how an attempt was answered.
func (l *load) count(a *attempt) {
	key := fmt.Sprint(a.status)
	switch {
	case a.refusal != "" && a.status != http.StatusBadRequest:
		key += " " + a.refusal
	case a.status == 0 && a.abandoned:
		key = "client gone"
	case a.status == 0:
		key = "no answer"
	}
	n, _ := l.statuses.LoadOrStore(key, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

// served notes that an answer begins, and with that how long there was none.
func (l *load) served() {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if gap := now.Sub(l.lastServed); !l.lastServed.IsZero() && gap > l.longest {
		l.longest, l.longestAt = gap, now
	}
	l.lastServed = now
}

// longestGap returns the longest time in which no answer began, and when it ended.
func (l *load) longestGap() (time.Duration, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.longest, l.longestAt
}

// statusLine sums up how requests were answered, in short by the first digit.
func (l *load) statusLine(short bool) string {
	sums := map[string]int64{}
	l.statuses.Range(func(k, n any) bool {
		key := k.(string)
		if short && key[0] >= '2' && key[0] <= '5' {
			key = key[:1] + "xx"
		}
		sums[key] += n.(*atomic.Int64).Load()
		return true
	})
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(sums)) {
		parts = append(parts, fmt.Sprintf("%s: %d", key, sums[key]))
	}
	return strings.Join(parts, ", ")
}

// storm makes a share of all clients hang up at once, and returns how many.
func (l *load) storm(percent int, r *rand.Rand) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*attempt, 0, len(l.hang))
	for a := range l.hang {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *attempt) int { return a.id - b.id })
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	n := len(all) * percent / 100
	for _, a := range all[:n] {
		l.hang[a]()
	}
	return n
}

// hangUp makes all clients hang up.
func (l *load) hangUp() { l.storm(100, rand.New(rand.NewPCG(0, 0))) }

// openStreams returns the streams that are open at one proxy, and at all of them.
func (l *load) openStreams(proxy int) (there, all int) {
	for i := range l.open {
		n := int(l.open[i].Load())
		all += n
		if i == proxy {
			there = n
		}
	}
	return there, all
}

// all returns every attempt so far. Those that are not done must not be read.
func (l *load) all() []*attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.attempts)
}

// close gives the connections back.
func (l *load) close() {
	for _, c := range l.clients {
		c.http.CloseIdleConnections()
	}
}
