// Package proxy is the data plane: it authenticates a proxy token, enforces the
// customer's limits, swaps in the real key, streams the answer back and meters it.
//
// A request's path is a story told by the files in this order: accept, authenticate,
// admit, forward, relay (stream.go, answer.go), settle. A stream is driven by an event loop
// (eventloop_linux.go, with takeover.go) or by a goroutine (stream_goroutine.go). Every
// exit, refusals included, passes settle. server.go holds the thread; refuse.go is the
// only place that maps a reason to HTTP.
package proxy

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/time/rate"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
	"github.com/andreabadesso/openclaw-cloud/proxy/hangup"
	"github.com/andreabadesso/openclaw-cloud/proxy/journal"
	"github.com/andreabadesso/openclaw-cloud/proxy/meter"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// Grants tells what a token is allowed. The implementation is grants.Cache.
type Grants interface {
	Lookup(ctx context.Context, d contract.Digest) (*contract.Grant, error)
	// Cached answers from memory alone; ok is false where Lookup would ask Redis.
	Cached(d contract.Digest) (g *contract.Grant, ok bool)
	// Known tells a token that exists, or did, from a guess; from memory alone.
	Known(d contract.Digest) bool
	// OnChange registers what is called, in the feed's order, for each new version of a grant.
	OnChange(func(d contract.Digest, g *contract.Grant))
	// OnReload registers what is called when changes may have been missed.
	OnReload(func())
	Ready() bool
	Stats() grants.Stats
}

// Ledger is the monthly limit. The implementation is quota.Leases.
type Ledger interface {
	quota.Ledger
	// Ready reports why nothing can be reserved; nil if it can.
	Ready() error
	Stats() quota.Stats
	// Close settles what ended and returns all leases. Nothing may be reserved any more.
	Close(ctx context.Context) error
}

// Deps are what a Server works with. All but AccessLog are required. Drain closes the Ledger.
type Deps struct {
	Grants  Grants
	Ledger  Ledger
	Rates   quota.RateLimiter
	Journal *journal.Journal
	Meter   *meter.Meter
	Pool    *upstream.Pool
	Hasher  *contract.Hasher
	Metrics *Metrics
	Logger  *slog.Logger
	// AccessLog takes one line of JSON for each request, from many goroutines, and must not
	// block. It may be nil.
	AccessLog io.Writer
}

// Server is one token-proxy. Create it with New, run it with Serve, end it with Drain.
type Server struct {
	cfg            Config
	trustedProxies []netip.Prefix
	hosts          map[string]bool

	grants  Grants
	ledger  Ledger
	rates   quota.RateLimiter
	journal *journal.Journal
	meter   *meter.Meter
	pool    *upstream.Pool
	hasher  *contract.Hasher
	metrics *Metrics
	log     *slog.Logger

	accessLog accessLog
	http      *fasthttp.Server
	ln        *listener
	hangups   *hangup.Watcher
	loops     *loops // nil where each stream has a goroutine
	customers customers
	standings standings
	failures  failures
	strangers *rate.Limiter
	uploads   uploads
	overload  overload
	leaving   map[string]*departures // by upstream; fixed
	state     atomic.Int32           // serving, lame (not ready, still accepting), closed
	enrolled  atomic.Bool            // the ledger was ready once
	unwritten atomic.Int64           // requests refused because the journal was full, before they were to be in it
	began     time.Time              // when it was made; fixed

	calls callSet

	// life ends when Drain is over; it is the context of look-ups. It must not come from
	// a RequestCtx, whose Done fires when a shutdown starts.
	life context.Context
	end  context.CancelFunc
}

const (
	stateServing = iota
	stateLame
	stateClosed
)

// New returns a Server that is not listening yet.
func New(cfg Config, d Deps) (*Server, error) {
	nets, err := cfg.trustedProxies()
	if err != nil {
		return nil, fmt.Errorf("token-proxy: %w", err)
	}
	w, err := hangup.New()
	if err != nil {
		return nil, fmt.Errorf("token-proxy: %w", err)
	}
	ls, err := newLoops(cfg.StreamDriver)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("token-proxy: %w", err), w.Close())
	}
	s := &Server{
		cfg: cfg, trustedProxies: nets, hosts: map[string]bool{},
		grants: d.Grants, ledger: d.Ledger, rates: d.Rates, journal: d.Journal, meter: d.Meter, pool: d.Pool,
		hasher: d.Hasher, metrics: d.Metrics, log: d.Logger, accessLog: newAccessLog(d.AccessLog, d.Journal.Replica()), hangups: w, loops: ls,
	}
	for _, h := range cfg.Hosts {
		s.hosts[strings.ToLower(h)] = true
	}
	s.leaving = departuresOf(cfg.Upstreams)
	s.strangers = rate.NewLimiter(strangersPerSecond, strangersPerSecond)
	s.customers.init()
	s.failures.init(cfg.Limits.AuthFailures)
	s.uploads.init(cfg.Limits.InFlightBytes, int64(cfg.Limits.HeaderBytes))
	s.began = time.Now()
	s.overload.limit, s.overload.began = time.Duration(cfg.Limits.SchedulingDelay), s.began
	s.calls.init()
	s.life, s.end = context.WithCancel(context.Background())
	s.http = &fasthttp.Server{
		Handler:            s.handle,
		ErrorHandler:       s.malformed,
		HeaderReceived:     s.headerReceived,
		ExpectHandler:      s.expect,
		ConnState:          connState,
		Concurrency:        cfg.Limits.Connections + 2*overflowConns, // the listener's limit comes first
		ReadBufferSize:     cfg.Limits.HeaderBytes,
		MaxRequestBodySize: cfg.Limits.BodyBytes,
		ReadTimeout:        time.Duration(cfg.Timeouts.ReadRequest),
		IdleTimeout:        time.Duration(cfg.Timeouts.Idle),
		// The stream moves this deadline on with each event it writes.
		WriteTimeout: time.Duration(cfg.Timeouts.Write),
		// A connection that an event loop takes over leaves its goroutine behind, and its stack.
		MaxIdleWorkerDuration: time.Second,

		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		SecureErrorLogMessage:        true,
		Logger:                       quietLogger{d.Logger},
		LazyRequestTime:              true,
	}
	d.Grants.OnChange(s.grantChanged)
	d.Grants.OnReload(func() { go s.recheck() })
	return s, nil
}

