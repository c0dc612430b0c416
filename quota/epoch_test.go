package quota_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// Redis loses everything. Leases serve until the grace ends, and nothing else does. Then a
// new epoch rebuilds the records from what Postgres has, what replicas settle anew, and
// what they lease; the totals are exact.
func TestRedisLosesItsData(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 10_000)
	p.add(t, acct)
	o := quick()
	o.Grace, o.ReturnAfter = 2*time.Second, time.Hour
	a, b := start(t, server, newDisk("a"), o), start(t, server, newDisk("b"), o)
	a.j.use(a.mustReserve(t, acct, 1000), 600)
	b.j.use(b.mustReserve(t, acct, 1000), 300)
	a.j.use(a.mustReserve(t, acct, 100), 50)
	a.flush(t)
	b.flush(t)
	p.bill(a.d, 1) // of three events, Postgres has one
	inFlight := a.mustReserve(t, acct, 2000)
	bOpen := b.mustReserve(t, acct, 500)
	a.Release(a.mustReserve(t, acct, 700)) // idle

	p.pause(true)
	server.FlushAll()
	lossAt := time.Now()
	h := a.mustReserve(t, acct, 700) // from the lease, without Redis
	until(t, "no lease grows", func() error {
		out, err := b.Reserve(context.Background(), acct, 9000)
		if out.Verdict == quota.Granted {
			t.Fatalf("a lease has grown without a record: %+v", out)
		}
		if !errors.Is(err, quota.ErrUnavailable) {
			return fmt.Errorf("%+v, %w", out, err) // as of an answer of just now
		}
		return nil
	})
	if _, err := a.Forgettable(context.Background()); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("events may be forgotten of an epoch that is gone: %v", err)
	}
	a.j.use(h, 650)
	until(t, "the grace is over", func() error {
		if out := a.TryReserve(acct, 0); out.Verdict == quota.Granted {
			a.Release(out.Hold)
			return errors.New("still served")
		}
		return nil
	})
	if d := time.Since(lossAt); d < o.Grace/2 { // slow machines hear late
		t.Errorf("unusable after %v already", d)
	}
	if _, err := a.Reserve(context.Background(), acct, 1); !errors.Is(err, quota.ErrUnavailable) || a.Ready() == nil {
		t.Errorf("served after the grace: %v, ready %v", err, a.Ready())
	}
	b.j.use(bOpen, 100) // ends while nothing can be settled

	p.pause(false)
	p.awaitOpen(t, 2)
	const settled = 600 + 300 + 50 + 650 + 100
	a.untilOpen(t, 2)
	b.untilOpen(t, 2)
	a.flush(t)
	b.flush(t)
	a.awaitExceeds(t, acct, acct.Limit-settled+1)
	b.j.use(b.reserveAnyway(t, acct, acct.Limit-settled-2000), 0)
	a.j.use(inFlight, 2000)
	a.flush(t)
	b.flush(t)
	b.reserveAnyway(t, acct, acct.Limit-settled-2000)
	p.wantUsage(t, acct, acct.Limit, settled+2000, acct.Limit-settled-2000)
	if rec, err := readRecord(p, acct); err != nil || rec.check(acct.Limit) != nil {
		t.Error(err, rec.check(acct.Limit))
	}
	if n, err := a.Forgettable(context.Background()); err != nil || n != a.j.Last() {
		t.Errorf("forgettable up to %d of %d, %v", n, a.j.Last(), err)
	}
}

