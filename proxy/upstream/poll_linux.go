package upstream

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/andreabadesso/openclaw-cloud/proxy/eventloop"
)

// poller reads the connection of a Response without waiting.
type poller struct {
	socket eventloop.Socket
	closed bool   // the peer has closed its side: all there is, the end included, is there
	dry    bool   // TLS has what there was: the next event tells of more
	unsent []byte // what TLS wrote and the socket did not take: a key update, an alert
}

// errAgain is what TLS gets where there is nothing to read. It does not take a temporary
// error for the end of the connection, and keeps what it has of a record.
type errAgain struct{}

func (errAgain) Error() string   { return "nothing to read" }
func (errAgain) Timeout() bool   { return true }
func (errAgain) Temporary() bool { return true }

func (p *poller) readLink(b []byte) (int, error) {
	if p.dry {
		return 0, errAgain{}
	}
	n, err := p.socket.Read(b)
	p.dry = err == nil && n < len(b) && !p.closed
	if n == 0 && err == nil {
		return 0, errAgain{}
	}
	return n, err
}

// writeLink takes all of b: an error of a write would be TLS's last word, even a temporary one.
func (p *poller) writeLink(b []byte) (int, error) {
	if err := p.flush(); err != nil {
		return 0, err
	}
	n := 0
	if len(p.unsent) == 0 {
		var err error
		if n, err = p.socket.Write(b); err != nil {
			return 0, err
		}
	}
	p.unsent = append(p.unsent, b[n:]...)
	return len(b), nil
}

func (p *poller) flush() error {
	if len(p.unsent) == 0 {
		return nil
	}
	n, err := p.socket.Write(p.unsent)
	if p.unsent = p.unsent[n:]; len(p.unsent) == 0 {
		p.unsent = nil
	}
	return err
}

// wait ends the polling of a connection, and reports whether it can be used on.
func (k *link) wait() bool {
	whole := k.poll != nil && len(k.poll.unsent) == 0
	k.poll = nil
	return whole
}

// Pollable returns the connection, for an event loop to watch, where Poll can be used.
func (r *Response) Pollable() (syscall.RawConn, bool) {
	if r.cn == nil || r.cn.rc == nil {
		return nil, false
	}
	return r.cn.rc, true
}

// StartPolling makes Poll, instead of Read, the way to read from now on. Cancel calls
// onCancel.Close from then on, which must not block, instead of closing the connection. It
// reports false when Cancel came first.
func (r *Response) StartPolling(onCancel io.Closer) bool {
	r.poll = &r.polling
	r.poll.socket.Init(r.cn.rc)
	if r.cn.link != nil {
		r.cn.link.poll = r.poll
	}
	return r.cancel.hold(onCancel)
}

// Arrived says that there was an event of the connection, before Poll is called for it. closed
// says that it was the last one: the peer has closed its side, or the connection is broken.
func (r *Response) Arrived(closed bool) {
	r.poll.dry = false
	r.poll.closed = r.poll.closed || closed
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
		n, more, err = r.receiveNow(p)
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

// receiveNow reads from the connection what there is.
func (r *Response) receiveNow(p []byte) (n int, more bool, err error) {
	if r.cn.link == nil {
		n, err = r.poll.socket.Read(p)
		return n, n == len(p) || n > 0 && r.poll.closed, err
	}
	if err := r.poll.flush(); err != nil {
		return 0, false, err
	}
	n, err = r.cn.nc.Read(p)
	if errors.As(err, new(errAgain)) {
		return n, n > 0, nil
	}
	return n, n > 0, err // there may be a record that TLS has read already
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
