package upstream

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/andreabadesso/openclaw-cloud/proxy/eventloop"
)

// polled is a Response that an event loop reads to its end.
type polled struct {
	r     *Response
	loop  *eventloop.Loop
	watch eventloop.Watch
	buf   []byte
	got   bytes.Buffer
	then  []func()
	reads int
	err   error
	ended bool
	done  chan struct{}
}

func (p *polled) Run() {
	raw, _ := p.r.Pollable()
	if err := p.loop.Watch(&p.watch, raw, eventloop.Readable, p); err != nil {
		p.end(err)
		return
	}
	if !p.r.StartPolling(p) {
		p.end(ErrCanceled)
		return
	}
	p.Ready(0)
}

func (p *polled) Ready(e eventloop.Event) {
	p.r.Arrived(e&eventloop.Hangup != 0)
	for more := true; more && !p.ended; {
		var n int
		var err error
		n, more, err = p.r.Poll(p.buf)
		p.reads++
		p.got.Write(p.buf[:n])
		if p.got.Len() > 0 {
			for _, do := range p.then {
				time.AfterFunc(20*time.Millisecond, do)
			}
			p.then = nil
		}
		if err != nil {
			p.end(err)
		}
	}
}

// Close is what Cancel calls.
func (p *polled) Close() error { p.loop.Post(ended{p}); return nil }

type ended struct{ *polled }

func (e ended) Run() {
	if !e.ended {
		e.r.Expire()
		_, _, err := e.r.Poll(e.buf)
		e.end(err)
	}
}

func (p *polled) end(err error) {
	p.ended, p.err = true, err
	p.watch.Stop()
	close(p.done)
}

// pollAll reads a body as io.ReadAll does, with a buffer of the given size, and does something once
// the first bytes are there.
func pollAll(t *testing.T, r *Response, size int, then ...func()) ([]byte, error) {
	t.Helper()
	loop, err := eventloop.New()
	if err != nil {
		t.Fatal(err)
	}
	p := &polled{r: r, loop: loop, buf: make([]byte, size), then: then, done: make(chan struct{})}
	loop.Post(p)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		t.Fatalf("not within 30 s; %d bytes so far", p.got.Len())
	}
	if err := loop.Close(); err != nil {
		t.Error(err)
	}
	if p.err == io.EOF { //nolint:errorlint // exactly that
		return p.got.Bytes(), nil
	}
	return p.got.Bytes(), p.err
}

// channels are what an upstream can be reached through.
func channels(t *testing.T, script func(*peerConn)) map[string]func() (*peer, Config) {
	ca := newAuthority(t)
	secure := func(version uint16) func() (*peer, Config) {
		return func() (*peer, Config) {
			server := ca.issue(t, "127.0.0.1", false)
			server.MinVersion, server.MaxVersion = version, version
			return tlsPeer(t, server, ca, script)
		}
	}
	return map[string]func() (*peer, Config){
		"plain":   func() (*peer, Config) { p := newPeer(t, script); return p, testConfig(p.url()) },
		"TLS 1.2": secure(tls.VersionTLS12), "TLS 1.3": secure(tls.VersionTLS13),
	}
}

