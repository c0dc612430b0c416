package load

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/poller"
)

// state is what a connection does.
type state uint8

const (
	closed     state = iota
	connecting       // until the first event
	idle
	busy    // a request is out
	resting // told to wait
)

// conn is one connection to the target.
type conn struct {
	id       int32
	fd       int
	state    state
	out      [][]byte // of the request, what the socket did not take yet
	parts    [3][]byte
	intended int64 // Unix ns, when the request was to be sent
	sent     int64
	retry    int64 // Unix ns, when a closed connection may be opened again, or a resting one be used
	first    bool  // a byte of the answer has come
	ans      answer
}

// counters are read by others while a thread works.
type counters struct {
	answers, events, failures, open atomic.Int64
}

// thread drives a part of the connections.
type thread struct {
	cfg    *Config
	addr   netip.AddrPort
	p      *poller.Poller
	sched  *schedule // nil if closed
	conns  []conn
	idle   []int32 // free and connected
	down   []int32 // closed ones
	rest   []int32 // those that were told to wait, the first to end it first
	random *rand.Rand
	asked  bool // the next arrival is not of a client that waits
	dials  int  // under way
	buf    []byte
	rec    *recorder
	count  *counters
	start  int64  // Unix ns
	from   int64  // counting begins
	to     int64  // counting ends; sending too
	nth    uint64 // of the next request of a closed load
	now    int64
	swept  int64
	onWire func(stamp int64)
}

// What threads do at a time.
const (
	maxDials  = 64                     // connections on their way: a listener's queue is finite
	redial    = 20 * time.Millisecond  // before a closed connection is opened again
	sweepTime = 250 * time.Millisecond // between looks for answers that are too late
)

func newThread(cfg *Config, i int, addr netip.AddrPort, count *counters) (*thread, error) {
	p, err := poller.New()
	if err != nil {
		return nil, err
	}
	n := cfg.Connections / cfg.Threads
	if i < cfg.Connections%cfg.Threads {
		n++
	}
	t := &thread{cfg: cfg, addr: addr, p: p, buf: make([]byte, 256<<10), rec: newRecorder(), count: count, conns: make([]conn, n), nth: uint64(i), random: rand.New(rand.NewPCG(cfg.Seed, uint64(i)+1<<32))}
	if !cfg.Closed {
		t.sched = newSchedule(cfg, i)
	}
	for id := range t.conns {
		t.conns[id] = conn{id: int32(id), fd: -1}
		t.down = append(t.down, int32(id))
	}
	t.onWire = func(stamp int64) {
		t.count.events.Add(1)
		if t.counting() {
			t.rec.events++
			if stamp > 0 {
				record(t.rec.lag, t.now-stamp)
			}
		}
	}
	return t, nil
}

func (t *thread) counting() bool { return t.now >= t.from && t.now < t.to }

// due reports whether a request was to be sent while counting. Times are of such requests, however
// late they are answered, and of no others: what the warm-up has left behind is not the load's.
func (t *thread) due(intended int64) bool { return intended >= t.from && intended < t.to }

// run sends and receives until to, and then waits at most for drain for what is in
// flight. stop ends it at once.
func (t *thread) run(start, from, to int64, drain time.Duration, stop <-chan struct{}) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer poller.Precise()()
	defer t.close()
	defer t.left()
	t.start, t.from, t.to = start, from, to
	var events []poller.Event
	for {
		t.now = time.Now().UnixNano()
		over := t.now >= to || t.sched != nil && t.sched.n >= uint64(len(t.sched.arrivals)) && t.sched.rate == 0
		if over && (t.count.open.Load() == 0 || t.now >= to+int64(drain)) {
			return nil
		}
		select {
		case <-stop:
			return nil
		default:
		}
		if t.now-t.swept > int64(sweepTime) {
			t.sweep()
		}
		t.dial()
		t.rested()
		if !over {
			t.send()
		}
		var err error
		if events, err = t.p.Wait(events[:0], t.wait(over)); err != nil {
			return fmt.Errorf("load: %w", err)
		}
		t.now = time.Now().UnixNano()
		for _, ev := range events {
			t.ready(&t.conns[ev.ID], ev.Hangup)
		}
	}
}

