package quota_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// A limit that is changed takes effect on replicas that have leases, whether they hear of
// it from the control plane or with a grant.
func TestLimitChanges(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	o := quick()
	o.ReturnAfter = time.Hour
	a, b := start(t, server, newDisk("a"), o), start(t, server, newDisk("b"), o)
	a.j.use(a.mustReserve(t, acct, 300), 300)
	b.Release(b.mustReserve(t, acct, 300))
	held := a.mustReserve(t, acct, 200)
	a.flush(t)

	until(t, "both hear of recalls", func() error {
		n, err := p.client.PubSubNumSub(context.Background(), contract.RecallChannel).Result()
		if err == nil && n[contract.RecallChannel] < 2 {
			err = fmt.Errorf("%v", n)
		}
		return err
	})
	// Lowered below what is settled and held. The old grant is still around.
	lower := acct
	lower.Limit, lower.LimitVersion = 400, 2
	p.setLimit(t, lower)
	p.wantUsage(t, acct, 400, 300, 200) // idle tokens went back
	b.want(t, acct, 1, quota.Held)
	a.want(t, acct, 101, quota.Exceeds)
	a.j.use(held, 150)
	a.flush(t)
	b.awaitExceeds(t, acct, 1) // 450 settled: what was held when it was lowered stays promised
	p.wantUsage(t, acct, 400, 450, 0)

	// Raised by a grant that comes before the control plane's word, and is believed.
	raised := acct
	raised.Limit, raised.LimitVersion = 700, 3
	h := a.mustReserve(t, raised, 250)
	b.awaitExceeds(t, acct, 251) // with a grant of the first version
	a.Release(h)

	// Lowered by a grant, with tokens idle here: they are not given out.
	lowered := acct
	lowered.Limit, lowered.LimitVersion = 500, 4
	a.want(t, lowered, 51, quota.Exceeds)
	a.want(t, acct, 51, quota.Exceeds)
	a.j.use(a.mustReserve(t, acct, 50), 50)
	a.flush(t)
	p.wantUsage(t, acct, 500, 500, 0)
}

// What was held when the limit was lowered below what is used is given to nobody when it
// is released, also before Redis is told.
func TestReleasedAboveALoweredLimit(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	o := quick()
	o.SettleEvery = time.Hour
	r := start(t, server, newDisk("a"), o)
	r.j.use(r.mustReserve(t, acct, 200), 200)
	held := r.mustReserve(t, acct, 500)
	r.flush(t)
	lowered := acct
	lowered.Limit, lowered.LimitVersion = 100, 2
	r.want(t, lowered, 1, quota.Exceeds)
	r.Release(held)
	if out := r.TryReserve(lowered, 1); out.Verdict == quota.Granted {
		t.Errorf("%+v", out)
	}
	r.want(t, lowered, 1, quota.Exceeds)
}

