package hangup_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy/hangup"
)

// soon is how long a test waits for a hang-up, which is noticed within microseconds where the machine is idle.
const soon = 20 * time.Second

// quiet is how long a test looks for a call that must not come. The watcher answers
// within microseconds; a wrong call would show long before.
const quiet = 50 * time.Millisecond

func newWatcher(t *testing.T) *hangup.Watcher {
	t.Helper()
	w, err := hangup.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// watch watches c alone; stop ends it.
func watch(w *hangup.Watcher, c net.Conn, fn func()) (stop func()) {
	p := w.Peer(c)
	p.Watch(fn)
	return p.Leave
}

// pair returns both ends of a TCP connection over loopback.
func pair(t testing.TB) (server, client *net.TCPConn) {
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
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// signal is a callback that can be waited for.
type signal struct {
	calls atomic.Int32
	first chan struct{}
}

func newSignal() *signal { return &signal{first: make(chan struct{})} }

func (s *signal) fn() {
	if s.calls.Add(1) == 1 {
		close(s.first)
	}
}

func (s *signal) await(t *testing.T) {
	t.Helper()
	select {
	case <-s.first:
	case <-time.After(soon):
		t.Fatalf("the hang-up was not noticed within %v", soon)
	}
}

func (s *signal) silent(t *testing.T, what string) {
	t.Helper()
	select {
	case <-s.first:
		t.Fatalf("called %s", what)
	case <-time.After(quiet):
	}
}

func reset(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if err := c.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNoticesEachWayToHangUp(t *testing.T) {
	t.Parallel()
	for name, hangUp := range map[string]func(*testing.T, *net.TCPConn){
		"FIN":        func(_ *testing.T, c *net.TCPConn) { _ = c.Close() },
		"RST":        reset,
		"half-close": func(_ *testing.T, c *net.TCPConn) { _ = c.CloseWrite() },
		"FIN behind a pipelined request": func(t *testing.T, c *net.TCPConn) {
			if _, err := c.Write([]byte("GET /next HTTP/1.1\r\n\r\n")); err != nil {
				t.Error(err)
			}
			_ = c.Close()
		},
		"RST behind a pipelined request": func(t *testing.T, c *net.TCPConn) {
			if _, err := c.Write(make([]byte, 10_000)); err != nil {
				t.Error(err)
			}
			reset(t, c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatcher(t)
			server, client := pair(t)
			s := newSignal()
			stop := watch(w, server, s.fn)
			s.silent(t, "while the client is there")
			hangUp(t, client)
			s.await(t)
			time.Sleep(quiet)
			if n := s.calls.Load(); n != 1 {
				t.Errorf("called %d times", n)
			}
			stop()
			stop() // harmless
			if n := w.Registered(); n != 0 {
				t.Errorf("%d sockets are still watched", n)
			}
		})
		t.Run(name+" before the watch", func(t *testing.T) {
			t.Parallel()
			w := newWatcher(t)
			server, client := pair(t)
			hangUp(t, client)
			s := newSignal()
			defer watch(w, server, s.fn)()
			s.await(t)
		})
	}
}

// Data of the client is no hang-up, and is left for whoever reads the connection.
func TestDataIsNoHangUp(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	server, client := pair(t)
	s := newSignal()
	stop := watch(w, server, s.fn)
	const pipelined = "GET /next HTTP/1.1\r\n\r\n"
	if _, err := client.Write([]byte(pipelined)); err != nil {
		t.Fatal(err)
	}
	s.silent(t, "for data")
	stop()
	b := make([]byte, len(pipelined))
	if _, err := io.ReadFull(server, b); err != nil || string(b) != pipelined {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestNothingIsCalledAfterStop(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	server, client := pair(t)
	s := newSignal()
	watch(w, server, s.fn)()
	if n := w.Registered(); n != 0 {
		t.Errorf("%d sockets are watched after stop", n)
	}
	_ = client.Close()
	s.silent(t, "after stop")
}

// One connection serves many requests: each watches it anew.
func TestWatchesFollowEachOther(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	server, client := pair(t)
	p := w.Peer(server)
	defer p.Leave()
	old := newSignal()
	for range 100 {
		p.Watch(old.fn)
		p.Stop()
	}
	s := newSignal()
	p.Watch(s.fn)
	_ = client.Close()
	s.await(t)
	// Who was gone before the watch is gone at once.
	late := newSignal()
	p.Watch(late.fn)
	if late.calls.Load() != 1 {
		t.Error("a watch of a peer that had hung up was not called")
	}
	if old.calls.Load() != 0 || s.calls.Load() != 1 {
		t.Errorf("earlier watches were called %d and %d times, want 0 and 1", old.calls.Load(), s.calls.Load())
	}
}

// Between two requests nobody watches, and the kernel says it only once.
func TestHangUpBetweenWatches(t *testing.T) {
	t.Parallel()
	for name, hangUp := range map[string]func(*testing.T, *net.TCPConn){
		"FIN": func(_ *testing.T, c *net.TCPConn) { _ = c.Close() }, "RST": reset,
	} {
		w := newWatcher(t)
		server, client := pair(t)
		p := w.Peer(server)
		p.Watch(func() { t.Error("called after Stop") })
		p.Stop()
		hangUp(t, client)
		time.Sleep(quiet)
		s := newSignal()
		p.Watch(s.fn)
		s.await(t)
		p.Leave()
		if n := w.Registered(); n != 0 {
			t.Errorf("%s: %d sockets are registered", name, n)
		}
	}
}

// A stop that comes late, when the descriptor belongs to another connection, must not
// end that one's watch. Not parallel: other tests would take the descriptor.
func TestReusedDescriptor(t *testing.T) {
	w := newWatcher(t)
	reused := false
	for range 50 {
		server, client := pair(t)
		fd := descriptor(t, server)
		old := newSignal()
		stopOld := watch(w, server, old.fn)
		_ = server.Close() // against the rules: before stop
		_ = client.Close()
		server, client = pair(t)
		if descriptor(t, server) != fd && descriptor(t, client) != fd {
			stopOld()
			continue
		}
		watched, peer := server, client
		if descriptor(t, client) == fd {
			watched, peer = client, server
		}
		reused = true
		s := newSignal()
		stop := watch(w, watched, s.fn)
		stopOld()
		if n := w.Registered(); n != 1 {
			t.Fatalf("%d sockets are watched, want the new one", n)
		}
		_ = peer.Close()
		s.await(t)
		stop()
		if old.calls.Load() > 0 {
			t.Fatal("the watch of a connection that we closed was called")
		}
	}
	if !reused {
		t.Error("the system gave no descriptor again: nothing was tested")
	}
}

func descriptor(t *testing.T, c *net.TCPConn) (fd uintptr) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(f uintptr) { fd = f }); err != nil {
		t.Fatal(err)
	}
	return fd
}

// When stop has returned, the callback neither runs nor will: what it touches may be
// used for something else. The race detector is the judge.
func TestStopRacesWithHangUp(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	before, after := 0, 0
	for range 300 {
		server, client := pair(t)
		owned := 0 // written by the callback, and by us once stop has returned
		stop := watch(w, server, func() { owned++ })
		var wg sync.WaitGroup
		wg.Go(func() { _ = client.Close() })
		stop()
		if owned == 0 {
			before++
		} else {
			after++
		}
		owned = 7
		_ = server.Close()
		wg.Wait()
		if owned != 7 {
			t.Fatal("the callback ran after stop")
		}
	}
	t.Logf("stop came first %d times, the hang-up %d times", before, after)
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 50 {
				server, client := pair(t)
				s := newSignal()
				stop := watch(w, server, s.fn)
				if i%2 == 0 {
					_ = client.Close()
					<-s.first
				}
				stop()
				_ = server.Close()
				_ = client.Close()
				_ = w.Registered()
			}
		})
	}
	wg.Wait()
	if n := w.Registered(); n != 0 {
		t.Errorf("%d sockets are still watched", n)
	}
}