// wait is how long nothing is to be done unless a socket says so.
func (t *thread) wait(over bool) time.Duration {
	next := t.swept + int64(sweepTime) + 1
	if len(t.down) > 0 && t.dials < maxDials && t.wanted() {
		next = min(next, max(t.conns[t.down[0]].retry, t.now+int64(time.Millisecond)))
	}
	if !over && t.sched != nil && (len(t.idle) > 0 || len(t.rest) > 0 && !t.asked) && t.sched.at < never {
		next = min(next, t.start+int64(t.sched.at))
	}
	if !over && t.sched == nil && len(t.idle) > 0 {
		next = min(next, t.rampAt())
	}
	if len(t.rest) > 0 {
		next = min(next, t.conns[t.rest[0]].retry)
	}
	if !over {
		next = min(next, t.to)
	}
	return max(0, time.Duration(next-t.now))
}

// rampAt is when the next idle connection of a closed load may send its first request.
func (t *thread) rampAt() int64 {
	done := uint64(len(t.conns)-len(t.idle)-len(t.down)) - uint64(t.dials)
	return t.start + int64(t.cfg.Ramp)*int64(done)/int64(len(t.conns))
}

// wanted reports whether closed connections are to be opened: always in a closed load and
// at a fixed rate; for given arrivals as many as are about to be needed, since most of them
// keep one for long.
func (t *thread) wanted() bool {
	if t.sched == nil || t.sched.rate > 0 {
		return true
	}
	ready := len(t.idle) + t.dials
	n := t.sched.n + uint64(ready)*t.sched.step
	soon := t.now - t.start + int64(10*time.Millisecond)
	return n < uint64(len(t.sched.arrivals)) && int64(t.sched.arrivals[n]) <= soon
}

// dial opens connections that are closed.
func (t *thread) dial() {
	for len(t.down) > 0 && t.dials < maxDials && t.wanted() {
		c := &t.conns[t.down[0]]
		if c.retry > t.now {
			return
		}
		t.down = t.down[1:]
		fd, err := poller.Dial(t.addr)
		if err == nil {
			c.fd, c.state = fd, connecting
			t.dials++
			if err = t.p.Add(fd, c.id); err == nil {
				continue
			}
		}
		t.lose(c, "connect")
	}
}

// send sends what is due on idle connections.
func (t *thread) send() {
	for t.withhold(); len(t.idle) > 0; t.withhold() {
		var intended int64
		var n uint64
		if t.sched != nil {
			if intended = t.start + int64(t.sched.at); intended > t.now {
				return
			}
			n = t.sched.n
			t.sched.next()
			t.asked = false
		} else {
			if t.cfg.Ramp > 0 && t.rampAt() > t.now {
				return
			}
			intended = t.now
			n = t.nth
			t.nth += uint64(t.cfg.Threads)
		}
		c := &t.conns[t.idle[len(t.idle)-1]]
		t.idle = t.idle[:len(t.idle)-1]
		t.begin(c, n, intended)
	}
}

// begin sends request n on an idle connection.
func (t *thread) begin(c *conn, n uint64, intended int64) {
	j := t.cfg.Jobs(n)
	c.out = c.parts[:0]
	for _, part := range [3][]byte{j.Head, j.Fill, j.Tail} {
		if len(part) > 0 {
			c.out = append(c.out, part)
		}
	}
	c.state, c.intended, c.sent, c.first = busy, intended, t.now, false
	c.ans.reset()
	t.count.open.Add(1)
	switch {
	case t.due(intended):
		t.rec.offered++
	case t.now >= t.from && intended < t.from:
		t.rec.backlog-- // the warm-up's, for which others wait
	}
	t.write(c)
}

func (t *thread) write(c *conn) {
	for len(c.out) > 0 {
		n, err := poller.Write(c.fd, c.out[0])
		if errors.Is(err, poller.ErrAgain) {
			return
		}
		if err != nil {
			t.lose(c, "write")
			return
		}
		if c.out[0] = c.out[0][n:]; len(c.out[0]) == 0 {
			c.out = c.out[1:]
		}
	}
}

// ready does what a connection's socket allows.
func (t *thread) ready(c *conn, hangup bool) {
	switch c.state {
	case closed:
		return
	case connecting:
		err := poller.Connected(c.fd)
		if errors.Is(err, poller.ErrAgain) {
			return
		}
		if err != nil {
			t.lose(c, "connect")
			return
		}
		t.dials--
		c.state = idle
		t.idle = append(t.idle, c.id)
		if !hangup {
			return
		}
	}
	t.write(c)
	for c.state == busy || c.state == idle || c.state == resting {
		n, err := poller.Read(c.fd, t.buf)
		if errors.Is(err, poller.ErrAgain) {
			return
		}
		if err != nil {
			t.ended(c, err)
			return
		}
		t.received(c, t.buf[:n])
		if n < len(t.buf) && !hangup {
			return
		}
	}
}

