package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// faultKind is one way to hurt the system.
type faultKind int

// The faults. Those that kill come first.
const (
	killProxy     faultKind = iota // kill -9 at once
	killProxyAt                    // kill -9 at a commit point
	loseProxy                      // its machine is gone, and Redis has lost its data: no journal comes back
	killWorker                     // kill -9 of a billing-worker
	killWorkerAt                   // kill -9 of a billing-worker at a commit point
	killRedis                      // kill -9, and a start with the same data
	emptyRedis                     // kill -9, and a start without data
	oldRedis                       // kill -9, and a start with an older copy of the data
	killPostgres                   // kill -9 of the server and its sessions
	crashPostgres                  // immediate shutdown
	drainProxy                     // SIGTERM, as in a rollout
	pauseProxy                     // SIGSTOP and SIGCONT
	pauseWorker
	pauseRedis
	pausePostgres
	flushRedis // FLUSHALL
	breakLink
	duplicate  // entries of the usage stream are delivered once more
	abortStorm // many clients hang up at once
	moveLimit  // an operator raises or lowers a monthly limit
	moveSlot   // a customer's counters are moved to another master of the Cluster
	faultKinds
)

func (k faultKind) String() string {
	return [...]string{
		"kill proxy", "kill proxy at a point", "lose proxy", "kill worker", "kill worker at a point",
		"kill Redis", "Redis comes back empty", "Redis comes back old", "kill Postgres", "crash Postgres",
		"drain proxy", "stop and continue proxy", "stop and continue worker", "stop and continue Redis", "stop and continue Postgres",
		"FLUSHALL", "network", "duplicate deliveries", "abort storm", "move a limit", "move a slot",
	}[k]
}

// netFault is one way to break a link.
type netFault int

// The ways to break a link.
const (
	netLatency  netFault = iota
	netCut               // connections end, and none can be made
	netReset             // connections end by RST
	netDeafUp            // what the program sends vanishes
	netDeafDown          // what the program should get vanishes
	netTorn              // connections end after some bytes
	netFaults
)

func (f netFault) String() string {
	return [...]string{"latency", "cut", "reset", "one-way (nothing arrives)", "one-way (nothing returns)", "torn"}[f]
}

// fault is one entry of the plan.
type fault struct {
	at      time.Duration // after the load has begun
	kind    faultKind
	target  int           // which proxy, worker, Redis node or customer
	lasts   time.Duration // until the target is started, continued or mended
	point   string        // where to kill
	nth     int           // at which passage
	atStart bool          // kill it now, and again at the point while it starts
	link    string        // which link
	net     netFault
	millis  int // of latency, or bytes of netTorn
	share   int // percent of the clients, number of entries, percent of the limit, or 1 if (all of) Redis goes
}

func (f fault) String() string {
	s := fmt.Sprintf("%7.2fs  %s", f.at.Seconds(), f.kind)
	switch f.kind {
	case killProxyAt, killWorkerAt:
		when := ""
		if f.atStart {
			when = ", at its start"
		}
		return fmt.Sprintf("%s: number %d, passage %d of %s%s, for %v", s, f.target, f.nth, f.point, when, f.lasts)
	case breakLink:
		return fmt.Sprintf("%s: %s, %s (%d) for %v", s, f.link, f.net, f.millis, f.lasts)
	case duplicate, abortStorm, moveLimit:
		return fmt.Sprintf("%s: %d, %d", s, f.target, f.share)
	case loseProxy:
		return fmt.Sprintf("%s: number %d for %v, with Redis' data: %v", s, f.target, f.lasts, f.share == 1)
	case flushRedis:
		if f.share == 1 {
			return s
		}
		return fmt.Sprintf("%s: number %d", s, f.target)
	case moveSlot:
		return fmt.Sprintf("%s: of customer %d", s, f.target)
	}
	return fmt.Sprintf("%s: number %d for %v", s, f.target, f.lasts)
}

// layout is what the faults of a plan may aim at.
type layout struct {
	proxies, workers, nodes int // nodes of Redis
	limited                 int // customers whose limit is moved
	customers               int
	links                   []string
	proxyPoints             []string // commit points of token-proxy
	workerPoints            []string // and of the billing-worker
}

// weights is how often each fault comes among the others.
var weights = [faultKinds]int{
	killProxy: 14, killProxyAt: 12, loseProxy: 1, killWorker: 5, killWorkerAt: 6,
	killRedis: 4, emptyRedis: 2, oldRedis: 2, killPostgres: 3, crashPostgres: 2,
	drainProxy: 2, pauseProxy: 5, pauseWorker: 2, pauseRedis: 5, pausePostgres: 2,
	flushRedis: 3, breakLink: 12, duplicate: 5, abortStorm: 5, moveLimit: 4, moveSlot: 3,
}

