package origin

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/poller"
)

// Server serves plain connections from one thread.
type Server struct {
	p        *poller.Poller
	listener int
	addr     netip.AddrPort
	planner  planner
	scripts  [2]*scripts // without and with stamps
	conns    []*conn     // by id, the listener's at 0
	free     []int32
	due      dueHeap
	buf      []byte
}

// conn is one connection.
type conn struct {
	id     int32
	fd     int
	dec    decoder
	out    []byte // what the socket did not take
	gen    uint32 // grows when the connection closes, so that old turns are recognised
	stream *playing
}

// playing is a stream in progress.
type playing struct {
	script *script
	req    request
	sent   int // tokens
	begun  bool
}

// turn is when a connection's stream has to go on.
type turn struct {
	at   int64 // Unix ns
	conn int32
	gen  uint32
}

// Listen opens a server on addr.
func Listen(addr netip.AddrPort) (*Server, error) {
	fd, bound, err := poller.Listen(addr)
	if err != nil {
		return nil, err
	}
	p, err := poller.New()
	if err != nil {
		poller.Close(fd)
		return nil, err
	}
	s := &Server{
		p: p, listener: fd, addr: bound, buf: make([]byte, 256<<10), conns: []*conn{nil},
		scripts: [2]*scripts{makeScripts(false), makeScripts(true)},
	}
	if err := p.Add(fd, 0); err != nil {
		p.Close()
		poller.Close(fd)
		return nil, err
	}
	return s, nil
}

// Addr is where the server listens.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Serve serves until ctx ends. It must be called once.
func (s *Server) Serve(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer poller.Precise()()
	stop := context.AfterFunc(ctx, s.p.Wake)
	defer stop()
	defer s.close()
	var events []poller.Event
	for ctx.Err() == nil {
		wait := poller.Forever
		if len(s.due) > 0 {
			wait = max(0, time.Duration(s.due[0].at-time.Now().UnixNano()))
		}
		var err error
		if events, err = s.p.Wait(events[:0], wait); err != nil {
			return fmt.Errorf("origin: %w", err)
		}
		for _, ev := range events {
			if ev.ID == 0 {
				s.accept()
			} else if c := s.conns[ev.ID]; c != nil {
				s.ready(c, ev.Hangup)
			}
		}
		s.play()
	}
	return nil
}

func (s *Server) close() {
	for _, c := range s.conns {
		if c != nil {
			poller.Close(c.fd)
		}
	}
	poller.Close(s.listener)
	s.p.Close()
}

func (s *Server) accept() {
	for {
		fd, err := poller.Accept(s.listener)
		if err != nil {
			return // without a free descriptor the peer waits for the next one
		}
		c := &conn{fd: fd}
		if n := len(s.free); n > 0 {
			c.id = s.free[n-1]
			s.free = s.free[:n-1]
			s.conns[c.id] = c
		} else {
			c.id = int32(len(s.conns))
			s.conns = append(s.conns, c)
		}
		if s.p.Add(fd, c.id) != nil {
			s.drop(c)
		}
	}
}

// drop ends a connection.
func (s *Server) drop(c *conn) {
	poller.Close(c.fd)
	c.gen++
	c.stream = nil
	s.conns[c.id] = nil
	s.free = append(s.free, c.id)
}

// ready does what a connection's socket allows.
func (s *Server) ready(c *conn, hangup bool) {
	if !s.flush(c) {
		return
	}
	for {
		n, err := poller.Read(c.fd, s.buf)
		if errors.Is(err, poller.ErrAgain) {
			break
		}
		if err != nil {
			s.drop(c)
			return
		}
		c.dec.add(s.buf[:n])
		if n < len(s.buf) && !hangup {
			break // the next bytes come with an event of their own
		}
	}
	s.answer(c)
	if c.stream != nil && len(c.out) == 0 && c.stream.begun && c.stream.req.plan.interval == 0 {
		s.step(c, time.Now().UnixNano()) // it had waited for room
	}
}

// answer begins with the next request unless an answer is under way.
func (s *Server) answer(c *conn) {
	for c.stream == nil && len(c.out) == 0 {
		r, ok, err := c.dec.next(&s.planner)
		switch {
		case err != nil && !ok:
			s.drop(c)
			return
		case !ok:
			return
		case err != nil:
			c.out = appendError(c.out, err.Error())
		case r.stream:
			sc := s.scripts[0]
			if r.plan.stamp {
				sc = s.scripts[1]
			}
			c.stream = &playing{script: &sc.openAI, req: r}
			if r.anthropic {
				c.stream.script = &sc.anthropic
			}
			s.later(c, time.Now().Add(r.plan.ttft).UnixNano())
			return
		default:
			if r.plan.ttft > 0 || r.plan.interval > 0 {
				c.stream = &playing{req: r}
				s.later(c, time.Now().Add(r.plan.ttft+time.Duration(r.plan.tokens)*r.plan.interval).UnixNano())
				return
			}
			c.out = appendWhole(c.out, r.anthropic, r.usage)
		}
		if !s.flush(c) {
			return
		}
	}
}

func (s *Server) later(c *conn, at int64) {
	heap.Push(&s.due, turn{at: at, conn: c.id, gen: c.gen})
}

// play goes on with all streams that are due.
func (s *Server) play() {
	now := time.Now().UnixNano()
	for len(s.due) > 0 && s.due[0].at <= now {
		t := s.due[0]
		c := s.conns[t.conn]
		if c == nil || c.gen != t.gen || c.stream == nil {
			heap.Pop(&s.due)
			continue
		}
		next, more := s.advance(c, t.at)
		if more {
			s.due[0].at = next
			heap.Fix(&s.due, 0)
		} else {
			heap.Pop(&s.due)
		}
	}
}

// advance sends what is due at the time due, and returns when to come back.
func (s *Server) advance(c *conn, due int64) (next int64, more bool) {
	st := c.stream
	if st.script == nil { // an answer that is not streamed, and late
		c.stream = nil
		c.out = appendWhole(c.out, st.req.anthropic, st.req.usage)
		if s.flush(c) {
			s.answer(c)
		}
		return 0, false
	}
	interval := int64(st.req.plan.interval)
	if interval > 0 && len(c.out) > 0 {
		return due + interval, true // the reader is slow: this event comes later
	}
	s.step(c, time.Now().UnixNano())
	return due + interval, interval > 0 && c.stream == st
}

// step sends the next event, or, without a pace, as many as there is room for.
func (s *Server) step(c *conn, now int64) {
	st := c.stream
	for {
		if !st.begun {
			st.begun = true
			c.out = append(c.out, eventHead...)
			c.out = st.script.first.append(c.out, now)
		} else if st.sent < st.req.plan.tokens {
			st.sent++
			c.out = st.script.token.append(c.out, now)
		}
		if st.sent == st.req.plan.tokens {
			c.out = st.script.last(c.out, st.req.usage, now)
			c.stream = nil
		}
		if !s.flush(c) {
			return
		}
		if c.stream == nil {
			s.answer(c)
			return
		}
		if st.req.plan.interval > 0 || len(c.out) > 0 {
			return
		}
	}
}

// flush writes what is pending; false if the connection was dropped.
func (s *Server) flush(c *conn) bool {
	for len(c.out) > 0 {
		n, err := poller.Write(c.fd, c.out)
		if errors.Is(err, poller.ErrAgain) {
			return true
		}
		if err != nil {
			s.drop(c)
			return false
		}
		c.out = append(c.out[:0], c.out[n:]...)
	}
	return true
}

// dueHeap is a heap of turns, the earliest first.
type dueHeap []turn

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) { *h = append(*h, x.(turn)) }

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
