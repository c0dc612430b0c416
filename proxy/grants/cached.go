package grants

import (
	"encoding/binary"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Cached returns the grant of a digest if it is in memory and may be used as it is.
// It does no I/O and allocates nothing. Where it reports false, Lookup knows more.
func (c *Cache) Cached(digest contract.Digest) (*contract.Grant, bool) {
	now := c.now()
	if c.stale(now) {
		return nil, false
	}
	// The floor is read before the generation: drop works in the opposite order.
	floor, revoked := c.floors.get(&digest)
	if revoked != nil {
		return revoked, true
	}
	gen := c.gen.Load()
	e, ok := c.known.Get(binary.LittleEndian.Uint64(digest[:]))
	if !ok || !e.good(&digest, gen, floor) || now >= e.soft {
		return nil, false
	}
	c.hits.Add(1)
	return e.grant, true
}
