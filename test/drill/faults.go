package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/proxy/journal"
)

// injector plays a plan. Whatever a fault changed it changes back, also when it is told
// to stop.
type injector struct {
	sys   *system
	load  *load
	watch *watcher
	say   func(format string, args ...any)
	rng   *rand.Rand // guarded by mu

	turns map[string]*sync.Mutex // one fault at a time on a target; guarded by mu

	mu      sync.Mutex
	counts  map[string]int // faults done, by name
	kills   []kill
	crashes []string
	lost    map[string]bool // see facts.lost
	bounds  []string        // what was lost with a journal, beside the bound that was stated
	armed   map[*program]bool
}

func newInjector(sys *system, l *load, w *watcher, seed uint64, say func(string, ...any)) *injector {
	return &injector{
		sys: sys, load: l, watch: w, say: say, rng: rand.New(rand.NewPCG(seed, 0xfa)),
		turns: map[string]*sync.Mutex{}, counts: map[string]int{}, lost: map[string]bool{}, armed: map[*program]bool{},
	}
}

// play applies the faults of a plan at their times, until ctx ends. It returns when all
// of them are over.
func (in *injector) play(ctx context.Context, plan []fault) {
	begin := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() { in.supervise(ctx) })
	for _, f := range plan {
		if pause(ctx, f.at-time.Since(begin)); ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			if err := in.apply(ctx, f); err != nil && ctx.Err() == nil {
				in.say("%s: %v", f, err)
			}
		})
	}
	<-ctx.Done()
	wg.Wait()
}

// turn waits until no other fault is at work on a target.
func (in *injector) turn(target string) (release func()) {
	in.mu.Lock()
	m := in.turns[target]
	if m == nil {
		m = &sync.Mutex{}
		in.turns[target] = m
	}
	in.mu.Unlock()
	m.Lock()
	return m.Unlock
}

// turnOfRedis waits until no other fault is at work on any of Redis' servers.
func (in *injector) turnOfRedis() (release func()) {
	var all []func()
	for _, n := range in.sys.redis.nodes {
		all = append(all, in.turn(n.name))
	}
	return func() {
		for _, release := range all {
			release()
		}
	}
}

func (in *injector) count(name string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.counts[name]++
}

func (in *injector) blame(format string, args ...any) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.crashes = append(in.crashes, fmt.Sprintf(format, args...))
}

// supervise starts what has ended by itself again, and blames it, until ctx ends.
func (in *injector) supervise(ctx context.Context) {
	for ctx.Err() == nil {
		for i, p := range in.sys.workers {
			in.lookAfter(p, killWorkerAt, i)
		}
		for i, p := range in.sys.proxies {
			in.lookAfter(p, killProxyAt, i)
		}
		pause(ctx, 200*time.Millisecond)
	}
}

func (in *injector) lookAfter(p *program, kind faultKind, i int) {
	in.mu.Lock()
	armed := in.armed[p]
	in.mu.Unlock()
	proc := p.running()
	if armed || !proc.byItself() {
		return
	}
	if point := disarm(p.arming); point != "" {
		proc.forgive()
		in.noteKill(kind, point, i) // it was faster than the order to disarm
	} else {
		in.blame("%s ended by itself: %v; see %s", p.name, proc.err, filepath.Base(p.spec.log))
	}
	if err := p.start(); err != nil {
		in.say("%v", err)
	}
}

func (in *injector) apply(ctx context.Context, f fault) error {
	switch f.kind {
	case killProxy, killWorker, drainProxy, pauseProxy, pauseWorker, killProxyAt, killWorkerAt:
		p := in.sys.workers
		if f.kind == killProxy || f.kind == drainProxy || f.kind == pauseProxy || f.kind == killProxyAt {
			p = in.sys.proxies
		}
		return in.hurt(ctx, p[f.target], f)
	case loseProxy:
		return in.lose(ctx, in.sys.proxies[f.target], f)
	case killRedis, emptyRedis, oldRedis, pauseRedis:
		return in.hurtRedis(ctx, in.sys.redis.nodes[f.target], f)
	case flushRedis:
		return in.flush(f)
	case moveSlot:
		defer in.turnOfRedis()()
		in.count(f.kind.String())
		c := in.load.customers[f.target]
		return in.sys.redis.moveSlot(contract.QuotaKey(c.id, in.watch.periods[f.target]))
	case killPostgres, crashPostgres, pausePostgres:
		return in.hurtPostgres(ctx, f)
	case breakLink:
		return in.breakLink(ctx, f)
	case duplicate:
		return in.duplicate(ctx, f.share)
	case abortStorm:
		in.mu.Lock()
		r := rand.New(rand.NewPCG(in.rng.Uint64(), 0))
		in.mu.Unlock()
		in.say("%d clients hang up", in.load.storm(f.share, r))
		in.count(f.kind.String())
		return nil
	case moveLimit:
		return in.moveLimit(ctx, f)
	}
	return fmt.Errorf("BUG: no such fault: %d", f.kind)
}

