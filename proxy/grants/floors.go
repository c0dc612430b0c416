package grants

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

const floorShards = 64

// floors holds, by digest, the newest version that the feed announced lately: no older
// one may be used. It is a floor and not the last word, for a read of Redis may have
// found a newer one already. The
// goroutine of Run writes; look-ups read. The zero value is ready.
type floors struct {
	size   atomic.Int64
	shards [floorShards]floorShard
}

type floorShard struct {
	mu sync.RWMutex
	by map[contract.Digest]floor
}

type floor struct {
	grant *contract.Grant
	set   time.Duration
}

func (f *floors) shard(d *contract.Digest) *floorShard { return &f.shards[d[31]%floorShards] }

// get returns the announced grant, or nil.
func (f *floors) get(d *contract.Digest) *contract.Grant {
	if f.size.Load() == 0 {
		return nil
	}
	s := f.shard(d)
	s.mu.RLock()
	found := s.by[*d]
	s.mu.RUnlock()
	return found.grant
}

// raise makes g the floor of d, and reports false if the floor is that high already.
func (f *floors) raise(d contract.Digest, g *contract.Grant, now time.Duration) bool {
	s := f.shard(&d)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.by[d]
	if ok && (old.grant.Version >= g.Version || old.grant.Status == contract.StatusRevoked) {
		return false
	}
	if s.by == nil {
		s.by = make(map[contract.Digest]floor)
	}
	s.by[d] = floor{grant: g, set: now}
	if !ok {
		f.size.Add(1)
	}
	return true
}

// forget removes the floors set before then. With keepRevoked those of revoked grants stay: that they
// are is final, and holds in whatever history of the feed.
func (f *floors) forget(then time.Duration, keepRevoked bool) {
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		for d, old := range s.by {
			if old.set < then && !(keepRevoked && old.grant.Status == contract.StatusRevoked) {
				delete(s.by, d)
				f.size.Add(-1)
			}
		}
		if len(s.by) == 0 {
			s.by = nil // a map keeps its size
		}
		s.mu.Unlock()
	}
}
