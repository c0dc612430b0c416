package proxy

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/proxy/eventloop"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

const (
	// loopRead is how much of an upstream is read at a time, and about how much is written to
	// its client at a time: what a slow client has not taken of it is kept.
	loopRead = 16 << 10
	// loopRounds is how many such reads one stream gets while others wait.
	loopRounds = 4
	// chunkRoom is room for the size line of a chunk: ffffffff CR LF.
	chunkRoom = 10
	// loopBuffer is how large a loop's buffer stays after a large event.
	loopBuffer = 256 << 10
)

// loops are the event loops that drive streams: one for two processors.
type loops struct {
	all  []*loopDriver
	next atomic.Uint32
}

// loopDriver is one loop with the buffers that its streams share.
type loopDriver struct {
	*eventloop.Loop
	in, out []byte
}

// newLoops starts the loops that the configuration asks for; nil if none.
func newLoops(driver string) (*loops, error) {
	if driver != streamsByLoop {
		return nil, nil
	}
	ls := &loops{}
	for range max(1, runtime.GOMAXPROCS(0)/2) {
		l, err := eventloop.New()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("streams: %w", err), ls.close())
		}
		ls.all = append(ls.all, &loopDriver{Loop: l, in: make([]byte, loopRead), out: make([]byte, 2*loopRead)})
	}
	return ls, nil
}

