package upstream

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

var errGone = errors.New("client is gone")

// unroutable is a listener whose queue is full, so that connecting to it hangs.
func unroutable(t *testing.T) string {
	t.Helper()
	ln, fill := fullListener(t)
	t.Cleanup(func() {
		_ = ln.Close()
		for _, c := range fill {
			_ = c.Close()
		}
	})
	return ln.Addr().String()
}

func TestCancelAtEveryPhase(t *testing.T) {
	t.Parallel()
	// started is told once the request is in the phase; what is only begun then (the
	// blocking call itself) gets a moment more.
	first := func(c *peerConn, started func()) { _, _ = c.r.Peek(1); started(); <-c.p.gone }
	for name, tc := range map[string]struct {
		script func(c *peerConn, started func())
		dial   bool
		tls    bool
		big    bool
		phase  Phase
		sent   bool
	}{
		"dial":  {first, true, false, false, PhaseDial, false},
		"TLS":   {first, false, true, false, PhaseTLS, false},
		"write": {first, false, false, true, PhaseWrite, true},
		"head":  {func(c *peerConn, started func()) { c.request(); started(); c.waitClosed() }, false, false, false, PhaseHead, true},
		"body": {func(c *peerConn, _ func()) {
			c.request()
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
			c.waitClosed()
		}, false, false, false, PhaseBody, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c Canceler
			canceled := make(chan time.Time, 1)
			cancel := func() {
				time.AfterFunc(50*time.Millisecond, func() {
					canceled <- time.Now()
					c.Cancel(errGone)
					c.Cancel(nil)
				})
			}
			p := newPeer(t, func(pc *peerConn) { tc.script(pc, cancel) })
			url := p.url()
			if tc.dial {
				url = "http://" + unroutable(t) + "/v1"
			}
			if tc.tls {
				url = strings.Replace(url, "http:", "https:", 1)
			}
			pool := newTestPool(t, Options{}, testConfig(url))
			req := body
			if tc.big {
				req = bigBody()
			}
			tg := pick(t, pool)
			defer tg.Release(Result{})
			if tc.dial {
				cancel()
			}
			r, err := tg.Do(req, &c)
			if tc.phase == PhaseBody {
				if err != nil {
					t.Fatal(err)
				}
				cancel()
				_, err = io.ReadAll(r)
				r.Close(true)
			}
			if late := time.Since(<-canceled); late > 10*time.Second {
				t.Errorf("returned %v after Cancel", late)
			}
			e := asError(t, err)
			if !e.Canceled || e.Timeout || e.Phase != tc.phase || e.Sent != tc.sent || !errors.Is(err, errGone) || c.Cause() != errGone {
				t.Errorf("%+v", e)
			}
			if s := pool.Stats()[0]; s.Open != 0 {
				t.Errorf("%+v", s)
			}
			if tc.phase == PhaseHead || tc.phase == PhaseBody { // the upstream is told to stop
				done := make(chan struct{})
				go func() { p.drained(); close(done) }()
				select {
				case <-done:
				case <-time.After(10 * time.Second):
					t.Error("the upstream's connection was not closed")
				}
			}
		})
	}
}

// drained waits for the scripts to end by themselves.
func (p *peer) drained() { _ = p.ln.Close(); p.wg.Wait() }

func TestCancelBeforeDo(t *testing.T) {
	t.Parallel()
	p := newPeer(t, answerAll)
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	for _, idle := range []int{0, 1} { // without and with an idle connection
		tg := pick(t, pool)
		var c Canceler
		c.Cancel(nil)
		_, err := tg.Do(body, &c)
		if e := asError(t, err); !e.Canceled || e.Sent || e.Phase != PhaseDial || !errors.Is(err, ErrCanceled) {
			t.Errorf("%+v", e)
		}
		tg.Release(Result{})
		if s := pool.Stats()[0]; s.Open != idle || s.Idle != idle {
			t.Errorf("%+v", s)
		}
		mustCall(t, pool)
	}
}

