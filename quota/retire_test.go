package quota_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// A new epoch begins while a replica waits to be taken off the register: it retires from
// that one too, and is not missed in it.
func TestEpochBeginsWhileAReplicaRetires(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	ctx := context.Background()
	d := newDisk("a")
	r := start(t, server, d, quick())
	r.j.use(r.mustReserve(t, acct, 100), 40)
	r.flush(t)
	p.bill(d, 1)
	p.pause(true)
	closed := make(chan error, 1)
	go func() {
		closing, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		closed <- r.Close(closing)
	}()
	until(t, "it says that it retires", func() error {
		beats, err := p.Beats(ctx)
		if err == nil && !beats["a"].Retired {
			err = errors.New("not yet")
		}
		return err
	})
	e, err := p.Epoch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	servers, err := p.Servers(ctx, &e)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Begin(ctx, 2, servers.IDs, []string{"a"}, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-closed:
		t.Errorf("it has ended, and nobody knows that it has: %v", err)
	case <-time.After(3 * time.Second): // longer than it waits for a control plane that is away
	}
	if err := p.Build(ctx, 2, []quota.Record{{Account: acct, Settled: 40}}); err != nil {
		t.Fatal(err)
	}
	if err := p.Declare(ctx, 2, map[string]int64{"a": 1}, nil); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.epoch = 2
	p.mu.Unlock()
	p.pause(false)
	p.awaitOpen(t, 2)
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	until(t, "it is off the register", func() error {
		e, err := p.Epoch(ctx)
		if err == nil && len(e.Members) > 0 {
			err = errors.New("not yet")
		}
		return err
	})
	p.wantUsage(t, acct, 1000, 40, 0)
}
