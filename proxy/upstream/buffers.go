package upstream

import "sync"

const (
	readBufferBytes = 4 << 10
	coalesceBytes   = 64 << 10 // head and body up to this go out in one write
	keepBytes       = coalesceBytes + 16<<10
)

// buffer is a byte slice that a sync.Pool can hold without allocating.
type buffer struct{ b []byte }

// bufferPool hands out empty buffers and does not keep oversized ones.
type bufferPool struct {
	pool sync.Pool
	keep int
}

func (p *bufferPool) get(size int) *buffer {
	b, _ := p.pool.Get().(*buffer)
	if b == nil {
		b = new(buffer)
	}
	if cap(b.b) < size {
		b.b = make([]byte, 0, size)
	}
	return b
}

func (p *bufferPool) put(b *buffer) {
	if cap(b.b) > p.keep {
		return
	}
	b.b = b.b[:0]
	p.pool.Put(b)
}
