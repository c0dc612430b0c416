package limits_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// settleAndRetire has r end in order while nobody keeps the limits.
func (e *env) settleAndRetire(r *replica, stop func() error) {
	e.t.Helper()
	until(e.t, "all is settled", func() error { return flushed(r) })
	if err := stop(); err != nil {
		e.t.Fatal(err)
	}
	r.retire()
}

// restartRedis does, with its data.
func (e *env) restartRedis() {
	e.t.Helper()
	e.redis.Stop()
	e.redis.Start()
}

// Everything is stopped in order, as when a machine is rebooted, and comes back: no epoch
// waits for a replica that has retired from the one before.
func TestAllIsStoppedInOrder(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	_, stop := e.keep(e.options())
	first := e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 3, 10)
	e.settleAndRetire(r, stop)
	e.restartRedis()
	e.keep(e.options())
	e.awaitOpen(first.Number + 1)
	e.awaitOff(r.name)
	e.awaitUsage(a, 1000, 30, 0)
	// It comes back with its journal, and nothing is counted twice or not at all.
	r = e.replica(r.journal)
	r.use(a, 1, 10)
	until(t, "all is settled", func() error { return flushed(r) })
	e.awaitSettled(a, 1000, 40)
}

// Likewise, but its last events come to Postgres when the next epoch has begun: its records
// lack them, and nobody settles them. Those of another one have them.
func TestEventsOfARetiredReplicaComeInTheNextEpoch(t *testing.T) {
	t.Parallel()
	for _, waits := range []bool{false, true} {
		t.Run(fmt.Sprint(waits), func(t *testing.T) {
			t.Parallel()
			eventsComeInTheNextEpoch(t, waits)
		})
	}
}

// That the next life waits meanwhile is no sign of life of the one that has retired.
func eventsComeInTheNextEpoch(t *testing.T, waits bool) {
	e := newEnv(t)
	a := e.customer(1000)
	_, stop := e.keep(e.options())
	first := e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 1, 10)
	until(t, "Postgres has it", func() error {
		if n := e.settled(a); n != 10 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	r.stopBilling()
	r.use(a, 2, 10)
	e.settleAndRetire(r, stop)
	e.restartRedis()
	e.keep(e.options())
	until(t, "the next epoch waits", func() error {
		epoch, err := e.quota.Epoch(context.Background())
		if err == nil && (epoch.Number != first.Number+1 || len(epoch.Undeclared()) != 1) {
			err = fmt.Errorf("%+v", epoch)
		}
		return err
	})
	if waits {
		next := e.replicaSoon(r.journal)
		e.awaitOpen(first.Number + 2)
		next.use(a, 1, 10)
		until(t, "all is settled", func() error { return flushed(next) })
		e.awaitSettled(a, 1000, 40)
		return
	}
	e.record(r.events[1:]...)
	e.awaitOpen(first.Number + 2)
	e.awaitOff(r.name)
	e.awaitUsage(a, 1000, 30, 0)
}

// A Keeper dies while it takes a replica off the register, and Redis is restarted before
// another one goes on.
func TestKeeperDiesAtARetirement(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at   string
		lose bool
	}{{"retiring", false}, {"retiring", true}, {"retired", false}, {"retired", true}} {
		t.Run(fmt.Sprint(c.at, " ", c.lose), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			a := e.customer(1000)
			step, arm, sprung := once(c.at, func() error { return errKill })
			k, err := limits.NewKeeper(e.store, e.client, e.options().WithStep(step))
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- k.Run(t.Context()) }()
			first := e.awaitOpen(1)
			r := e.replica(nil)
			r.use(a, 3, 10)
			until(t, "all is settled", func() error { return flushed(r) })
			arm()
			r.retire()
			<-sprung
			if err := <-ended; !errors.Is(err, errKill) {
				t.Fatal(err)
			}
			if c.lose {
				e.redis.FlushAll()
			}
			e.restartRedis()
			e.keep(e.options())
			e.awaitOpen(first.Number + 1)
			e.awaitOff(r.name)
			e.awaitUsage(a, 1000, 30, 0)
		})
	}
}

// Redis goes back to when a replica lived that has retired since: no epoch waits for it.
func TestBeatOfAReplicaThatIsGone(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	e.keep(e.options())
	first := e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 1, 10)
	beat := e.client.HGet(t.Context(), contract.QuotaBeatsKey, r.name).Val()
	until(t, "all is settled", func() error { return flushed(r) })
	r.retire()
	e.awaitOff(r.name)
	if _, err := e.client.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
		p.FlushAll(t.Context())
		p.HSet(t.Context(), contract.QuotaBeatsKey, r.name, beat)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	e.awaitOpen(first.Number + 1)
	for range 20 { // looks
		if m, there := e.member(r.name); there {
			t.Fatalf("it is registered: %+v", m)
		}
		time.Sleep(20 * time.Millisecond)
	}
	// It may come back itself, also in this epoch.
	r = e.replica(r.journal)
	r.use(a, 1, 10)
	until(t, "all is settled", func() error { return flushed(r) })
	e.awaitSettled(a, 1000, 20)
}

