package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"
)

const (
	drainWait  = 50 * time.Millisecond // for the rest of a body that is to be thrown away
	drainBytes = 256 << 10
)

// errBodyClosed is what Read returns after Close.
var errBodyClosed = errors.New("upstream: read after Close")

type framing uint8

const (
	byLength framing = iota
	byChunks
	byClose
)

// Response is an answer whose head is complete. It is used by one goroutine at a time.
type Response struct {
	Status int
	Head   *Head // valid until Close, then nil

	cn       *conn
	cancel   *Canceler
	bufs     *bufferPool
	buf      *buffer // holds left; given back as soon as left is used up
	left     []byte  // received and not yet looked at
	framing  framing
	reusable bool
	remain   int64 // of a body by length
	chunked  Chunked
	total    time.Duration
	end      error   // what Read returns from now on
	poll     *poller // &polling; nil: it is not read with Poll
	polling  poller
}

func newResponse(cn *conn, c *Canceler, rd *headReader, total time.Duration) *Response {
	h := &cn.head
	r := &Response{
		Status: h.Status, Head: h,
		cn: cn, cancel: c, bufs: rd.bufs, buf: rd.buf, left: rd.left,
		total: total, reusable: h.KeepAlive,
	}
	switch {
	case h.Status == http.StatusNoContent || h.Status == http.StatusNotModified:
		// These have no body whatever the head says; a head that says otherwise is
		// no reason to trust what follows.
		r.reusable = r.reusable && !h.Chunked && h.ContentLength <= 0
		r.finish()
	case h.Chunked:
		r.framing = byChunks
	case h.ContentLength >= 0:
		r.remain = h.ContentLength
		if r.remain == 0 {
			r.finish()
		}
	default:
		r.framing, r.reusable = byClose, false
	}
	r.dropLeft()
	return r
}

// finish marks the end of the body. Bytes behind it belong to no request, so the
// connection is then not used again.
func (r *Response) finish() {
	r.end = io.EOF
	if len(r.left) > 0 {
		r.reusable = false
		r.left = nil
		r.dropLeft()
	}
}

// dropLeft gives the buffer back once nothing is left in it.
func (r *Response) dropLeft() {
	if len(r.left) == 0 && r.buf != nil {
		r.bufs.put(r.buf)
		r.buf, r.left = nil, nil
	}
}

// Read returns decoded bytes of the body as soon as there are any. io.EOF comes only
// where the body's own framing ends; a connection that ends before is
// io.ErrUnexpectedEOF. Other failures are *Error with Phase "body"; its Timeout is
// set after idle_timeout without a byte or when total_timeout has passed, and it then
// wraps os.ErrDeadlineExceeded. Errors are final.
func (r *Response) Read(p []byte) (int, error) {
	if r.end != nil {
		return 0, r.end
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := r.receive(p)
		if n > 0 {
			n, err = r.decode(p[:n], err)
		}
		if err != nil && r.end == nil {
			r.end = r.failure(err)
		}
		if n > 0 {
			return n, nil
		}
		if r.end != nil {
			return 0, r.end
		}
	}
}

// receive puts the next undecoded bytes into p: first those that came with the head,
// then from the connection.
func (r *Response) receive(p []byte) (int, error) {
	if r.framing == byLength && int64(len(p)) > r.remain {
		p = p[:r.remain] // what follows is not ours to read
	}
	if len(r.left) > 0 {
		n := copy(p, r.left)
		r.left = r.left[n:]
		r.dropLeft()
		return n, nil
	}
	if err := r.cn.limitRead(r.cn.ep.cfg.IdleTimeout.Std(), r.total); err != nil {
		return 0, err
	}
	return r.cn.nc.Read(p)
}

// decode turns received bytes at the front of b into body bytes, in place.
func (r *Response) decode(b []byte, rerr error) (int, error) {
	switch r.framing {
	case byLength:
		if r.remain -= int64(len(b)); r.remain == 0 {
			r.finish()
		}
		return len(b), rerr
	case byClose:
		return len(b), rerr
	}
	n, used, err := r.chunked.decode(b)
	if err != nil {
		return n, err
	}
	if r.chunked.Done() {
		if used < len(b) {
			r.reusable = false
		}
		r.finish()
	}
	return n, rerr
}

// failure turns an error of the connection into what Read returns.
func (r *Response) failure(err error) error {
	r.reusable = false
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		if cause := r.cancel.canceled(); cause == nil {
			if r.framing == byClose && err == io.EOF { //nolint:errorlint // a clean end, not a wrapped one
				return io.EOF
			}
			return io.ErrUnexpectedEOF
		}
	}
	e := r.cn.ep.fail(PhaseBody, true, r.cancel, err)
	if !e.Canceled && !e.Timeout && closedOrReset(err) {
		return io.ErrUnexpectedEOF
	}
	if e.Timeout {
		what := "silence"
		if r.cn.ep.now() >= r.total {
			what = "total time"
		}
		e.Err = fmt.Errorf("%s: %w", what, e.Err)
	}
	return e
}

// closedOrReset reports whether err is the peer's doing.
func closedOrReset(err error) bool {
	return closedByPeer(err) || errors.Is(err, syscall.ECONNRESET)
}

// Complete reports whether the body was read to the end of its framing.
func (r *Response) Complete() bool { return r.end == io.EOF } //nolint:errorlint // set by us

// Unfinished reports whether Read may still return something: neither the body's end nor
// a failure was met, and Close was not called.
func (r *Response) Unfinished() bool { return r.end == nil }

// Close ends the exchange. The connection goes back to the pool when the body is
// complete; with drain also when it completes within 50 ms (where it is polled: when that
// is there already). Otherwise it is closed,
// which tells the upstream to stop. Afterwards the Canceler no longer reaches it.
// Close may be called several times; Head is nil then.
func (r *Response) Close(drain bool) {
	cn := r.cn
	if cn == nil {
		return
	}
	if drain && r.reusable && r.end == nil {
		r.drain()
	}
	complete := r.Complete()
	if r.poll != nil && cn.link != nil {
		r.reusable = cn.link.wait() && r.reusable
	}
	r.left = nil
	r.dropLeft()
	r.cn, r.Head = nil, nil
	if r.end == nil {
		r.end = errBodyClosed
	}
	if r.cancel.release() && complete && r.reusable {
		cn.ep.put(cn)
		return
	}
	cn.close()
}

// drain reads what is left of the body if that is little and comes at once.
func (r *Response) drain() {
	if r.framing == byLength && r.remain > drainBytes {
		return
	}
	b := r.bufs.get(readBufferBytes)
	defer r.bufs.put(b)
	if r.poll != nil {
		r.drainPolled(b.b[:cap(b.b)])
		return
	}
	r.total = min(r.total, r.cn.ep.now()+drainWait)
	for n := 0; n < drainBytes && r.end == nil; {
		m, _ := r.Read(b.b[:cap(b.b)])
		n += m
	}
}