// However it comes, a body that is polled is the one that is read, and the connection serves
// the next request, polled or not.
func TestPolledPortions(t *testing.T) {
	t.Parallel()
	var want, wire bytes.Buffer
	for i := range 400 {
		piece := strings.Repeat(string(rune('a'+i%26)), i%90+1)
		if i == 200 {
			piece = strings.Repeat("large", 40_000)
		}
		want.WriteString(piece)
		fmt.Fprintf(&wire, "%X\r\n%s\r\n", len(piece), piece)
	}
	wire.WriteString("0\r\n\r\n")
	answers := map[string]string{
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + wire.String(),
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(want.Len()) + "\r\n\r\n" + want.String(),
		"close":   "HTTP/1.1 200 OK\r\n\r\n" + want.String(),
	}
	for kind, answer := range answers {
		for _, step := range []int{1000, 40_000, 1 << 20} {
			for name, open := range channels(t, func(c *peerConn) {
				for {
					if _, _, ok := c.request(); !ok {
						return
					}
					for rest := answer; rest != ""; {
						n := min(step, len(rest))
						c.send(rest[:n])
						rest = rest[n:]
					}
					if kind == "close" {
						return
					}
				}
			}) {
				t.Run(fmt.Sprintf("%s/%s/%d", name, kind, step), func(t *testing.T) {
					t.Parallel()
					p, cfg := open()
					pool := newTestPool(t, Options{}, cfg)
					for i, size := range []int{64 << 10, 0, 1000, 16 << 10} {
						tg := pick(t, pool)
						r, err := tg.Do(body, nil)
						if err != nil {
							t.Fatal(err)
						}
						var got []byte
						if size > 0 {
							got, err = pollAll(t, r, size)
						} else {
							got, err = io.ReadAll(r)
						}
						if err != nil || !bytes.Equal(got, want.Bytes()) {
							t.Errorf("call %d: %v, %d bytes of %d", i, err, len(got), want.Len())
						}
						r.Close(false)
						tg.Release(Result{})
					}
					if n := p.accepted.Load(); n != 1 && kind != "close" {
						t.Errorf("%d connections", n)
					}
				})
			}
		}
	}
}

