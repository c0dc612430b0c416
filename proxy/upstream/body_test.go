package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// A body that was cut never looks complete, wherever the cut fell.
func TestCutBodies(t *testing.T) {
	t.Parallel()
	const chunkedHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	const whole = "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
	type cut struct{ answer, body string }
	cuts := map[string]cut{
		"length short": {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "hello"},
		"length none":  {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", ""},
	}
	for n := range len(whole) {
		got := ""
		if n > 3 {
			got = whole[3:min(n, 8)]
		}
		if n > 13 {
			got += whole[13:min(n, 19)]
		}
		cuts["chunked at "+whole[:n]] = cut{chunkedHead + whole[:n], got}
	}
	for name, tc := range cuts {
		for _, how := range []string{"closed", "reset"} {
			t.Run(how+", "+name, func(t *testing.T) {
				t.Parallel()
				read := make(chan struct{})
				p := newPeer(t, func(c *peerConn) {
					c.request()
					c.send(tc.answer)
					if how == "reset" {
						<-read // a reset discards what was not read yet
						c.reset()
					}
				})
				pool := newTestPool(t, Options{}, testConfig(p.url()))
				tg := pick(t, pool)
				defer tg.Release(Result{})
				r, err := tg.Do(body, nil)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(tc.body))
				if _, err := io.ReadFull(r, got); err != nil || string(got) != tc.body {
					t.Fatalf("%q %v, want %q", got, err, tc.body)
				}
				close(read)
				for range 2 {
					if n, err := r.Read(make([]byte, 10)); n != 0 || err != io.ErrUnexpectedEOF {
						t.Errorf("%d %v", n, err)
					}
				}
				r.Close(true)
				if s := pool.Stats()[0]; s.Open != 0 || r.Complete() {
					t.Errorf("%+v complete %v", s, r.Complete())
				}
			})
		}
	}
}

func TestMalformedBody(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(c *peerConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n")
		c.waitClosed()
	})
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	_, b, err := call(t, pool, body)
	if e := asError(t, err); b != "ab" || !errors.Is(err, ErrMalformed) || e.Phase != PhaseBody || !e.Sent {
		t.Errorf("%q %v", b, err)
	}
}

func TestBodyUntilClose(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(c *peerConn) { c.request(); c.send("HTTP/1.1 200 OK\r\n\r\nabc") })
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	if _, b, err := call(t, pool, body); b != "abc" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	if s := pool.Stats()[0]; s.Open != 0 {
		t.Errorf("%+v", s)
	}
}

// Any portion sizes on either side give the same body.
func TestPortions(t *testing.T) {
	t.Parallel()
	var want, wire bytes.Buffer
	for i := range 300 {
		piece := strings.Repeat(string(rune('a'+i%26)), i%40+1)
		want.WriteString(piece)
		fmt.Fprintf(&wire, "%X\r\n%s\r\n", len(piece), piece)
	}
	wire.WriteString("0\r\n\r\n")
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + wire.String(),
		"HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(want.Len()) + "\r\n\r\n" + want.String(),
	} {
		for _, step := range []int{1, 7, 100, 1 << 20} {
			p := newPeer(t, func(c *peerConn) {
				for {
					if _, _, ok := c.request(); !ok {
						return
					}
					for rest := answer; rest != ""; {
						n := min(step, len(rest))
						c.send(rest[:n])
						rest = rest[n:]
					}
				}
			})
			pool := newTestPool(t, Options{}, testConfig(p.url()))
			for _, one := range []bool{false, true} {
				tg := pick(t, pool)
				r, err := tg.Do(body, nil)
				if err != nil {
					t.Fatal(err)
				}
				var src io.Reader = r
				if one {
					src = iotest.OneByteReader(r)
				}
				got, err := io.ReadAll(src)
				if err != nil || !bytes.Equal(got, want.Bytes()) {
					t.Errorf("step %d: %v, %d bytes", step, err, len(got))
				}
				r.Close(false)
				tg.Release(Result{})
			}
			if n := p.accepted.Load(); n != 1 {
				t.Errorf("step %d: %d connections", step, n)
			}
		}
	}
}

