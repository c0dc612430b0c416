package upstream

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// conn is one connection to an upstream. It is owned by the pool while idle and by
// one request otherwise; only closing raw may happen from elsewhere (Canceler).
type conn struct {
	ep   *endpoint
	nc   net.Conn // what is read and written: raw, or TLS over it
	raw  net.Conn // the socket; closing it unblocks whatever uses nc
	link *link    // between TLS and raw; nil without TLS
	rc   syscall.RawConn
	head Head
	used bool // it carried a request before

	idleSince time.Duration
	readBy    time.Duration // deadlines now set on the socket, 0 for none
	writeBy   time.Duration
	wrote     uint64 // bytes handed to the socket

	probe socketProbe
}

// link is the socket as TLS has it: it counts what is really handed over, and does not wait
// while the connection is polled.
type link struct {
	net.Conn
	wrote *uint64
	poll  *poller // nil: reads and writes wait
}

// Read reads from the socket.
func (k *link) Read(b []byte) (int, error) {
	if k.poll != nil {
		return k.poll.readLink(b)
	}
	return k.Conn.Read(b)
}

// Write writes to the socket.
func (k *link) Write(b []byte) (n int, err error) {
	if k.poll != nil {
		n, err = k.poll.writeLink(b)
	} else {
		n, err = k.Conn.Write(b)
	}
	*k.wrote += uint64(n) //nolint:gosec // never negative
	return n, err
}

func newConn(e *endpoint, raw net.Conn) *conn {
	cn := &conn{ep: e, raw: raw, nc: raw}
	if sc, ok := raw.(syscall.Conn); ok {
		if rc, err := sc.SyscallConn(); err == nil {
			cn.rc = rc
		}
	}
	if t, ok := raw.(*net.TCPConn); ok {
		_ = t.SetNoDelay(true) // also for sockets that a proxy dialer made
	}
	cn.probe.init(cn.rc)
	return cn
}

func (cn *conn) handshake(by time.Duration) error {
	cn.link = &link{Conn: cn.raw, wrote: &cn.wrote}
	t := tls.Client(cn.link, cn.ep.tls)
	if err := cn.raw.SetDeadline(cn.ep.epoch.Add(by)); err != nil {
		return err
	}
	cn.readBy, cn.writeBy = by, by
	if err := t.Handshake(); err != nil {
		return err
	}
	cn.nc = t
	return nil
}

// close closes the socket and gives its place back. TLS is not told good-bye: that
// could block, and the peer learns the same from the FIN.
func (cn *conn) close() {
	_ = cn.raw.Close()
	cn.ep.freePlace()
}

// quiet reports whether an idle connection looks usable: no FIN, no error and no
// bytes that nobody asked for, neither in the socket nor inside TLS.
func (cn *conn) quiet() bool {
	if !cn.probe.quiet(cn.rc) {
		return false
	}
	if cn.nc == cn.raw {
		return true
	}
	// A read that has already timed out touches only what TLS holds in its buffers.
	const past = time.Nanosecond
	if cn.raw.SetReadDeadline(cn.ep.epoch.Add(past)) != nil {
		return false
	}
	cn.readBy = past
	var one [1]byte
	n, err := cn.nc.Read(one[:])
	var ne net.Error
	return n == 0 && errors.As(err, &ne) && ne.Timeout()
}

// moved says where a deadline that is now at cur should be, so that it fires between
// timeout and 9/8 of it from now, and never after total. Leaving a deadline alone
// while it is in that window spares most calls in a stream of events.
func moved(cur, now, timeout, total time.Duration) time.Duration {
	lo, hi := now+timeout, now+timeout+timeout/8
	lo, hi = min(lo, total), min(hi, total)
	if cur >= lo && cur <= hi {
		return cur
	}
	return hi
}

func (cn *conn) limitRead(timeout, total time.Duration) error {
	by := moved(cn.readBy, cn.ep.now(), timeout, total)
	if by == cn.readBy {
		return nil
	}
	cn.readBy = by
	return cn.raw.SetReadDeadline(cn.ep.epoch.Add(by))
}

func (cn *conn) limitWrite(timeout, total time.Duration) error {
	by := moved(cn.writeBy, cn.ep.now(), timeout, total)
	if by == cn.writeBy {
		return nil
	}
	cn.writeBy = by
	return cn.raw.SetWriteDeadline(cn.ep.epoch.Add(by))
}

// closedByPeer reports whether err means that the peer had closed its side: a FIN was
// read, or a write found the socket closed after a FIN. A reset is not among them: it
// may come from a peer that read everything.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE)
}
