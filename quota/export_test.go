package quota

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Evict runs what the loop runs now and then.
func Evict(r *Rates, now time.Time) { r.evict(now) }

// MaxBatch is how many settlements one call carries.
const MaxBatch = maxBatch

// Kill ends l as a SIGKILL would: nothing is settled or returned. Calls that are on their
// way may still reach Redis.
func Kill(l *Leases) {
	l.spawning.Lock()
	l.closed = true
	l.spawning.Unlock()
	l.stop()
	l.done.Wait()
}

// Surrender makes l hear a recall.
func Surrender(l *Leases, customer, period string) { l.surrender(accountKey{customer, period}) }

// Waiters returns how many channels l keeps.
func Waiters(l *Leases) int {
	l.waiters.mu.Lock()
	defer l.waiters.mu.Unlock()
	return len(l.waiters.by)
}

// CheckLeases compares what l believes with the records: each must lease at least what l
// holds, has not settled and may give out.
func CheckLeases(ctx context.Context, l *Leases, client redis.UniversalClient) (err error) {
	l.each(func(a *account) {
		if err != nil {
			return
		}
		me := l.journal.Replica()
		values, e := client.HMGet(ctx, contract.QuotaKey(a.key.customer, a.key.period), "epoch", "l:"+me, "w:"+me).Result()
		if e != nil {
			err = e
			return
		}
		// Under the lock no answer is accepted. Calls may be executed, but not by more than
		// the one under way, and each leaves what the account may give out.
		var epoch, lease, mark int64
		for i, n := range []*int64{&epoch, &lease, &mark} {
			s, _ := values[i].(string)
			_, _ = fmt.Sscan(s, n) // stays 0 where there is nothing
		}
		if epoch != l.epoch.Load() || a.declared != epoch {
			return // not told yet; the epoch is not open before it is
		}
		need := a.lease
		for _, s := range a.pending {
			if s.seq <= mark {
				need -= s.tokens
			}
		}
		if a.idle() < 0 || a.held < 0 || a.unsettled < 0 || lease < need {
			err = fmt.Errorf("%s: the record leases %d to %s, which needs %d (lease %d, held %d, unsettled %d, mark %d)",
				a.key.customer, lease, me, need, a.lease, a.held, a.unsettled, mark)
		}
	})
	return err
}

// Take has l settle the hold h as the next event of its journal would, without a journal.
func Take(l *Leases, h Hold, used int64) {
	e := contract.Event{Seq: l.at.Load() + 1, CustomerID: h.Customer, PeriodID: h.PeriodID, Reserved: h.Tokens, Settled: used}
	l.take(&e)
	l.at.Store(e.Seq)
}

// Waiting returns how many reservations wait for an answer of Redis.
func Waiting(l *Leases) (n int) {
	l.each(func(a *account) { n += len(a.waiting) })
	return n
}
