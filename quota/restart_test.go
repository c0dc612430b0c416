package quota_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// reserveAnyway reserves through faults: a proxy's client would come again after a 503.
func (r *replica) reserveAnyway(t testing.TB, a quota.Account, tokens int64) quota.Hold {
	t.Helper()
	var out quota.Answer
	until(t, fmt.Sprintf("%d are reserved", tokens), func() (err error) {
		out, err = r.reserve(a, tokens)
		if err == nil && out.Verdict != quota.Granted {
			return fmt.Errorf("%+v", out)
		}
		return err
	})
	return out.Hold
}

// Whatever happens to a call, what it settles counts once, and no lease is lost or too small.
func TestCallsThatFail(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPlane(t, server)
	for name, plan := range map[string][]fault{
		"lost": {lost}, "mute": {mute}, "double": {double}, "late": {late},
		"mute and late": {mute, late, mute}, "all": {late, mute, double, lost, late, late, mute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			acct := account(t, 1000)
			p.add(t, acct)
			plain := newClient(t, server)
			choose := script()
			f, guarded := newFaults(t, server, plain, func() fault { return choose() })
			r := startWith(t, plain, guarded, newDisk(t.Name()), quick())
			check := func() {
				t.Helper()
				if err := quota.CheckLeases(context.Background(), r.Leases, plain); err != nil {
					t.Error(err)
				}
			}
			play := func() {
				f.mu.Lock()
				choose = script(plan...)
				f.mu.Unlock()
			}
			h := r.mustReserve(t, acct, 100) // loads the script
			play()
			more := r.reserveAnyway(t, acct, 600)
			check()
			f.deliver()
			check()
			play()
			r.j.use(h, 90)
			r.j.use(more, 50)
			r.flush(t)
			check()
			play()
			again := r.reserveAnyway(t, acct, 300)
			f.deliver()
			check()
			p.wantUsage(t, acct, 1000, 140, 300)
			r.j.use(again, 300)
			r.close(t)
			f.deliver()
			p.wantUsage(t, acct, 1000, 440, 0)
		})
	}
}

// A customer who comes back after a while costs one call, not an error.
func TestForgottenCustomer(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	plain := newClient(t, server)
	var trips atomic.Int64
	_, guarded := newFaults(t, server, plain, func() fault { trips.Add(1); return fine })
	o := quick()
	o.ForgetAfter = 300 * time.Millisecond
	r := startWith(t, plain, guarded, newDisk("a"), o)
	for range 5 {
		r.Release(r.mustReserve(t, acct, 10))
	}
	until(t, "it is forgotten", func() error {
		if n := r.Stats().Accounts; n > 0 {
			return fmt.Errorf("%d accounts", n)
		}
		return nil
	})
	before := trips.Load()
	r.mustReserve(t, acct, 1000)
	if n := trips.Load() - before; n != 1 {
		t.Errorf("%d calls", n)
	}
}

// A replica that was killed settles what it left, and returns what it does not know of.
func TestKilled(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct, silent := newPlane(t, server), account(t, 10_000), account(t, 1000)
	silent.Customer += "-silent"
	p.add(t, acct)
	p.add(t, silent)
	o := quick()
	o.ReturnAfter = time.Hour
	d := newDisk("a")
	r := start(t, server, d, o)
	used := int64(0)
	for range 50 {
		r.j.use(r.mustReserve(t, acct, 20), 7)
		used += 7
	}
	r.flush(t)
	r.Release(r.mustReserve(t, silent, 500)) // idle, and no event tells of it
	open := r.j.begin(r.mustReserve(t, acct, 2000))
	open.used = 1500
	r.j.begin(r.mustReserve(t, acct, 1000)) // nothing came of it
	r.kill()
	r.j.use(quota.Hold{Customer: acct.Customer, PeriodID: acct.Period.ID, Tokens: 100}, 30) // ended, and nobody settled it
	used += 1500 + 30

	r = start(t, server, d, o)
	if r.j.Life() != 2 {
		t.Fatalf("life %d", r.j.Life())
	}
	p.wantUsage(t, acct, 10_000, used, 0)
	p.wantUsage(t, silent, 1000, 0, 0)
	// The first call of the new life is for an account that the old one leased from.
	r.awaitExceeds(t, acct, 10_000-used+1)
	r.j.use(r.mustReserve(t, acct, 10_000-used), 1)
	r.close(t)
	p.wantUsage(t, acct, 10_000, used+1, 0)
}

