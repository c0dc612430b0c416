package proxy

import (
	"hash/maphash"
	"sync"
)

// customers counts the requests in flight of each customer on this replica. An entry
// lives only while there is one.
type customers struct {
	seed   maphash.Seed
	shards [64]customerShard
}

type customerShard struct {
	mu sync.Mutex
	n  map[string]int
}

func (cs *customers) init() {
	cs.seed = maphash.MakeSeed()
	for i := range cs.shards {
		cs.shards[i].n = map[string]int{}
	}
}

func (cs *customers) shard(id string) *customerShard {
	return &cs.shards[maphash.String(cs.seed, id)%uint64(len(cs.shards))]
}

// enter takes a place if the customer has fewer than limit requests in flight.
func (cs *customers) enter(id string, limit int) bool {
	sh := cs.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.n[id] >= limit {
		return false
	}
	sh.n[id]++
	return true
}

func (cs *customers) leave(id string) {
	sh := cs.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.n[id]--; sh.n[id] <= 0 {
		delete(sh.n, id)
	}
}
