package journal

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// mapping is the journal's file in memory. Every store into it goes through here.
//
// A process that is killed leaves exactly the stores that its instructions made, each
// thread's in program order. The order of two stores is therefore fixed wherever
// recovery depends on it by making the later one with store, which neither compiler
// nor processor moves before the earlier ones.
type mapping struct {
	b      []byte
	mapped bool // to a file, rather than plain memory in tests
	// onStore is for tests: called before each atomic store and after each store, it may
	// copy b as a kill at that instruction would leave it.
	onStore func()
}

// store is one atomic store; off is a multiple of 8.
func (m *mapping) store(off int64, v uint64) {
	if m.onStore != nil {
		m.onStore()
	}
	atomic.StoreUint64(m.word(off), v)
	if m.onStore != nil {
		m.onStore()
	}
}

// put is one plain store, for words that count only after a later store.
func (m *mapping) put(off int64, v uint64) {
	*m.word(off) = v
	if m.onStore != nil {
		m.onStore()
	}
}

func (m *mapping) word(off int64) *uint64 {
	_ = m.b[off+7]
	return (*uint64)(unsafe.Pointer(&m.b[off]))
}

func (m *mapping) load(off int64) uint64 { return binary.NativeEndian.Uint64(m.b[off:]) }

// copyIn stores bytes that count only after a later store.
func (m *mapping) copyIn(off int64, p []byte) {
	if m.onStore == nil {
		copy(m.b[off:], p)
		return
	}
	for len(p) > 0 {
		n := copy(m.b[off:], p[:min(len(p), 24)])
		off, p = off+int64(n), p[n:]
		m.onStore()
	}
}
