package quota_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// cluster is a Redis Cluster with a control plane and the records of some customers.
type cluster struct {
	*testenv.ClusterServer
	*plane
	accts []quota.Account
}

// newCluster returns one whose servers do not find each other missing while a test lasts.
func newCluster(t testing.TB, customers int, limit int64) *cluster {
	c := &cluster{ClusterServer: testenv.RedisCluster(t, testenv.RedisArgs("--cluster-node-timeout", "120000"))}
	c.plane = newPlaneOn(t, c.Client(), 5*time.Second)
	for i := range customers {
		a := account(t, limit)
		a.Customer = fmt.Sprintf("c%d", i)
		c.add(t, a)
		c.accts = append(c.accts, a)
	}
	return c
}

// begin begins a life of a replica.
func (c *cluster) begin(t testing.TB, d *disk, o quota.Options) *replica {
	t.Helper()
	with := *c.Client().Options()
	with.ClusterStateReloadInterval = 200 * time.Millisecond
	open := func(with redis.ClusterOptions) *redis.ClusterClient {
		with.Addrs = slices.Clone(with.Addrs)
		client := redis.NewClusterClient(&with)
		t.Cleanup(func() { client.Close() })
		return client
	}
	plain := open(with)
	o.Guard = quota.NewGuard(plain)
	with.OnConnect = o.Guard.Check
	return startWith(t, plain, open(with), d, o)
}

// ofEpoch returns the master that has the epoch.
func (c *cluster) ofEpoch() *testenv.RedisServer { return c.Of(contract.QuotaEpochKey) }

// other returns a master that has not.
func (c *cluster) other() *testenv.RedisServer { return c.without(c.ofEpoch())[0] }

func (c *cluster) without(master *testenv.RedisServer) []*testenv.RedisServer {
	return slices.DeleteFunc(slices.Clone(c.Masters), func(m *testenv.RedisServer) bool { return m == master })
}

// divide returns the accounts whose records a master has, and the others.
func (c *cluster) divide(master *testenv.RedisServer) (its, others []quota.Account) {
	for _, a := range c.accts {
		if c.Of(contract.QuotaKey(a.Customer, a.Period.ID)) == master {
			its = append(its, a)
		} else {
			others = append(others, a)
		}
	}
	return its, others
}

// On a Redis Cluster records are on several servers, and scripts and pipelines go to each.
// One server that is restarted ends the epoch for all.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 24, 1000)
	d := newDisk("a")
	a, b := c.begin(t, d, quick()), c.begin(t, newDisk("b"), quick())
	used := func(i int) int64 {
		if i == 0 {
			return 121
		}
		return int64(101 + i)
	}
	for i, acct := range c.accts {
		a.j.use(a.reserveAnyway(t, acct, 500), int64(100+i))
		a.Release(a.reserveAnyway(t, acct, 300))
		b.j.use(b.await(t, acct, int64(900-i)), 1) // needs what is idle at a
	}
	a.j.begin(a.mustReserve(t, c.accts[0], 50)).used = 20
	a.kill()
	a = c.begin(t, d, quick())
	a.flush(t)
	b.flush(t)
	for i, acct := range c.accts {
		c.wantUsage(t, acct, 1000, used(i), 0)
	}

	c.pause(true)
	c.other().Stop()
	c.other().Start()
	until(t, "one of them is not trusted", func() error {
		for _, acct := range c.accts {
			if _, err := b.Reserve(context.Background(), acct, 1); errors.Is(err, quota.ErrUntrusted) {
				return nil
			} else if err != nil {
				return err
			}
		}
		time.Sleep(50 * time.Millisecond)
		return errors.New("all are")
	})
	c.pause(false)
	a.untilOpen(t, 2)
	b.untilOpen(t, 2)
	if n := c.number(); n != 2 {
		t.Errorf("epoch %d: one was begun before the server took commands", n)
	}
	for i, acct := range c.accts {
		a.reserveAnyway(t, acct, 999-used(i))
		b.awaitExceeds(t, acct, 1001-used(i))
	}
	a.flush(t)
	b.flush(t)
	b.close(t)
}