func TestWithoutDescriptorNothingIsRegistered(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	a, b := net.Pipe()
	s := newSignal()
	stop := watch(w, a, s.fn)
	_ = b.Close()
	s.silent(t, "for a pipe")
	stop()
	closed, _ := pair(t)
	_ = closed.Close()
	watch(w, closed, s.fn)()
	if n := w.Registered(); n != 0 {
		t.Errorf("%d sockets are watched", n)
	}
}

func TestCloseForgetsWatches(t *testing.T) {
	t.Parallel()
	w, err := hangup.New()
	if err != nil {
		t.Fatal(err)
	}
	server, client := pair(t)
	s := newSignal()
	stop := watch(w, server, s.fn)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	s.silent(t, "after Close")
	stop()
}

// Not parallel: it counts the goroutines and descriptors of the process.
func TestManyWatchesLeaveNothing(t *testing.T) {
	testenv.NoLeaks(t)
	limit := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 2500 {
		t.Fatalf("the test opens 2,000 sockets; raise the limit of open files (%d, %v)", limit.Cur, err)
	}
	w := newWatcher(t)
	const n = 1000
	var gone sync.WaitGroup
	gone.Add(n / 2)
	type watched struct {
		server, client *net.TCPConn
		stop           func()
	}
	var watches []watched
	for i := range n {
		server, client := pair(t)
		fn := func() { t.Error("called although the client is there") }
		if i%2 == 0 {
			fn = gone.Done
		}
		watches = append(watches, watched{server, client, watch(w, server, fn)})
	}
	if got := w.Registered(); got != n {
		t.Fatalf("%d sockets are watched, want %d", got, n)
	}
	for i, c := range watches {
		if i%2 == 0 {
			_ = c.client.Close()
		}
	}
	gone.Wait()
	for _, c := range watches {
		c.stop()
		_ = c.server.Close()
		_ = c.client.Close()
	}
	if got := w.Registered(); got != 0 {
		t.Errorf("%d sockets are still watched", got)
	}
}