// hurt does something to a token-proxy or a billing-worker.
func (in *injector) hurt(ctx context.Context, p *program, f fault) error {
	defer in.turn(p.name)()
	if ctx.Err() != nil {
		return nil
	}
	proc := p.running()
	switch f.kind {
	case killProxy, killWorker:
		in.noteKill(f.kind, "", f.target)
		proc.kill()
	case killProxyAt, killWorkerAt:
		if err := in.killAtPoint(ctx, p, f); err != nil {
			return err
		}
	case drainProxy:
		if err := proc.stop(syscall.SIGTERM, time.Minute); err != nil {
			in.say("%s drained: %v", p.name, err) // Redis may be away
		}
	case pauseProxy, pauseWorker:
		proc.freeze()
		defer proc.thaw()
	}
	in.count(f.kind.String())
	pause(ctx, f.lasts)
	if f.kind == pauseProxy || f.kind == pauseWorker {
		return nil
	}
	return p.start()
}

// killAtPoint arms a commit point and waits for the process to die there. Whether it
// comes there in time is not ours to say.
func (in *injector) killAtPoint(ctx context.Context, p *program, f fault) error {
	in.mu.Lock()
	in.armed[p] = true
	in.mu.Unlock()
	defer func() {
		in.mu.Lock()
		in.armed[p] = false
		in.mu.Unlock()
	}()
	if f.atStart {
		if f.kind == killProxyAt {
			in.noteKill(killProxy, "", f.target)
		} else {
			in.noteKill(killWorker, "", f.target)
		}
		p.running().kill()
	}
	if err := arm(p.arming, f.point, f.nth); err != nil {
		return err
	}
	if f.atStart {
		if err := p.start(); err != nil {
			return errors.Join(err, os.Remove(p.arming))
		}
	}
	proc := p.running()
	select {
	case <-proc.done:
	case <-ctx.Done():
	case <-time.After(pointLimit):
	}
	point := disarm(p.arming)
	switch {
	case point != "":
		proc.forgive()
		in.noteKill(f.kind, point, f.target)
	case proc.byItself():
		in.blame("%s ended by itself, armed for %s: %v; see %s", p.name, f.point, proc.err, filepath.Base(p.spec.log))
	default:
		in.count("armed, but not passed in time")
	}
	return nil
}

// lose takes a proxy's machine away for good, and Redis' data at the same moment or not.
// Then what its journal held may be lost, and no more than that.
func (in *injector) lose(ctx context.Context, p *program, f fault) error {
	defer in.turn(p.name)()
	defer in.turnOfRedis()()
	if ctx.Err() != nil {
		return nil
	}
	stated := in.stated(p)
	in.noteKill(f.kind, "", f.target)
	p.running().kill()
	name := f.kind.String()
	var flushed error
	if f.share == 1 {
		in.watch.lossOfRedis()
		flushed = flushAll(in.sys.redis.nodes)
		name += " and Redis"
	}
	in.count(name)
	held, err := journal.Salvage(filepath.Join(p.journal, "journal"))
	if err != nil {
		return err
	}
	in.mu.Lock()
	for _, e := range append(held.Events, held.Open...) {
		in.lost[e.RequestID] = true
		in.lost[modelKey(e.CustomerID, e.ModelAsked)] = true
	}
	in.bounds = append(in.bounds, fmt.Sprintf("%s (%s): its metrics stated %s; its journal held %d events and %d open requests", p.name, name, stated, len(held.Events), len(held.Open)))
	in.mu.Unlock()
	in.watch.shutOut(held.Replica)
	if err := errors.Join(flushed, os.RemoveAll(p.journal)); err != nil {
		return err
	}
	pause(ctx, f.lasts)
	if err := p.start(); err != nil {
		return err
	}
	// A replica that never shipped anything may not be known, and Postgres may be away.
	err = poll(30*time.Second, func() error {
		return in.sys.ctl(context.WithoutCancel(ctx), nil, "ledger", "declare-lost", held.Replica, "--reason", "drill: the machine is gone")
	})
	if err != nil {
		in.blame("declare-lost %s of %s: %v", held.Replica, p.name, err)
	}
	return nil
}

// stated is the bound of a loss that a proxy's metrics state.
func (in *injector) stated(p *program) string {
	m, err := p.metrics("token_proxy_usage_events_unacknowledged", "token_proxy_journal_open")
	if err != nil {
		return "nothing (" + err.Error() + ")"
	}
	return fmt.Sprintf("%.0f events and %.0f open requests", m[0], m[1])
}