// A master that hangs hurts only those whose records it has, and only when they need more
// than is leased: the others lease and settle as ever.
func TestClusterMasterHangs(t *testing.T) {
	t.Parallel()
	const limit = 1_000_000
	c := newCluster(t, 24, limit)
	o := quick()
	o.Timeout, o.ReturnAfter = 2*time.Second, time.Hour
	rs := []*replica{c.begin(t, newDisk("a"), o), c.begin(t, newDisk("b"), o)}
	away := c.other()
	gone, there := c.divide(away)
	if len(gone) == 0 || len(there) == 0 {
		t.Fatalf("all records are on one side: %d, %d", len(gone), len(there))
	}
	for _, r := range rs {
		for _, acct := range c.accts {
			r.Release(r.reserveAnyway(t, acct, 1000)) // idle from now on
		}
	}
	epoch := c.number()
	away.Pause()
	defer away.Resume()
	for i := range 3 {
		// Many fail one after the other, and then somebody asks a master that answers.
		workers(len(gone), func(w int, _ <-chan struct{}) { _, _ = rs[0].Reserve(context.Background(), gone[w], limit) })()
		rs[0].Release(rs[0].want(t, there[i%len(there)], 2000, quota.Granted).Hold)
	}
	var leased, served, refused, unsettled atomic.Int64
	used := map[string]*atomic.Int64{}
	for _, acct := range c.accts {
		used[acct.Customer] = &atomic.Int64{}
	}
	inVain := workers(len(gone), func(w int, done <-chan struct{}) {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
			began := time.Now()
			// What was answered just before still counts.
			if out, err := rs[w%2].Reserve(context.Background(), gone[w], limit); errors.Is(err, quota.ErrUnavailable) {
				refused.Add(1)
			} else if err != nil || out.Verdict != quota.Held {
				t.Errorf("reserved without its Redis: %+v, %v", out, err)
			}
			if d := time.Since(began); d > 4*o.Timeout {
				t.Errorf("refused after %v", d)
			}
		}
	})
	stop := workers(4, func(w int, done <-chan struct{}) {
		r := rs[w%2]
		for i := w; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(time.Duration(rand.IntN(30)) * time.Millisecond):
			}
			// More than is idle: Redis has to be asked.
			acct := there[i%len(there)]
			out, err := r.Reserve(context.Background(), acct, 1500+rand.Int64N(500))
			if err != nil {
				t.Errorf("a customer whose master answers: %v", err)
				return
			}
			if out.Verdict == quota.Granted { // others may hold what is left
				r.j.use(out.Hold, 10)
				leased.Add(1)
				used[acct.Customer].Add(10)
			}
			acct = gone[i%len(gone)]
			if out := r.TryReserve(acct, 5); out.Verdict == quota.Granted {
				r.j.use(out.Hold, 5)
				served.Add(1)
				used[acct.Customer].Add(5)
				unsettled.Add(5)
			}
		}
	})
	until(t, "much was leased, served and refused", func() error {
		if leased.Load() < 100 || served.Load() < 100 || refused.Load() < 60 {
			return fmt.Errorf("%d, %d, %d", leased.Load(), served.Load(), refused.Load())
		}
		return nil
	})
	stop()
	t.Logf("%d leased, %d served from leases while their Redis hung, %d refused", leased.Load(), served.Load(), refused.Load())
	// It still hangs, and is asked in vain.
	until(t, "all that can be settled is, and known to be", func() error {
		if n := rs[0].Stats().Unsettled + rs[1].Stats().Unsettled; n != unsettled.Load() {
			return fmt.Errorf("%d tokens are not, instead of %d", n, unsettled.Load())
		}
		return nil
	})
	for _, acct := range there {
		u, err := c.Usage(context.Background(), acct)
		if want := used[acct.Customer].Load(); err != nil || u.Settled != want {
			t.Errorf("customer %s: settled %d of %d, %v", acct.Customer, u.Settled, want, err)
		}
	}
	inVain()
	away.Resume()
	for _, r := range rs {
		r.flush(t)
		r.close(t)
	}
	for _, acct := range c.accts {
		c.wantUsage(t, acct, limit, used[acct.Customer].Load(), 0)
	}
	if n := c.number(); n != epoch {
		t.Errorf("epoch %d, then %d: nothing was lost", epoch, n)
	}
}

// While the master that has the epoch hangs, the others are known to be trusted, also on new
// connections.
func TestClusterEpochHangs(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 12, 1_000_000)
	r := c.begin(t, newDisk("a"), quick())
	for _, acct := range c.accts {
		r.reserveAnyway(t, acct, 10)
	}
	away := c.ofEpoch()
	_, there := c.divide(away)
	away.Pause()
	for _, m := range c.without(away) {
		if n, err := m.Client().ClientKillByFilter(context.Background(), "TYPE", "normal", "SKIPME", "yes").Result(); err != nil || n == 0 {
			t.Fatalf("%d connections are cut, %v", n, err)
		}
	}
	for _, acct := range there {
		r.reserveAnyway(t, acct, 100_000)
		r.j.use(r.reserveAnyway(t, acct, 10_000), 7)
	}
	for _, acct := range there {
		until(t, "what was used is settled", func() error {
			u, err := r.Usage(context.Background(), acct)
			n, herr := c.client.HGet(context.Background(), contract.QuotaKey(acct.Customer, acct.Period.ID), "settled").Int64()
			if err == nil && (u.Settled != 7 || n != 7) {
				err = fmt.Errorf("%d, in Redis %d", u.Settled, n)
			}
			return errors.Join(err, herr)
		})
	}
	away.Resume()
	r.flush(t)
}
