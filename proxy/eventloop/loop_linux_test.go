package eventloop

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func newLoop(t testing.TB) *Loop {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

type task func()

func (f task) Run() { f() }

// do runs f in the loop's goroutine and waits for it.
func do(t testing.TB, l *Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(task(func() { f(); close(done) })) {
		t.Fatal("the loop is closed")
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a task did not run within 10 s")
	}
}

// pair returns two ends of a TCP connection.
func pair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

func rawOf(t testing.TB, c *net.TCPConn) syscall.RawConn {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Tasks run in their order, each once, whoever posts them; after Close none is taken.
func TestPost(t *testing.T) {
	t.Parallel()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	const posters, each = 8, 2000
	var next [posters]int
	var wrong atomic.Int64
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			for i := range each {
				l.Post(task(func() {
					if next[p] != i {
						wrong.Add(1)
					}
					next[p]++
				}))
			}
		})
	}
	wg.Wait()
	last := false
	do(t, l, func() { l.Post(task(func() { last = true })) }) // also from within
	do(t, l, func() {})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for p := range posters {
		if next[p] != each {
			t.Errorf("%d tasks of %d ran", next[p], each)
		}
	}
	if wrong.Load() != 0 || !last {
		t.Errorf("%d tasks out of order, the last one ran: %v", wrong.Load(), last)
	}
	if l.Post(task(func() { t.Error("a task ran after Close") })) {
		t.Error("a task was taken after Close")
	}
}

// What was posted before Close runs.
func TestCloseRunsWhatWasPosted(t *testing.T) {
	t.Parallel()
	for range 200 {
		l, err := New()
		if err != nil {
			t.Fatal(err)
		}
		var ran atomic.Int64
		for range 5 {
			l.Post(task(func() { ran.Add(1) }))
		}
		if err := l.Close(); err != nil || ran.Load() != 5 {
			t.Fatalf("%d tasks ran, %v", ran.Load(), err)
		}
	}
}

// The heap gives timers in the order of their time, whatever was moved or taken out.
func TestTimersAreOrdered(t *testing.T) {
	t.Parallel()
	for range 200 {
		var h timers
		all := make([]*Timer, 50)
		for i := range all {
			all[i] = &Timer{}
			h.set(all[i], time.Duration(rand.IntN(100)))
		}
		var want []time.Duration
		for _, x := range all {
			switch rand.IntN(3) {
			case 0:
				h.unset(x)
				h.unset(x)
			case 1:
				h.set(x, time.Duration(rand.IntN(100)))
			}
			if x.place != 0 {
				want = append(want, x.at)
			}
		}
		slices.Sort(want)
		for i, at := range want {
			first, ok := h.first()
			if !ok || first != at {
				t.Fatalf("timer %d is due at %v, want %v", i, first, at)
			}
			h.unset(h[0])
		}
		if _, ok := h.first(); ok {
			t.Fatal("a timer is left")
		}
	}
}

// Timers are called when they are due and not before, in order, once; those that are unset are not.
func TestTimersFire(t *testing.T) {
	t.Parallel()
	l := newLoop(t)
	const n = 30
	var fired []int
	all := make([]Timer, n)
	done := make(chan struct{})
	do(t, l, func() {
		for i := range all {
			at := l.At(time.Now()) + time.Duration(1+i)*3*time.Millisecond
			all[i].Due = func() {
				if l.Now() < at {
					t.Errorf("timer %d is called %v early", i, at-l.Now())
				}
				fired = append(fired, i)
				if i == n-1 {
					close(done)
				}
			}
			l.By(&all[i], at)
			l.By(&all[i], at+time.Hour) // a later time changes nothing
		}
		l.Unset(&all[7])
		again := l.At(time.Now()) + time.Hour
		l.By(&all[20], again)
	})
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the last timer is not called")
	}
	do(t, l, func() {
		if len(fired) != n-1 || !slices.IsSorted(fired) || slices.Contains(fired, 7) {
			t.Errorf("called: %v", fired)
		}
	})
}

// A timer that is set while the loop waits for a later one is called in time.
func TestEarlierTimer(t *testing.T) {
	t.Parallel()
	l := newLoop(t)
	late, soon := Timer{Due: func() { t.Error("an hour has passed") }}, Timer{}
	do(t, l, func() { l.By(&late, l.Now()+time.Hour) })
	done := make(chan struct{})
	soon.Due = func() { close(done) }
	do(t, l, func() { l.By(&soon, l.Now()+time.Millisecond) })
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("not called")
	}
	do(t, l, func() { l.Unset(&late) })
}

// side collects what a socket is told and what it can read.
type side struct {
	sock  Socket
	watch Watch
	seen  chan Event
	read  bytes.Buffer
	err   error
}

func (s *side) Ready(e Event) {
	if e&(Readable|Hangup) != 0 {
		for b := make([]byte, 10); ; {
			n, err := s.sock.Read(b)
			s.read.Write(b[:n])
			if err != nil {
				s.err = err
			}
			if n == 0 {
				break
			}
		}
	}
	s.seen <- e
}

