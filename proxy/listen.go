package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/proxy/hangup"
)

// listener accepts client connections, at most limit and at most perAddress of one
// address, set so that a peer that vanished is noticed within a minute. Its connections
// keep their file descriptor reachable, which fasthttp's own limit per address would hide.
type listener struct {
	net.Listener
	limit      int
	perAddress int
	exempt     func(netip.Addr) bool                                   // proxies before us speak for many clients
	uploads    *uploads                                                // gets back what connections claimed
	shed       func(c *clientConn, b []byte) (refused bool, err error) // is shown what connections read between requests
	hangups    *hangup.Watcher                                         // knows every connection
	log        *slog.Logger

	mu      sync.Mutex
	total   int
	open    map[netip.Addr]int
	resting map[*clientConn]struct{} // given back by an event loop, and without a request since; nil: no more
	refused atomic.Int64

	draining chan struct{} // closed: nobody is held any more

	answering atomic.Int64 // connections on which an answer is being made or written
}

const (
	// vanishedAfter is for how long a peer may say nothing at all, not even by its kernel.
	vanishedAfter = 45 * time.Second
	// overflowConns is how many connections beyond the limit are taken on to tell them.
	overflowConns = 1024
	// overflowTime is how long such a client may take to ask.
	overflowTime = 5 * time.Second
	// acceptPause is the longest pause after an accept that failed.
	acceptPause = 500 * time.Millisecond
	// otherFiles are files and connections besides those of requests: Redis, admin, journal.
	otherFiles = 256
)

// filesNeeded is how many file descriptors a process needs that serves all that cfg allows:
// one per client, and one per call of an upstream.
func filesNeeded(cfg *Config) uint64 {
	l := &cfg.Limits
	return uint64(l.Connections) + overflowConns + uint64(min(l.Connections, l.JournalSlots)) + otherFiles
}

func listen(addr string, limit, perAddress int, exempt func(netip.Addr) bool, hangups *hangup.Watcher, log *slog.Logger) (*listener, error) {
	lc := net.ListenConfig{
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: vanishedAfter / 3, Interval: vanishedAfter / 9, Count: 6,
		},
		Control: func(_, _ string, rc syscall.RawConn) error { return setVanished(rc, vanishedAfter) },
	}
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	return &listener{Listener: ln, limit: limit, perAddress: perAddress, exempt: exempt, hangups: hangups, log: log, draining: make(chan struct{}), open: map[netip.Addr]int{}, resting: map[*clientConn]struct{}{}}, nil
}

// Accept returns the next connection whose address has not too many. Those over the
// limit overflow: their first request is refused, as far as overflowConns reaches. It fails
// only when the listener is closed: fasthttp stops serving at the first error, and what
// accept meets, such as too many open files, passes.
func (l *listener) Accept() (net.Conn, error) {
	pause := acceptPause / 64
	for {
		c, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			l.log.Error("a connection cannot be accepted; will retry", "error", err, "pause", pause.String())
			time.Sleep(pause)
			pause = min(2*pause, acceptPause)
			continue
		}
		tc, ok := c.(*net.TCPConn)
		if !ok {
			return c, nil
		}
		addr := addrOf(tc.RemoteAddr())
		if ok, over := l.take(addr); ok {
			cc := &clientConn{TCPConn: tc, ln: l, addr: addr, peer: l.hangups.Peer(tc)}
			if over {
				cc.overflowUntil = time.Now().Add(overflowTime)
			}
			return cc, nil
		}
		l.refused.Add(1)
		_ = tc.SetLinger(0) // a reset costs least
		_ = tc.Close()
	}
}

func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// take counts a connection of a. over says that it is one too many.
func (l *listener) take(a netip.Addr) (ok, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.limit+overflowConns || l.open[a] >= l.perAddress && !l.exempt(a) {
		return false, false
	}
	l.total++
	l.open[a]++
	return true, l.total > l.limit
}

// count returns how many connections are open.
func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// give frees the place of c.
func (l *listener) give(c *clientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.open[c.addr]--; l.open[c.addr] <= 0 {
		delete(l.open, c.addr)
	}
	delete(l.resting, c)
}

