package proxy

import (
	"io"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

// streamBody drives a stream with the goroutine of the client's connection: fasthttp
// reads what the client gets, and flushes after each Read. Back-pressure is the write
// that blocks; nothing is buffered beyond one read.
type streamBody struct {
	stream
	bufs    *streamBuffers
	out     []byte // for the client, from bufs.out
	closed  bool
	writeBy time.Time   // write deadline that is set on the connection
	hurried bool        // the deadline is the last one
	tail    *time.Timer // ends an upstream that goes on after its end mark
}

type streamBuffers struct{ in, out []byte }

// One read of the upstream is seldom more than a few events of about 250 bytes.
var streamBufferPool = sync.Pool{New: func() any {
	return &streamBuffers{in: make([]byte, 4096), out: make([]byte, 0, 4096)}
}}

func newStreamBody(c *call) *streamBody {
	b := &streamBody{bufs: streamBufferPool.Get().(*streamBuffers)}
	b.init(c)
	return b
}

// rescue is deferred where fasthttp calls us outside of the handler: it recovers nothing,
// and one panic would end every stream of the process.
func (b *streamBody) rescue(err *error) {
	if p := recover(); p != nil {
		b.c.s.panicked(b.c, p)
		b.ended, b.out = true, nil
		*err = errBug
	}
}

// Read returns the next bytes for the client, blocking until there are some.
func (b *streamBody) Read(p []byte) (n int, err error) {
	defer b.rescue(&err)
	for {
		if len(b.out) > 0 {
			n := copy(p, b.out)
			b.out = b.out[n:]
			b.extendWrite()
			return n, nil
		}
		if b.ended {
			return 0, io.EOF
		}
		b.advance()
		if b.c.departure.going.Load() {
			b.goOn()
			return 0, io.EOF
		}
	}
}

// goOn reads the upstream to the end for nobody.
func (b *streamBody) goOn() {
	for !b.ended && !b.c.settled {
		b.advance()
	}
	b.out = nil
}

// advance takes one read of the upstream through the relay.
func (b *streamBody) advance() {
	n, err := b.c.resp.Read(b.bufs.in)
	out := b.take(b.bufs.out[:0], b.bufs.in[:n], err)
	if b.tailing() && b.tail == nil {
		cancel := &b.c.cancel
		b.tail = time.AfterFunc(tailWait, func() { cancel.Cancel(errTail) })
	}
	b.bufs.out = out[:0]
	b.out = out
}

// extendWrite gives the client its time to take what comes next. The deadline is
// moved at most eight times per timeout: each move costs a timer. At the end of a drain it is
// moved once more: the last one may have passed while the upstream was silent.
func (b *streamBody) extendWrite() {
	s := b.c.s
	limit := time.Duration(s.cfg.Timeouts.Write)
	now := time.Now()
	switch {
	case b.hurried:
		return
	case s.state.Load() == stateClosed:
		b.hurried = true
		limit = cutTime
	case b.writeBy.Sub(now) > limit-limit/8:
		return
	}
	b.writeBy = now.Add(limit)
	s.calls.mayWriteUntil(b.c, b.writeBy)
}

// Close is called by fasthttp when the body is through or the client is gone.
func (b *streamBody) Close() (err error) {
	if b.closed {
		return nil
	}
	b.closed = true
	c := b.c
	defer c.close()
	defer b.rescue(&err)
	if b.tail != nil {
		b.tail.Stop()
	}
	if !c.settled && c.clientLeft() {
		b.goOn()
	}
	if !c.settled {
		b.settle(contract.OutcomeClientGone)
	}
	// After the end mark the rest of the framing usually is there already.
	c.release(upstream.Result{})
	c.s.metrics.streams.Dec()
	if cap(b.bufs.out) <= pooledBodyBytes { // a large event must not stay in memory for ever
		streamBufferPool.Put(b.bufs)
	}
	b.bufs, b.out = nil, nil
	return nil
}
