package upstream

import (
	"io"
	"os"
	"syscall"
	"time"

	"github.com/andreabadesso/openclaw-cloud/proxy/eventloop"
)

// poller reads the connection of a Response without waiting.
type poller struct{ socket eventloop.Socket }

// Pollable returns the connection, for an event loop to watch, where Poll can be used.
func (r *Response) Pollable() (syscall.RawConn, bool) {
	if r.cn == nil || r.cn.rc == nil || r.cn.nc != r.cn.raw {
		return nil, false
	}
	return r.cn.rc, true
}

// StartPolling makes Poll, instead of Read, the way to read from now on. Cancel calls
// onCancel.Close from then on, which must not block, instead of closing the connection. It
// reports false when Cancel came first; Poll must not be called then.
func (r *Response) StartPolling(onCancel io.Closer) bool {
	r.poll = new(poller)
	r.poll.socket.Init(r.cn.rc)
	return r.cancel.hold(onCancel)
}

// Poll is Read without waiting. It returns 0 and no error when there is nothing now. more says
// that it is worth calling again at once; where it is false an edge-triggered event tells.
func (r *Response) Poll(p []byte) (n int, more bool, err error) {
	if r.end != nil {
		return 0, false, r.end
	}
	if r.framing == byLength && int64(len(p)) > r.remain {
		p = p[:r.remain]
	}
	if len(r.left) > 0 {
		n = copy(p, r.left)
		r.left = r.left[n:]
		r.dropLeft()
		more = true
	} else {
		n, err = r.poll.socket.Read(p)
		more = n == len(p)
	}
	if n > 0 {
		n, err = r.decode(p[:n], err)
	}
	if err != nil && r.end == nil {
		r.end = r.failure(err)
	}
	if n == 0 && r.end != nil {
		return 0, false, r.end
	}
	return n, more || r.end != nil, nil
}

// Expire ends the body as Read does when idle_timeout or total_timeout has passed.
func (r *Response) Expire() {
	if r.end == nil {
		r.end = r.failure(os.ErrDeadlineExceeded)
	}
}

// Limits returns how long the connection may be silent, and when the whole exchange must end.
func (r *Response) Limits() (idle time.Duration, total time.Time) {
	return r.cn.ep.cfg.IdleTimeout.Std(), r.cn.ep.epoch.Add(r.total)
}

// drainPolled reads what is left of the body if it is there.
func (r *Response) drainPolled(b []byte) {
	for n, more := 0, true; more && n < drainBytes && r.end == nil; {
		var m int
		m, more, _ = r.Poll(b)
		n += m
	}
}