// The epoch opens only when every registered replica has told what it leases.
func TestEpochWaitsForReplicas(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	d := newDisk("dead")
	dead, b := start(t, server, d, quick()), start(t, server, newDisk("b"), quick())
	dead.j.begin(dead.mustReserve(t, acct, 900)).used = 800
	dead.kill()
	server.FlushAll()
	until(t, "the others have declared", func() error {
		e, err := p.Epoch(context.Background())
		if err == nil && (e.Number < 2 || e.Building() || len(e.Undeclared()) != 1 || e.Undeclared()[0] != "dead") {
			err = errors.New("not yet")
		}
		return err
	})
	for range 20 { // for as long as it is away
		if _, err := b.Reserve(context.Background(), acct, 200); !errors.Is(err, quota.ErrUnavailable) {
			t.Fatalf("a lease grows although nobody knows what the dead replica leases: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	start(t, server, d, quick())
	b.untilOpen(t, 2)
	b.await(t, acct, 200)
	b.awaitExceeds(t, acct, 201)
}

// A Redis that was restarted may lack what it acknowledged: nothing is granted or settled
// there before a new epoch.
func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	plain := newClient(t, server)
	guarded := guardedClient(t, server, plain)
	o := quick()
	o.ReturnAfter = time.Hour
	r := startWith(t, plain, guarded, newDisk("a"), o)
	r.Release(r.mustReserve(t, acct, 300))
	p.pause(true)
	server.Stop()
	h := r.mustReserve(t, acct, 100) // leases serve
	server.Start()
	if err := plain.Ping(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	until(t, "the guard has refused a call", func() error {
		_, err := r.Reserve(context.Background(), acct, 900)
		if !errors.Is(err, quota.ErrUnavailable) {
			t.Fatalf("a restarted Redis grants: %v", err)
		}
		if !errors.Is(err, quota.ErrUntrusted) {
			return err
		}
		return nil
	})
	if err := guarded.Ping(context.Background()).Err(); !errors.Is(err, quota.ErrUntrusted) {
		t.Errorf("a restarted Redis is trusted: %v", err)
	}
	r.j.use(h, 60)
	p.pause(false)
	p.awaitOpen(t, 2)
	r.reserveAnyway(t, acct, 940)
	r.flush(t)
	p.wantUsage(t, acct, 1000, 60, 940)
}

// A replica that hears nothing goes on no longer than the control plane reckons with.
func TestGraceOfTheControlPlane(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	o := quick() // a minute of its own
	o.ReturnAfter = time.Hour
	r := start(t, server, newDisk("a"), o)
	r.Release(r.mustReserve(t, acct, 100))
	ctx := context.Background()
	if err := p.SetGrace(ctx, p.number()+1, time.Millisecond); err == nil {
		t.Error("set for an epoch that there is not")
	}
	if err := p.SetGrace(ctx, p.number(), 1500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	until(t, "the grace is there", func() error {
		e, err := p.Epoch(ctx)
		if err == nil && e.Grace != 1500*time.Millisecond {
			err = fmt.Errorf("%v", e.Grace)
		}
		return err
	})
	time.Sleep(200 * time.Millisecond) // it is heard of every 15 ms
	server.Pause()
	defer server.Resume()
	began := time.Now()
	until(t, "it does not serve any more", func() error {
		if r.Ready() == nil {
			return errors.New("it does")
		}
		return nil
	})
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("after %v", d)
	}
}

// While replicas do not know of the new epoch yet, its Redis is not trusted for their calls:
// it may still have records of the old one, from before what it forgot.
func TestGuardKnowsTheEpochOfACall(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	plain := newClient(t, server)
	o := quick()
	o.FollowEvery = time.Hour // it never hears of the second epoch
	guarded := guardedClient(t, server, plain)
	var r *replica
	for { // until it is registered at its first look
		j := newDisk("a").start()
		r = &replica{Leases: quota.NewLeases(plain, guarded, j, o), j: j, d: j.disk}
		t.Cleanup(r.kill)
		time.Sleep(50 * time.Millisecond)
		if r.Ready() == nil {
			break
		}
		r.kill()
	}
	r.mustReserve(t, acct, 100)

	// Redis goes back to before the lease. The record of the first epoch stays: only that
	// of the accounts that the control plane knows would be made anew.
	key := contract.QuotaKey(acct.Customer, acct.Period.ID)
	if err := plain.HSet(context.Background(), key, "leased", 0).Err(); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	delete(p.accounts, name(acct))
	p.mu.Unlock()
	server.Stop()
	server.Start()
	until(t, "the second epoch trusts the Redis", func() error {
		e, err := p.Epoch(context.Background())
		if err == nil && (e.Number != 2 || e.Building()) {
			err = errors.New("not yet")
		}
		return err
	})
	for range 5 {
		out, err := r.Reserve(context.Background(), acct, 1000)
		if !errors.Is(err, quota.ErrUnavailable) {
			t.Fatalf("an old record has granted: %+v, %v", out, err)
		}
		time.Sleep(60 * time.Millisecond) // longer than the pause after failures
	}
}

// A record that is made while the epoch is open is of no use when the epoch is gone.
func TestPutWithoutItsEpoch(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.pause(true)
	ctx := context.Background()
	records := []quota.Record{{Account: acct, Settled: 100}}
	key := contract.QuotaKey(acct.Customer, acct.Period.ID)

	// Redis loses its data right after the record was made.
	client := newClient(t, server)
	client.AddHook(&afterCall{do: server.FlushAll})
	if made, err := quota.NewKeeper(client, patience).Put(ctx, 1, records); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("put: %v, %v", made, err)
	}
	// And before.
	if made, err := p.Put(ctx, 1, records); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("put without an epoch: %v, %v", made, err)
	}
	p.pause(false)
	p.awaitOpen(t, 2)

	// A record that stays sealed, because whoever made it died, counts as missing.
	p.pause(true)
	client = newClient(t, server)
	stop, cancel := context.WithCancel(ctx)
	client.AddHook(&afterCall{do: cancel})
	if _, err := quota.NewKeeper(client, patience).Put(stop, 2, records); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v", err)
	}
	if epoch := p.client.HGet(ctx, key, "epoch").Val(); epoch != "-2" {
		t.Fatalf("the record is of epoch %s", epoch)
	}
	p.pause(false)
	r := start(t, server, newDisk("a"), quick())
	if _, err := r.Reserve(ctx, acct, 1); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("a sealed record serves: %v", err)
	}
	until(t, "it is reported", func() error {
		missing, err := p.Missing(ctx)
		if err == nil && (len(missing) != 1 || missing[0] != [2]string{acct.Customer, acct.Period.ID}) {
			err = errors.New("not yet")
		}
		return err
	})
	if err := p.Found(ctx, acct.Customer, acct.Period.ID); err != nil {
		t.Fatal(err)
	}
	newer := acct
	newer.Limit, newer.LimitVersion = 2000, 2
	if err := p.SetLimit(ctx, newer); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		if made, err := p.Put(ctx, 2, records); err != nil || len(made) != 1 || made[0] != want {
			t.Fatalf("put: %v, %v", made, err)
		}
	}
	p.wantUsage(t, acct, 2000, 100, 0)
	r.reserveAnyway(t, acct, 1900)
}