// A grant lowers the limit while a call is under way that knows of a higher one. Who is
// told that this exceeds it is told by which limit.
func TestLimitLoweredDuringACall(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	o := quick()
	o.Timeout = patience
	r := start(t, server, newDisk("a"), o)
	r.Release(r.mustReserve(t, acct, 10))
	until(t, "nothing is idle", func() error {
		if s := r.Stats(); s.Leased > 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	waiting := func(n int) {
		until(t, "reservations wait", func() error {
			if got := quota.Waiting(r.Leases); got != n {
				return fmt.Errorf("%d", got)
			}
			return nil
		})
	}
	for range 10 { // who comes first after the answer is chance
		lowered := acct
		lowered.Limit, lowered.LimitVersion = acct.Limit-10, acct.LimitVersion+1
		server.Pause()
		answers := make(chan quota.Answer, 2)
		ask := func(a quota.Account) {
			out, err := r.Reserve(context.Background(), a, lowered.Limit+5)
			if err != nil {
				t.Error(err)
			}
			answers <- out
		}
		go ask(acct)
		waiting(1)
		go ask(lowered)
		waiting(2)
		server.Resume()
		for range 2 {
			if out := <-answers; out.Verdict != quota.Exceeds || out.Limit != lowered.Limit || out.Left() != lowered.Limit {
				t.Errorf("%+v, of which %d are left", out, out.Left())
			}
		}
		acct = lowered
	}
}

// Versions beyond what Lua's numbers tell apart.
func TestLimitVersions(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 100)
	p.add(t, acct)
	at := func(limit, version int64) quota.Account {
		a := acct
		a.Limit, a.LimitVersion = limit, version
		return a
	}
	const most = 1<<63 - 1
	for _, step := range []struct {
		set  quota.Account
		want int64
	}{
		{at(50, 9), 50}, {at(60, 9), 50}, {at(70, 3), 50}, {at(60, 10), 60},
		{at(80, most-1), 80}, {at(90, most), 90}, {at(10, most-1), 90},
	} {
		if err := p.SetLimit(context.Background(), step.set); err != nil {
			t.Fatal(err)
		}
		p.wantUsage(t, acct, step.want, 0, 0)
	}
	r := start(t, server, newDisk("a"), quick())
	r.want(t, at(1000, 7), 91, quota.Exceeds)
	r.mustReserve(t, at(1, most), 90)
}

// Many clients on three replicas use up a small limit, never more than it, and to the last
// token, before anybody is told that it is reached.
func TestLimitIsUsedUp(t *testing.T) {
	t.Parallel()
	const replicas, clients, limit, most = 3, 64, 60_000, 400
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, limit)
	p.add(t, acct)
	rs := make([]*replica, replicas)
	for i := range rs {
		rs[i] = start(t, server, newDisk(fmt.Sprintf("r%d", i)), quick())
	}
	stop := watchRecord(t, p, acct)
	var used, held atomic.Int64
	var wg sync.WaitGroup
	for c := range clients {
		r := rs[c%replicas]
		rng := rand.New(rand.NewPCG(uint64(c), 7))
		wg.Go(func() {
			for {
				tokens := 1 + rng.Int64N(most)
				out, err := r.reserve(acct, tokens)
				switch {
				case err != nil:
					t.Error(err)
					return
				case out.Verdict == quota.Granted:
					if h := held.Add(tokens); h+used.Load() > limit {
						t.Errorf("%d held and used", h+used.Load())
					}
					time.Sleep(time.Duration(rng.IntN(5)) * time.Millisecond)
					spent := rng.Int64N(tokens + 1)
					req := r.j.begin(out.Hold)
					held.Add(-tokens)
					used.Add(spent)
					if spent == 0 {
						r.j.abandon(req)
						r.Release(out.Hold)
					} else {
						r.j.complete(req, spent)
					}
				case out.Verdict == quota.Held:
					select {
					case <-r.Changed(acct.Customer):
					case <-time.After(50 * time.Millisecond):
					}
				default:
					if u := used.Load(); tokens <= limit-u || tokens <= out.Left() {
						t.Errorf("%d exceed although only %d are used: %+v", tokens, u, out)
					}
					return
				}
			}
		})
	}
	wg.Wait()
	for _, r := range rs {
		r.flush(t)
	}
	if u := used.Load(); u < limit*99/100 {
		t.Errorf("%d of %d were used", u, limit)
	}
	// The rest can be had to the last token, on any replica, and no token more.
	left := limit - used.Load()
	rs[0].awaitExceeds(t, acct, left+1)
	rs[1].Release(rs[1].await(t, acct, left))
	rs[2].j.use(rs[2].await(t, acct, left), left)
	rs[2].flush(t)
	rs[1].awaitExceeds(t, acct, 1)
	p.wantUsage(t, acct, limit, limit, 0)
	stop()
}

// awaitExceeds reserves until the answer is Exceeds. Before, it may be Held, as of an answer
// that is some milliseconds old.
func (r *replica) awaitExceeds(t testing.TB, a quota.Account, tokens int64) {
	t.Helper()
	until(t, "the limit is known to be reached", func() error {
		out, err := r.reserve(a, tokens)
		switch {
		case err == nil && out.Verdict == quota.Granted:
			t.Fatalf("%d granted: %+v", tokens, out)
		case err == nil && out.Verdict == quota.Held:
			return fmt.Errorf("%+v", out)
		}
		return err
	})
}

// A large request is served although small ones come all the time on all replicas, each of
// which would like to keep some tokens in reserve.
func TestLargeRequestAmongSmallOnes(t *testing.T) {
	t.Parallel()
	const limit, large, small = 10_000_000, 9_900_000, 100
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, limit)
	p.add(t, acct)
	rs := make([]*replica, 3)
	for i := range rs {
		o := quick()
		o.ReturnAfter = time.Hour
		rs[i] = start(t, server, newDisk(fmt.Sprintf("r%d", i)), o)
		// They sit on nearly all of it.
		rs[i].Release(rs[i].mustReserve(t, acct, limit/3))
	}
	stop := workers(12, func(w int, done <-chan struct{}) {
		r := rs[w%3]
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
			out, err := r.reserve(acct, small)
			if err != nil {
				t.Error(err)
			}
			if out.Verdict == quota.Granted {
				r.j.use(out.Hold, 1)
			}
		}
	})
	defer stop()
	for i := range 6 {
		r := rs[i%3]
		began := time.Now()
		h := r.await(t, acct, large)
		t.Logf("after %v", time.Since(began))
		r.Release(h)
	}
}
