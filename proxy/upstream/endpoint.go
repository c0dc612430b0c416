package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// connWait is how long a request waits for a connection when max_conns are open.
const connWait = 500 * time.Millisecond

// endpoint is one upstream: its address, its breaker and its connections, which are
// shared by its keys. Instants are durations since epoch, on the monotonic clock.
type endpoint struct {
	cfg     Config
	face    kimi.Face
	opts    *Options
	breaker breaker
	keys    []*keyState
	host    string // of the Host header
	addr    string // host:port to connect to
	base    string // path of BaseURL, no slash at the end
	post    []byte // request line of the face's path
	tls     *tls.Config
	dial    dialFunc
	epoch   time.Time

	mu      sync.Mutex // guards the following; never held across a system call
	idle    []*conn    // last in, first out
	open    int        // connections that exist or are being opened
	waiters []chan *conn
	sweeper *time.Timer
	closed  bool
}

func newEndpoint(c Config, opts *Options) (*endpoint, error) {
	u, err := url.Parse(c.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("upstream %q: base_url: %w", c.Name, err)
	}
	e := &endpoint{cfg: c, opts: opts, host: u.Host, base: u.EscapedPath(), epoch: time.Now()}
	e.breaker.threshold = int32(min(c.BreakerFailures, 1<<30)) //nolint:gosec // bounded
	e.breaker.open = c.BreakerOpen.Std()
	e.face, _ = c.face()
	path := e.base + "/chat/completions"
	if e.face == kimi.Anthropic {
		path = e.base + "/messages"
	}
	e.post = []byte("POST " + path + " HTTP/1.1\r\n")
	port := u.Port()
	if u.Scheme == "https" {
		if e.tls, err = newTLSConfig(&c, u.Hostname()); err != nil {
			return nil, err
		}
		port = cmpOr(port, "443")
	}
	e.addr = net.JoinHostPort(u.Hostname(), cmpOr(port, "80"))
	if e.dial, err = newDialFunc(&c); err != nil {
		return nil, fmt.Errorf("upstream %q: %w", c.Name, err)
	}
	return e, nil
}

func cmpOr(s, or string) string {
	if s != "" {
		return s
	}
	return or
}

func (e *endpoint) now() time.Duration { return time.Since(e.epoch) }

// fail builds an Error, with the cancellation's cause in place of its symptom.
func (e *endpoint) fail(phase Phase, sent bool, c *Canceler, err error) *Error {
	out := &Error{Upstream: e.cfg.Name, Phase: phase, Sent: sent, Err: err}
	if cause := c.canceled(); cause != nil {
		out.Canceled, out.Err = true, cause
		return out
	}
	var ne net.Error
	out.Timeout = errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
	return out
}

// get returns a connection that c now can close: the most recently used idle one
// that is still quiet, or a new one. With fresh it never is a used one.
func (e *endpoint) get(c *Canceler, fresh bool, total time.Duration) (cn *conn, err error) {
	for !fresh {
		if cn = e.takeIdle(); cn == nil {
			break
		}
		if !cn.quiet() {
			cn.close()
			continue
		}
		if !c.hold(cn.raw) {
			e.put(cn)
			return nil, e.fail(PhaseDial, false, c, nil)
		}
		return cn, nil
	}
	return e.getNew(c, fresh, total)
}

// getNew waits for a place among max_conns and connects.
func (e *endpoint) getNew(c *Canceler, fresh bool, total time.Duration) (*conn, error) {
	now := e.now()
	ctx, stop := context.WithDeadline(context.Background(), e.epoch.Add(min(total, now+e.cfg.ConnectTimeout.Std())))
	defer stop()
	if !c.hold(stopper(stop)) {
		return nil, e.fail(PhaseDial, false, c, nil)
	}
	cn, err := e.place(ctx, fresh)
	if err != nil {
		return nil, e.fail(PhaseDial, false, c, err)
	}
	if cn != nil { // somebody gave back a connection while we waited
		if !c.hold(cn.raw) {
			e.put(cn)
			return nil, e.fail(PhaseDial, false, c, nil)
		}
		return cn, nil
	}
	cn, err = e.connect(ctx, c, total)
	if f := e.opts.Observe.Dial; f != nil {
		f(e.cfg.Name, e.now()-now, err)
	}
	if err != nil {
		e.freePlace()
	}
	return cn, err
}