// afterCall is a hook that acts after the next script, before its answer is known.
type afterCall struct {
	redis.Hook
	do   func()
	done atomic.Bool
}

func (h *afterCall) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (h *afterCall) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return h.process(next) }
func (h *afterCall) process(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		h.after([]redis.Cmder{cmd})
		return err
	}
}

func (h *afterCall) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		h.after(cmds)
		return err
	}
}

func (h *afterCall) after(cmds []redis.Cmder) {
	name := cmds[0].Name()
	if (name == "eval" || name == "evalsha") && cmds[0].Err() == nil && !h.done.Swap(true) {
		h.do()
	}
}

// A replica that is told that it is lost serves nothing from then on, and what it leased
// is free again.
func TestDeclaredLost(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	a, b := start(t, server, newDisk("a"), quick()), start(t, server, newDisk("b"), quick())
	h := a.mustReserve(t, acct, 900)
	b.want(t, acct, 200, quota.Held)
	if n := p.lose(t, "a"); n != 900 {
		t.Errorf("%d were freed", n)
	}
	until(t, "it knows", func() error {
		if a.Ready() == nil {
			return errors.New("still ready")
		}
		return nil
	})
	if out := a.TryReserve(acct, 0); out.Verdict != quota.Unknown {
		t.Errorf("it serves: %+v", out)
	}
	if _, err := a.Reserve(context.Background(), acct, 1); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("it serves: %v", err)
	}
	b.j.use(b.await(t, acct, 1000), 1000)
	a.j.use(h, 900) // it counts for bills, not here
	b.flush(t)
	p.wantUsage(t, acct, 1000, 1000, 0)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := a.Close(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("close of a lost replica: %v", err)
	}
	// In the next epoch it is lost as well, in its next life too.
	server.FlushAll()
	p.awaitOpen(t, 2)
	j := a.d.start()
	again := &replica{Leases: quota.NewLeases(newClient(t, server), newClient(t, server), j, quick()), j: j, d: a.d}
	t.Cleanup(again.kill)
	until(t, "the next life knows", func() error {
		if err := again.Ready(); err == nil || err.Error() != a.Ready().Error() {
			return errors.New("not yet")
		}
		return nil
	})
}