const (
	firstFault = 6 * time.Second // by then the load is there
	// lastFault is how long before the end of the load the last one comes.
	lastFault = 3 * time.Second
	// meanPause is between two faults.
	meanPause = 3 * time.Second
	// recoverPause is what a target is left alone for after a fault.
	recoverPause = 1500 * time.Millisecond
	// refillPause is what a proxy is left alone for after a kill: until it has streams.
	refillPause = 8 * time.Second
)

// planner draws faults so that no target has two at the same time.
type planner struct {
	rng    *rand.Rand
	where  layout
	during time.Duration
	busy   map[string]time.Duration // by target, until when
	deck   []faultKind
}

// makePlan draws the faults of a run. The same arguments give the same plan.
func makePlan(seed uint64, during time.Duration, where layout) []fault {
	p := &planner{rng: rand.New(rand.NewPCG(seed, 0xd1)), where: where, during: during, busy: map[string]time.Duration{}}
	// Each kind once before the weights count, so that a short run has seen most of them.
	for k := range faultKinds {
		p.add(k, 1)
	}
	p.deck = append(p.deck, killProxy, killProxy, killProxyAt, killProxyAt, killWorkerAt)
	p.shuffle()
	var plan []fault
	for at := firstFault; at < during-lastFault; at += p.pause() {
		if f, ok := p.draw(at); ok {
			plan = append(plan, f)
		}
	}
	return plan
}

// add puts a kind into the deck n times, if there can be such a fault.
func (p *planner) add(k faultKind, n int) {
	if k != moveSlot || p.where.nodes > 1 {
		p.deck = append(p.deck, slices.Repeat([]faultKind{k}, n)...)
	}
}

func (p *planner) shuffle() {
	p.rng.Shuffle(len(p.deck), func(i, j int) { p.deck[i], p.deck[j] = p.deck[j], p.deck[i] })
}

func (p *planner) pause() time.Duration {
	d := time.Duration(p.rng.ExpFloat64() * float64(meanPause-500*time.Millisecond))
	return (500*time.Millisecond + min(d, 4*meanPause)).Round(10 * time.Millisecond)
}

// draw takes the first fault of the deck whose target is free.
func (p *planner) draw(at time.Duration) (fault, bool) {
	if len(p.deck) < int(faultKinds)/2 {
		for k, n := range weights {
			p.add(faultKind(k), n)
		}
		p.shuffle()
	}
	for i, k := range p.deck {
		if f, ok := p.aim(k, at); ok {
			p.deck = slices.Delete(p.deck, i, i+1)
			return f, true
		}
	}
	return fault{}, false
}

// between draws a time; one of rare in a hundred is above the grace of 10 s, if the run
// is long enough for that.
func (p *planner) between(low, high time.Duration, rare int) time.Duration {
	d := low + time.Duration(p.rng.Int64N(int64(high-low)))
	if long := p.rng.IntN(100) < rare; long && p.during >= 2*time.Minute {
		d = 11*time.Second + d/4
	}
	return d.Round(10 * time.Millisecond)
}

// take chooses a free one of n targets and keeps it for a while.
func (p *planner) take(class string, n int, at, until time.Duration) (int, bool) {
	var free []int
	for i := range n {
		if p.busy[fmt.Sprint(class, i)] <= at {
			free = append(free, i)
		}
	}
	if len(free) == 0 {
		return 0, false
	}
	i := free[p.rng.IntN(len(free))]
	p.busy[fmt.Sprint(class, i)] = until
	return i, true
}

// free reports whether all n targets of a class are, and keepAll keeps them.
func (p *planner) free(class string, n int, at time.Duration) bool {
	for i := range n {
		if p.busy[fmt.Sprint(class, i)] > at {
			return false
		}
	}
	return true
}

func (p *planner) keepAll(class string, n int, until time.Duration) {
	for i := range n {
		p.busy[fmt.Sprint(class, i)] = until
	}
}

const second = time.Second

