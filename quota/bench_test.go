package quota_test

import (
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// BenchmarkTryReserve is a reservation from a lease and its release: all of one customer, or
// each goroutine of its own.
func BenchmarkTryReserve(b *testing.B) {
	server := testenv.Redis(b)
	p := newPlane(b, server)
	r := start(b, server, newDisk("a"), quick())
	accts := make([]quota.Account, 64)
	for i := range accts {
		accts[i] = account(b, 1<<40)
		accts[i].Customer += string(rune('A' + i))
		p.add(b, accts[i])
	}
	for name, customers := range map[string]int{"one customer": 1, "64 customers": 64} {
		b.Run(name, func(b *testing.B) {
			// A sleeper's lease goes back: each is used all the time.
			b.ReportAllocs()
			for _, a := range accts[:customers] {
				r.Release(r.reserveAnyway(b, a, 1<<30))
			}
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if out := r.TryReserve(accts[i%customers], 1000); out.Verdict == quota.Granted {
						r.Release(out.Hold)
					}
				}
			})
		})
	}
}