// close ends the loops. Streams that they still have are left as they are.
func (ls *loops) close() error {
	if ls == nil {
		return nil
	}
	var errs []error
	for _, d := range ls.all {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// loopStream drives a stream with an event loop: neither connection has a goroutine. It
// belongs to the handler until inherit has run, to the loop until finish, and then to the
// goroutine that runs close. Back-pressure is not reading the upstream while the client has
// not taken what was written to it.
type loopStream struct {
	stream
	d      *loopDriver
	conn   *clientConn
	client eventloop.Socket
	head   []byte      // of the answer, until it is written
	ahead  []byte      // what the client has sent of its next request and fasthttp has read
	pend   []byte      // what the client has not taken yet
	keep   bool        // the connection may carry another request
	left   atomic.Bool // fasthttp has let go of the connection
	gone   bool        // the client gets nothing more
	over   bool        // finished

	fromClient, fromUpstream eventloop.Watch

	// When it is given up, on the loop's clock.
	timer   eventloop.Timer
	idle    time.Duration // allowed silence of the upstream
	readBy  time.Duration // for its next byte
	total   time.Duration // for all of it
	tailBy  time.Duration // for what follows the end mark
	writeBy time.Duration // for the client to take pend
}

// The sides of a stream, as the loop calls them.
type (
	clientSide   loopStream
	upstreamSide loopStream
	canceled     loopStream // to cancel it from anywhere
	forsaken     loopStream // whose client gets nothing more
	resumed      loopStream
)

// handOver lets an event loop drive the stream of c, if it can: when fasthttp closes the
// client's connection after the handler, it is the loop that gets it.
func (s *Server) handOver(ctx *fasthttp.RequestCtx, c *call) bool {
	if s.loops == nil || c.http10 || c.status == fasthttp.StatusNoContent {
		return false // the last two have no chunks
	}
	conn, ok := c.conn.(*clientConn)
	if !ok {
		return false
	}
	if _, ok := c.resp.Pollable(); !ok {
		return false
	}
	t := &loopStream{conn: conn, d: s.loops.all[int(s.loops.next.Add(1))%len(s.loops.all)]}
	t.init(c)
	t.keep = s.state.Load() == stateServing && !ctx.Request.Header.ConnectionClose()
	h := &ctx.Response.Header
	if !t.keep {
		h.SetConnectionClose()
	}
	h.SetContentLength(-1)
	t.head = h.AppendBytes(nil)
	conn.heir.Store(t)
	ctx.HijackSetNoResponse(true)
	ctx.Hijack(t.leave)
	return true
}

// leave is called by fasthttp when it is done with the connection but for closing it.
func (t *loopStream) leave(nc net.Conn) {
	t.ahead = t.conn.buffered(nc)
	t.left.Store(true)
}

// inherit is called in place of closing the client's connection.
func (t *loopStream) inherit() {
	if !t.left.Load() || !t.d.Post(t) {
		t.gone, t.keep = true, false
		t.close()
	}
}

// Run begins to drive the stream.
func (t *loopStream) Run() {
	defer t.rescue()
	c, l := t.c, t.d.Loop
	t.timer.Due = t.due
	idle, total := c.resp.Limits()
	t.idle, t.total = idle, l.At(total)
	t.readBy = l.Now() + idle
	up, _ := c.resp.Pollable()
	raw, err := t.conn.SyscallConn()
	if err == nil {
		t.client.Init(raw)
		err = l.Watch(&t.fromClient, raw, eventloop.Writable, (*clientSide)(t))
	}
	if c.peer != nil { // the loop has the client watched from before that
		c.peer.Stop()
		c.peer = nil
	}
	if may := c.s.calls.looped(c, t); !may || c.departure.going.Load() {
		t.dropClient()
	}
	if err == nil {
		err = l.Watch(&t.fromUpstream, up, eventloop.Readable, (*upstreamSide)(t))
	}
	if !c.resp.StartPolling((*canceled)(t)) {
		err = c.cancel.Cause()
	}
	if err != nil {
		t.step(nil, err)
		return
	}
	t.pump()
}

// Ready is told of the upstream's connection.
func (u *upstreamSide) Ready(e eventloop.Event) {
	t := (*loopStream)(u)
	defer t.rescue()
	if t.ended {
		return
	}
	t.c.resp.Arrived(e&eventloop.Hangup != 0)
	t.pump()
}

// Ready is told of the client's connection.
func (cl *clientSide) Ready(e eventloop.Event) {
	t := (*loopStream)(cl)
	defer t.rescue()
	switch {
	case e&eventloop.Hangup != 0:
		t.clientGone()
	case e&eventloop.Writable != 0 && len(t.pend) > 0:
		t.flush()
	}
}

// Close has the loop end the stream. It is called from anywhere, by the call's Canceler.
func (k *canceled) Close() error {
	k.d.Post(k)
	return nil
}

// Run ends a stream that was canceled.
func (k *canceled) Run() {
	t := (*loopStream)(k)
	defer t.rescue()
	if t.over || t.ended {
		return
	}
	cause := t.c.cancel.Cause()
	t.step(nil, cause)
	if errors.Is(cause, errDrained) && len(t.pend) > 0 && !t.over {
		t.writeBy = min(t.writeBy, t.d.Now()+cutTime) // the process ends
		t.d.By(&t.timer, t.writeBy)
	}
}

// Run goes on with a stream that had let others go first.
func (r *resumed) Run() {
	t := (*loopStream)(r)
	defer t.rescue()
	if !t.over && !t.ended {
		t.pump()
	}
}

// pump moves what the upstream has to the client, until it has no more or the client does not
// take it; then it goes on when the client has taken what is pending.
func (t *loopStream) pump() {
	if !t.ended && t.d.Now() >= t.total {
		t.c.resp.Expire()
	}
	for round, more := 0, true; more && !t.ended && len(t.pend) == 0 && !t.over; round++ {
		if round == loopRounds {
			t.d.Post((*resumed)(t))
			break
		}
		out := t.d.begin(len(t.head))
		read := 0 // also what yields nothing to write takes its time
		for limit := len(out) + loopRead; more && !t.ended && len(out) < limit && read < loopRounds*loopRead; {
			var n int
			var err error
			if n, more, err = t.c.resp.Poll(t.d.in); n > 0 || err != nil {
				out = t.take(out, t.d.in[:n], err)
			}
			if read += n; n > 0 {
				t.readBy = t.d.Now() + t.idle
			}
		}
		t.send(out)
	}
	t.check()
}

// step puts an end that did not come from the upstream's connection through the relay.
func (t *loopStream) step(in []byte, err error) {
	t.send(t.take(t.d.begin(len(t.head)), in, err))
	t.check()
}

// begin returns the loop's buffer with room in front for a head and a chunk's size.
func (d *loopDriver) begin(head int) []byte {
	room := head + chunkRoom
	if cap(d.out) < room || cap(d.out) > loopBuffer {
		d.out = make([]byte, room+2*loopRead)
	}
	return d.out[:room]
}

// send writes to the client what was put behind the room in out.
func (t *loopStream) send(out []byte) {
	room := len(t.head) + chunkRoom
	if t.ended {
		t.fromUpstream.Stop()
	}
	from := room
	if n := len(out) - room; n > 0 {
		var size [chunkRoom]byte
		line := append(strconv.AppendInt(size[:0], int64(n), 16), '\r', '\n')
		from -= len(line)
		copy(out[from:], line)
		out = append(out, '\r', '\n')
	}
	t.d.out = out[:0]
	if t.gone {
		return
	}
	from -= len(t.head)
	copy(out[from:], t.head)
	t.head = nil
	if out = out[from:]; len(out) == 0 {
		return
	}
	if len(t.pend) > 0 {
		t.pend = append(t.pend, out...)
		return
	}
	n, err := t.client.Write(out)
	if err != nil {
		t.clientGone()
		return
	}
	if n < len(out) {
		t.pend = append([]byte(nil), out[n:]...)
		t.writeBy = t.d.Now() + t.patience()
	}
}

// flush writes what the client did not take before.
func (t *loopStream) flush() {
	n, err := t.client.Write(t.pend)
	if err != nil {
		t.clientGone()
		return
	}
	if t.pend = t.pend[n:]; len(t.pend) > 0 {
		if n > 0 && t.c.s.state.Load() != stateClosed {
			t.writeBy = t.d.Now() + t.patience() // it is slow, but there
		}
		return
	}
	t.pend = nil
	if t.ended {
		t.check()
		return
	}
	t.pump()
}

// clientGone ends what goes to the client. The call goes on if it may; otherwise it ends here,
// with nothing more read of the upstream: what the client cannot have had is not counted as ok.
func (t *loopStream) clientGone() {
	if t.gone || t.over {
		return
	}
	t.dropClient()
	switch {
	case t.ended || t.c.settled:
		t.check()
	case t.c.clientLeft():
		t.d.Post((*resumed)(t)) // what was held back for a slow client
	default:
		t.step(nil, t.c.cancel.Cause())
	}
}

func (t *loopStream) dropClient() {
	t.gone, t.keep, t.pend, t.head = true, false, nil, nil
	t.fromClient.Stop()
}

// check finishes the stream when nothing is left to do, and otherwise has the loop look
// after it in time.
func (t *loopStream) check() {
	switch {
	case t.over:
	case t.gone && (t.ended || t.c.settled), t.ended && len(t.pend) == 0:
		t.finish()
	default:
		if t.tailing() && t.tailBy == 0 {
			t.tailBy = t.d.Now() + tailWait
		}
		t.d.By(&t.timer, t.deadline())
	}
}

// deadline returns when the stream is to be given up as it stands now.
func (t *loopStream) deadline() time.Duration {
	switch {
	case len(t.pend) > 0 && t.ended:
		return t.writeBy
	case len(t.pend) > 0:
		return min(t.writeBy, t.total)
	case t.tailing():
		return t.tailBy
	}
	return min(t.readBy, t.total)
}

// due is called when a deadline may have passed.
func (t *loopStream) due() {
	defer t.rescue()
	switch {
	case t.d.Now() < t.deadline():
		t.check()
	case len(t.pend) > 0 && (t.ended || t.writeBy <= t.d.Now()):
		t.clientGone()
	case t.tailing():
		t.c.cancel.Cancel(errTail)
	case t.d.Now() < t.total && t.late():
		// This loop was late, not the upstream.
	default:
		t.c.resp.Expire()
		_, _, err := t.c.resp.Poll(nil)
		t.step(nil, err)
	}
}

// late reports whether something of the upstream was there although its time is over, and
// moves it.
func (t *loopStream) late() bool {
	before := t.readBy
	t.c.resp.Arrived(false)
	t.pump()
	return t.over || t.ended || len(t.pend) > 0 || t.readBy != before
}

// finish takes the stream out of the loop. What remains may wait for a log, so it is not
// done here.
func (t *loopStream) finish() {
	t.over = true
	t.fromClient.Stop()
	t.fromUpstream.Stop()
	t.d.Unset(&t.timer)
	go t.close()
}

// rescue is deferred wherever the loop calls: one panic would end every stream.
func (t *loopStream) rescue() {
	if p := recover(); p != nil {
		t.c.s.panicked(t.c, p)
		if !t.over {
			t.keep, t.gone = false, true
			t.finish()
		}
	}
}

// close is the end of the call. The client sees the end of its answer when all is done, and its
// connection goes back to fasthttp.
func (t *loopStream) close() {
	conn := t.conn
	if t.end() && !t.gone && t.sendLast() && t.keep {
		s := t.c.s
		conn = conn.successor(t.ahead, &s.cfg.Timeouts)
		if conn.ln.rest(conn) {
			_ = s.http.ServeConn(conn) // malformed has told what is wrong with a request
			return
		}
	}
	_ = conn.Close() // it ends the connection, whatever it says
}

// sendLast writes the last chunk, and reports whether the client can have it.
func (t *loopStream) sendLast() bool {
	limit := time.Duration(t.c.s.cfg.Timeouts.Write)
	if t.c.s.state.Load() == stateClosed {
		limit = min(limit, time.Second)
	}
	if t.conn.SetWriteDeadline(time.Now().Add(limit)) != nil {
		return false
	}
	_, err := t.conn.Write([]byte("0\r\n\r\n"))
	return err == nil && t.conn.SetWriteDeadline(time.Time{}) == nil
}

// end gives back what the call holds. It reports false when that panicked, which the client
// shall see.
func (t *loopStream) end() (ok bool) {
	c := t.c
	defer func() {
		if p := recover(); p != nil {
			c.s.panicked(c, p)
			ok = false
		}
	}()
	defer c.close()
	defer c.release(upstream.Result{})
	c.s.metrics.streams.Dec()
	if !c.settled {
		t.settle(contract.OutcomeClientGone)
	}
	return true
}
