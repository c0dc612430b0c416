package quota_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

var (
	randomSeed = flag.Uint64("quota.seed", 0, "seed of the random schedule; 0 takes a new one")
	randomTime = flag.Duration("quota.time", 4*time.Second, "how long the random schedule goes on")
)

// truth is what really happens to a customer's tokens.
type truth struct {
	mu         sync.Mutex
	most       int64 // the highest limit so far
	held, used int64
}

// world is a random schedule under way.
type world struct {
	t      *testing.T
	server *testenv.RedisServer
	plane  *plane
	accts  []quota.Account
	truth  map[string]*truth // by customer
	seats  []*seat
	failed atomic.Bool
	whole  sync.RWMutex // held for writing while Redis is not what it was
	counts struct{ granted, held, exceeded, refused, lives, losses, faults atomic.Int64 }
}

// seat is a replica over all its lives.
type seat struct {
	d  *disk
	mu sync.RWMutex
	r  *replica // nil between two lives
	f  *faults
}

func (w *world) fail(format string, args ...any) {
	if !w.failed.Swap(true) {
		w.t.Errorf(format, args...)
	}
}

// change notes what happens to tokens, and checks that the limit holds.
func (w *world) change(customer string, held, used int64) {
	tr := w.truth[customer]
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.held += held
	tr.used += used
	if tr.held+tr.used > tr.most {
		w.fail("%s: %d held and %d used are above %d", customer, tr.held, tr.used, tr.most)
	}
}

// TestRandomSchedule has customers use up their limits on replicas that are killed, stopped
// and started, over a network that loses, repeats and delays, with a Redis that loses its
// data or goes back to an older copy. At every grant the limit must hold; at every moment
// each record must cover what its replicas believe; and at the end all totals are exact.
func TestRandomSchedule(t *testing.T) {
	t.Parallel()
	seed := *randomSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed: -quota.seed=%d", seed)
	rng := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }
	server := testenv.Redis(t, testenv.RedisArgs("--appendfsync", "no"))
	w := &world{t: t, server: server, plane: newPlane(t, server), truth: map[string]*truth{}}
	for i := range 3 {
		a := account(t, 40_000)
		a.Customer = fmt.Sprintf("c%d", i)
		w.accts = append(w.accts, a)
		w.truth[a.Customer] = &truth{most: a.Limit}
		w.plane.add(t, a)
	}
	w.plane.mu.Lock()
	w.plane.disks = map[string]*disk{}
	w.plane.mu.Unlock()
	for i := range 3 {
		d := newDisk(fmt.Sprintf("r%d", i))
		w.plane.mu.Lock()
		w.plane.disks[d.name] = d
		w.plane.mu.Unlock()
		w.seats = append(w.seats, &seat{d: d})
		w.begin(w.seats[i], rng(uint64(i)))
	}

	var stops []func()
	for i, s := range w.seats {
		stops = append(stops, workers(4, func(n int, done <-chan struct{}) { w.client(s, rng(uint64(100+10*i+n)), done) }))
		stops = append(stops, workers(1, func(_ int, done <-chan struct{}) { w.lives(s, rng(uint64(200+i)), done) }))
	}
	stops = append(stops,
		workers(1, func(_ int, done <-chan struct{}) { w.watch(done) }),
		workers(1, func(_ int, done <-chan struct{}) { w.bill(rng(300), done) }),
		workers(1, func(_ int, done <-chan struct{}) { w.limits(rng(301), done) }))
	defer func() {
		if w.failed.Load() || t.Failed() {
			for _, a := range w.accts {
				tr := w.truth[a.Customer]
				t.Logf("%s: truth held %d used %d; record %v", a.Customer, tr.held, tr.used, w.plane.client.HGetAll(context.Background(), contract.QuotaKey(a.Customer, a.Period.ID)).Val())
			}
			t.Logf("epoch %v", w.plane.client.HGetAll(context.Background(), contract.QuotaEpochKey).Val())
			t.Logf("beats %v", w.plane.client.HGetAll(context.Background(), contract.QuotaBeatsKey).Val())
			for _, s := range w.seats {
				sums, acked := map[string]int64{}, w.plane.acked(s.d) // whose lock comes first
				s.d.mu.Lock()
				for _, e := range s.d.events {
					sums[e.CustomerID] += e.Settled
				}
				t.Logf("%s: journal %d events, sums %v, acked %d", s.d.name, len(s.d.events), sums, acked)
				s.d.mu.Unlock()
			}
		}
		for _, s := range w.seats {
			s.mu.RLock()
			if w.failed.Load() || t.Failed() {
				t.Logf("%s: life %d, %+v, ready %v", s.d.name, s.d.life, s.r.Stats(), s.r.Ready())
			}
			s.mu.RUnlock()
		}
	}()
	random := rng(302)
	for over := time.Now().Add(*randomTime); time.Now().Before(over) && !w.failed.Load(); {
		time.Sleep(time.Duration(200+random.IntN(800)) * time.Millisecond)
		w.lose(random)
	}
	for _, stop := range stops {
		stop()
	}
	w.settle()
	c := &w.counts
	t.Logf("%d granted, %d held, %d exceeded, %d refused; %d lives, %d losses of data, %d faults of the network",
		c.granted.Load(), c.held.Load(), c.exceeded.Load(), c.refused.Load(), c.lives.Load(), c.losses.Load(), c.faults.Load())
	if c.granted.Load() == 0 || c.lives.Load() < 6 || c.losses.Load() == 0 || c.faults.Load() == 0 {
		t.Error("too little happened")
	}
}

