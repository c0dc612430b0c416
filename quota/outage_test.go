package quota_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// While Redis hangs, what is leased is given out without waiting, and other reservations
// fail after the timeout of one command, many of them at once. Afterwards all is settled.
func TestRedisHangs(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 100_000)
	p.add(t, acct)
	o := quick()
	o.Timeout, o.ReturnAfter = 250*time.Millisecond, time.Hour
	r := start(t, server, newDisk("a"), o)
	r.Release(r.reserveAnyway(t, acct, 50_000))

	server.Pause()
	defer server.Resume()
	before := r.Stats().Epoch
	const hang = 3 * time.Second
	over := time.Now().Add(hang)
	stop := workers(4, func(_ int, done <-chan struct{}) { // in vain, and in the way of others
		for {
			select {
			case <-done:
				return
			default:
				began := time.Now()
				if out, err := r.Reserve(context.Background(), acct, 60_000); !errors.Is(err, quota.ErrUnavailable) {
					t.Errorf("reserved without Redis: %+v, %v", out, err)
				}
				if d := time.Since(began); d > 15*time.Second {
					t.Errorf("refused after %v", d)
				}
				time.Sleep(time.Millisecond)
			}
		}
	})
	granted, slow := int64(0), int64(0)
	for time.Now().Before(over) {
		began := time.Now()
		out := r.TryReserve(acct, 10)
		if time.Since(began) > o.Timeout/2 {
			slow++
		}
		if out.Verdict != quota.Granted {
			t.Fatalf("not served from the lease: %+v", out)
		}
		granted++
		r.j.use(out.Hold, 1)
		time.Sleep(2 * time.Millisecond)
	}
	stop()
	if slow > granted/20 { // or the machine had other things to do
		t.Errorf("%d of %d reservations waited", slow, granted)
	}
	server.Resume()
	r.flush(t)
	if u, err := p.Usage(context.Background(), acct); err != nil || u.Settled != granted {
		t.Errorf("usage %+v, %v; %d were used", u, err, granted)
	}
	r.reserveAnyway(t, acct, 100_000-granted)
	if after := r.Stats().Epoch; after != before {
		t.Errorf("epoch %d, then %d: nothing was lost", before, after)
	}
}

// commands returns how often Redis was asked for each command, those of scripts included.
func commands(t testing.TB, client redis.UniversalClient) map[string]int64 {
	t.Helper()
	info, err := client.Info(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int64{}
	for line := range strings.Lines(info) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":calls=")
		if n, err := strconv.ParseInt(strings.Split(rest, ",")[0], 10, 64); err == nil {
			all[name] = n
		}
	}
	return all
}

// Redis work grows with time and not with requests.
func TestCommandsDoNotGrowWithRequests(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 100_000_000)
	p.add(t, acct)
	o := quick()
	o.SettleEvery, o.FollowEvery = 100*time.Millisecond, 250*time.Millisecond
	r := start(t, server, newDisk("a"), o)
	r.untilOpen(t, 1)
	p.pause(true) // it is no part of this
	// Scripts may be loaded, and the lease has the size of the traffic.
	run := func(requests int) (perSecond float64, all map[string]int64) {
		before := commands(t, p.client)
		const wall = 2 * time.Second
		began := time.Now()
		for i := range requests {
			sleepUntil(began.Add(wall * time.Duration(i) / time.Duration(requests)))
			out, err := r.reserve(acct, 1000)
			if err != nil || out.Verdict != quota.Granted {
				t.Fatalf("%+v, %v", out, err)
			}
			r.j.use(out.Hold, 100)
		}
		sleepUntil(began.Add(wall))
		all = commands(t, p.client)
		sum := int64(0)
		for name, n := range all {
			all[name] = n - before[name]
			sum += all[name]
		}
		return float64(sum) / time.Since(began).Seconds(), all
	}
	run(2000)
	var many float64
	for try := 1; ; try++ { // what else the machine does may fall into one of them
		few, names := run(200)
		var namesOfMany map[string]int64
		many, namesOfMany = run(2000)
		t.Logf("%.1f commands/s for 100 requests/s: %v", few, names)
		t.Logf("%.1f commands/s for 1,000 requests/s: %v", many, namesOfMany)
		if many <= 1.3*few && few <= 1.3*many {
			break
		}
		if try == 5 {
			t.Errorf("%.1f commands/s for 100 requests/s, %.1f for 1,000", few, many)
			break
		}
	}
	if most := 15 * (1 / o.SettleEvery.Seconds()); many > most {
		t.Errorf("%.1f commands/s, want at most %.1f", many, most)
	}
}

// Those who wait for tokens that others hold do not ask Redis more often the more they are.
func TestWaitingIsCheap(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	a, b := start(t, server, newDisk("a"), quick()), start(t, server, newDisk("b"), quick())
	h := a.mustReserve(t, acct, 990)
	run := func(waiters int) float64 {
		var polls atomic.Int64
		before := commands(t, p.client)["evalsha"]
		began := time.Now()
		stop := workers(waiters, func(w int, done <-chan struct{}) {
			time.Sleep(time.Duration(w) * 50 * time.Millisecond / time.Duration(waiters))
			for {
				if out, err := b.Reserve(context.Background(), acct, 500); err != nil || out.Verdict != quota.Held {
					t.Errorf("%+v, %v", out, err)
				}
				polls.Add(1)
				select {
				case <-done:
					return
				case <-b.Changed(acct.Customer):
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
		sleepUntil(began.Add(2 * time.Second))
		calls, d := commands(t, p.client)["evalsha"]-before, time.Since(began).Seconds()
		stop()
		t.Logf("%d waiters: %.0f calls/s, %.0f polls/s", waiters, float64(calls)/d, float64(polls.Load())/d)
		return float64(calls) / d
	}
	run(8)
	// They come in heaps, and an answer counts for all who come just after it.
	if n := run(256); n > 100 {
		t.Errorf("%.0f calls/s", n)
	}
	a.Release(h)
	b.await(t, acct, 1000)
}

// Nothing is left of many replicas, customers and reservations, some of which gave up.
func TestLeasesLeaveNothingBehind(t *testing.T) {
	testenv.NoLeaks(t)
	server := testenv.Redis(t)
	p := newPlane(t, server)
	accts := make([]quota.Account, 20)
	for i := range accts {
		accts[i] = account(t, 1000)
		accts[i].Customer += strconv.Itoa(i)
		p.add(t, accts[i])
	}
	rs := make([]*replica, 3)
	for i := range rs {
		rs[i] = start(t, server, newDisk(fmt.Sprintf("r%d", i)), quick())
	}
	stop := workers(12, func(w int, done <-chan struct{}) {
		r := rs[w%3]
		for i := w; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%4)*time.Millisecond)
			out, err := r.Reserve(ctx, accts[i%len(accts)], 600)
			cancel()
			if err == nil && out.Verdict == quota.Granted {
				r.Release(out.Hold)
			}
		}
	})
	sleepUntil(time.Now().Add(300 * time.Millisecond))
	rs[2].kill()
	stop()
	rs[0].close(t)
	rs[1].close(t)
	start(t, server, rs[2].d, quick()).close(t)
	for _, a := range accts {
		p.wantUsage(t, a, 1000, 0, 0)
	}
}
