package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// ceiling is how much a customer may have settled, as far as can be seen from outside.
type ceiling struct {
	mu      sync.Mutex
	limit   int64 // what was set last
	allowed int64 // limit, or what was settled and held when the limit was lowered
	lowered bool  // allowed is not yet known for the present limit
	moved   int   // how often

	overBy    int64
	overAt    time.Time
	overWhere string
}

// raise is called before a limit is raised, lower after one was lowered.
func (c *ceiling) raise(limit int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit, c.allowed, c.lowered = limit, max(c.allowed, limit), false
	c.moved++
}

func (c *ceiling) lower(limit int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit, c.lowered = limit, true
	c.moved++
}

// see is told of a customer's record in Redis, or of Postgres' total. With trusted the
// record is one that was not rebuilt lately, so that it holds all that is held.
func (c *ceiling) see(where string, limit, settled, held int64, trusted bool, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lowered && trusted && limit == c.limit {
		c.allowed, c.lowered = min(c.allowed, max(limit, settled+held)), false
	}
	if over := settled - c.allowed; over > c.overBy {
		c.overBy, c.overAt, c.overWhere = over, at, where
	}
}

// watcher looks at the running system from outside, all the time.
type watcher struct {
	sys      *system
	load     *load
	ceilings []*ceiling
	periods  []string // by customer

	samples   atomic.Int64 // looks at Redis that were answered
	disturbed atomic.Int64 // when Redis last lost something, in Unix ns

	mu      sync.Mutex
	batches []string        // lately on the usage stream, as they were
	seen    map[string]bool // their ids
	shut    map[string]bool // replicas that were declared lost: nothing of theirs may come again
	streams []int64         // open a moment ago, by proxy

	conn *pgx.Conn // of the goroutine that reads Postgres
}

const (
	// keptBatches is how many entries of the stream are remembered.
	keptBatches = 2000
	// untrusted is how long after a loss a record in Redis may lack what is held.
	untrusted = 20 * time.Second
)

// newWatcher reads which periods the customers have.
func newWatcher(ctx context.Context, sys *system, l *load, limits []int64) (*watcher, error) {
	w := &watcher{
		sys: sys, load: l, periods: make([]string, len(limits)),
		seen: map[string]bool{}, shut: map[string]bool{}, streams: make([]int64, len(l.clients)),
	}
	for _, limit := range limits {
		w.ceilings = append(w.ceilings, &ceiling{limit: limit, allowed: limit})
	}
	periods, err := w.readPeriods(ctx)
	if err != nil {
		return nil, err
	}
	for i, c := range l.customers {
		p, ok := periods[c.id]
		if !ok {
			return nil, fmt.Errorf("customer %s has no period", c.id)
		}
		w.periods[i] = p.id
	}
	return w, nil
}

// run watches until ctx ends.
func (w *watcher) run(ctx context.Context) {
	var wg sync.WaitGroup
	every := func(d time.Duration, do func()) {
		wg.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for ctx.Err() == nil {
				do()
				select {
				case <-ctx.Done():
				case <-tick.C:
				}
			}
		})
	}
	every(250*time.Millisecond, func() { w.lookAtRedis(ctx) })
	every(500*time.Millisecond, func() { w.lookAtPostgres(ctx) })
	every(50*time.Millisecond, w.lookAtStreams)
	every(80*time.Millisecond, func() { w.rememberBatches(ctx) })
	every(10*time.Second, func() {
		for _, n := range w.sys.redis.nodes {
			_ = n.save() // the next one will do
		}
	})
	for i, p := range w.sys.proxies {
		every(250*time.Millisecond, func() { w.load.ready[i].Store(p.ready() == nil) })
	}
	wg.Wait()
	if w.conn != nil {
		_ = w.conn.Close(context.Background())
		w.conn = nil
	}
}

// record is what Redis says of a customer.
type record struct {
	err                  error // why it says nothing
	there                bool
	limit, settled, held int64
}

// readRecords reads the record of every customer.
func (w *watcher) readRecords(ctx context.Context) ([]record, error) {
	records := w.lookUp(ctx)
	for _, r := range records {
		if r.err != nil {
			return nil, fmt.Errorf("read the counters in Redis: %w", r.err)
		}
	}
	return records, nil
}

