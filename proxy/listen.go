package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// listener accepts client connections, at most perAddress of one address, with TCP
// keep-alive set so that a peer that vanished is noticed within a minute. Its
// connections keep their file descriptor reachable, which fasthttp's own limit per
// address would hide.
type listener struct {
	net.Listener
	perAddress int
	exempt     func(netip.Addr) bool // proxies before us speak for many clients

	mu      sync.Mutex
	open    map[netip.Addr]int
	refused atomic.Int64
}

func listen(addr string, perAddress int, exempt func(netip.Addr) bool) (*listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3,
	}}
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	return &listener{Listener: ln, perAddress: perAddress, exempt: exempt, open: map[netip.Addr]int{}}, nil
}

// Accept returns the next connection whose address has not too many.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tc, ok := c.(*net.TCPConn)
		if !ok {
			return c, nil
		}
		addr := addrOf(tc.RemoteAddr())
		if l.take(addr) {
			return &clientConn{TCPConn: tc, ln: l, addr: addr}, nil
		}
		l.refused.Add(1)
		_ = tc.SetLinger(0) // a reset costs least; the address is over its limit
		_ = tc.Close()
	}
}

func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

func (l *listener) take(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[a] >= l.perAddress && !l.exempt(a) {
		return false
	}
	l.open[a]++
	return true
}

func (l *listener) give(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[a]--; l.open[a] <= 0 {
		delete(l.open, a)
	}
}

// clientConn is a client's connection. Embedding *net.TCPConn keeps SyscallConn, which
// the hang-up watcher needs, and ReadFrom.
type clientConn struct {
	*net.TCPConn
	ln     *listener
	addr   netip.Addr
	closed atomic.Bool
	unread atomic.Bool // a request was answered that is not read to its end
}

// Close closes the connection and frees its place.
func (c *clientConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		if c.unread.Load() {
			c.discard()
		}
		c.ln.give(c.addr)
	}
	return c.TCPConn.Close()
}

// How much of a refused request is taken so that its sender reads the refusal.
const (
	discardBytes = 64 << 20
	discardTime  = 5 * time.Second
)

// discard says that nothing more will be answered, and takes what the client is still
// sending. Closing with unread bytes would reset the connection, and most clients,
// which send the whole request before they read, would see that instead of the answer.
func (c *clientConn) discard() {
	if c.CloseWrite() != nil || c.SetReadDeadline(time.Now().Add(discardTime)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(c.TCPConn, discardBytes)) // its end is not ours to judge
}
