package upstream

import (
	"errors"
	"io"
	"net/http"
	"time"
)

const (
	maxInterim = 8 // 1xx responses before the real one
	// earlyAnswer is how long the answer of an upstream is awaited that stopped
	// reading the request in its middle, as one does that refuses it.
	earlyAnswer = 250 * time.Millisecond
)

var (
	errInterim  = malformed("too many interim responses")
	errUpgraded = malformed("101 without an upgrade")
)

// Do sends a POST to the face's path and returns when the head of the answer is
// complete. It retries once, on a fresh connection and within the retry budget, when
// the request certainly was not read (see the package comment). Errors are *Error;
// those with Phase "dial" may wrap an *UnavailableError. The Response must be closed
// before the Target is released. c may be nil; it reaches the connection until the
// Response is closed.
func (t *Target) Do(req *Request, c *Canceler) (*Response, error) {
	return t.exchange(http.MethodPost, "", req, c)
}

// DoPath is Do for another path, which is appended to the path of BaseURL, with GET
// or POST. A GET that died on a reused connection is retried without further proof.
func (t *Target) DoPath(method, path string, req *Request, c *Canceler) (*Response, error) {
	if path == "" {
		path = "/"
	}
	return t.exchange(method, path, req, c)
}

func (t *Target) exchange(method, path string, req *Request, c *Canceler) (*Response, error) {
	e := t.key.ep
	total := e.now() + e.cfg.TotalTimeout.Std()

	n := req.bodyLen()
	size := 1 << 10
	if n < coalesceBytes {
		size += n
	}
	wb := t.pool.writeBufs.get(size)
	defer t.pool.writeBufs.put(wb)
	var err error
	if wb.b, err = t.appendHead(wb.b, method, path, req, n); err != nil {
		t.local = true
		return nil, e.fail(PhaseRequest, false, nil, err)
	}
	body := req.Body
	if len(wb.b)+n <= coalesceBytes {
		for _, b := range body {
			wb.b = append(wb.b, b...)
		}
		body = nil
	}

	retried := false
	for {
		cn, err := e.get(c, retried, total)
		if err != nil {
			var busy *UnavailableError
			t.local = errors.As(err, &busy) || errors.Is(err, ErrClosed) || noDescriptors(err)
			return nil, err
		}
		if f := e.opts.Observe.Conn; f != nil {
			f(e.cfg.Name, cn.used)
		}
		if req.Sending != nil && !req.Sending() {
			t.local = true
			c.release()
			cn.close()
			return nil, e.fail(PhaseDial, false, c, ErrCanceled)
		}
		resp, retry, failed := t.attempt(cn, wb.b, body, method == http.MethodGet, c, total)
		if failed == nil {
			t.gotHead = true
			return resp, nil
		}
		c.release()
		cn.close()
		if !retry || retried {
			return nil, failed
		}
		retried = t.pool.allowRetry()
		if f := e.opts.Observe.Retry; f != nil {
			f(e.cfg.Name, retried)
		}
		if !retried {
			return nil, failed
		}
		defer t.pool.endRetry()
	}
}

// attempt makes one try on one connection. retry means that another is allowed. The
// caller closes the connection on failure.
func (t *Target) attempt(cn *conn, head []byte, body [][]byte, idempotent bool, c *Canceler, total time.Duration) (resp *Response, retry bool, failed *Error) {
	e := cn.ep
	before := cn.wrote
	reused := cn.used
	timeout := e.cfg.FirstByteTimeout.Std()
	phase := PhaseHead
	rd := headReader{cn: cn, bufs: &t.pool.readBufs}

	werr := cn.send(head, body, total)
	if werr != nil {
		phase = PhaseWrite
		timeout = earlyAnswer
	}
	err := werr
	if werr == nil || closedOrReset(werr) && c.canceled() == nil {
		err = rd.read(timeout, total)
	}
	if err == nil {
		resp = newResponse(cn, c, &rd, total)
		if werr != nil {
			resp.reusable = false // half of the request is missing
		}
		return resp, false, nil
	}
	seen := rd.seen
	rd.release()
	if werr != nil {
		err = werr
	}
	unwritten := cn.wrote == before
	unread := unwritten || !seen && closedByPeer(err) && cn.probe.unreceived(cn.rc, before)
	failed = e.fail(phase, !unread, c, err)
	if failed.Err == io.EOF { //nolint:errorlint // exactly the bare EOF of a read
		failed.Err = io.ErrUnexpectedEOF
	}
	if failed.Canceled || failed.Timeout || seen {
		return nil, false, failed
	}
	return nil, unwritten || reused && (unread || idempotent && closedOrReset(err)), failed
}

// headReader reads until a response head is complete.
type headReader struct {
	cn   *conn
	bufs *bufferPool
	buf  *buffer
	left []byte // bytes behind the head, inside buf
	seen bool   // a byte of an answer was received
}

// read fills cn.head. The whole head has to arrive within timeout from now.
func (r *headReader) read(timeout, total time.Duration) error {
	cn := r.cn
	by := moved(cn.readBy, cn.ep.now(), timeout, total)
	if by != cn.readBy {
		cn.readBy = by
		if err := cn.raw.SetReadDeadline(cn.ep.epoch.Add(by)); err != nil {
			return err
		}
	}
	r.buf = r.bufs.get(readBufferBytes)
	for interim := 0; ; {
		b := r.buf.b
		if len(b) == cap(b) {
			grown := make([]byte, len(b), 2*cap(b))
			copy(grown, b)
			b = grown
		}
		n, err := cn.nc.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		r.buf.b = b
		r.seen = r.seen || n > 0
		for len(b) > 0 {
			used, perr := ParseHead(b, &cn.head)
			if perr != nil {
				return perr
			}
			if used == 0 {
				break
			}
			b = b[used:]
			if s := cn.head.Status; s >= 200 {
				r.left = b
				return nil
			} else if s == http.StatusSwitchingProtocols {
				return errUpgraded
			}
			if interim++; interim > maxInterim {
				return errInterim
			}
		}
		if used := len(r.buf.b) - len(b); used > 0 { // interim responses are done with
			r.buf.b = r.buf.b[:copy(r.buf.b, b)]
		}
		if err != nil {
			if r.seen && errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

func (r *headReader) release() {
	if r.buf != nil {
		r.bufs.put(r.buf)
		r.buf, r.left = nil, nil
	}
}
