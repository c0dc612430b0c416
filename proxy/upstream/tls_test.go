package upstream

import (
	"crypto/tls"
	"io"
	"strings"
	"testing"
	"time"
)

func TestTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			server := ca.issue(t, "127.0.0.1", false)
			server.MaxVersion = version
			server.NextProtos = []string{"h2", "http/1.1"}
			states := make(chan tls.ConnectionState, 10)
			p, cfg := tlsPeer(t, server, ca, func(c *peerConn) {
				for {
					r, _, ok := c.request()
					if !ok {
						return
					}
					states <- c.Conn.(*tls.Conn).ConnectionState()
					if r.Header.Get("Accept") == "bye" {
						c.send(strings.Replace(okAnswer, "\r\n", "\r\nConnection: close\r\n", 1))
						return
					}
					c.send(okAnswer)
				}
			})
			pool := newTestPool(t, Options{}, cfg)
			for i := range 3 {
				mustCall(t, pool)
				if n := p.accepted.Load(); n != 1 {
					t.Errorf("%d connections after call %d", n, i)
				}
				if s := <-states; s.Version != version || s.NegotiatedProtocol != "http/1.1" || s.DidResume {
					t.Errorf("%x %q", s.Version, s.NegotiatedProtocol)
				}
			}
			big := &Request{Body: [][]byte{make([]byte, 300_000), make([]byte, 5)}, Accept: []byte("bye")}
			if _, _, err := call(t, pool, big); err != nil {
				t.Fatal(err)
			}
			<-states
			// The session is resumed on the next connection.
			mustCall(t, pool)
			if s := <-states; !s.DidResume || p.accepted.Load() != 2 {
				t.Errorf("resumed %v, %d connections", s.DidResume, p.accepted.Load())
			}
		})
	}
}

func TestTLSRefusesBadCertificates(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	for name, tc := range map[string]struct {
		server *tls.Config
		want   string
	}{
		"unknown authority": {other.issue(t, "127.0.0.1", false), "unknown authority"},
		"wrong name":        {ca.issue(t, "api.example.com", false), "doesn't contain any IP SANs"},
		"expired":           {ca.issue(t, "127.0.0.1", true), "expired"},
		"old version": {func() *tls.Config {
			c := ca.issue(t, "127.0.0.1", false)
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return c
		}(), "protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, cfg := tlsPeer(t, tc.server, ca, answerAll)
			pool := newTestPool(t, Options{}, cfg)
			_, _, err := call(t, pool, body)
			if e := asError(t, err); e.Phase != PhaseTLS || e.Sent || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v", err)
			}
			if p.requests.Load() != 0 || pool.Stats()[0].Open != 0 {
				t.Errorf("%d requests, %+v", p.requests.Load(), pool.Stats()[0])
			}
		})
	}
}

// Bytes that TLS had decrypted ahead, behind the end of an answer, are noticed too.
func TestTLSBytesBehindTheBody(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	p, cfg := tlsPeer(t, ca.issue(t, "127.0.0.1", false), ca, func(c *peerConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			// One record: the head, a body, and the head of an answer nobody asked for.
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + strings.Repeat("x", 9000) + "HTTP/1.1 500 x\r\n\r\n")
		}
	})
	pool := newTestPool(t, Options{}, cfg)
	for range 3 {
		r, b, err := call(t, pool, body)
		if err != nil || r.Status != 200 || len(b) != 9000 {
			t.Fatalf("%v %+v", err, r)
		}
	}
	if p.accepted.Load() != 3 {
		t.Errorf("%d connections", p.accepted.Load())
	}
}

func TestTLSCutBody(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	_, cfg := tlsPeer(t, ca.issue(t, "127.0.0.1", false), ca, func(c *peerConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
		if c.n == 1 {
			_ = c.Conn.(*tls.Conn).NetConn().Close()
		}
	})
	pool := newTestPool(t, Options{}, cfg)
	for range 2 {
		if _, b, err := call(t, pool, body); b != "a" || err != io.ErrUnexpectedEOF {
			t.Errorf("%q %v", b, err)
		}
	}
}

func TestTLSCancelWhileWriting(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	var c Canceler
	started := func() { time.AfterFunc(50*time.Millisecond, func() { c.Cancel(errGone) }) }
	_, cfg := tlsPeer(t, ca.issue(t, "127.0.0.1", false), ca, func(c *peerConn) {
		_, _ = c.r.Peek(1)
		started()
		<-c.p.gone
	})
	pool := newTestPool(t, Options{}, cfg)
	tg := pick(t, pool)
	defer tg.Release(Result{})
	_, err := tg.Do(bigBody(), &c)
	if e := asError(t, err); !e.Canceled || e.Phase != PhaseWrite || !e.Sent {
		t.Errorf("%+v", e)
	}
}