// A replica says that it has retired, and then enters an epoch that has begun meanwhile, with
// what its records lack; it is killed before it can say so again. Its next life may not have to
// wait for that for ever.
func TestRetirementOfAnEarlierEpochThanItsLast(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	e.keep(e.options())
	first := e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 3, 10)
	r.stopBilling()
	r.use(a, 2, 10) // Postgres learns of these in the second epoch only
	until(t, "all is settled", func() error { return flushed(r) })
	e.redis.FlushAll()
	e.awaitOpen(first.Number + 1)
	until(t, "it has settled them in the second epoch too", func() error { return flushed(r) })
	m, _ := e.member(r.name)
	r.kill()
	e.record(r.events...)
	last := len(r.events)
	if m.Base >= int64(last) {
		t.Fatalf("base %d of %d events", m.Base, last)
	}
	beat := fmt.Sprintf("%d|%d|%d|%d|retired", time.Now().UnixMilli(), m.Life, last, first.Number)
	if err := e.client.HSet(t.Context(), contract.QuotaBeatsKey, r.name, beat).Err(); err != nil {
		t.Fatal(err)
	}
	r = e.replica(r.journal)
	r.use(a, 1, 10)
	until(t, "all is settled", func() error { return flushed(r) })
	e.awaitSettled(a, 1000, 60)
}

// A replica retires, an epoch begins, and it is silent for a while after it has entered that
// with what its records lack. Then it retires from that one, or has ended, and the epoch after
// that has all: it is taken off the register either way.
func TestSilentWhileItRetires(t *testing.T) {
	t.Parallel()
	for _, lives := range []bool{true, false} {
		t.Run(fmt.Sprint(lives), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			a := e.customer(1000)
			e.keep(e.options())
			first := e.awaitOpen(1)
			r := e.replica(nil)
			r.use(a, 3, 10)
			r.stopBilling()
			r.use(a, 2, 10)
			until(t, "all is settled", func() error { return flushed(r) })
			e.redis.FlushAll()
			next := e.awaitOpen(first.Number + 1)
			until(t, "it has settled them in the second epoch too", func() error { return flushed(r) })
			e.awaitUsage(a, 1000, 50, 0)
			m, _ := e.member(r.name)
			r.kill() // what it would say is said here
			e.record(r.events...)
			last := len(r.events)
			if m.Base >= int64(last) {
				t.Fatalf("base %d of %d events", m.Base, last)
			}
			say := func(epoch int64) {
				beat := fmt.Sprintf("%d|%d|%d|%d|retired", time.Now().UnixMilli(), max(m.Life, 1), last, epoch)
				if err := e.client.HSet(t.Context(), contract.QuotaBeatsKey, r.name, beat).Err(); err != nil {
					t.Fatal(err)
				}
			}
			say(first.Number)
			time.Sleep(3500 * time.Millisecond) // who beats more rarely than every 3 s is not there
			if lives {
				say(next.Number)
			} else {
				e.restartRedis()
				e.awaitOpen(next.Number + 1)
			}
			e.awaitOff(r.name)
			e.awaitUsage(a, 1000, 50, 0)
		})
	}
}

// awaitWaiting waits until the next life of r says that it waits.
func (e *env) awaitWaiting(r *replica) {
	e.t.Helper()
	until(e.t, "its next life waits", func() error {
		beats, err := e.quota.Beats(e.t.Context())
		if b := beats[r.name]; err == nil && (!b.Retired || b.Next != b.Life+1) {
			err = fmt.Errorf("%+v", beats)
		}
		return err
	})
}

// A replica has retired; its next life waits until that is dealt with, and is killed
// meanwhile. It is taken off the register all the same.
func TestKilledWhileARetirementIsDealtWith(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	_, stop := e.keep(e.options())
	e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 1, 10)
	e.settleAndRetire(r, stop)
	next := e.replicaSoon(r.journal)
	e.awaitWaiting(r)
	next.kill()
	e.keep(e.options())
	e.awaitOff(r.name)
	until(t, "nothing is left of it in Redis", func() error {
		if all := e.client.HGetAll(t.Context(), contract.QuotaBeatsKey).Val(); len(all) > 0 {
			return fmt.Errorf("%v", all)
		}
		return nil
	})
	e.awaitUsage(a, 1000, 10, 0)
}