// metrics asks a proxy for some of its gauges.
func (p *program) metrics(names ...string) ([]float64, error) {
	resp, err := probing.Get(p.admin + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(names))
	for i, name := range names {
		_, rest, ok := strings.Cut(string(text), "\n"+name+" ")
		if !ok {
			return nil, fmt.Errorf("%s has no metric %s", p.name, name)
		}
		value, _, _ := strings.Cut(rest, "\n")
		if out[i], err = strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (in *injector) hurtRedis(ctx context.Context, n *redisNode, f fault) error {
	defer in.turn(n.name)()
	if ctx.Err() != nil {
		return nil
	}
	if f.kind == pauseRedis {
		in.count(f.kind.String())
		n.freeze()
		defer n.thaw()
		pause(ctx, f.lasts)
		return nil
	}
	in.noteKill(f.kind, "", f.target)
	n.down()
	var err error
	switch f.kind {
	case emptyRedis:
		in.watch.lossOfRedis()
		err = n.wipe()
	case oldRedis:
		in.watch.lossOfRedis()
		if err = n.restore(); errors.Is(err, errNoCopy) {
			err = n.wipe()
		}
	}
	in.count(f.kind.String())
	pause(ctx, f.lasts)
	err = errors.Join(err, in.sys.redis.start(n))
	if f.kind != killRedis {
		in.watch.lossOfRedis()
	}
	return err
}

// flush removes the data of all of Redis, or of one server of a Cluster.
func (in *injector) flush(f fault) error {
	name, nodes := f.kind.String(), in.sys.redis.nodes
	if f.share == 1 {
		defer in.turnOfRedis()()
	} else {
		nodes = nodes[f.target : f.target+1]
		defer in.turn(nodes[0].name)()
		name += " of one master"
	}
	in.watch.lossOfRedis()
	in.count(name)
	return flushAll(nodes)
}

func (in *injector) hurtPostgres(ctx context.Context, f fault) error {
	defer in.turn("postgres")()
	if ctx.Err() != nil {
		return nil
	}
	in.count(f.kind.String())
	pg := in.sys.postgres
	switch f.kind {
	case pausePostgres:
		defer pg.thaw()
		if err := pg.freeze(); err != nil {
			return err
		}
		pause(ctx, f.lasts)
		return nil
	case killPostgres:
		in.noteKill(f.kind, "", 0)
		pg.kill9()
	case crashPostgres:
		in.noteKill(f.kind, "", 0)
		pg.crash()
	}
	pause(ctx, f.lasts)
	return pg.start()
}

func (in *injector) breakLink(ctx context.Context, f fault) error {
	defer in.turn(f.link)()
	if ctx.Err() != nil {
		return nil
	}
	k := in.sys.links.named(f.link)
	err := k.damage(f.net, f.millis)
	in.count(fmt.Sprintf("%s: %s", f.kind, f.net))
	pause(ctx, f.lasts)
	return errors.Join(err, k.heal())
}

// duplicate delivers entries of the usage stream once more, some of them long after
// they were recorded.
func (in *injector) duplicate(ctx context.Context, n int) error {
	in.mu.Lock()
	r := rand.New(rand.NewPCG(in.rng.Uint64(), 0))
	in.mu.Unlock()
	batches := in.watch.repeatable(n, func(n int) int {
		if r.IntN(2) == 0 {
			return max(0, n-1-r.IntN(10)) // of just now
		}
		return r.IntN(n)
	})
	for _, b := range batches {
		err := in.sys.redis.client.XAdd(ctx, &redis.XAddArgs{Stream: contract.UsageStreamKey, Values: []any{contract.UsageField, b}}).Err()
		if err != nil {
			return fmt.Errorf("deliver a batch again: %w", err)
		}
		in.count("batches delivered again")
	}
	in.count(duplicate.String())
	return nil
}

func (in *injector) moveLimit(ctx context.Context, f fault) error {
	defer in.turn(fmt.Sprint("limit", f.target))()
	c := in.watch.ceilings[f.target]
	c.mu.Lock()
	before := c.limit
	c.mu.Unlock()
	limit := before * int64(f.share) / 100
	if limit > before {
		c.raise(limit)
	}
	// Not cut off by the end of the run: then nobody would know what the limit is.
	err := in.sys.ctl(context.WithoutCancel(ctx), nil, "quota", "set", "--customer", in.load.customers[f.target].id, "--limit", fmt.Sprint(limit))
	if err != nil {
		return err // it may be set or not; what was allowed stays so
	}
	if limit < before {
		c.lower(limit)
	}
	in.count(f.kind.String())
	return nil
}