// expect waits for an event that has all of want.
func (s *side) expect(t *testing.T, want Event) {
	t.Helper()
	for {
		select {
		case e := <-s.seen:
			if e&want == want {
				return
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("event %b did not come", want)
		}
	}
}

// A socket that is watched tells of bytes, of room, and of its end, also if that was there before.
func TestWatch(t *testing.T) {
	t.Parallel()
	l := newLoop(t)
	for _, before := range []bool{true, false} {
		a, b := pair(t)
		s := &side{seen: make(chan Event, 100)}
		s.sock.Init(rawOf(t, a))
		say := func() {
			if _, err := io.WriteString(b, "hello, this is more than ten bytes"); err != nil {
				t.Fatal(err)
			}
			if err := b.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		if before {
			say()
			time.Sleep(10 * time.Millisecond) // if it has not arrived yet, the test shows less
		}
		do(t, l, func() {
			if err := l.Watch(&s.watch, rawOf(t, a), Readable|Writable, s); err != nil {
				t.Error(err)
			}
		})
		s.expect(t, Writable)
		if !before {
			say()
		}
		for ended := false; !ended; {
			do(t, l, func() { ended = s.err != nil })
		}
		do(t, l, func() {
			if s.err != io.EOF || s.read.String() != "hello, this is more than ten bytes" {
				t.Errorf("read %q, %v", &s.read, s.err)
			}
			s.watch.Stop()
			s.watch.Stop()
		})
	}
}

// A full socket takes what there is room for, and tells when there is room again.
func TestWriteWithoutWaiting(t *testing.T) {
	t.Parallel()
	l := newLoop(t)
	a, b := pair(t)
	s := &side{seen: make(chan Event, 100)}
	s.sock.Init(rawOf(t, a))
	do(t, l, func() {
		if err := l.Watch(&s.watch, rawOf(t, a), Writable, s); err != nil {
			t.Error(err)
		}
	})
	s.expect(t, Writable)
	total, piece := 0, make([]byte, 1<<20)
	do(t, l, func() {
		for {
			n, err := s.sock.Write(piece)
			if err != nil {
				t.Error(err)
			}
			if total += n; n < len(piece) {
				return
			}
		}
	})
	if _, err := io.CopyN(io.Discard, b, int64(total)); err != nil {
		t.Fatal(err)
	}
	s.expect(t, Writable)
	_ = b.SetLinger(0)
	_ = b.Close()
	s.expect(t, Hangup)
	do(t, l, func() {
		if n, err := s.sock.Write(piece); n != 0 || err == nil {
			t.Errorf("write to a reset connection: %d, %v", n, err)
		}
		s.watch.Stop()
	})
}

// What a watch that has ended would have been told reaches neither it nor the one that got its
// place, not even in the round of events in which it ended; and a descriptor that was closed is
// not met again under its number.
func TestLateEvents(t *testing.T) {
	t.Parallel()
	l := newLoop(t)
	for range 200 {
		a, b := pair(t)
		c, d := pair(t)
		first, second, third := &side{seen: make(chan Event, 100)}, &side{seen: make(chan Event, 100)}, &side{seen: make(chan Event, 100)}
		third.sock.Init(rawOf(t, c))
		var told atomic.Int64
		stopOther := func(me, other *side) handler {
			return func(Event) {
				told.Add(1)
				me.watch.Stop()
				if other.watch.l != nil {
					other.watch.Stop()
				}
				_ = a.Close()
				if third.watch.l == nil {
					if err := l.Watch(&third.watch, rawOf(t, c), Readable, third); err != nil {
						t.Error(err)
					}
				}
			}
		}
		other, otherPeer := pair(t)
		do(t, l, func() {
			if err := l.Watch(&first.watch, rawOf(t, a), Readable, stopOther(first, second)); err != nil {
				t.Error(err)
			}
			if err := l.Watch(&second.watch, rawOf(t, other), Readable, stopOther(second, first)); err != nil {
				t.Error(err)
			}
			// Both are ready before the loop looks again.
			_, _ = b.Write([]byte("x"))
			_, _ = otherPeer.Write([]byte("x"))
		})
		for told.Load() == 0 {
			time.Sleep(100 * time.Microsecond)
		}
		do(t, l, func() {
			if n := told.Load(); n != 1 {
				t.Errorf("%d were told", n)
			}
			select {
			case e := <-third.seen:
				t.Errorf("an idle socket was told %b", e)
			default:
			}
		})
		_, _ = d.Write([]byte("y"))
		third.expect(t, Readable)
		do(t, l, third.watch.Stop)
		do(t, l, func() {
			if n := len(l.watches); n > 3 {
				t.Errorf("%d places for two sockets", n)
			}
		})
	}
}

type handler func(Event)

func (h handler) Ready(e Event) { h(e) }

// A socket that is closed already can be neither watched, read nor written, and its watch can be ended.
func TestClosedSocket(t *testing.T) {
	t.Parallel()
	l := newLoop(t)
	a, _ := pair(t)
	raw := rawOf(t, a)
	s := &side{seen: make(chan Event, 100)}
	s.sock.Init(raw)
	do(t, l, func() {
		if err := l.Watch(&s.watch, raw, Readable, s); err != nil {
			t.Error(err)
		}
		_ = a.Close()
		s.watch.Stop()
		if err := l.Watch(&s.watch, raw, Readable, s); err == nil {
			t.Error("a closed socket is watched")
		}
		s.watch.Stop()
		if _, err := s.sock.Read(make([]byte, 1)); err == nil {
			t.Error("a closed socket can be read")
		}
		if _, err := s.sock.Write(make([]byte, 1)); err == nil {
			t.Error("a closed socket can be written")
		}
		if len(l.free) != len(l.watches) {
			t.Errorf("%d of %d places are free", len(l.free), len(l.watches))
		}
	})
}
