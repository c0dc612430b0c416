package quota

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

const (
	// recallPause is how long a replica waits before it asks others again for idle tokens
	// of the same account.
	recallPause = 40 * time.Millisecond
	// recallEcho is after how long those who wait are told to look again.
	recallEcho = 10 * time.Millisecond
	// shyFor is how long after it was asked a replica takes nothing spare. Who waits asks
	// again before it is over.
	shyFor = 200 * time.Millisecond
)

// recall asks all replicas for tokens of an account that they do not use. A message that
// is lost is repeated by whoever still waits.
func (l *Leases) recall(k accountKey) {
	ctx, cancel := context.WithTimeout(context.Background(), l.opts.Timeout)
	defer cancel()
	if err := recalls(l.client).Publish(ctx, contract.RecallChannel, k.customer+" "+k.period).Err(); err != nil {
		l.opts.Logger.Warn("cannot ask other replicas for idle tokens", "error", err)
		return
	}
	// Nobody says when they have answered, but it takes them one call.
	if pause(ctx, recallEcho) {
		l.waiters.wake(k.customer)
	}
}

// hearRecalls returns idle tokens when others ask for them.
func (l *Leases) hearRecalls(ctx context.Context) {
	sub := l.client.Subscribe(ctx, contract.RecallChannel)
	defer sub.Close()
	messages := sub.Channel(redis.WithChannelSize(1024))
	for {
		select {
		case <-ctx.Done():
			return
		case m, ok := <-messages:
			if !ok {
				return
			}
			if customer, period, ok := strings.Cut(m.Payload, " "); ok {
				l.surrender(accountKey{customer, period})
			}
		}
	}
}

// surrender returns what is idle of one account. An account that this life does not know
// may still be leased by an earlier one: it is called once.
func (l *Leases) surrender(k accountKey) {
	if l.epoch.Load() <= 0 || l.lost.Load() || !l.caught.Load() {
		return
	}
	unknown := l.find(k) == nil
	if unknown && (l.swept.Load() || !l.recalls.first(k)) {
		return
	}
	a := l.lock(k)
	a.shyUntil = l.now() + shyFor
	switch {
	case len(a.waiting) > 0: // who waits here gives up what is idle by itself
	case a.flight != nil:
		a.recalled = true
		a.mark(true)
	case a.dirty && a.idle() <= 0: // who asks should know what was used
		a.mark(true)
	case unknown || a.idle() > 0:
		f := l.launch(a, true)
		a.mu.Unlock()
		l.send(f)
		return
	}
	a.mu.Unlock()
}

// recalls returns where recalls are published: in a Cluster always at the same master, since a
// message would be passed on by any, also by one that is silent just now.
func recalls(client redis.UniversalClient) redis.Cmdable {
	if master := masterOf(client, contract.RecallChannel); master != nil {
		return master
	}
	return client
}

// recallFilter remembers which unknown accounts were called. The zero value is ready.
type recallFilter struct {
	mu   sync.Mutex
	seen map[accountKey]struct{}
}

const maxRecallFilter = 100_000

func (r *recallFilter) first(k accountKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil || len(r.seen) >= maxRecallFilter {
		r.seen = map[accountKey]struct{}{}
	}
	_, ok := r.seen[k]
	r.seen[k] = struct{}{}
	return !ok
}

// sweepLeftOver returns what earlier lives of this replica leased and did not use, of
// customers that this one may never hear of. It looks through all records, once.
func (l *Leases) sweepLeftOver(ctx context.Context) {
	var mu sync.Mutex
	var in int64
	done := map[string]bool{} // addresses of servers that were looked through in epoch in
	said := false
	for wait := l.opts.FollowEvery; !l.swept.Load(); {
		epoch := l.epoch.Load()
		err := errEpoch
		if epoch > 0 && l.caught.Load() {
			if epoch != in {
				in, wait = epoch, l.opts.FollowEvery
				clear(done)
			}
			err = eachMaster(ctx, l.client, func(ctx context.Context, c *redis.Client) error {
				addr := c.Options().Addr
				mu.Lock()
				looked := done[addr]
				mu.Unlock()
				if looked {
					return nil
				}
				if err := l.sweepServer(ctx, c); err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				done[addr] = true
				return nil
			})
		}
		switch {
		case err == nil && l.epoch.Load() == epoch:
			l.swept.Store(true)
			continue
		case err != nil && !errors.Is(err, errEpoch) && ctx.Err() == nil:
			if !said {
				l.opts.Logger.Warn("cannot look for leases of earlier lives; will retry", "error", err)
				said = true
			}
			wait = min(2*wait, 10*l.opts.FollowEvery)
		}
		if l.hurry.Load() {
			wait = l.opts.FollowEvery
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// sweepServer looks through the records of one Redis server.
func (l *Leases) sweepServer(ctx context.Context, c *redis.Client) error {
	const (
		atOnce = 1000
		rest   = 10 * time.Millisecond // between looks: nobody is in a hurry, and Redis has other work
	)
	field := "l:" + l.journal.Replica()
	for cursor := uint64(0); ; {
		timed, cancel := context.WithTimeout(ctx, l.opts.Timeout)
		keys, next, err := c.Scan(timed, cursor, contract.QuotaPattern, atOnce).Result()
		leases := make([]*redis.StringCmd, len(keys))
		if err == nil && len(keys) > 0 {
			_, err = c.Pipelined(timed, func(p redis.Pipeliner) error {
				for i, key := range keys {
					leases[i] = p.HGet(timed, key, field)
				}
				return nil
			})
		}
		cancel()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		for i, key := range keys {
			if n, err := leases[i].Int64(); err == nil && n > 0 {
				if customer, period, ok := contract.ParseQuotaKey(key); ok {
					l.leftOver(accountKey{customer, period})
				}
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
		if !l.hurry.Load() && !pause(ctx, rest) {
			return ctx.Err()
		}
	}
}

// leftOver has an account called, unless this life has called it.
func (l *Leases) leftOver(k accountKey) {
	a := l.lock(k)
	if a.answeredAt == 0 {
		a.mark(true)
	}
	a.mu.Unlock()
}
