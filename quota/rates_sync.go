package quota

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// rateScript tells Redis the demand of one replica for one customer and answers its
// share of the rate: in proportion to demand, but never more than what no other
// replica holds. A replica that was not heard for ARGV[4] holds nothing any more.
//
//	KEYS[1] RateKey  hash: replica → "demand share time", per second and ms
//	ARGV: replica, demand, rate, ms until an entry is void
//	answer: {share as decimal string, replicas}
const rateScript = `
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local me, demand, rate, void = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local total, taken, replicas = demand, 0, 1
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] ~= me then
    local d, s, t = string.match(all[i+1], '^(%S+) (%S+) (%S+)$')
    if math.abs(now - tonumber(t)) > void then
      redis.call('HDEL', KEYS[1], all[i])
    else
      total, taken, replicas = total + tonumber(d), taken + tonumber(s), replicas + 1
    end
  end
end
local share = math.max(math.min(rate * demand / total, rate - taken), 0)
redis.call('HSET', KEYS[1], me, string.format('%.6f %.6f %.0f', demand, share, now))
redis.call('PEXPIRE', KEYS[1], 10 * void)
return {string.format('%.6f', share), replicas}
`

const (
	// demandWeight is how much of the smoothed demand the last interval makes up.
	demandWeight = 0.5
	// idleAfter is after how long without a request a customer leaves although its
	// bucket is not full: as one of many it might never fill.
	idleAfter = 5 * time.Second
	// evictAfter is after how long without a request, at least, a bucket is forgotten.
	// It comes back full, so this must be longer than the 10 s of the promise.
	evictAfter    = time.Minute
	evictInterval = 15 * time.Second
	// maxPerPipeline bounds what one round trip carries.
	maxPerPipeline = 256
)

// void is after how long without news a replica's share is given to others. It is
// several intervals, so that a slow sync is not taken for a death.
func (r *Rates) void() time.Duration { return max(5*r.opts.SyncInterval, time.Second) }

// run syncs what has joined at once, all contended customers every SyncInterval, and
// forgets idle ones.
func (r *Rates) run(ctx context.Context) {
	defer close(r.stopped)
	tick := time.NewTicker(r.opts.SyncInterval)
	defer tick.Stop()
	evict := time.NewTicker(evictInterval)
	defer evict.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-evict.C:
			r.evict(r.opts.Now())
		case <-r.kick:
			r.mu.Lock()
			joined := r.take()
			r.mu.Unlock()
			r.sync(ctx, joined)
		case <-tick.C:
			r.mu.Lock()
			r.take()
			all := make([]*bucket, 0, len(r.contended))
			for b := range r.contended {
				all = append(all, b)
			}
			r.mu.Unlock()
			r.sync(ctx, r.dropSated(ctx, all))
		}
	}
}

// dropSated lets those buckets go that are full again or idle, and returns the rest.
func (r *Rates) dropSated(ctx context.Context, all []*bucket) []*bucket {
	now := r.opts.Now()
	stay := all[:0]
	var gone []string
	for _, b := range all {
		b.mu.Lock()
		at := b.advance(now)
		// While Redis is away a share that was given up would not come back.
		full := b.lost.IsZero() && b.limiter.TokensAt(at) >= float64(b.rate.Burst)
		if full || at.Sub(b.used) >= idleAfter {
			// No refill from here on, and only then is the share given back.
			b.setRefill(0, at)
			b.contended, b.synced, b.lost = false, false, time.Time{}
			b.demand, b.offered = 0, 0
			gone = append(gone, b.customer)
			r.mu.Lock()
			delete(r.contended, b)
			r.mu.Unlock()
		} else {
			stay = append(stay, b)
		}
		b.mu.Unlock()
	}
	if err := r.leave(ctx, gone); err != nil && ctx.Err() == nil {
		// The entries expire by themselves; until then others get less.
		r.opts.Logger.Debug("rate shares were not given back", "customers", len(gone), "error", err)
	}
	return stay
}

// leave removes this replica from the customers' hashes.
func (r *Rates) leave(ctx context.Context, customers []string) error {
	var errs []error
	for some := range slices.Chunk(customers, maxPerPipeline) {
		timed, cancel := context.WithTimeout(ctx, r.timeout())
		keys, gone := make([]string, len(some)), make([]*redis.IntCmd, len(some))
		for i, c := range some {
			keys[i] = contract.RateKey(c)
		}
		perServer(timed, r.client, keys, func(c redis.Cmdable, i int) redis.Cmder {
			gone[i] = c.HDel(timed, keys[i], r.opts.Replica)
			return gone[i]
		})
		cancel()
		if i := slices.IndexFunc(gone, func(cmd *redis.IntCmd) bool { return cmd.Err() != nil }); i >= 0 {
			errs = append(errs, gone[i].Err()) // one of many that are alike
		}
	}
	return errors.Join(errs...)
}

