package upstream

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"
)

// blind makes the only idle connection look quiet whatever happened to it, as when
// the peer closes in the moment between the look and the write.
func blind(t *testing.T, p *Pool) *conn {
	t.Helper()
	ep := p.endpoints[0]
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if len(ep.idle) != 1 {
		t.Fatalf("%d idle connections", len(ep.idle))
	}
	cn := ep.idle[0]
	cn.probe.poll = func(uintptr) {}
	return cn
}

// closedSeen waits until the kernel has seen the peer's close of cn.
func closedSeen(t *testing.T, cn *conn) {
	t.Helper()
	var look socketProbe
	look.init(cn.rc)
	waitFor(t, "the peer's close", func() bool { return !look.quiet(cn.rc) })
}

func TestDeadIdleConnectionIsNoticedBeforeUse(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*peerConn){
		"closed":            func(*peerConn) {},
		"reset":             (*peerConn).reset,
		"unsolicited bytes": func(c *peerConn) { c.send("HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n"); c.waitClosed() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answered := make(chan struct{})
			p := newPeer(t, func(c *peerConn) {
				c.request()
				c.send(okAnswer)
				if c.n == 1 {
					<-answered
					end(c)
					return
				}
				c.waitClosed()
			})
			var retries atomic.Int64
			pool := newTestPool(t, Options{Observe: Observe{Retry: func(string, bool) { retries.Add(1) }}}, testConfig(p.url()))
			mustCall(t, pool)
			cn := pool.endpoints[0].idle[0]
			close(answered)
			closedSeen(t, cn)
			mustCall(t, pool)
			if p.requests.Load() != 2 || retries.Load() != 0 {
				t.Errorf("%d requests, %d retries", p.requests.Load(), retries.Load())
			}
		})
	}
}

func TestStaleConnectionIsRetriedOnce(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*peerConn){
		"closed": func(*peerConn) {},
		"reset":  (*peerConn).reset,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answered := make(chan struct{})
			p := newPeer(t, func(c *peerConn) {
				c.request()
				c.send(okAnswer)
				if c.n == 1 {
					<-answered
					end(c)
					return
				}
				c.waitClosed()
			})
			var retries atomic.Int64
			pool := newTestPool(t, Options{Observe: Observe{Retry: func(string, bool) { retries.Add(1) }}}, testConfig(p.url()))
			mustCall(t, pool)
			cn := blind(t, pool)
			close(answered)
			closedSeen(t, cn)
			mustCall(t, pool)
			if p.requests.Load() != 2 || p.accepted.Load() != 2 || retries.Load() != 1 {
				t.Errorf("%d requests on %d connections, %d retries", p.requests.Load(), p.accepted.Load(), retries.Load())
			}
			if pool.retrying.Load() != 0 {
				t.Error("retry not given back")
			}
		})
	}
}

func TestStaleConnectionWithoutBudget(t *testing.T) {
	t.Parallel()
	answered := make(chan struct{})
	p := newPeer(t, func(c *peerConn) { c.request(); c.send(okAnswer); <-answered })
	pool := newTestPool(t, Options{RetryBudget: -1}, testConfig(p.url()))
	mustCall(t, pool)
	cn := blind(t, pool)
	close(answered)
	closedSeen(t, cn)
	_, _, err := call(t, pool, body)
	// Provably unread, so the caller may go to another upstream.
	if e := asError(t, err); e.Sent || e.Canceled || e.Timeout || p.requests.Load() != 1 {
		t.Errorf("%+v, %d requests", e, p.requests.Load())
	}
}

// What an upstream may have read is never sent again, on reused connections too.
func TestReadRequestIsNeverResent(t *testing.T) {
	t.Parallel()
	for _, reused := range []bool{false, true} {
		for name, end := range map[string]func(*peerConn){
			"closed":         func(*peerConn) {},
			"reset":          (*peerConn).reset,
			"after one byte": func(c *peerConn) { c.send("H") },
			"half a head":    func(c *peerConn) { c.send("HTTP/1.1 200 OK\r\nContent-Le") },
			"after 100":      func(c *peerConn) { c.send("HTTP/1.1 100 Continue\r\n\r\n") },
			"garbage":        func(c *peerConn) { c.send("SSH-2.0-x\r\n"); c.waitClosed() },
		} {
			t.Run(name+map[bool]string{true: ", reused"}[reused], func(t *testing.T) {
				t.Parallel()
				p := newPeer(t, func(c *peerConn) {
					if reused {
						c.request()
						c.send(okAnswer)
					}
					if _, _, ok := c.request(); ok {
						end(c)
					}
				})
				pool := newTestPool(t, Options{}, testConfig(p.url()))
				want := int64(1)
				if reused {
					want++
					mustCall(t, pool)
				}
				_, _, err := call(t, pool, body)
				if e := asError(t, err); !e.Sent || e.Phase != PhaseHead || e.Timeout || e.Canceled || errors.Is(err, io.EOF) {
					t.Errorf("%+v", e)
				}
				if n := p.requests.Load(); n != want || p.accepted.Load() != 1 {
					t.Errorf("%d requests on %d connections, want %d on 1", n, p.accepted.Load(), want)
				}
				if s := pool.Stats()[0]; s.Open != 0 {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

func TestIdempotentGetIsRetried(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(c *peerConn) {
		c.request()
		c.send(okAnswer)
		if _, _, ok := c.request(); ok && c.n == 2 {
			t.Error("third connection expected")
		}
	})
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	mustCall(t, pool)
	tg := pick(t, pool)
	defer tg.Release(Result{})
	r, err := tg.DoPath("GET", "/models", &Request{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Close(true)
	if p.requests.Load() != 3 {
		t.Errorf("%d requests", p.requests.Load())
	}
}

func TestRetryBudget(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Options{RetryBudget: 0.1}, testConfig("http://127.0.0.1:1"))
	take := func() (n int) {
		for p.allowRetry() {
			n++
		}
		for range n {
			p.endRetry()
		}
		return n
	}
	if n := take(); n != minRetries {
		t.Errorf("idle pool: %d retries", n)
	}
	p.live.Store(1000)
	if n := take(); n != 100 {
		t.Errorf("1000 live requests: %d retries", n)
	}
}