// A call of a dead life that comes late changes nothing of what the next one has.
func TestLateCallOfADeadLife(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	plain := newClient(t, server)
	d := newDisk("a")
	choose := script()
	f, guarded := newFaults(t, server, plain, func() fault { return choose() })
	r := startWith(t, plain, guarded, d, quick())
	h := r.mustReserve(t, acct, 100)
	f.mu.Lock()
	choose = func() fault { return late }
	f.mu.Unlock()
	r.j.use(h, 60)
	until(t, "many calls are late", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if n := len(f.delayed); n < 10 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	r.kill()
	r = start(t, server, d, quick())
	h = r.mustReserve(t, acct, 940)
	f.deliver()
	if err := quota.CheckLeases(context.Background(), r.Leases, plain); err != nil {
		t.Error(err)
	}
	p.wantUsage(t, acct, 1000, 60, 940)
	r.j.use(h, 940)
	r.close(t)
	p.wantUsage(t, acct, 1000, 1000, 0)
}

// More events wait than one call carries, and Redis has some of them: after the restart
// nobody is told that the limit is reached, and the record never goes above it.
func TestRestartWithManyEvents(t *testing.T) {
	t.Parallel()
	const events, each = 3*quota.MaxBatch + 17, 2
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, events*each+100)
	p.add(t, acct)
	d := newDisk("a")
	r := start(t, server, d, quick())
	for range events - 5 {
		r.j.use(r.mustReserve(t, acct, each), each)
	}
	r.flush(t)
	open := r.j.begin(r.mustReserve(t, acct, 5*each))
	r.kill()
	open.used = each
	stop := watchRecord(t, p, acct)
	other := start(t, server, newDisk("b"), quick())
	r = start(t, server, d, quick())
	left := acct.Limit - (events-4)*each
	for _, r := range []*replica{r, other} {
		h := r.await(t, acct, left) // fails on Exceeds
		r.Release(h)
	}
	r.flush(t)
	p.wantUsage(t, acct, acct.Limit, (events-4)*each, 0)
	stop()
}

// watchRecord reads a record all the time until the returned function is called, and
// fails the test when more than the limit is settled and leased, or when the sum of the
// leases is wrong.
func watchRecord(t testing.TB, p *plane, acct quota.Account) (stop func()) {
	return workers(1, func(_ int, done <-chan struct{}) {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
			rec, err := readRecord(p, acct)
			if err != nil {
				continue // Redis may be away
			}
			if err := rec.check(acct.Limit); err != nil {
				t.Error(err)
			}
		}
	})
}

// The journal has forgotten what an earlier life settled in this epoch: the next one does
// not miss it, although the records were built without it.
func TestRestartAfterForgetting(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	d := newDisk("a")
	r := start(t, server, d, quick())
	for range 10 {
		r.j.use(r.mustReserve(t, acct, 20), 10)
	}
	r.flush(t)
	p.bill(d, 8)
	n, err := r.Forgettable(context.Background())
	if err != nil || n != 10 {
		t.Fatalf("forgettable: %d, %v", n, err)
	}
	r.j.forget(min(n, p.acked(d)))
	r.kill()
	r = start(t, server, d, quick())
	r.flush(t)
	p.wantUsage(t, acct, 1000, 100, 0)
	// And in the next epoch Postgres has it.
	server.FlushAll()
	r.untilOpen(t, 2)
	r.flush(t)
	p.wantUsage(t, acct, 1000, 100, 0)
	r.awaitExceeds(t, acct, 901)
}