func TestCancelWhileWaitingForConnection(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(c *peerConn) { c.request(); c.waitClosed() })
	cfg := testConfig(p.url())
	cfg.MaxConns = 1
	pool := newTestPool(t, Options{}, cfg)
	var first, second Canceler
	var wg sync.WaitGroup
	wg.Go(func() {
		tg := pick(t, pool)
		defer tg.Release(Result{})
		_, _ = tg.Do(body, &first)
	})
	waitFor(t, "the first request", func() bool { return p.requests.Load() == 1 })
	tg := pick(t, pool)
	defer tg.Release(Result{})
	time.AfterFunc(20*time.Millisecond, func() { second.Cancel(errGone) })
	_, err := tg.Do(body, &second)
	if e := asError(t, err); !e.Canceled || e.Timeout {
		t.Errorf("%+v", e)
	}
	first.Cancel(nil)
	wg.Wait()
	if s := pool.Stats()[0]; s.Open != 0 {
		t.Errorf("%+v", s)
	}
}

// A Cancel that comes at, around and after the end never closes a pooled connection:
// whoever got it next would see its request fail.
func TestLateCancelTouchesNothing(t *testing.T) {
	t.Parallel()
	p := newPeer(t, answerAll)
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	const workers, rounds = 4, 1000
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range rounds {
				tg := pick(t, pool)
				c := new(Canceler)
				r, err := tg.Do(body, c)
				if err != nil {
					t.Errorf("round %d: %v", i, err)
					tg.Release(Result{})
					return
				}
				_, err = io.ReadAll(r)
				fire := make(chan struct{})
				go func() { <-fire; c.Cancel(errGone) }()
				switch i % 3 {
				case 0: // against Close: it may hit this connection, never the next owner's
					close(fire)
					r.Close(true)
				case 1:
					r.Close(true)
					close(fire)
				default:
					r.Close(true)
					c.Detach()
					close(fire)
				}
				if err != nil {
					t.Errorf("round %d: %v", i, err)
				}
				tg.Release(Result{})
			}
		})
	}
	wg.Wait()
	if pool.retrying.Load() != 0 {
		t.Error("retries left over")
	}
}

func TestDetachAndReset(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer b.Close()
	var c Canceler
	if !c.hold(a) {
		t.Fatal("hold")
	}
	c.Detach()
	c.Cancel(errGone)
	if c.Cause() != nil {
		t.Error("Cancel after Detach left a cause")
	}
	go func() { _, _ = b.Write([]byte("x")) }()
	if _, err := a.Read(make([]byte, 1)); err != nil {
		t.Errorf("connection closed after Detach: %v", err)
	}
	c.Reset()
	c.hold(a)
	c.Cancel(errGone)
	if _, err := a.Read(make([]byte, 1)); err == nil || c.Cause() != errGone || c.hold(a) {
		t.Error("Cancel after Reset did nothing")
	}
}

// Sending comes before the first byte, on a new connection and on a used one, and can
// still call the request off.
func TestSendingCallsOff(t *testing.T) {
	t.Parallel()
	p := newPeer(t, answerAll)
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	for range 2 {
		asked, ok := 0, false
		req := *body
		req.Sending = func() bool { asked++; return ok }
		tg := pick(t, pool)
		var c Canceler
		_, err := tg.Do(&req, &c)
		if e := asError(t, err); e.Sent || !errors.Is(err, ErrCanceled) || asked != 1 {
			t.Errorf("%+v, asked %d times", e, asked)
		}
		tg.Release(Result{})
		if s := pool.Stats()[0]; s.Open != 0 || s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
		ok = true
		tg = pick(t, pool)
		r, err := tg.Do(&req, nil)
		if err != nil || asked != 2 {
			t.Fatalf("%v, asked %d times", err, asked)
		}
		_, _ = io.ReadAll(r)
		r.Close(true)
		tg.Release(Result{})
	}
}
