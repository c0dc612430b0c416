package limits_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// newClusterEnv is newEnv with a Redis Cluster, whose servers do not find each other missing
// while a test lasts.
func newClusterEnv(t testing.TB) *env {
	t.Helper()
	e := &env{t: t, cluster: testenv.RedisCluster(t, testenv.RedisArgs("--cluster-node-timeout", "120000"))}
	e.client = e.cluster.Client()
	return e.begin()
}

// customersOn makes some customers whose records a master has.
func (e *env) customersOn(master *testenv.RedisServer, n int, limit int64) (accts []quota.Account) {
	e.t.Helper()
	for len(accts) < n {
		if a := e.customer(limit); e.cluster.Of(contract.QuotaKey(a.Customer, a.Period.ID)) == master {
			accts = append(accts, a)
		}
	}
	return accts
}

// masters returns the one that has the epoch, and the two others.
func (e *env) masters() (epoch, one, two *testenv.RedisServer) {
	epoch = e.cluster.Of(contract.QuotaEpochKey)
	var others []*testenv.RedisServer
	for _, m := range e.cluster.Masters {
		if m != epoch {
			others = append(others, m)
		}
	}
	return epoch, others[0], others[1]
}

// says waits until the Keeper has logged something.
func (e *env) says(what string) {
	e.t.Helper()
	until(e.t, "the log says "+what, func() error {
		if log := e.log.String(); !strings.Contains(log, what) {
			return errors.New(log)
		}
		return nil
	})
}

// While a master hangs, the control plane does for the customers of the others all that it
// ever does. What needs all masters waits, a new epoch among it.
func TestClusterMasterHangs(t *testing.T) {
	t.Parallel()
	e := newClusterEnv(t)
	epoch, away, third := e.masters()
	as, bs, cs := e.customersOn(away, 2, 1000), e.customersOn(third, 2, 1000), e.customersOn(epoch, 2, 1000)
	all := []quota.Account{as[0], bs[0], cs[0]}
	o := e.options()
	o.Timeout = 300 * time.Millisecond
	k, _ := e.keep(o)
	first := e.awaitOpen(1)
	r, lost := e.replica(nil), e.replica(nil)
	for _, a := range all {
		r.use(a, 2, 10)
		lost.use(a, 1, 10)
		lost.reserve(a, 500)
	}
	until(t, "all is settled", func() error { return flushed(r, lost) })
	lost.kill()

	away.Pause()
	defer away.Resume()
	// A customer whose record was not made yet, one on each side.
	late, lateThere := e.customersOn(away, 1, 1000)[0], e.customersOn(third, 1, 1000)[0]
	if _, err := r.Reserve(context.Background(), late, 10); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("reserved on a master that hangs: %v", err)
	}
	r.use(lateThere, 1, 10)
	// A replica is registered.
	another := e.replica(nil)
	another.use(bs[1], 1, 10)
	another.use(cs[1], 1, 10)
	// One that is lost gives back what can be reached.
	e.declareLost(lost.name)
	rec := e.records()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := rec.GiveUp(ctx, lost.name, 200*time.Millisecond); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("given up: %v", err)
	}
	r.spend(r.reserve(bs[0], 970), 10)
	r.spend(r.reserve(cs[0], 970), 10)
	if note := k.Note(); !strings.Contains(note, away.Addr) {
		t.Errorf("the note is %q", note)
	}

	// Another one is restarted: its records cannot be trusted, nor can all be made anew.
	third.Stop()
	third.Start()
	e.says("a new epoch has to wait")
	r.use(cs[1], 1, 970)
	if now, err := e.quota.Epoch(context.Background()); err != nil || now.Number != first.Number || !now.IsOpen() {
		t.Errorf("epoch %+v, %v", now, err)
	}
	away.Resume()
	e.awaitOpen(first.Number + 1)
	r.use(as[1], 1, 10)
	r.use(bs[1], 1, 10)
	r.use(late, 1, 10)
	if freed, err := rec.GiveUp(ctx, lost.name, 200*time.Millisecond); err != nil || len(freed) < 2 {
		t.Errorf("freed %+v, %v", freed, err)
	}
	until(t, "all is settled", func() error { return flushed(r, another) })
	e.awaitAgreement(append(all, late, lateThere, as[1], bs[1], cs[1])...)
	e.awaitOff(lost.name)
	for _, a := range all {
		r.reserve(a, 1000-e.settled(a))
	}
	until(t, "there is nothing to note", func() error {
		if note := k.Note(); note != "" {
			return errors.New(note)
		}
		return nil
	})
}

// A record that cannot be made because its master hangs is made when it does not any more.
func TestClusterEnsure(t *testing.T) {
	t.Parallel()
	e := newClusterEnv(t)
	_, away, other := e.masters()
	o := e.options()
	o.Timeout = 300 * time.Millisecond
	e.keep(o)
	first := e.awaitOpen(1)
	r := e.replica(nil)
	late, there := e.customersOn(away, 1, 1000)[0], e.customersOn(other, 1, 1000)[0]
	records := limits.NewRecords(e.store, e.client, 300*time.Millisecond)
	away.Pause()
	defer away.Resume()
	if err := records.Ensure(t.Context(), late.Customer, late.Period.ID); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("made on a master that hangs: %v", err)
	}
	if err := limits.NewRecords(e.store, e.client, 5*time.Second).Ensure(t.Context(), there.Customer, there.Period.ID); err != nil {
		t.Error(err)
	}
	e.awaitUsage(there, 1000, 0, 0)
	time.Sleep(limits.PutWithin) // what is under way for so long is taken for lost
	away.Resume()
	r.use(late, 1, 10)
	until(t, "all is settled", func() error { return flushed(r) })
	e.awaitAgreement(late, there)
	if now := e.awaitOpen(1); now.Number != first.Number {
		t.Errorf("epoch %d, then %d: nothing was lost\n%s", first.Number, now.Number, e.log)
	}
}

// A master is emptied, and nobody asks for the customers that it had.
func TestClusterMasterIsEmptied(t *testing.T) {
	t.Parallel()
	e := newClusterEnv(t)
	_, emptied, other := e.masters()
	all := append(e.customersOn(emptied, 2, 1000), e.customersOn(other, 1, 1000)...)
	e.keep(e.options())
	first := e.awaitOpen(1)
	r := e.replica(nil)
	for _, a := range all {
		r.use(a, 1, 100)
	}
	until(t, "all is settled", func() error { return flushed(r) })
	e.awaitAgreement(all...)
	r.retire()
	emptied.FlushAll()
	if now := e.awaitOpen(first.Number + 1); now.Number != first.Number+1 {
		t.Errorf("epoch %d\n%s", now.Number, e.log)
	}
	e.says(fmt.Sprintf("somebody has removed the data of Redis at %s", emptied.Addr))
	e.awaitAgreement(all...)
	for _, a := range all {
		e.awaitUsage(a, 1000, 100, 0)
	}
}
