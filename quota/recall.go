package quota

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// recallPause is how long a replica waits before it asks others again for idle tokens of the
// same account.
const recallPause = 40 * time.Millisecond

// recall asks all replicas for tokens of an account that they do not use. A message that
// is lost is repeated by whoever still waits.
func (l *Leases) recall(k accountKey) {
	ctx, cancel := context.WithTimeout(context.Background(), l.opts.Timeout)
	defer cancel()
	if err := l.client.Publish(ctx, contract.RecallChannel, k.customer+" "+k.period).Err(); err != nil {
		l.opts.Logger.Warn("cannot ask other replicas for idle tokens", "error", err)
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
	if l.find(k) == nil && (l.journal.Life() <= 1 || !l.recalls.first(k)) {
		return
	}
	a := l.lock(k)
	// Who waits here has asked for all of it already.
	if a.flight != nil || len(a.waiting) > 0 || a.calls > 0 && a.idle() == 0 {
		a.mu.Unlock()
		return
	}
	f := l.launch(a, true)
	a.mu.Unlock()
	go l.fly(f)
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