// aim makes a fault of a kind, if there is a target for it.
func (p *planner) aim(k faultKind, at time.Duration) (f fault, ok bool) {
	f = fault{at: at, kind: k}
	keep := func(class string, n int, pause time.Duration) {
		f.target, ok = p.take(class, n, at, at+f.lasts+pause)
	}
	switch k {
	case killProxy:
		f.lasts = p.between(200*time.Millisecond, 3*second, 0)
		keep("proxy", p.where.proxies, refillPause)
	case killProxyAt:
		if len(p.where.proxyPoints) == 0 {
			return f, false
		}
		f.lasts = p.between(200*time.Millisecond, 2*second, 0)
		p.aimAtPoint(&f, p.where.proxyPoints)
		keep("proxy", p.where.proxies, refillPause+pointLimit)
	case killWorkerAt:
		if len(p.where.workerPoints) == 0 {
			return f, false
		}
		f.lasts = p.between(200*time.Millisecond, 3*second, 0)
		p.aimAtPoint(&f, p.where.workerPoints)
		keep("worker", p.where.workers, recoverPause+pointLimit)
	case loseProxy:
		f.lasts, f.share = p.between(500*time.Millisecond, 3*second, 0), min(1, p.rng.IntN(3))
		// Whatever else would happen to Redis just then would only blur the bound.
		if !p.free("redis", p.where.nodes, at) || at < 15*second {
			return f, false
		}
		if keep("proxy", p.where.proxies, refillPause); ok {
			p.keepAll("redis", p.where.nodes, at+f.lasts+4*second)
		}
	case drainProxy:
		f.lasts = p.between(100*time.Millisecond, second, 0)
		keep("proxy", p.where.proxies, refillPause)
	case pauseProxy:
		f.lasts = p.between(500*time.Millisecond, 5*second, 12)
		keep("proxy", p.where.proxies, recoverPause)
	case killWorker:
		f.lasts = p.between(200*time.Millisecond, 4*second, 0)
		keep("worker", p.where.workers, recoverPause)
	case pauseWorker:
		f.lasts = p.between(500*time.Millisecond, 8*second, 0)
		if p.rng.IntN(100) < 25 && p.during >= 2*time.Minute {
			f.lasts += 16 * second // longer than another one tries to write what it locked
		}
		keep("worker", p.where.workers, recoverPause)
	case killRedis, pauseRedis:
		f.lasts = p.between(100*time.Millisecond, 4*second, 10)
		keep("redis", p.where.nodes, recoverPause)
	case emptyRedis, oldRedis:
		if k == oldRedis && at < 12*second {
			return f, false // there is no older copy yet
		}
		f.lasts = p.between(100*time.Millisecond, 2*second, 0)
		keep("redis", p.where.nodes, 4*second)
	case flushRedis:
		// Of a Cluster mostly one master.
		if f.share = 1; p.where.nodes > 1 {
			f.share = p.rng.IntN(3)
		}
		if f.share != 1 {
			keep("redis", p.where.nodes, 4*second)
		} else if ok = p.free("redis", p.where.nodes, at); ok {
			p.keepAll("redis", p.where.nodes, at+4*second)
		}
	case moveSlot:
		f.target, ok = p.rng.IntN(p.where.customers), p.free("redis", p.where.nodes, at)
	case killPostgres, crashPostgres, pausePostgres:
		f.lasts = p.between(300*time.Millisecond, 6*second, 5)
		keep("postgres", 1, 2*recoverPause)
	case breakLink:
		f.lasts = p.between(300*time.Millisecond, 5*second, 5)
		var i int
		if i, ok = p.take("link", len(p.where.links), at, at+f.lasts+recoverPause); ok {
			f.link, f.net = p.where.links[i], netFault(p.rng.IntN(int(netFaults)))
			f.millis = []int{5, 50, 300, 1500}[p.rng.IntN(4)]
		}
	case duplicate:
		f.share, ok = 1+p.rng.IntN(30), true
	case abortStorm:
		f.share, ok = 20+p.rng.IntN(70), true
	case moveLimit:
		// Mostly up, or nobody would be served any more.
		f.share = []int{60, 90, 110, 130, 150, 200}[p.rng.IntN(6)]
		keep("limit", p.where.limited, 2*second)
	}
	return f, ok
}

// pointLimit is how long an armed point is waited for.
const pointLimit = 5 * time.Second

func (p *planner) aimAtPoint(f *fault, points []string) {
	f.point = points[p.rng.IntN(len(points))]
	f.nth = 1 + p.rng.IntN(12)
	// Some points are passed at a start only.
	f.atStart = strings.Contains(f.point, ".attach.") || strings.Contains(f.point, ".recover.") || p.rng.IntN(8) == 0
	if f.atStart {
		f.nth = 1 + p.rng.IntN(3)
	}
}