// between checks that a limit fired between its value and 9/8 of it, with room above
// for a busy machine.
func between(t *testing.T, what string, took, limit time.Duration) {
	t.Helper()
	if took < limit || took > limit+limit/8+10*time.Second {
		t.Errorf("%s fired after %v, limit %v", what, took, limit)
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	const limit = time.Second
	const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	stall := func(s string) func(*peerConn) {
		return func(c *peerConn) { c.request(); c.send(s); c.waitClosed() }
	}
	for name, tc := range map[string]struct {
		set    func(*Config)
		script func(*peerConn)
		phase  Phase
		big    bool
		tls    bool
		sent   bool
	}{
		"first byte": {func(c *Config) { c.FirstByteTimeout = Duration(limit) }, stall(""), PhaseHead, false, false, true},
		"head never ends": {func(c *Config) { c.FirstByteTimeout = Duration(limit) }, func(c *peerConn) {
			c.request()
			c.send("HTTP/1.1 200 OK\r\n")
			for range 1000 { // for longer than limit
				c.send("X: y\r\n")
				time.Sleep(10 * time.Millisecond)
			}
		}, PhaseHead, false, false, true},
		"silence at once":    {func(c *Config) { c.IdleTimeout = Duration(limit) }, stall(head), PhaseBody, false, false, true},
		"silence in a chunk": {func(c *Config) { c.IdleTimeout = Duration(limit) }, stall(head + "5\r\nab"), PhaseBody, false, false, true},
		"total before head":  {func(c *Config) { c.TotalTimeout = Duration(limit) }, stall(""), PhaseHead, false, false, true},
		"total in the body": {func(c *Config) { c.TotalTimeout = Duration(limit) }, func(c *peerConn) {
			c.request()
			c.send(head)
			for range 1000 {
				c.send("1\r\na\r\n")
				time.Sleep(10 * time.Millisecond)
			}
		}, PhaseBody, false, false, true},
		"write": {func(c *Config) { c.IdleTimeout = Duration(limit) }, func(c *peerConn) { <-c.p.gone }, PhaseWrite, true, false, true},
		"TLS":   {func(c *Config) { c.TLSTimeout = Duration(limit) }, func(c *peerConn) { c.waitClosed() }, PhaseTLS, false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t, tc.script)
			url := p.url()
			if tc.tls {
				url = strings.Replace(url, "http:", "https:", 1)
			}
			c := testConfig(url)
			tc.set(&c)
			pool := newTestPool(t, Options{}, c)
			req := body
			if tc.big {
				req = bigBody()
			}
			start := time.Now()
			_, _, err := call(t, pool, req)
			took := time.Since(start)
			e := asError(t, err)
			if !e.Timeout || e.Canceled || e.Phase != tc.phase || e.Sent != tc.sent || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%+v", e)
			}
			if !tc.big { // bytes move for a while before they stop
				between(t, name, took, limit)
			}
			if s := pool.Stats()[0]; s.Open != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A stream longer than every single limit is not cut as long as bytes keep coming.
func TestLongStreamSurvives(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(c *peerConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for range 50 {
			c.send("1\r\na\r\n")
			time.Sleep(60 * time.Millisecond)
		}
		c.send("0\r\n\r\n")
		c.waitClosed()
	})
	c := testConfig(p.url())
	c.IdleTimeout, c.FirstByteTimeout, c.ConnectTimeout = Duration(2*time.Second), Duration(2*time.Second), Duration(2*time.Second)
	pool := newTestPool(t, Options{}, c)
	if _, b, err := call(t, pool, body); err != nil || len(b) != 50 {
		t.Errorf("%q %v", b, err)
	}
}

func TestMovedDeadline(t *testing.T) {
	t.Parallel()
	const never = 1 << 60
	for _, tc := range []struct{ cur, now, timeout, total, want time.Duration }{
		{0, 0, 80, never, 90},
		{90, 5, 80, never, 90},
		{90, 10, 80, never, 90},
		{90, 11, 80, never, 101},
		{500, 11, 80, never, 101}, // of another, longer limit
		{90, 30, 80, 95, 95},
		{95, 60, 80, 95, 95},
		{90, 10, 80, 85, 85},
		{0, 200, 80, 100, 100},
	} {
		if got := moved(tc.cur, tc.now, tc.timeout, tc.total); got != tc.want {
			t.Errorf("moved(%d, %d, %d, %d) = %d, want %d", tc.cur, tc.now, tc.timeout, tc.total, got, tc.want)
		}
	}
}

func TestCloseDrains(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		rest  string
		drain bool
		reuse bool
	}{
		"rest is there":   {"2\r\nbc\r\n0\r\n\r\n", true, true},
		"nothing follows": {"", true, false},
		"no drain":        {"2\r\nbc\r\n0\r\n\r\n", false, false},
		"endless":         {strings.Repeat("10000\r\n"+strings.Repeat("x", 0x10000)+"\r\n", 10), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t, func(c *peerConn) {
				c.request()
				c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n" + tc.rest)
				c.waitClosed()
			})
			pool := newTestPool(t, Options{}, testConfig(p.url()))
			tg := pick(t, pool)
			defer tg.Release(Result{})
			r, err := tg.Do(body, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			r.Close(tc.drain)
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("Close took %v", took)
			}
			if s := pool.Stats()[0]; (s.Idle == 1) != tc.reuse || s.Open != s.Idle {
				t.Errorf("%+v", s)
			}
		})
	}
}
