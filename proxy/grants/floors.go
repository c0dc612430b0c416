package grants

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

const floorShards = 64

// floors holds, by digest, the newest version that the feed announced lately. The
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
	version int64
	// revoked is the grant itself if it is revoked. That is final, so it can be
	// returned without reading whether something newer exists.
	revoked *contract.Grant
	set     time.Duration
}

func (f *floors) shard(d *contract.Digest) *floorShard { return &f.shards[d[31]%floorShards] }

func (f *floors) get(d *contract.Digest) (version int64, revoked *contract.Grant) {
	if f.size.Load() == 0 {
		return 0, nil
	}
	s := f.shard(d)
	s.mu.RLock()
	found := s.by[*d]
	s.mu.RUnlock()
	return found.version, found.revoked
}

// raise sets the floor of d to g's version, and reports false if it was that high.
func (f *floors) raise(d contract.Digest, g *contract.Grant, now time.Duration) bool {
	s := f.shard(&d)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.by[d]
	if ok && old.version >= g.Version || old.revoked != nil {
		return false
	}
	if s.by == nil {
		s.by = make(map[contract.Digest]floor)
	}
	raised := floor{version: g.Version, set: now}
	if g.Status == contract.StatusRevoked {
		raised.revoked = g
	}
	s.by[d] = raised
	if !ok {
		f.size.Add(1)
	}
	return true
}

// forget removes the floors set before then.
func (f *floors) forget(then time.Duration) {
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		for d, old := range s.by {
			if old.set < then {
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
