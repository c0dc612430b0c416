//go:build !race

// The race detector allocates by itself.

package quota_test

import (
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

func TestRatesAllocateNothing(t *testing.T) {
	server := testenv.Redis(t)
	r := newRates(t, server, quota.RateOptions{Replica: "a"})
	rate := quota.RequestRate{PerSecond: 10, Burst: 20}
	for _, c := range []string{"admitted", "refused"} {
		if c == "refused" {
			for range 30 {
				r.Allow(c, rate, time.Now())
			}
		} else {
			rate.Burst = 100_000
			r.Allow(c, rate, time.Now())
		}
		if n := testing.AllocsPerRun(2000, func() { r.Allow(c, rate, time.Now()) }); n != 0 {
			t.Errorf("%s: %v allocations", c, n)
		}
	}
}

// The warm path: a reservation from the lease, its release, and the settling of its event.
func TestLeasesAllocateNothing(t *testing.T) {
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1<<40)
	p.add(t, acct)
	o := quick()
	o.SettleEvery, o.FollowEvery, o.ReturnAfter = time.Hour, time.Hour, time.Hour
	var r *replica
	for r == nil || r.Ready() != nil { // until it is registered at its first look
		if r != nil {
			r.kill()
		}
		plain := newClient(t, server)
		j := newDisk("a").start()
		r = &replica{Leases: quota.NewLeases(plain, guardedClient(t, server, plain), j, o), j: j, d: j.disk}
		time.Sleep(50 * time.Millisecond)
	}
	t.Cleanup(r.kill)
	r.Release(r.mustReserve(t, acct, 1<<30))
	for what, do := range map[string]func(){
		"reserve and release": func() { r.Release(r.TryReserve(acct, 1000).Hold) },
		"reserve and settle":  func() { quota.Take(r.Leases, r.TryReserve(acct, 1000).Hold, 500) },
	} {
		// On average: the list of what is to be settled grows now and then.
		if n := testing.AllocsPerRun(2000, do); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	if s := r.Stats(); s.Held != 0 || s.Unsettled != 2001*500 {
		t.Errorf("%+v", s)
	}
}