func (r *Rates) timeout() time.Duration { return max(r.opts.SyncInterval, DefaultTimeout) }

// sync reports the demand of each bucket and takes up its share.
func (r *Rates) sync(ctx context.Context, all []*bucket) {
	for len(all) > 0 && ctx.Err() == nil {
		n := min(len(all), maxPerPipeline)
		sent := r.opts.Now()
		failed := r.syncSome(ctx, sent, all[:n])
		switch {
		case len(failed) < n:
			r.lost = time.Time{}
		case r.lost.IsZero():
			r.lost = sent
		}
		if len(failed) == n {
			failed, n = all, len(all) // the rest would fail as well, after as many timeouts
		}
		r.withoutRedis(failed, sent)
		all = all[n:]
	}
}

// syncSome returns those for which Redis did not answer. In a Redis Cluster some
// customers' master may be away and the others' not.
func (r *Rates) syncSome(ctx context.Context, sent time.Time, some []*bucket) (failed []*bucket) {
	timed, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	keys := make([]string, len(some))
	args := make([][]any, len(some))
	for i, b := range some {
		b.mu.Lock()
		b.measure(b.advance(sent), r.opts.SyncInterval)
		args[i] = []any{r.opts.Replica, decimal(b.demand), decimal(b.rate.PerSecond), r.void().Milliseconds()}
		b.mu.Unlock()
		keys[i] = contract.RateKey(b.customer)
	}
	calls := runAll(timed, r.client, r.script, keys, args)
	for i, b := range some {
		share, peers, err := readShare(calls[i])
		if err != nil {
			failed = append(failed, b)
			continue
		}
		b.mu.Lock()
		b.synced, b.peers, b.lost = true, peers, time.Time{}
		b.setRefill(min(share, b.rate.PerSecond), b.advance(r.opts.Now()))
		b.mu.Unlock()
	}
	return failed
}

// withoutRedis keeps the last shares during the grace. Afterwards it gives each bucket
// a part of the rate that is safe with as many replicas as there may be: never the
// whole rate, and never nothing for ever.
func (r *Rates) withoutRedis(all []*bucket, sent time.Time) {
	now := r.opts.Now()
	for _, b := range all {
		b.mu.Lock()
		if b.lost.IsZero() {
			b.lost = sent
			if !r.lost.IsZero() && r.lost.Before(sent) {
				b.lost = r.lost
			}
		}
		if now.Sub(b.lost) < r.opts.Grace {
			b.mu.Unlock()
			continue
		}
		b.setRefill(b.rate.PerSecond/float64(max(b.peers, r.opts.Replicas)), b.advance(now))
		b.mu.Unlock()
	}
}

// measure folds the requests since the last sync into the demand. Before the first
// sync it takes them as those of one whole interval, so that a newcomer starts small.
func (b *bucket) measure(now time.Time, interval time.Duration) {
	elapsed := max(now.Sub(b.measured), interval/2)
	if !b.synced {
		elapsed = max(elapsed, interval)
	}
	recent := float64(b.offered) / elapsed.Seconds()
	if b.demand == 0 {
		b.demand = recent
	} else {
		b.demand += demandWeight * (recent - b.demand)
	}
	// Whoever is here has used half a bucket: not nothing.
	b.demand = max(b.demand, b.rate.PerSecond/100)
	b.offered, b.measured = 0, now
}

// evict forgets customers that are not contended and long idle.
func (r *Rates) evict(now time.Time) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for c, b := range s.by {
			b.mu.Lock()
			refilled := time.Duration(min(float64(b.rate.Burst)/b.rate.PerSecond, 3600) * float64(time.Second))
			if !b.contended && now.Sub(b.used) >= max(evictAfter, refilled) {
				b.evicted = true
				delete(s.by, c)
			}
			b.mu.Unlock()
		}
		s.mu.Unlock()
	}
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', 6, 64) }

func readShare(call *redis.Cmd) (share float64, peers int, err error) {
	reply, err := call.Slice()
	if err != nil {
		return 0, 0, err
	}
	if len(reply) != 2 {
		return 0, 0, errors.New("rate script: unexpected answer")
	}
	text, _ := reply[0].(string)
	n, _ := reply[1].(int64)
	if share, err = strconv.ParseFloat(text, 64); err != nil {
		return 0, 0, err
	}
	return share, int(n), nil
}
