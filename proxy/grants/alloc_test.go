//go:build !race

// The race detector allocates by itself.

package grants_test

import (
	"context"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
)

func TestLookupAllocatesNothing(t *testing.T) {
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	cached, announced, revoked, unknown := newDigest(), newDigest(), newDigest(), newDigest()
	p.store(cached, grant(1, contract.StatusActive))
	r := start(t, server, grants.Options{NegativeTTL: 1 << 40})
	p.put(announced, grant(1, contract.StatusActive))
	p.put(revoked, grant(1, contract.StatusRevoked))
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == 2 })
	ctx := context.Background()
	for name, d := range map[string]contract.Digest{"cached": cached, "announced": announced, "revoked": revoked, "unknown": unknown} {
		_, _ = r.Lookup(ctx, d)
		if n := testing.AllocsPerRun(5000, func() { _, _ = r.Lookup(ctx, d) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if n := testing.AllocsPerRun(5000, func() { _, _ = r.Cached(d) }); n != 0 {
			t.Errorf("%s, cached: %v allocations", name, n)
		}
		if n := testing.AllocsPerRun(5000, func() { _ = r.Known(d) }); n != 0 {
			t.Errorf("%s, known: %v allocations", name, n)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	server := testenv.Redis(b)
	p := newPublisher(b, server)
	r := start(b, server, grants.Options{})
	ds := make([]contract.Digest, 1024)
	for i := range ds {
		ds[i] = newDigest()
		p.store(ds[i], grant(1, contract.StatusActive))
		r.want(b, ds[i], 1, contract.StatusActive)
	}
	p.put(newDigest(), grant(1, contract.StatusActive)) // so that there are floors to look for
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := r.Lookup(context.Background(), ds[i%len(ds)]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