// received reads a part of the answer.
func (t *thread) received(c *conn, p []byte) {
	if c.state != busy {
		t.lose(c, "bytes without a request")
		return
	}
	if !c.first {
		c.first = true
		if t.due(c.intended) {
			record(t.rec.ttfb, t.now-c.intended)
		}
	}
	if t.counting() {
		t.rec.bytes += int64(len(p))
	}
	rest, err := c.ans.feed(p, t.onWire)
	switch {
	case err != nil:
		t.lose(c, "malformed answer")
	case c.ans.phase != complete:
	case len(rest) > 0:
		t.lose(c, "bytes behind an answer")
	default:
		t.finish(c)
	}
}

// ended handles a connection that the server closed.
func (t *thread) ended(c *conn, err error) {
	switch {
	case c.state != busy:
		t.lose(c, "")
	case errors.Is(err, io.EOF) && c.first && c.ans.phase == untilClose:
		t.finish(c)
	case !c.first:
		t.lose(c, "closed before an answer")
	case errors.Is(err, io.EOF):
		t.lose(c, "cut")
	default:
		t.lose(c, "reset")
	}
}

// finish counts an answer, and makes the connection free for the next.
func (t *thread) finish(c *conn) {
	a := &c.ans
	took := t.now - c.intended
	failure := a.failure()
	if failure == "" {
		t.count.answers.Add(1)
	} else {
		t.count.failures.Add(1)
	}
	refused := a.status == 429 || a.status == 503
	if t.counting() {
		switch {
		case failure == "":
			t.rec.answers++
		case refused:
			t.rec.refused++
			t.rec.failures[failure]++
		default:
			t.rec.failures[failure]++
		}
	}
	if t.due(c.intended) {
		switch {
		case failure == "":
			record(t.rec.latency, took)
		case refused:
			record(t.rec.refusing, took)
		}
	}
	t.count.open.Add(-1)
	wait := time.Duration(0)
	if refused && t.cfg.Patient {
		wait = time.Duration(a.retry) * time.Second
	}
	switch {
	case a.close:
		t.shut(c, t.now+int64(wait))
		return
	case wait > 0:
		t.relax(c, wait)
		return
	}
	c.state = idle
	t.idle = append(t.idle, c.id)
}

// lose counts a failure, unless it is "", and closes the connection.
func (t *thread) lose(c *conn, kind string) {
	if c.state == busy {
		t.count.open.Add(-1)
	}
	if kind != "" {
		t.count.failures.Add(1)
		if t.counting() {
			t.rec.failures[kind]++
		}
	}
	if c.state == connecting {
		t.dials--
	}
	for _, list := range []*[]int32{&t.idle, &t.rest} {
		if i := slices.Index(*list, c.id); i >= 0 && (c.state == idle || c.state == resting) {
			*list = slices.Delete(*list, i, i+1)
		}
	}
	retry := t.now + int64(redial)
	if c.state == resting {
		retry = max(retry, c.retry)
	}
	t.shut(c, retry)
}

// shut closes a connection; it may be opened again at the time retry.
func (t *thread) shut(c *conn, retry int64) {
	if c.fd >= 0 {
		poller.Close(c.fd)
	}
	c.fd, c.state, c.retry, c.out = -1, closed, retry, nil
	t.down = t.inOrder(t.down, c)
}

// sweep gives up on answers that are too late.
func (t *thread) sweep() {
	t.swept = t.now
	for i := range t.conns {
		if c := &t.conns[i]; c.state == busy && t.now-c.sent > int64(t.cfg.Timeout) {
			t.lose(c, "timeout")
		}
	}
}

// left counts what an open load did not get rid of while counting: by how many more requests wait to
// be sent at its end than at its beginning.
func (t *thread) left() {
	if t.sched == nil {
		return
	}
	for ; t.start+int64(t.sched.at) < t.to && t.sched.at < never; t.sched.next() {
		switch {
		case !t.due(t.start + int64(t.sched.at)):
		case !t.asked && t.random.IntN(len(t.conns)) < len(t.rest):
			t.rec.withheld++
		default:
			t.rec.backlog++
		}
		t.asked = false
	}
	for i := range t.conns {
		if c := &t.conns[i]; c.state == busy && t.due(c.intended) {
			t.rec.failures["no answer at the end"]++
		}
	}
}

func (t *thread) close() {
	for i := range t.conns {
		if c := &t.conns[i]; c.fd >= 0 {
			poller.Close(c.fd)
		}
	}
	t.p.Close()
}