// A beat that tells of a retirement comes back with an older copy of Redis' data, while the
// replica lives again and has leases: it is not believed.
func TestOldRetirement(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	ctx := context.Background()
	d := newDisk("a")
	r := start(t, server, d, quick())
	p.pause(true)
	closing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := r.Close(closing); err != nil { // nobody takes note
		t.Fatal(err)
	}
	r.j.closed.Store(true)
	beats, err := p.Beats(ctx)
	if b := beats["a"]; err != nil || !b.Retired || b.Epoch != 1 || b.Life != 1 || b.Last != 0 {
		t.Fatalf("beats %+v, %v", beats, err)
	}
	old := p.client.HGet(ctx, contract.QuotaBeatsKey, "a").Val()

	p.pause(false)
	r = start(t, server, d, quick()) // once it was taken off, and registered again
	p.pause(true)
	r.mustReserve(t, acct, 900)
	r.kill()
	server.FlushAll()
	if err := p.client.HSet(ctx, contract.QuotaBeatsKey, "a", old).Err(); err != nil {
		t.Fatal(err)
	}
	p.pause(false)
	until(t, "a new epoch waits for it", func() error {
		e, err := p.Epoch(ctx)
		if err == nil && (e.Number != 2 || e.Building() || len(e.Undeclared()) != 1) {
			err = fmt.Errorf("%+v", e)
		}
		return err
	})
	until(t, "it is not believed", func() error {
		beats, err := p.Beats(ctx)
		if err == nil && len(beats) > 0 {
			err = fmt.Errorf("%+v", beats)
		}
		return err
	})
	r = start(t, server, d, quick())
	p.awaitOpen(t, 2)
	r.close(t)
	until(t, "it is off the register", func() error {
		e, err := p.Epoch(ctx)
		if err == nil && len(e.Members) > 0 {
			err = fmt.Errorf("%+v", e)
		}
		return err
	})
}

// An answer that comes after its epoch has ended changes nothing.
func TestAnswerOfAnOldEpoch(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	plain := newClient(t, server)
	guarded := guardedClient(t, server, plain)
	r := startWith(t, plain, guarded, newDisk("a"), quick())
	r.mustReserve(t, acct, 100)
	hook := &afterCall{do: func() {
		server.FlushAll()
		until(t, "the replica is in the second epoch", func() error {
			if s := r.Stats(); s.Epoch != 2 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}}
	guarded.AddHook(hook)
	if out, err := r.Reserve(context.Background(), acct, 900); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("%+v, %v", out, err)
	}
	if s := r.Stats(); s.Leased != 100 || s.Held != 100 {
		t.Errorf("%+v", s)
	}
	r.untilOpen(t, 2)
	if err := quota.CheckLeases(context.Background(), r.Leases, plain); err != nil {
		t.Error(err)
	}
	other := start(t, server, newDisk("b"), quick())
	other.await(t, acct, 900)
}

// A server that the epoch does not trust may have come back with an older beat: what it
// says of a retirement is not believed.
func TestRetirementOnAnUntrustedServer(t *testing.T) {
	t.Parallel()
	ctx, client := t.Context(), testenv.Redis(t).Client()
	k := quota.NewKeeper(client, patience)
	begin := func(epoch int64, nodes []string) {
		t.Helper()
		if err := k.Begin(ctx, epoch, nodes, []string{"a"}, nil); err != nil {
			t.Fatal(err)
		}
		if err := k.Declare(ctx, epoch, map[string]int64{"a": 0}, nil); err != nil {
			t.Fatal(err)
		}
		beat := fmt.Sprintf("%d|1|0|%d|retired", time.Now().UnixMilli(), epoch)
		if err := client.HSet(ctx, contract.QuotaBeatsKey, "a", beat).Err(); err != nil {
			t.Fatal(err)
		}
	}
	begin(1, []string{"of another server"})
	if gone, err := k.Retire(ctx, 1, "a", quota.Beat{Life: 1, Epoch: 1}); err != nil || gone {
		t.Errorf("taken off: %v, %v", gone, err)
	}
	servers, err := k.Servers(ctx, &quota.Epoch{})
	if err != nil {
		t.Fatal(err)
	}
	begin(2, servers.IDs)
	if gone, err := k.Retire(ctx, 2, "a", quota.Beat{Life: 1, Epoch: 2}); err != nil || !gone {
		t.Errorf("taken off: %v, %v", gone, err)
	}
}
