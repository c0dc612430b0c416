package quota

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// outage lets callers fail at once while a Redis server is away, instead of each waiting
// for its timeout: after some failures in a row only one
// attempt per outagePause goes through, until one works. The zero value is ready.
type outage struct {
	failures atomic.Int32
	next     atomic.Int64 // Unix nanoseconds: when the next attempt may go through
}

const (
	outageAfter = 3
	outagePause = 50 * time.Millisecond
)

func (o *outage) allow(now time.Time) bool {
	if o.failures.Load() < outageAfter {
		return true
	}
	next := o.next.Load()
	return now.UnixNano() >= next && o.next.CompareAndSwap(next, now.Add(outagePause).UnixNano())
}

func (o *outage) failed(now time.Time) {
	// The pause counts from the end of the attempt, which may have taken longer.
	if o.failures.Load() >= outageAfter || o.failures.Add(1) >= outageAfter {
		o.next.Store(now.Add(outagePause).UnixNano())
	}
}

func (o *outage) worked() {
	if o.failures.Load() != 0 {
		o.failures.Store(0)
	}
}

// was takes note of an attempt: one trip, whatever it was for.
func (o *outage) was(answered bool) {
	if answered {
		o.worked()
	} else {
		o.failed(time.Now())
	}
}

// away reports whether so many attempts have failed in a row that only some go through.
func (o *outage) away() bool { return o.failures.Load() >= outageAfter }

// failing reports whether the last attempt failed.
func (o *outage) failing() bool { return o.failures.Load() != 0 }

// server is what a replica knows of one Redis server that has records. Its zero value is ready.
type server struct {
	outage
	busy  atomic.Bool // a tick's calls are under way
	more  atomic.Bool // a tick came meanwhile
	trips trips       // calls that somebody waits for
}

// servers finds the server of a record: in a Redis Cluster one that is away must not be in
// the way of those that are there. The zero value is ready; safe for concurrent use.
type servers struct {
	only server // without a Cluster, or while it is not known who has which records

	mu     sync.Mutex
	byAddr map[string]*server
}

// of returns the server that has key, as far as client knows. It makes no trip.
func (s *servers) of(client redis.UniversalClient, key string) *server {
	master := masterOf(client, key)
	if master == nil {
		return &s.only
	}
	addr := master.Options().Addr
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.byAddr[addr]
	if one == nil {
		if s.byAddr == nil {
			s.byAddr = map[string]*server{}
		}
		one = &server{}
		s.byAddr[addr] = one
	}
	return one
}

// masterOf returns the master of a Cluster that has key, as far as client knows; nil if that is
// not known, or client is none of a Cluster. It makes no trip.
func masterOf(client redis.UniversalClient, key string) *redis.Client {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		return nil
	}
	known, cancel := context.WithCancel(context.Background())
	cancel() // what is not known is not worth a trip
	master, err := cluster.MasterForKey(known, key)
	if err != nil {
		return nil
	}
	return master
}

// serverOf returns the server that has the record of a.
func (l *Leases) serverOf(a *account) *server {
	return l.servers.of(l.client, contract.QuotaKey(a.key.customer, a.key.period))
}