// begin starts a life. s.mu is held for writing, or nobody else knows s.
func (w *world) begin(s *seat, random *rand.Rand) {
	plain := redis.NewClient(&redis.Options{Addr: w.server.Addr, ContextTimeoutEnabled: true})
	guarded := redis.NewClient(&redis.Options{Addr: w.server.Addr, ContextTimeoutEnabled: true, OnConnect: quota.NewGuard(plain).Check})
	random = rand.New(rand.NewPCG(random.Uint64(), 0)) // it is asked from elsewhere
	f := &faults{choose: func() fault {
		if random.IntN(8) > 0 {
			return fine
		}
		w.counts.faults.Add(1)
		return fault(1 + random.IntN(int(late)))
	}}
	guarded.AddHook(f)
	o := quick()
	o.Timeout, o.ForgetAfter = time.Second, 100*time.Millisecond
	j := s.d.start()
	s.r, s.f = &replica{Leases: quota.NewLeases(plain, guarded, j, o), j: j, d: s.d}, f
	w.counts.lives.Add(1)
	w.t.Cleanup(func() { plain.Close(); guarded.Close() })
	w.t.Cleanup(s.r.kill)
}

// end ends a life by killing it, or in order if that is possible.
func (w *world) end(s *seat, kill bool) {
	if !kill {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		_ = s.r.Close(ctx) // clients are in the middle of requests: often it cannot
		cancel()
	}
	quota.Kill(s.r.Leases)
	s.d.mu.Lock()
	s.r.j.closed.Store(true)
	for r := range s.d.open {
		// As the next life would, but it may be a while, and nothing changes any more.
		w.change(r.hold.Customer, -r.hold.Tokens, r.used)
		s.d.append(r, r.used)
	}
	s.d.mu.Unlock()
	s.r = nil
}

// lives ends and begins lives of a replica.
func (w *world) lives(s *seat, random *rand.Rand, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-time.After(time.Duration(100+random.IntN(900)) * time.Millisecond):
		}
		s.mu.Lock()
		f := s.f
		w.end(s, random.IntN(3) > 0)
		if random.IntN(2) == 0 {
			f.deliver()
		}
		w.begin(s, random)
		s.mu.Unlock()
		if random.IntN(2) == 0 {
			f.deliver() // calls of the dead life reach Redis only now
		}
	}
}

// client makes requests on a replica.
func (w *world) client(s *seat, random *rand.Rand, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
		acct := w.accts[random.IntN(len(w.accts))]
		tokens := 1 + random.Int64N(300)
		if random.IntN(50) == 0 {
			tokens = 5000 + random.Int64N(30_000)
		}
		s.mu.RLock()
		r, f := s.r, s.f
		if r == nil {
			s.mu.RUnlock()
			continue
		}
		out, err := r.reserve(acct, tokens)
		if err != nil || out.Verdict != quota.Granted {
			s.mu.RUnlock()
			switch {
			case err != nil && !errors.Is(err, quota.ErrUnavailable):
				w.fail("reserve: %v", err)
			case err != nil:
				w.counts.refused.Add(1)
			case out.Verdict == quota.Held:
				w.counts.held.Add(1)
			default:
				w.counts.exceeded.Add(1)
			}
			if random.IntN(4) == 0 {
				f.deliver()
			}
			continue
		}
		w.counts.granted.Add(1)
		w.change(acct.Customer, tokens, 0)
		req := r.j.begin(out.Hold)
		s.mu.RUnlock()
		// The life may end from here on at any time.
		used := random.Int64N(1 + tokens/(1+random.Int64N(8)))
		for _, part := range []int64{used / 2, used} {
			s.d.mu.Lock()
			if _, open := s.d.open[req]; open {
				req.used = part
			}
			s.d.mu.Unlock()
			time.Sleep(time.Duration(random.IntN(4000)) * time.Microsecond)
		}
		s.d.mu.Lock()
		if _, open := s.d.open[req]; open && !r.j.closed.Load() {
			// What is counted here must not be less than what leases allow to others.
			if used == 0 {
				w.change(acct.Customer, -tokens, 0)
				delete(s.d.open, req)
				r.Release(out.Hold)
			} else {
				w.change(acct.Customer, -tokens, used)
				s.d.append(req, used)
			}
		}
		s.d.mu.Unlock()
	}
}

