package quota_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// gatedTrips has trips with scripts wait, and counts them.
type gatedTrips struct {
	redis.Hook
	gate          chan struct{} // closed: open
	made          atomic.Int64
	under, most   atomic.Int64
	unanswerable  atomic.Bool // each fails
	lostOne       atomic.Bool // the next of many calls fails
	errUnanswered error
}

func (h *gatedTrips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *gatedTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return h.trip([]redis.Cmder{cmd}, func() error { return next(ctx, cmd) })
	}
}

func (h *gatedTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return h.trip(cmds, func() error { return next(ctx, cmds) })
	}
}

func (h *gatedTrips) trip(cmds []redis.Cmder, next func() error) error {
	if name := cmds[0].Name(); name != "eval" && name != "evalsha" {
		return next()
	}
	h.made.Add(1)
	n := h.under.Add(1)
	defer h.under.Add(-1)
	for most := h.most.Load(); n > most && !h.most.CompareAndSwap(most, n); most = h.most.Load() {
		continue
	}
	<-h.gate
	if h.unanswerable.Load() || len(cmds) > 1 && h.lostOne.CompareAndSwap(true, false) {
		for _, cmd := range cmds {
			cmd.SetErr(h.errUnanswered)
		}
		return h.errUnanswered
	}
	return next()
}

// Customers that come all at once, as after a restart, share few trips; and if those fail, the others
// do not wait for trips of their own.
func TestManyCustomersShareTrips(t *testing.T) {
	t.Parallel()
	const customers, inOne = 1500, 256
	for name, want := range map[string]struct{ trips, unavailable int64 }{
		"there": {20, 0}, // the first four, and so many customers with each of the others
		"away":  {8, customers},
		"lost":  {20, inOne}, // one trip: nobody else is told that Redis is away
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.Redis(t)
			p := newPlane(t, server)
			accounts := make([]quota.Account, customers)
			for i := range accounts {
				accounts[i] = account(t, 1000)
				accounts[i].Customer = fmt.Sprintf("c%d", i)
				p.add(t, accounts[i])
			}
			plain := newClient(t, server)
			guarded := guardedClient(t, server, plain)
			o := quick()
			o.SettleEvery = time.Hour // no calls that nobody waits for
			r := startWith(t, plain, guarded, newDisk("a"), o)
			hook := &gatedTrips{gate: make(chan struct{}), errUnanswered: errFault}
			hook.unanswerable.Store(name == "away")
			hook.lostOne.Store(name == "lost")
			guarded.AddHook(hook)

			var asked sync.WaitGroup
			var granted, unavailable atomic.Int64
			for _, a := range accounts {
				asked.Go(func() {
					switch out, err := r.Reserve(context.Background(), a, 100); {
					case err == nil && out.Verdict == quota.Granted:
						granted.Add(1)
					case errors.Is(err, quota.ErrUnavailable):
						unavailable.Add(1)
					default:
						t.Errorf("%s: %+v, %v", a.Customer, out, err)
					}
				})
			}
			until(t, "all wait for their calls", func() error {
				if n := quota.Waiting(r.Leases); n < customers {
					return fmt.Errorf("%d wait", n)
				}
				return nil
			})
			time.Sleep(100 * time.Millisecond) // the last ones are about to be queued
			close(hook.gate)
			asked.Wait()
			if n := hook.most.Load(); n > 4 {
				t.Errorf("%d trips at a time", n)
			}
			if n := hook.made.Load(); n > want.trips {
				t.Errorf("%d trips for %d customers", n, customers)
			}
			if granted.Load() != customers-want.unavailable || unavailable.Load() != want.unavailable {
				t.Errorf("%d are granted, %d are told that Redis is away, want %d", granted.Load(), unavailable.Load(), want.unavailable)
			}
			// And then it goes on as ever.
			hook.unanswerable.Store(false)
			for _, a := range accounts[:20] {
				r.reserveAnyway(t, a, 100)
			}
		})
	}
}