// lookUp reads the record of every customer as far as Redis answers: of a Cluster a part may
// be down.
func (w *watcher) lookUp(ctx context.Context) []record {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	byServer := map[redis.Cmdable][]int{}
	for i, c := range w.load.customers {
		server := redis.Cmdable(w.sys.redis.client)
		if cluster, ok := w.sys.redis.client.(*redis.ClusterClient); ok {
			if master, err := cluster.MasterForKey(ctx, contract.QuotaKey(c.id, w.periods[i])); err == nil {
				server = master
			}
		}
		byServer[server] = append(byServer[server], i)
	}
	out := make([]record, len(w.periods))
	var all sync.WaitGroup
	for server, which := range byServer {
		all.Go(func() {
			replies := make([]*redis.SliceCmd, len(which))
			ask := func(c redis.Cmdable, n int) *redis.SliceCmd {
				// What is held is named held or leased, by the version of the ledger.
				return c.HMGet(ctx, contract.QuotaKey(w.load.customers[which[n]].id, w.periods[which[n]]), "limit", "settled", "held", "leased")
			}
			_, _ = server.Pipelined(ctx, func(p redis.Pipeliner) error { // each reply has its error
				for n := range which {
					replies[n] = ask(p, n)
				}
				return nil
			})
			for n, i := range which {
				if redis.HasErrorPrefix(replies[n].Err(), "MOVED") || redis.HasErrorPrefix(replies[n].Err(), "ASK") {
					replies[n] = ask(w.sys.redis.client, n)
				}
				out[i] = recordOf(replies[n])
			}
		})
	}
	all.Wait()
	return out
}

func recordOf(r *redis.SliceCmd) (out record) {
	out.err = r.Err()
	var n [4]int64
	for k, v := range r.Val() {
		if text, ok := v.(string); ok {
			out.there = true
			n[k], _ = strconv.ParseInt(text, 10, 64)
		}
	}
	out.limit, out.settled, out.held = n[0], n[1], n[2]+n[3]
	return out
}

func (w *watcher) lookAtRedis(ctx context.Context) {
	at := time.Now()
	records := w.lookUp(ctx)
	if slices.ContainsFunc(records, func(r record) bool { return r.err == nil }) {
		w.samples.Add(1)
	} // else it is down, or frozen
	trusted := at.Sub(time.Unix(0, w.disturbed.Load())) > untrusted
	for i, r := range records {
		if r.err == nil && r.there {
			w.ceilings[i].see("Redis", r.limit, r.settled, r.held, trusted, at)
		}
	}
}

// period is what Postgres says of a customer.
type period struct {
	id                       string
	limit, settled, requests int64
}

// readPeriods reads the totals of every customer from Postgres. Only one goroutine may
// call it at a time.
func (w *watcher) readPeriods(ctx context.Context) (map[string]period, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out := map[string]period{}
	err := w.query(ctx, "SELECT customer_id, period_id, coalesce(limit_tokens, 0), settled_tokens, requests FROM usage_periods", func(rows pgx.Rows) error {
		var c string
		var p period
		if err := rows.Scan(&c, &p.id, &p.limit, &p.settled, &p.requests); err != nil {
			return err
		}
		out[c] = p
		return nil
	})
	return out, err
}

// query runs a statement on the watcher's own connection and calls each for every row.
func (w *watcher) query(ctx context.Context, statement string, each func(pgx.Rows) error) (err error) {
	defer func() {
		if err != nil && w.conn != nil {
			_ = w.conn.Close(context.Background())
			w.conn = nil
		}
		if err != nil {
			err = fmt.Errorf("read the books in Postgres: %w", err)
		}
	}()
	if w.conn == nil {
		if w.conn, err = pgx.Connect(ctx, w.sys.postgres.url(w.sys.postgres.port)); err != nil {
			return err
		}
	}
	rows, err := w.conn.Query(ctx, statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (w *watcher) lookAtPostgres(ctx context.Context) {
	at := time.Now()
	periods, err := w.readPeriods(ctx)
	if err != nil {
		return
	}
	for i, c := range w.load.customers {
		if p, ok := periods[c.id]; ok {
			w.ceilings[i].see("Postgres", -1, p.settled, 0, false, at)
		}
	}
}

func (w *watcher) lookAtStreams() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.streams {
		w.streams[i] = w.load.open[i].Load()
	}
}

// lately returns the streams that were open at a proxy and at all, up to 50 ms ago.
func (w *watcher) lately(proxy int) (there, all int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, n := range w.streams {
		all += int(n)
		if i == proxy {
			there = int(n)
		}
	}
	return there, all
}

// rememberBatches keeps what stands on the usage stream just now.
func (w *watcher) rememberBatches(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, directTimeout)
	defer cancel()
	entries, err := w.sys.redis.client.XRevRangeN(ctx, contract.UsageStreamKey, "+", "-", 20).Result()
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range entries {
		b, ok := e.Values[contract.UsageField].(string)
		if !ok || w.seen[e.ID] {
			continue
		}
		w.seen[e.ID] = true
		if w.batches = append(w.batches, b); len(w.batches) > keptBatches {
			w.batches = w.batches[1:]
		}
	}
}

// repeatable returns some of the remembered batches, at most n, new and old.
func (w *watcher) repeatable(n int, choose func(int) int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for range n {
		if len(w.batches) == 0 {
			break
		}
		b := w.batches[choose(len(w.batches))]
		if raw, err := contract.DecodeBatch([]byte(b)); err == nil && !w.shut[raw.Replica] {
			out = append(out, b)
		}
	}
	return out
}

// shutOut says that a replica was declared lost.
func (w *watcher) shutOut(replica string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shut[replica] = true
}

// lossOfRedis says that Redis loses something now.
func (w *watcher) lossOfRedis() { w.disturbed.Store(time.Now().UnixNano()) }