// connect opens a connection in a place already counted.
func (e *endpoint) connect(ctx context.Context, c *Canceler, total time.Duration) (*conn, error) {
	raw, err := e.dial(ctx, e.addr)
	if err != nil {
		return nil, e.fail(PhaseDial, false, c, err)
	}
	if !c.hold(raw) {
		_ = raw.Close()
		return nil, e.fail(PhaseDial, false, c, nil)
	}
	cn := newConn(e, raw)
	if e.tls == nil {
		return cn, nil
	}
	if err := cn.handshake(min(total, e.now()+e.cfg.TLSTimeout.Std())); err != nil {
		_ = raw.Close()
		err := e.fail(PhaseTLS, false, c, err)
		c.release()
		return nil, err
	}
	return cn, nil
}

// takeIdle returns the most recently used idle connection, nil when there is none.
func (e *endpoint) takeIdle() *conn {
	now := e.now()
	e.mu.Lock()
	n := len(e.idle)
	if n == 0 {
		e.mu.Unlock()
		return nil
	}
	cn := e.idle[n-1]
	if now-cn.idleSince < e.cfg.PoolIdle.Std() {
		e.idle[n-1] = nil
		e.idle = e.idle[:n-1]
		e.mu.Unlock()
		return cn
	}
	// The youngest is too old, so all are.
	old := e.idle
	e.idle = nil
	e.mu.Unlock()
	for _, cn := range old {
		cn.close()
	}
	return nil
}

// place reserves room for one more connection. It returns a connection when one was
// given back meanwhile, which never happens with fresh.
func (e *endpoint) place(ctx context.Context, fresh bool) (*conn, error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	if e.open < e.cfg.MaxConns {
		e.open++
		e.mu.Unlock()
		return nil, nil
	}
	if len(e.idle) > 0 { // an old one makes room
		cn := e.idle[0]
		e.idle = slices.Delete(e.idle, 0, 1)
		e.mu.Unlock()
		_ = cn.raw.Close()
		return nil, nil
	}
	w := make(chan *conn, 1)
	e.waiters = append(e.waiters, w)
	e.mu.Unlock()

	timer := time.NewTimer(connWait)
	defer timer.Stop()
	var err error
	select {
	case cn := <-w:
		return e.given(cn, fresh), nil
	case <-timer.C:
		err = &UnavailableError{RetryAfter: time.Second, Reason: ReasonConnections}
	case <-ctx.Done():
		err = ctx.Err()
	}
	e.mu.Lock()
	i := slices.Index(e.waiters, w)
	if i >= 0 {
		e.waiters = slices.Delete(e.waiters, i, i+1)
	}
	e.mu.Unlock()
	if i < 0 { // it was granted at the last moment
		return e.given(<-w, fresh), nil
	}
	return nil, err
}

// given turns what a waiter received into what it asked for.
func (e *endpoint) given(cn *conn, fresh bool) *conn {
	if cn == nil {
		return nil
	}
	if fresh || !cn.quiet() {
		_ = cn.raw.Close() // and keep its place
		return nil
	}
	return cn
}

// put takes back a connection that is at the end of an answer and out of every
// Canceler's reach.
func (e *endpoint) put(cn *conn) {
	cn.idleSince = e.now()
	cn.used = true
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		cn.close()
		return
	}
	defer e.mu.Unlock()
	if len(e.waiters) > 0 {
		w := e.waiters[0]
		e.waiters = slices.Delete(e.waiters, 0, 1)
		w <- cn
		return
	}
	e.idle = append(e.idle, cn)
	if e.sweeper == nil {
		e.sweeper = time.AfterFunc(e.cfg.PoolIdle.Std(), e.sweep)
	}
}

// freePlace forgets a connection that was closed.
func (e *endpoint) freePlace() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiters) > 0 {
		w := e.waiters[0]
		e.waiters = slices.Delete(e.waiters, 0, 1)
		w <- nil // the place passes on
		return
	}
	e.open--
}

// sweep closes connections that were idle for too long; it runs only while there are
// idle connections.
func (e *endpoint) sweep() {
	limit := e.now() - e.cfg.PoolIdle.Std()
	e.mu.Lock()
	n := 0
	for n < len(e.idle) && e.idle[n].idleSince <= limit {
		n++
	}
	old := slices.Clone(e.idle[:n])
	e.idle = slices.Delete(e.idle, 0, n)
	e.sweeper = nil
	if len(e.idle) > 0 && !e.closed {
		e.sweeper = time.AfterFunc(max(time.Millisecond, e.idle[0].idleSince-limit), e.sweep)
	}
	e.mu.Unlock()
	for _, cn := range old {
		cn.close()
	}
}

func (e *endpoint) close() {
	e.mu.Lock()
	e.closed = true
	old := e.idle
	e.idle = nil
	if e.sweeper != nil {
		e.sweeper.Stop()
	}
	e.mu.Unlock()
	for _, cn := range old {
		cn.close()
	}
}

func (e *endpoint) counts() (open, idle int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open, len(e.idle)
}
