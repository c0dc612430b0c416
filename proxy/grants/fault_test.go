package grants_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
)

// Redis hangs: what is in memory is served until the grace has passed, also what is
// due to be read again; what is not is refused in time. Then everything is refused,
// and comes back with Redis.
func TestRedisHangs(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, server testenv.AnyRedis) {
		p := newPublisher(t, server)
		const grace = 4 * time.Second
		r := start(t, server, grants.Options{Grace: grace, PositiveTTL: 50 * time.Millisecond, ReadTimeout: time.Second})
		d := newDigest()
		p.put(d, grant(1, contract.StatusActive))
		r.want(t, d, 1, contract.StatusActive)
		changed := newDigest()
		r.wantError(t, changed, grants.ErrUnknownToken)
		seq := p.put(changed, grant(7, contract.StatusActive))
		eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })

		server.Pause()
		paused := time.Now()
		r.want(t, changed, 7, contract.StatusActive) // never read, but announced
		asked := time.Now()
		r.wantError(t, newDigest(), grants.ErrUnavailable)
		if took := time.Since(asked); took > 10*time.Second {
			t.Errorf("a miss took %v with a timeout of a second", took)
		}
		var served time.Duration
		for {
			g, err := r.Lookup(context.Background(), d)
			at := time.Since(paused)
			if err == nil && g.Version == 1 {
				served = at
			} else if errors.Is(err, grants.ErrStale) {
				break
			} else {
				t.Fatalf("after %v: %v", at, err)
			}
			if at > 2*grace {
				t.Fatalf("still served after %v", at)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if served < grace/2 {
			t.Errorf("served only for %v of %v", served, grace)
		}
		if !r.Ready() {
			t.Error("not ready because of Redis")
		}
		server.Resume()
		eventually(t, "served again", func() bool { _, err := r.Lookup(context.Background(), d); return err == nil })
		p.put(d, grant(2, contract.StatusRevoked))
		eventually(t, "changes are seen again", func() bool {
			g, err := r.Lookup(context.Background(), d)
			return err == nil && g.Status == contract.StatusRevoked
		})
		if n := r.Stats().Reloads; n != 0 {
			t.Errorf("%d reloads although no change was missed", n)
		}
	})
}

// Redis is killed and comes back: changes made before anybody else is connected again
// are found in the log.
func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	// With everysec a killed Redis may lose what it acknowledged: it delays write(2), and
	// not only fsync(2), while an fsync is under way.
	server := testenv.Redis(t, testenv.RedisArgs("--appendfsync", "no"))
	p := newPublisher(t, server)
	r := start(t, server, grants.Options{PollInterval: 20 * time.Millisecond})
	d := newDigest()
	p.put(d, grant(1, contract.StatusActive))
	r.want(t, d, 1, contract.StatusActive)
	server.Stop()
	r.want(t, d, 1, contract.StatusActive)
	server.Start()
	p.client = newClient(t, server)
	p.put(d, grant(2, contract.StatusRevoked))
	eventually(t, "revoked", func() bool {
		g, err := r.Lookup(context.Background(), d)
		return err == nil && g.Status == contract.StatusRevoked
	})
	if n := r.Stats().Reloads; n != 0 {
		t.Errorf("%d reloads although the log has everything", n)
	}
}

// A process that was stopped for longer than the grace refuses from its very first
// look-up on, whatever it reads from its sockets first.
func TestProcessWasStopped(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	d := newDigest()
	p.put(d, grant(1, contract.StatusActive))
	var slept atomic.Int64
	// With this interval no poll helps; a message wakes.
	r := start(t, server, grants.Options{PollInterval: time.Hour, Now: func() time.Time { return time.Now().Add(time.Duration(slept.Load())) }})
	r.want(t, d, 1, contract.StatusActive)
	// It asks once more when it is subscribed: what it hears after that came later.
	eventually(t, "subscribed", func() bool { return subscribers(t, p.client) == 1 })
	seq := p.put(newDigest(), grant(1, contract.StatusActive))
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
	slept.Store(int64(11 * time.Second))
	r.wantError(t, d, grants.ErrStale)
	// An old message from a socket's buffer says nothing about now.
	seq = p.put(newDigest(), grant(1, contract.StatusActive))
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
	r.wantError(t, d, grants.ErrStale)
	// A message that is not the next one makes it ask.
	p.client.Publish(context.Background(), contract.FeedChannel, "?")
	eventually(t, "served again", func() bool { _, err := r.Lookup(context.Background(), d); return err == nil })
}

