package grants_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
)

// Any one master of a Cluster loses its data: nobody's token becomes unknown by it.
func TestOneMasterLosesItsData(t *testing.T) {
	t.Parallel()
	server := testenv.RedisCluster(t)
	for i, master := range server.Masters {
		r, p, _ := lossReader(t, server)
		digests := make([]contract.Digest, 100)
		for i := range digests {
			digests[i] = newDigest()
			p.store(digests[i], grant(1, contract.StatusActive))
		}
		master.FlushAll()
		for _, d := range digests {
			g, err := r.Lookup(context.Background(), d)
			if err == nil && g.Version != 1 || err != nil && !errors.Is(err, grants.ErrUnavailable) {
				t.Fatalf("master %d lost its data: %v, %v", i, g, err)
			}
		}
		server.FlushAll()
	}
}

// The feed's slot moves to another master while changes are published: none is missed,
// and nobody has to start afresh.
func TestFeedMoves(t *testing.T) {
	t.Parallel()
	server := testenv.RedisCluster(t)
	publisher := feed.NewPublisher(newClient(t, server))
	if err := publisher.Rebuild(t.Context(), 0, func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	r := start(t, server, grants.Options{PollInterval: 20 * time.Millisecond, NegativeTTL: time.Millisecond})
	d, seq := newDigest(), int64(0)
	put := func(version int64, status contract.Status) {
		t.Helper()
		var err error
		if seq, err = publisher.PutGrant(t.Context(), d, grant(version, status)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
		r.want(t, d, version, status)
		r.wantError(t, newDigest(), grants.ErrUnknownToken)
	}
	put(1, contract.StatusActive)
	before := server.Of(contract.FeedLogKey)
	server.Move(contract.FeedLogKey, func() { put(2, contract.StatusSuspended) })
	if server.Of(contract.FeedLogKey) == before || server.Of(contract.GrantKey(d)) == before {
		t.Fatal("the feed has not moved")
	}
	put(3, contract.StatusActive)
	if n := r.Stats().Reloads; n != 0 {
		t.Errorf("%d reloads", n)
	}
	if s, err := publisher.State(t.Context()); err != nil || !s.Complete || s.Seq != seq {
		t.Errorf("state %+v, %v", s, err)
	}
}