// watch looks at the records, and at what replicas believe of them.
func (w *world) watch(done <-chan struct{}) {
	ctx := context.Background()
	for {
		select {
		case <-done:
			return
		case <-time.After(2 * time.Millisecond):
		}
		for _, a := range w.accts[:2] { // those whose limit does not change
			if rec, err := readRecord(w.plane, a); err == nil {
				if err := rec.check(a.Limit); err != nil {
					w.fail("%s: %v", a.Customer, err)
				}
			}
		}
		for _, s := range w.seats {
			w.whole.RLock()
			s.mu.RLock()
			if s.r != nil {
				if err := quota.CheckLeases(ctx, s.r.Leases, w.plane.client); err != nil && strings.Contains(err.Error(), "the record leases") {
					w.fail("life %d: %v", s.r.j.life, err)
				}
			}
			s.mu.RUnlock()
			w.whole.RUnlock()
		}
	}
}

// bill takes events into Postgres, and has journals forget them.
func (w *world) bill(random *rand.Rand, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-time.After(time.Duration(random.IntN(60)) * time.Millisecond):
		}
		s := w.seats[random.IntN(len(w.seats))]
		s.d.mu.Lock()
		last := int64(len(s.d.events))
		s.d.mu.Unlock()
		acked := w.plane.acked(s.d)
		w.plane.bill(s.d, acked+random.Int64N(last-acked+1))
		s.mu.RLock()
		if s.r != nil {
			acked := w.plane.acked(s.d) // before the question
			if n, err := s.r.Forgettable(context.Background()); err == nil {
				s.r.j.forget(min(acked, n))
			}
		}
		s.mu.RUnlock()
	}
}

// limits changes the limit of the last customer.
func (w *world) limits(random *rand.Rand, done <-chan struct{}) {
	a := w.accts[2]
	tr := w.truth[a.Customer]
	for version := int64(2); ; version++ {
		select {
		case <-done:
			return
		case <-time.After(time.Duration(50+random.IntN(300)) * time.Millisecond):
		}
		a.Limit, a.LimitVersion = 10_000+random.Int64N(60_000), version
		tr.mu.Lock()
		tr.most = max(tr.most, a.Limit)
		tr.mu.Unlock()
		w.plane.mu.Lock()
		w.plane.accounts[name(a)] = a
		w.plane.mu.Unlock()
		_ = w.plane.SetLimit(context.Background(), a) // Redis may be away
	}
}

// lose has Redis lose data, and waits for the next epoch.
func (w *world) lose(random *rand.Rand) {
	ctx := context.Background()
	w.whole.Lock()
	defer w.whole.Unlock()
	epoch := w.plane.number()
	w.counts.losses.Add(1)
	if random.IntN(2) == 0 {
		w.server.FlushAll()
	} else {
		// It comes back as it was a while ago.
		old := map[string]map[string]string{}
		client := w.plane.client
		for _, key := range client.Keys(ctx, contract.QuotaPattern).Val() {
			old[key] = client.HGetAll(ctx, key).Val()
		}
		for _, key := range []string{contract.QuotaEpochKey, contract.QuotaBeatsKey} {
			old[key] = client.HGetAll(ctx, key).Val()
		}
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		w.plane.pause(true)
		w.server.Stop()
		time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
		w.server.Start()
		for key, fields := range old {
			until(w.t, "the old record is back", func() error {
				if len(fields) == 0 {
					return nil
				}
				_, err := client.TxPipelined(ctx, func(p redis.Pipeliner) error {
					p.Del(ctx, key)
					p.HSet(ctx, key, fields)
					return nil
				})
				return err
			})
		}
		w.plane.pause(false)
	}
	w.plane.awaitOpen(w.t, epoch+1)
}

// settle ends all lives in order, and compares the totals.
func (w *world) settle() {
	for _, s := range w.seats {
		s.f.deliver()
		s.f.mu.Lock()
		s.f.choose = script()
		s.f.mu.Unlock()
	}
	for _, s := range w.seats {
		s.r.untilOpen(w.t, w.plane.number())
		s.r.flush(w.t)
	}
	for _, a := range w.accts {
		tr := w.truth[a.Customer]
		if tr.held != 0 {
			w.t.Errorf("%s: %d are held by nobody", a.Customer, tr.held)
		}
		if a.Customer != "c2" {
			// What is left can be had, to the last token.
			r := w.seats[0].r
			r.awaitExceeds(w.t, a, a.Limit-tr.used+1)
			r.Release(r.await(w.t, a, a.Limit-tr.used))
		}
	}
	for _, s := range w.seats {
		s.r.close(w.t)
	}
	for _, a := range w.accts {
		rec, err := readRecord(w.plane, a)
		if tr := w.truth[a.Customer]; err != nil || rec.settled != tr.used || rec.leased != 0 {
			w.t.Errorf("%s: the record has settled %d and leased %d, %v; %d were used", a.Customer, rec.settled, rec.leased, err, tr.used)
		}
	}
}
