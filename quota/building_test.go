package quota_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// Records are made for longer than the grace: registered replicas serve all the while from
// what they lease, and no lost one does.
func TestReplicasGoOnWhileRecordsAreMade(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 10_000)
	p.add(t, acct)
	ctx := context.Background()
	o := quick()
	o.Grace, o.ReturnAfter = time.Second, 50*time.Millisecond
	a, gone := start(t, server, newDisk("a"), o), start(t, server, newDisk("gone"), o)
	idle := a.mustReserve(t, acct, 1000)
	gone.mustReserve(t, acct, 1000)
	p.mu.Lock()
	p.paused = true
	p.lost["gone"], p.of("gone").registered = true, false
	p.mu.Unlock()
	e, err := p.Epoch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	servers, err := p.Servers(ctx, &e)
	if err != nil {
		t.Fatal(err)
	}
	server.FlushAll()
	if err := p.Begin(ctx, 2, servers.IDs, []string{"a"}, []string{"gone"}); err != nil {
		t.Fatal(err)
	}
	a.Release(idle) // it cannot be returned any more
	over := time.Now().Add(2 * o.Grace)
	until(t, "the grace is over", func() error {
		if time.Now().Before(over) {
			return errors.New("not yet")
		}
		if a.Ready() != nil || a.Stats().Leased == 0 {
			return fmt.Errorf("it does not serve: %v, %+v", a.Ready(), a.Stats())
		}
		return nil
	})
	if err := gone.Ready(); !errors.Is(err, quota.ErrLost) {
		t.Errorf("a lost replica goes on: %v", err)
	}
	if s := a.Stats(); s.Epoch != 1 || s.Open {
		t.Errorf("it has entered an epoch that is being built: %+v", s)
	}
	if out, err := a.Reserve(ctx, acct, 9000); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("a lease grows: %+v, %v", out, err)
	}
	// What it does not need just now is all that there is.
	a.j.use(a.mustReserve(t, acct, 900), 900)
	// A replica that leases nothing yet is not ready before there are records.
	j := newDisk("new").start()
	fresh := &replica{Leases: quota.NewLeases(newClient(t, server), newClient(t, server), j, o), j: j, d: j.disk}
	t.Cleanup(fresh.kill)
	if err := p.Begin(ctx, 2, servers.IDs, []string{"a", "new"}, []string{"gone"}); err != nil {
		t.Fatal(err)
	}
	until(t, "it beats", func() error {
		beats, err := p.Beats(ctx)
		if _, ok := beats["new"]; err == nil && !ok {
			err = errors.New("not yet")
		}
		return err
	})
	if fresh.Ready() == nil {
		t.Error("a replica that can lease nothing is ready")
	}
	p.pause(false)
	p.awaitOpen(t, 2)
	a.flush(t)
	a.j.use(a.reserveAnyway(t, acct, 9100), 9100)
	a.flush(t)
	p.wantUsage(t, acct, 10_000, 10_000, 0)
}

// A replica has not declared while a call that leases may be on its way: if it came after the
// epoch was opened, its lease would be above the limit.
func TestDeclaresWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	ctx := context.Background()
	plain := newClient(t, server)
	choose := script()
	f, guarded := newFaults(t, server, plain, func() fault { return choose() })
	set := func(c func() fault) {
		f.mu.Lock()
		defer f.mu.Unlock()
		choose = c
	}
	r := startWith(t, plain, guarded, newDisk("a"), quick())
	h := r.mustReserve(t, acct, 600)
	p.pause(true)
	e, err := p.Epoch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	servers, err := p.Servers(ctx, &e)
	if err != nil {
		t.Fatal(err)
	}
	set(func() fault { return late })
	server.FlushAll()
	if err := p.Begin(ctx, 2, servers.IDs, []string{"a"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Build(ctx, 2, []quota.Record{{Account: acct}}); err != nil {
		t.Fatal(err)
	}
	if err := p.Declare(ctx, 2, map[string]int64{"a": 0}, nil); err != nil {
		t.Fatal(err)
	}
	until(t, "its call is on the way", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if s := r.Stats(); s.Epoch != 2 || len(f.delayed) == 0 {
			return fmt.Errorf("%d calls, %+v", len(f.delayed), s)
		}
		return nil
	})
	r.Release(h)
	until(t, "it has nothing any more", func() error {
		quota.Surrender(r.Leases, acct.Customer, acct.Period.ID)
		if s := r.Stats(); s.Leased > 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	undeclared := func() error {
		e, err := p.Epoch(ctx)
		if err == nil && len(e.Undeclared()) > 0 {
			err = fmt.Errorf("undeclared: %v", e.Undeclared())
		}
		return err
	}
	for range 20 { // for as long as nothing is answered
		if undeclared() == nil {
			t.Fatal("it has declared, and a call may come that it knows nothing of")
		}
		time.Sleep(10 * time.Millisecond)
	}
	set(script())
	until(t, "it has declared", undeclared)
	f.deliver()
	if rec, err := readRecord(p, acct); err != nil || rec.check(acct.Limit) != nil || r.Stats().Leased != 0 {
		t.Errorf("%+v, %v, %+v", rec, err, r.Stats())
	}
	p.wantUsage(t, acct, 1000, 0, 0)
}
