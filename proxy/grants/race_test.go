package grants_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
)

// Redis has answered a read with a grant; before the answer is used the grant changes.
// Neither the look-up that waits for it nor any later one may see the old version.
func TestLateReadNeverWins(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	for name, change := range map[string]func(d contract.Digest) int64{
		"revoked": func(d contract.Digest) int64 { return p.put(d, grant(2, contract.StatusRevoked)) },
		"suspended": func(d contract.Digest) int64 {
			return p.put(d, grant(2, contract.StatusSuspended))
		},
		"everything reloaded": func(d contract.Digest) int64 {
			p.store(d, grant(2, contract.StatusSuspended))
			return p.announce(contract.Change{Kind: contract.ChangeReload})
		},
	} {
		for _, known := range []bool{true, false} { // the read finds version 1, or nothing
			r := start(t, server, grants.Options{NegativeTTL: time.Hour})
			d := newDigest()
			if known {
				p.store(d, grant(1, contract.StatusActive))
			}
			release := r.holdReads()
			type result struct {
				grant *contract.Grant
				err   error
			}
			got := make(chan result, 1)
			go func() {
				g, err := r.Lookup(context.Background(), d)
				got <- result{g, err}
			}()
			<-r.held
			seq := change(d)
			eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
			release()
			if res := <-got; res.err != nil || res.grant.Version != 2 {
				t.Errorf("%s: the look-up under way got %v, %v", name, res.grant, res.err)
			}
			for range 3 {
				if g, err := r.Lookup(context.Background(), d); err != nil || g.Version != 2 {
					t.Errorf("%s: a later look-up got %v, %v", name, g, err)
				}
			}
		}
	}
}

// If Redis has only something older than what was announced (a read was sent to an old
// copy), what was announced is used.
func TestOldCopyIsRefused(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	r := start(t, server, grants.Options{})
	d := newDigest()
	p.put(d, grant(5, contract.StatusActive))
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == 1 })
	p.store(d, grant(4, contract.StatusSuspended))
	r.want(t, d, 5, contract.StatusActive)
	p.client.Del(context.Background(), contract.GrantKey(d))
	r.want(t, d, 5, contract.StatusActive)
	p.store(d, grant(6, contract.StatusActive))
	r.want(t, d, 6, contract.StatusActive)
}

// Cached never asks Redis. It knows at once of a token that may no longer be used, and
// of others what was looked up.
func TestCached(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	r := start(t, server, grants.Options{})
	d := newDigest()
	want := func(version int64, known bool) {
		t.Helper()
		if g, ok := r.Cached(d); ok != known || ok && g.Version != version {
			t.Errorf("got %v, %v; want version %d, %v", g, ok, version, known)
		}
	}
	put := func(g contract.Grant) {
		seq := p.put(d, g)
		eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
	}
	want(0, false)
	r.wantError(t, d, grants.ErrUnknownToken)
	want(0, false)
	put(grant(1, contract.StatusActive))
	want(0, false)
	r.want(t, d, 1, contract.StatusActive)
	want(1, true)
	gets := r.gets.Load()
	put(grant(2, contract.StatusSuspended))
	want(2, true)
	put(grant(3, contract.StatusActive))
	want(0, false)
	put(grant(4, contract.StatusRevoked))
	want(4, true)
	if n := r.gets.Load() - gets; n != 0 {
		t.Errorf("%d reads", n)
	}
	idle, err := grants.New(p.client, grants.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if _, ok := idle.Cached(d); ok {
		t.Error("answers without having heard the feed")
	}
}

// Known tells tokens that exist from guesses, also when what was read of them is void:
// changed, expired or dropped.
func TestKnown(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	d, other := newDigest(), newDigest()
	p.store(d, grant(1, contract.StatusActive))
	r := start(t, server, grants.Options{PositiveTTL: time.Millisecond})
	want := func(d contract.Digest, known bool, when string) {
		t.Helper()
		if r.Known(d) != known {
			t.Errorf("%s: known is not %v", when, known)
		}
	}
	applied := func(seq int64) {
		t.Helper()
		eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
	}
	want(d, false, "not read")
	r.wantError(t, other, grants.ErrUnknownToken)
	want(other, false, "a guess")
	r.want(t, d, 1, contract.StatusActive)
	want(d, true, "read")
	eventually(t, "expired", func() bool { _, ok := r.Cached(d); return !ok })
	want(d, true, "expired")
	applied(p.announce(contract.Change{Kind: contract.ChangeReload}))
	want(d, true, "dropped")
	applied(p.put(d, grant(2, contract.StatusSuspended)))
	want(d, true, "suspended")
	applied(p.put(other, grant(1, contract.StatusActive)))
	want(other, true, "announced")
	applied(p.put(other, grant(2, contract.StatusRevoked)))
	want(other, false, "revoked")
	applied(p.announce(contract.Change{Kind: contract.ChangeReload}))
	r.want(t, other, 2, contract.StatusRevoked)
	want(other, false, "read as revoked")
}

// Whoever knows that a change was applied never sees anything older: many digests in a
// cache too small for them, changed all the time, entries that expire at once, reloads,
// and all that while others read.
func TestNeverOlderThanTheFeed(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	r := start(t, server, grants.Options{MaxEntries: 32, NegativeTTL: 5 * time.Millisecond, PositiveTTL: 20 * time.Millisecond, PollInterval: 5 * time.Millisecond})
	const digests = 100
	ds := make([]contract.Digest, digests)
	type announced struct {
		seq, version int64
		revoked      bool
	}
	var last [digests]atomic.Pointer[announced]
	for i := range ds {
		ds[i] = newDigest()
		last[i].Store(&announced{})
	}
	done := make(chan struct{})
	var looked, bound atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		rng := rand.New(rand.NewPCG(uint64(w), 9))
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				i := rng.IntN(digests)
				was := last[i].Load()
				applied := r.Stats().FeedSeq >= was.seq
				g, err := r.Lookup(context.Background(), ds[i])
				looked.Add(1)
				if !applied || was.version == 0 {
					continue
				}
				bound.Add(1)
				switch {
				case errors.Is(err, grants.ErrUnavailable): // changed again and again under it
				case err != nil:
					t.Errorf("version %d is announced, got %v", was.version, err)
				case g.Version < was.version || was.revoked && g.Status != contract.StatusRevoked:
					t.Errorf("version %d is announced (revoked %v), got %d, %s", was.version, was.revoked, g.Version, g.Status)
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(4, 2))
	for n := range 2000 {
		p.silent = rng.IntN(3) == 0
		i := rng.IntN(digests)
		was := last[i].Load()
		if n%500 == 499 {
			p.announce(contract.Change{Kind: contract.ChangeReload})
		}
		if was.revoked {
			continue
		}
		g := grant(was.version+1, contract.StatusActive)
		if rng.IntN(20) == 0 {
			g.Status = contract.StatusRevoked
		}
		seq := p.put(ds[i], g)
		last[i].Store(&announced{seq, g.Version, g.Status == contract.StatusRevoked})
	}
	eventually(t, "all applied", func() bool { return r.Stats().FeedSeq == p.seq })
	for i, d := range ds {
		if was := last[i].Load(); was.version > 0 {
			if g, err := r.Lookup(context.Background(), d); err != nil || g.Version != was.version {
				t.Errorf("at the end: got %v, %v; want version %d", g, err, was.version)
			}
		}
	}
	close(done)
	wg.Wait()
	t.Logf("%d look-ups, %d after a change was applied; stats %+v", looked.Load(), bound.Load(), r.Stats())
	if bound.Load() < 1000 {
		t.Error("hardly anything was checked")
	}
}