// Buffers of large bodies are not worth keeping on idle connections.
const pooledBodyBytes = 64 << 10

// Listen opens the public listener.
func (s *Server) Listen() error {
	ln, err := listen(s.cfg.Listen, s.cfg.Limits.Connections, s.cfg.Limits.PerAddress, s.trusted, s.hangups, s.log)
	if err != nil {
		return err
	}
	ln.uploads, ln.shed = &s.uploads, s.shed
	s.ln = ln
	if may, need := fileLimit(), filesNeeded(&s.cfg); may < need {
		s.log.Warn("the system allows fewer open files than limits.connections may need: raise RLIMIT_NOFILE", "allowed", may, "needed", need)
	}
	return nil
}

// Addr returns the address of the public listener.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Serve answers clients until the listener is closed.
func (s *Server) Serve() error {
	fasthttp.SetBodySizePoolLimit(pooledBodyBytes, pooledBodyBytes)
	go s.overload.run(s.life, s.log)
	if err := s.http.Serve(s.ln); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve clients: %w", err)
	}
	return nil
}

// Ready reports whether new work is wanted, and why not. Feed and limit are waited for
// once, at the start: when Redis goes away later, all replicas stay ready together.
func (s *Server) Ready() error {
	switch {
	case s.state.Load() != stateServing:
		return errors.New("shutting down")
	case !s.grants.Ready():
		return errors.New("the configuration feed has not been read yet")
	}
	err := s.ledger.Ready()
	switch {
	case err == nil:
		s.enrolled.Store(true)
	case !s.enrolled.Load() || errors.Is(err, quota.ErrLost): // which is no matter of Redis
		return fmt.Errorf("tokens cannot be reserved: %w", err)
	}
	return nil
}

// handle serves one request: the thread of the story.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	c := &call{s: s, start: time.Now(), requestID: newRequestID(), conn: ctx.Conn(), bodyLen: len(ctx.Request.Body())}
	answering(c.conn)
	claim := s.takeUpload(ctx)
	s.uploads.resize(&claim, int64(c.bodyLen))
	defer func() {
		s.uploads.release(claim)
		// fasthttp recovers nothing: one panic would end every stream of the process.
		if p := recover(); p != nil {
			s.panicked(c, p)
			ctx.Response.Reset()
			c.refuse(&ctx.Response, refuseInternal, detail{})
		}
		if s.state.Load() != stateServing {
			ctx.SetConnectionClose()
		}
	}()

	if over := overflows(c.conn); over || claim.refused {
		c.face, c.remote = faceOf(ctx.Request.Header.RequestURI()), addrOf(ctx.RemoteAddr())
		d := detail{}
		if over {
			ctx.SetConnectionClose()
			d.message = "the proxy has too many connections"
		}
		c.refuse(&ctx.Response, refuseOverloaded, d)
		return
	}
	h, r, d := s.accept(ctx)
	c.face, c.route, c.remote = h.face, h.route, h.remote
	c.http10, c.userAgent = !ctx.Request.Header.IsHTTP11(), ctx.Request.Header.UserAgent()
	if r == refuseBadRequest || r == refuseExpect {
		// Where such a request ends is in doubt: what follows it may be its body.
		ctx.SetConnectionClose()
	}
	if r == refuseNone && !spared(c.conn) && s.overload.refuses() {
		r, d.retryAfter = refuseOverloaded, s.overload.told()
		s.hold(c.conn, d.retryAfter)
	}
	if r == refuseNone {
		r, d = s.authenticate(c, h.credential)
	}
	if r != refuseNone {
		c.refuse(&ctx.Response, r, d)
		return
	}
	switch c.route {
	case routeModels:
		s.serveModels(ctx, c)
	case routeUsage:
		s.serveUsage(ctx, c)
	case routeEstimate:
		s.serveEstimate(ctx, c)
	default:
		s.complete(ctx, c)
	}
}