// clientConn is a client's connection. Embedding *net.TCPConn keeps SyscallConn, which
// the event loop needs, and ReadFrom.
type clientConn struct {
	*net.TCPConn
	ln     *listener
	addr   netip.Addr
	peer   *hangup.Peer // who may hang up while nobody reads
	closed atomic.Bool
	unread atomic.Bool           // a request was answered that is not read to its end
	claim  atomic.Pointer[claim] // of the body that was told to come by 100 Continue

	// Where an event loop takes the connection over from fasthttp and gives it back.
	heir   atomic.Pointer[loopStream] // who gets it when it is closed, once
	sealed bool                       // Read must not touch the socket
	ahead  []byte                     // what Read returns first
	resume *Timeouts                  // not nil: given back, and nothing of the next request is read yet

	overflowUntil time.Time // not zero: one connection too many; fixed
	answering     atomic.Bool
	used          bool // a request has begun to arrive before; of the goroutine that serves, like those below
	spared        bool // the request is not to be refused for want of processors
	inRequest     bool // a request has begun to arrive and is not answered

	heldUntil time.Time // nothing is read until then, once the answer is out; see hold
}

// connState notes where requests begin and end.
func connState(nc net.Conn, state fasthttp.ConnState) {
	if cc, ok := nc.(*clientConn); ok && (state == fasthttp.StateActive || state == fasthttp.StateIdle) {
		cc.inRequest, cc.used = state == fasthttp.StateActive, true
		if !cc.inRequest {
			cc.answer(false)
		}
	}
}

// answering notes that an answer begins on nc. It ends when nc is idle or closed.
func answering(nc net.Conn) {
	if cc, ok := nc.(*clientConn); ok {
		cc.answer(true)
	}
}

// answer notes that an answer begins, or is written to its end.
func (c *clientConn) answer(on bool) {
	if c.answering.CompareAndSwap(!on, on) {
		if on {
			c.ln.answering.Add(1)
		} else {
			c.ln.answering.Add(-1)
		}
	}
}

// overflows reports whether nc is a connection too many.
func overflows(nc net.Conn) bool {
	cc, ok := nc.(*clientConn)
	return ok && !cc.overflowUntil.IsZero()
}

// Read is TCPConn's, except that no request ends with a plain io.EOF: fasthttp takes
// some for the end of the connection and forgets the request without a word.
func (c *clientConn) Read(p []byte) (int, error) {
	if c.sealed || c.resume != nil || len(c.ahead) > 0 {
		return c.readResumed(p)
	}
	c.waitOut()
	n, err := c.TCPConn.Read(p)
	if n == 0 && err != nil && !c.used {
		return 0, io.EOF // or fasthttp would tell who has asked nothing that it was too slow
	}
	// What is read between two requests is the beginning of one: fasthttp has nothing left, neither to
	// read nor to write. It gives a connection's first request less time.
	for refused := false; err == nil && !c.inRequest && c.used; {
		if refused, err = c.ln.shed(c, p[:n]); !refused {
			break
		}
		if n = 0; err == nil {
			c.waitOut()
			n, err = c.TCPConn.Read(p)
		}
	}
	if err == io.EOF && c.inRequest { //nolint:errorlint // exactly the bare one
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// SetReadDeadline is TCPConn's; a connection too many has less time, and one that waits for
// its next request has Idle, whatever fasthttp thinks.
func (c *clientConn) SetReadDeadline(t time.Time) error {
	if c.resume != nil {
		t = time.Now().Add(time.Duration(c.resume.Idle))
	}
	if u := c.overflowUntil; !u.IsZero() && t.After(u) {
		t = u
	}
	return c.TCPConn.SetReadDeadline(t)
}

// Close closes the connection and frees its place.
func (c *clientConn) Close() error {
	if heir := c.heir.Swap(nil); heir != nil {
		heir.inherit()
		return nil
	}
	if c.closed.CompareAndSwap(false, true) {
		c.answer(false)
		c.peer.Leave()
		if c.unread.Load() {
			c.discard()
		}
		c.ln.give(c)
		if kept := c.claim.Swap(nil); kept != nil {
			c.ln.uploads.release(*kept)
		}
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
	if c.CloseWrite() != nil || c.TCPConn.SetReadDeadline(time.Now().Add(discardTime)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(c.TCPConn, discardBytes)) // its end is not ours to judge
}
