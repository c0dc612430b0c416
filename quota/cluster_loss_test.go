package quota_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// use has each account use tokens and settle them.
func (c *cluster) use(t testing.TB, r *replica, tokens int64) {
	t.Helper()
	for _, a := range c.accts {
		r.j.use(r.reserveAnyway(t, a, tokens), tokens)
	}
	r.flush(t)
}

// wantAll waits until every record is right: settled is in it, and nothing more can be had
// than what is left.
func (c *cluster) wantAll(t testing.TB, r *replica, limit, settled int64) {
	t.Helper()
	for _, a := range c.accts {
		r.awaitExceeds(t, a, limit-settled+1)
		r.Release(r.reserveAnyway(t, a, limit-settled))
		until(t, "the record is right", func() error {
			u, err := c.Usage(context.Background(), a)
			if err == nil && (u.Settled != settled || u.Limit != limit) {
				err = fmt.Errorf("%+v, want %d settled of %d", u, settled, limit)
			}
			return err
		})
	}
}

// A master that is emptied without being restarted looks as before, and nobody may ask it for
// anything for hours. That it lost its records shows all the same.
func TestClusterMasterIsEmptied(t *testing.T) {
	t.Parallel()
	const limit = 1000
	c := newCluster(t, 12, limit)
	r := c.begin(t, newDisk("a"), quick())
	for i, emptied := range []*testenv.RedisServer{c.other(), c.ofEpoch()} {
		c.use(t, r, 100)
		before := c.number()
		if e, err := c.Epoch(context.Background()); err != nil || len(e.Marks) != 3 {
			t.Fatalf("marks %v, %v", e.Marks, err)
		}
		emptied.FlushAll()
		c.awaitOpen(t, before+1)
		r.untilOpen(t, before+1)
		c.wantAll(t, r, limit, int64(100*(i+1)))
		if n := c.number(); n != before+1 {
			t.Errorf("epoch %d, then %d", before, n)
		}
	}
}

// Who was about to make a record when its master was emptied must not make it: it may have been
// made, and used, by somebody else meanwhile.
func TestClusterPutOnAnEmptiedMaster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 12, 1000)
	r := c.begin(t, newDisk("a"), quick())
	c.use(t, r, 100)
	c.pause(true)
	emptied := c.other()
	its, others := c.divide(emptied)
	emptied.FlushAll()
	ctx := context.Background()
	if made, err := c.Put(ctx, c.number(), []quota.Record{{Account: its[0]}}); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("put: %v, %v", made, err)
	}
	if out, err := r.Reserve(ctx, its[0], 950); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("reserved from a record that forgot what was used: %+v, %v", out, err)
	}
	// Records of others are made meanwhile.
	fresh := others[0]
	fresh.Period.ID = "2031-06"
	both := []quota.Record{{Account: its[1]}, {Account: fresh}}
	if made, errs := c.PutEach(ctx, c.number(), both); !errors.Is(errs[0], quota.ErrUnavailable) || errs[1] != nil || made[0] || !made[1] {
		t.Errorf("put: %v, %v", made, errs)
	}
	r.Release(r.reserveAnyway(t, fresh, 1000))
	c.mu.Lock()
	c.accounts[name(fresh)] = fresh
	c.mu.Unlock()
	c.pause(false)
	r.untilOpen(t, 2)
	c.wantAll(t, r, 1000, 100)
}

// Slots move between masters with their records. A new master is trusted with the next epoch,
// and so is one that has lost its mark to another.
func TestClusterSlotsMove(t *testing.T) {
	t.Parallel()
	const limit = 10_000
	c := newCluster(t, 12, limit)
	r := c.begin(t, newDisk("a"), quick())
	c.use(t, r, 100)
	first := c.accts[0]
	key := contract.QuotaKey(first.Customer, first.Period.ID)
	before := c.number()
	busy := func() {
		for range 3 {
			r.j.use(r.reserveAnyway(t, first, 2000), 1)
		}
		r.flush(t)
	}
	c.Move(key, busy)
	busy()
	time.Sleep(200 * time.Millisecond) // some looks of the control plane
	if n := c.number(); n != before {
		t.Errorf("epoch %d, then %d: nothing was lost", before, n)
	}

	e, err := c.Epoch(context.Background())
	if err != nil || len(e.Marks) != 3 {
		t.Fatalf("%v, %v", e.Marks, err)
	}
	c.Move(contract.QuotaMarkKey(e.Marks[0]), nil)
	c.awaitOpen(t, before+1)
	r.untilOpen(t, before+1)

	added := c.AddMaster()
	c.MoveTo(key, added, nil)
	c.awaitOpen(t, before+2)
	r.untilOpen(t, before+2)
	busy()
	if n := c.number(); n != before+2 {
		t.Errorf("epoch %d, then %d", before, n)
	}
	r.j.use(r.reserveAnyway(t, first, 91), 91)
	for _, a := range c.accts[1:] {
		r.j.use(r.reserveAnyway(t, a, 100), 100)
	}
	c.wantAll(t, r, limit, 200)
	added.FlushAll()
	c.awaitOpen(t, before+3)
	r.untilOpen(t, before+3)
	c.wantAll(t, r, limit, 200)
}

// A replica takes over without the last writes of its master: what was settled and leased last is
// not forgotten.
func TestClusterFailsOver(t *testing.T) {
	t.Parallel()
	const limit = 1000
	c := newCluster(t, 12, limit)
	r, s := c.begin(t, newDisk("a"), quick()), c.begin(t, newDisk("b"), quick())
	master := c.other()
	its, _ := c.divide(master)
	replica := c.AddReplica(master)
	c.awaitOpen(t, 2) // the first replica of a master gives its history another name
	c.use(t, r, 100)
	replica.Pause() // it hears nothing of what follows
	c.use(t, r, 100)
	for _, a := range its {
		s.reserveAnyway(t, a, 300)
	}
	before := c.number()
	master.Stop()
	replica.Resume()
	c.TakeOver(replica, c.without(master)...)
	c.awaitOpen(t, before+1)
	r.untilOpen(t, before+1)
	s.untilOpen(t, before+1)
	for _, a := range its {
		r.awaitExceeds(t, a, 801)
		if out, err := r.reserve(a, 501); err != nil || out.Verdict != quota.Held {
			t.Errorf("beside what another replica holds: %+v, %v", out, err)
		}
		r.Release(r.reserveAnyway(t, a, 500))
	}
}

// A master that was a replica for a while has the same run id as before, and may lack what was
// written meanwhile.
func TestClusterFailsOverAndBack(t *testing.T) {
	t.Parallel()
	const limit = 1000
	c := newCluster(t, 12, limit)
	master := c.other()
	replica := c.AddReplica(master)
	d := newDisk("a")
	r := c.begin(t, d, quick())
	c.use(t, r, 100)
	before := c.number()
	c.pause(true)
	c.TakeOver(replica, c.Masters...)
	c.AwaitReplica(master)
	c.TakeOver(master, c.Masters...)
	c.AwaitReplica(replica)
	c.pause(false)
	c.awaitOpen(t, before+1)
	r.untilOpen(t, before+1)
	c.wantAll(t, r, limit, 100)
}