// A body that was cut never looks complete; one that is canceled or silent for too long says so.
func TestPolledEnds(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
	for ending, c := range map[string]struct {
		script func(*peerConn)
		check  func(error) bool
	}{
		"cut on a chunk boundary": {func(c *peerConn) { c.request(); c.send(head) },
			func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"cut in a chunk": {func(c *peerConn) { c.request(); c.send(head + "5\r\nab") },
			func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"malformed": {func(c *peerConn) { c.request(); c.send(head + "x\r\n"); c.waitClosed() },
			func(err error) bool { return errors.Is(err, ErrMalformed) }},
		"canceled": {func(c *peerConn) { c.request(); c.send(head); c.waitClosed() },
			func(err error) bool { var e *Error; return errors.As(err, &e) && e.Canceled && errors.Is(err, errGone) }},
	} {
		for name, open := range channels(t, c.script) {
			t.Run(name+"/"+ending, func(t *testing.T) {
				t.Parallel()
				_, cfg := open()
				pool := newTestPool(t, Options{}, cfg)
				tg := pick(t, pool)
				var cancel Canceler
				r, err := tg.Do(body, &cancel)
				if err != nil {
					t.Fatal(err)
				}
				var then []func()
				if ending == "canceled" {
					then = append(then, func() { cancel.Cancel(errGone) })
				}
				got, err := pollAll(t, r, 100, then...)
				if want := "hello"; !strings.HasPrefix(string(got), want) || !c.check(err) {
					t.Errorf("%q, %v", got, err)
				}
				r.Close(true)
				if s := pool.Stats()[0]; s.Open != 0 || r.Complete() {
					t.Errorf("%+v complete %v", s, r.Complete())
				}
				tg.Release(Result{})
			})
		}
	}
}

// closeWait is what the kernel calls a connection whose other side has closed it (TCP_CLOSE_WAIT).
const closeWait = 8

// The end of a connection that comes together with its last bytes is found without another event.
func TestPolledEndWithTheLastBytes(t *testing.T) {
	t.Parallel()
	for name, open := range channels(t, func(c *peerConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		_, _ = c.r.Peek(1) // until the other side has read that
		c.send("5\r\nhello\r\n")
		raw := c.Conn
		if s, ok := raw.(*tls.Conn); ok {
			raw = s.NetConn() // TLS would say good-bye
		}
		_ = raw.Close()
	}) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, cfg := open()
			pool := newTestPool(t, Options{}, cfg)
			tg := pick(t, pool)
			defer tg.Release(Result{})
			r, err := tg.Do(body, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close(false)
			r.StartPolling(io.NopCloser(nil))
			b := make([]byte, 1000)
			if n, more, err := r.Poll(b); n != 0 || more || err != nil {
				t.Fatal(n, more, err)
			}
			if _, err := r.cn.nc.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the end", func() (ended bool) {
				if err := r.cn.rc.Control(func(fd uintptr) {
					info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
					ended = err == nil && info.State == closeWait
				}); err != nil {
					t.Error(err)
				}
				return ended
			})
			r.Arrived(true)
			got := ""
			for more := true; more; {
				var n int
				n, more, err = r.Poll(b)
				got += string(b[:n])
			}
			if got != "hello" || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// Silence is an error of the kind that Read returns.
func TestPolledSilence(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(c *peerConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
		c.waitClosed()
	})
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	tg := pick(t, pool)
	defer tg.Release(Result{})
	r, err := tg.Do(body, nil)
	if err != nil {
		t.Fatal(err)
	}
	if idle, total := r.Limits(); idle != 5*time.Second || time.Until(total) > 30*time.Minute || time.Until(total) < 29*time.Minute {
		t.Errorf("limits %v, %v", idle, total)
	}
	r.StartPolling(io.NopCloser(nil))
	if n, more, err := r.Poll(make([]byte, 10)); n != 0 || more || err != nil {
		t.Errorf("%d %v %v where there is nothing", n, more, err)
	}
	r.Expire()
	_, _, err = r.Poll(make([]byte, 10))
	if e := asError(t, err); !e.Timeout || e.Phase != PhaseBody || e.Canceled || !strings.Contains(err.Error(), "silence") {
		t.Errorf("%v", err)
	}
	r.Close(true)
}

// With drain, what is there of the end is taken when a polled body is closed, and no more.
func TestPolledDrain(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{true, false} {
		p := newPeer(t, func(c *peerConn) {
			for {
				if _, _, ok := c.request(); !ok {
					return
				}
				answer := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
				if whole {
					answer += "0\r\n\r\n"
				}
				c.send(answer)
			}
		})
		pool := newTestPool(t, Options{}, testConfig(p.url()))
		tg := pick(t, pool)
		r, err := tg.Do(body, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.StartPolling(io.NopCloser(nil))
		one := make([]byte, 1)
		waitFor(t, "the first byte", func() bool { n, _, err := r.Poll(one); return n == 1 || err != nil })
		if whole {
			time.Sleep(20 * time.Millisecond) // the end has arrived
		}
		r.Close(true)
		tg.Release(Result{})
		if s := pool.Stats()[0]; s.Idle != map[bool]int{true: 1}[whole] {
			t.Errorf("whole %v: %+v", whole, s)
		}
	}
}

// What TLS has to say while the socket has no room is kept and sent later; and a connection
// on which it was not sent is not used again.
func TestPolledTLSWrites(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	other, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var p poller
	p.socket.Init(raw)
	var wrote uint64
	k := &link{Conn: c, wrote: &wrote, poll: &p}
	var sent bytes.Buffer
	for piece := bytes.Repeat([]byte("0123456789"), 10_000); len(p.unsent) == 0; {
		if n, err := k.Write(piece); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
		sent.Write(piece)
	}
	if n, err := k.Write([]byte("and this")); n != 8 || err != nil {
		t.Fatal(n, err)
	}
	sent.WriteString("and this")
	if wrote != uint64(sent.Len()) {
		t.Errorf("%d bytes counted, %d written", wrote, sent.Len())
	}
	got := make([]byte, sent.Len())
	done := make(chan error, 1)
	go func() { _, err := io.ReadFull(other, got); done <- err }()
	waitFor(t, "all is sent", func() bool { return p.flush() != nil || len(p.unsent) == 0 })
	if err := <-done; err != nil || !bytes.Equal(got, sent.Bytes()) {
		t.Error("the bytes differ: ", err)
	}
	if !k.wait() || k.poll != nil {
		t.Error("the connection cannot be used on")
	}
	k.poll = &poller{unsent: []byte("x")}
	if k.wait() {
		t.Error("a connection with unsent bytes can be used on")
	}
}