// panicked tells of a panic that was caught.
func (s *Server) panicked(c *call, p any) {
	s.metrics.panics.Inc()
	s.log.Error("BUG: panic while handling a request", "request_id", c.requestID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// complete serves a completion on either face.
func (s *Server) complete(ctx *fasthttp.RequestCtx, c *call) {
	r, d := s.admit(c, ctx.Request.Body())
	if r == refuseNone {
		r, d = s.forward(ctx, c)
	}
	if r != refuseNone {
		c.refuse(&ctx.Response, r, d)
		return
	}
	s.relay(ctx, c)
}

// newRequestID returns "req_" and 96 random bits. The generator is seeded by the
// operating system and cannot be guessed from its output (ChaCha8).
func newRequestID() string {
	var b [12]byte
	x, y := rand.Uint64(), rand.Uint32() // #nosec G404 -- an id of a request, no secret
	for i := range 8 {
		b[i] = byte(x >> (8 * i))
	}
	for i := range 4 {
		b[8+i] = byte(y >> (8 * i))
	}
	var out [4 + 24]byte
	copy(out[:], "req_")
	hex.Encode(out[4:], b[:])
	return string(out[:])
}

// quietLogger takes what fasthttp logs by itself to our log. Its errors about a
// connection quote header values, targets and versions even with
// SecureErrorLogMessage, and with them tokens, so of these only the fact is kept:
// malformed has logged the refusal.
type quietLogger struct{ log *slog.Logger }

func (l quietLogger) Printf(format string, args ...any) {
	if strings.HasPrefix(format, "error when serving connection") {
		l.log.Debug("http server", "detail", "a connection ended with an error")
		return
	}
	l.log.Warn("http server", "detail", fmt.Sprintf(format, args...))
}

// callSet holds the calls in flight, so that a revocation or a drain can cut them.
type callSet struct {
	mu      sync.Mutex
	calls   map[*call]struct{}
	stopped bool // clients get nothing more
}

func (cs *callSet) init() { cs.calls = map[*call]struct{}{} }

func (cs *callSet) add(c *call) {
	cs.mu.Lock()
	cs.calls[c] = struct{}{}
	cs.mu.Unlock()
}

func (cs *callSet) remove(c *call) {
	cs.mu.Lock()
	delete(cs.calls, c)
	cs.mu.Unlock()
}

func (cs *callSet) len() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.calls)
}

// any reports whether match picks a call.
func (cs *callSet) any(match func(*call) bool) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.calls {
		if match(c) {
			return true
		}
	}
	return false
}

// digests returns those of all calls.
func (cs *callSet) digests() map[contract.Digest]bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	out := map[contract.Digest]bool{}
	for c := range cs.calls {
		out[c.digest] = true
	}
	return out
}

// cut cancels every call that match picks.
func (cs *callSet) cut(cause error, match func(*call) bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.calls {
		if match(c) {
			c.cancel.Cancel(cause)
		}
	}
}

// stopWriting fails every write to a client that blocks, or is still to come.
func (cs *callSet) stopWriting() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.stopped = true
	for c := range cs.calls {
		_ = c.conn.SetWriteDeadline(time.Unix(1, 0)) // of a closed connection nothing is written
		if c.loop != nil {
			c.loop.forsake()
		}
	}
}

// mayWriteUntil gives what is written to the client of c time until t. After stopWriting
// there is none.
func (cs *callSet) mayWriteUntil(c *call, t time.Time) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.stopped {
		t = time.Unix(1, 0)
	}
	_ = c.conn.SetWriteDeadline(t) // a dead connection fails at the write itself
}

// looped notes that t drives c, and reports false after stopWriting.
func (cs *callSet) looped(c *call, t *loopStream) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.loop = t
	return !cs.stopped
}

// enlist makes the call visible to a drain, to a revocation and to the hang-up watcher,
// and then looks once more at what they may have changed before: whoever changes first
// publishes and then looks for calls. close takes it off again.
func (s *Server) enlist(c *call) (refusal, detail) {
	c.known.Store(c.grant)
	s.calls.add(c)
	if s.state.Load() == stateClosed {
		return refuseDraining, detail{}
	}
	g, err := s.grants.Lookup(s.life, c.digest) // from memory, unless it was just dropped
	switch {
	case errors.Is(err, grants.ErrUnknownToken):
		return refuseRevoked, detail{}
	case err != nil:
		s.metrics.authErrors.Inc()
		return refuseQuotaUnavailable, detail{message: "tokens cannot be checked at the moment"}
	case g.Status == contract.StatusSuspended:
		return refuseSuspended, detail{}
	case g.Status != contract.StatusActive:
		return refuseRevoked, detail{}
	}
	c.use(g)
	if cc, ok := c.conn.(*clientConn); ok {
		c.peer = cc.peer
		c.peer.Watch(func() { c.clientLeft() })
	}
	return refuseNone, detail{}
}