// Likewise, but it is told to stop, and nobody keeps the limits: it ends in order if nothing
// is left to settle, and says what is left if something is. In no case it says that it waits
// any more.
func TestStoppedWhileItWaits(t *testing.T) {
	t.Parallel()
	for _, left := range []bool{false, true} {
		t.Run(fmt.Sprint(left), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			a := e.customer(1000)
			_, stop := e.keep(e.options())
			e.awaitOpen(1)
			r := e.replica(nil)
			if left {
				r.stopBilling()
			}
			r.use(a, 1, 10)
			until(t, "the journal has forgotten what is settled", func() error {
				if r.Forgotten() != r.Last() && !left {
					return errors.New("not yet")
				}
				return nil
			})
			e.settleAndRetire(r, stop)
			next := e.replicaSoon(r.journal)
			e.awaitWaiting(r)
			patient := patience
			if left {
				patient = 500 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patient)
			defer cancel()
			if err := next.Close(ctx); left != errors.Is(err, context.DeadlineExceeded) || !left && err != nil {
				t.Errorf("close: %v", err)
			}
			beats, err := e.quota.Beats(t.Context())
			if b := beats[r.name]; err != nil || !b.Retired || b.Next != 0 {
				t.Errorf("beats %+v, %v", beats, err)
			}
			e.record(r.events...)
			e.keep(e.options())
			e.awaitOff(r.name)
			e.awaitUsage(a, 1000, 10, 0)
		})
	}
}

// A replica says that it has retired, enters an epoch that has begun meanwhile, with what its
// records lack, and dies. Its next life waits, and dies as well before anybody looks: it is not
// noted, and the epoch after that has all and does not wait for the replica.
func TestNextLifeIsGoneToo(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	_, stop := e.keep(e.options())
	first := e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 3, 10)
	r.stopBilling()
	r.use(a, 2, 10)
	until(t, "all is settled", func() error { return flushed(r) })
	e.redis.FlushAll()
	next := e.awaitOpen(first.Number + 1)
	until(t, "it has settled them in the second epoch too", func() error { return flushed(r) })
	e.awaitUsage(a, 1000, 50, 0)
	m, _ := e.member(r.name)
	r.kill() // what it would say is said here
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	e.record(r.events...)
	last := len(r.events)
	if m.Base >= int64(last) {
		t.Fatalf("base %d of %d events", m.Base, last)
	}
	beat := fmt.Sprintf("%d|1|%d|%d|retired", time.Now().UnixMilli(), last, first.Number)
	if err := e.client.HSet(t.Context(), contract.QuotaBeatsKey, r.name, beat).Err(); err != nil {
		t.Fatal(err)
	}
	second := e.replicaSoon(r.journal)
	e.awaitWaiting(r)
	second.kill()
	var looks atomic.Int64
	e.keepWith(e.options(), func() { looks.Add(1) })
	until(t, "the keeper has looked", func() error {
		if n := looks.Load(); n < 10 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	if m, there := e.member(r.name); !there || m.Life > 1 {
		t.Errorf("life 2 is noted, and gone: %+v", m)
	}
	e.restartRedis()
	e.awaitOpen(next.Number + 1)
	e.awaitOff(r.name)
	e.awaitUsage(a, 1000, 50, 0)
}

// Redis goes back to when a replica had retired, which has come back since and leases: an
// epoch waits for it.
func TestOldRetirementComesBack(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	_, stop := e.keep(e.options())
	first := e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 1, 10)
	e.settleAndRetire(r, stop)
	data := e.client.ConfigGet(t.Context(), "dir").Val()["dir"] + "/appendonlydir"
	older := t.TempDir()
	if err := os.CopyFS(older, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	r = e.replicaSoon(r.journal)
	time.Sleep(200 * time.Millisecond) // it asks ten times meanwhile
	if r.Ready() == nil {
		t.Error("a new life serves before the end of the last one was noted")
	}
	_, stop = e.keep(e.options())
	r.reserve(a, 900)
	r.kill()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	e.redis.Stop()
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(data, os.DirFS(older)); err != nil {
		t.Fatal(err)
	}
	e.redis.Start()
	beats, err := e.quota.Beats(t.Context())
	if b := beats[r.name]; err != nil || !b.Retired || b.Life != 1 {
		t.Fatalf("beats %+v, %v", beats, err)
	}
	e.keep(e.options())
	until(t, "the old beat is not believed", func() error {
		beats, err := e.quota.Beats(t.Context())
		if err == nil && len(beats) > 0 {
			err = fmt.Errorf("%+v\n%s", beats, e.log)
		}
		return err
	})
	for range 20 {
		epoch, err := e.quota.Epoch(t.Context())
		if err != nil || epoch.IsOpen() && epoch.Number > first.Number {
			t.Fatalf("%+v, %v\n%s", epoch, err, e.log)
		}
		time.Sleep(10 * time.Millisecond)
	}
	e.replica(r.journal)
	e.awaitOpen(first.Number + 1)
	e.awaitUsage(a, 1000, 10, 0)
}