// The log no longer has what was missed: everything is read anew.
func TestGapLongerThanLog(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	r := start(t, server, grants.Options{PollInterval: 20 * time.Millisecond})
	a, b := newDigest(), newDigest()
	p.put(a, grant(1, contract.StatusActive))
	p.put(b, grant(1, contract.StatusActive))
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == 2 })
	r.want(t, a, 1, contract.StatusActive)
	r.want(t, b, 1, contract.StatusActive)
	p.store(a, grant(2, contract.StatusRevoked))
	ctx := context.Background()
	p.seq = 50
	_, err := p.client.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		g := grant(1, contract.StatusActive)
		g.Format = contract.GrantFormat
		text, err := contract.EncodeChange(contract.Change{Seq: 50, Kind: contract.ChangeGrant, Digest: newDigest().Hex(), Grant: &g})
		if err != nil {
			return err
		}
		tx.XAdd(ctx, &redis.XAddArgs{Stream: contract.FeedLogKey, ID: "50-0", Values: []any{"c", text}})
		tx.XTrimMaxLen(ctx, contract.FeedLogKey, 1)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-r.reloads
	r.want(t, a, 2, contract.StatusRevoked)
	r.want(t, b, 1, contract.StatusActive)
	// From there it goes on as usual, one by one.
	seq := p.put(b, grant(2, contract.StatusSuspended))
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
	r.want(t, b, 2, contract.StatusSuspended)
	if n := r.Stats().Reloads; n != 1 {
		t.Errorf("%d reloads", n)
	}
}

// Redis loses its data and a new history begins, even one that has the same number.
func TestHistoryIsAnother(t *testing.T) {
	t.Parallel()
	for name, changes := range map[string]int{"shorter": 1, "as long": 3, "longer": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.Redis(t)
			p := newPublisher(t, server)
			r := start(t, server, grants.Options{PollInterval: 20 * time.Millisecond})
			d := newDigest()
			for version := range int64(3) {
				p.put(d, grant(version+1, contract.StatusActive))
			}
			eventually(t, "applied", func() bool { return r.Stats().FeedSeq == 3 })
			r.want(t, d, 3, contract.StatusActive)
			ctx := context.Background()
			_, err := p.client.TxPipelined(ctx, func(tx redis.Pipeliner) error {
				tx.FlushAll(ctx)
				for seq := range changes {
					text, err := contract.EncodeChange(contract.Change{Seq: int64(seq + 1), Kind: contract.ChangeReload})
					if err != nil {
						return err
					}
					tx.XAdd(ctx, &redis.XAddArgs{Stream: contract.FeedLogKey, ID: strconv.Itoa(seq+1) + "-0", Values: []any{"c", text}})
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			<-r.reloads
			r.wantError(t, d, grants.ErrUnavailable)
			p.set(contract.FeedComplete, "second")
			r.wantError(t, d, grants.ErrUnknownToken)
		})
	}
}

// A change from a newer version of the control plane cannot be read, but is not ignored.
func TestUnreadableChange(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	r := start(t, server, grants.Options{})
	d := newDigest()
	p.put(d, grant(1, contract.StatusActive))
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == 1 })
	r.want(t, d, 1, contract.StatusActive)
	p.store(d, grant(2, contract.StatusSuspended))
	p.seq++
	p.write(p.seq, `{"format":99}`)
	<-r.reloads
	r.want(t, d, 2, contract.StatusSuspended)
	seq := p.put(d, grant(3, contract.StatusActive))
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
	r.want(t, d, 3, contract.StatusActive)
}

// More than a page of changes in the log is caught up with in order.
func TestCatchUpInPages(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	r := start(t, server, grants.Options{PollInterval: 50 * time.Millisecond})
	p.silent = true
	d := newDigest()
	const changes = 1600
	for version := range int64(changes) {
		p.put(d, grant(version+1, contract.StatusActive))
	}
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == changes })
	for want := range int64(changes) {
		if g := <-r.changes; g.Version != want+1 {
			t.Fatalf("told of version %d, want %d", g.Version, want+1)
		}
	}
	if n := r.Stats().Reloads; n != 0 {
		t.Errorf("%d reloads", n)
	}
}

// Nothing that was started is left. Not parallel: it looks at the whole process.
func TestNothingIsLeft(t *testing.T) {
	testenv.NoLeaks(t)
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	r := start(t, server, grants.Options{ReadTimeout: time.Second})
	d := newDigest()
	seq := p.put(d, grant(1, contract.StatusActive))
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
	r.want(t, d, 1, contract.StatusActive)
	server.Pause()
	for range 50 {
		go func() { _, _ = r.Lookup(context.Background(), newDigest()) }()
	}
	r.wantError(t, newDigest(), grants.ErrUnavailable)
	server.Resume()
}

// An entry that is old enough to be read again is not waited for: a Redis that is slow
// costs those who are known nothing, and what a read finds is used from then on.
func TestOldEntriesAreReadInTheBackground(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	r := start(t, server, grants.Options{Grace: time.Minute, PositiveTTL: 20 * time.Millisecond, ReadTimeout: 5 * time.Second})
	d := newDigest()
	p.store(d, grant(1, contract.StatusActive)) // not told by the feed: only a read finds it
	r.want(t, d, 1, contract.StatusActive)
	server.Pause()
	// Each look-up that waits takes the whole timeout.
	for start := time.Now(); time.Since(start) < 500*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		asked := time.Now()
		r.want(t, d, 1, contract.StatusActive)
		if took := time.Since(asked); took > 2*time.Second {
			t.Fatalf("a look-up waited for %v", took)
		}
	}
	server.Resume()
	p.store(d, grant(2, contract.StatusSuspended))
	eventually(t, "the newer version is found", func() bool {
		g, err := r.Lookup(context.Background(), d)
		return err == nil && g.Version == 2
	})
}
