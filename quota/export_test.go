package quota

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// Abandon queues what Reserve queues when its answer was lost.
func Abandon(l *RedisLedger, h Hold) { l.writer.add(h, opAbandon, 0) }

// ReserveAs runs the reservation script with an id of the test's choice.
func ReserveAs(ctx context.Context, client redis.UniversalClient, acct Account, id string, tokens int64) ([]int64, error) {
	return redis.NewScript(reserveScript).Run(ctx, client, accountKeys(acct.Customer, acct.Period.ID),
		id, tokens, acct.Limit, acct.LimitVersion, DefaultHoldTTL.Milliseconds(), periodEnd(acct)).Int64Slice()
}

// Waiters returns how many channels l keeps.
func Waiters(l *RedisLedger) int {
	l.waiters.mu.Lock()
	defer l.waiters.mu.Unlock()
	return len(l.waiters.by)
}

// Evict runs what the loop runs now and then.
func Evict(r *Rates, now time.Time) { r.evict(now) }
