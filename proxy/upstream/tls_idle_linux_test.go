package upstream

import (
	"crypto/tls"
	"sync/atomic"
	"testing"
)

// Over TLS too a dead or talking idle connection is noticed, a stale one retried and
// a request that was read not repeated.
func TestTLSIdleConnections(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for name, tc := range map[string]struct {
		end     func(*peerConn)
		blind   bool
		retries int64
		fails   bool
	}{
		"closed":                     {func(c *peerConn) {}, false, 0, false},
		"closed without good-bye":    {func(c *peerConn) { c.Conn.(*tls.Conn).NetConn().Close() }, false, 0, false},
		"unsolicited bytes":          {func(c *peerConn) { c.send("HTTP/1.1 408 x\r\n\r\n"); <-c.p.gone }, false, 0, false},
		"stale":                      {func(c *peerConn) {}, true, 1, false},
		"stale, without good-bye":    {func(c *peerConn) { c.Conn.(*tls.Conn).NetConn().Close() }, true, 1, false},
		"read, then closed":          {func(c *peerConn) { c.request() }, false, 0, true},
		"read, closed without alert": {func(c *peerConn) { c.request(); c.Conn.(*tls.Conn).NetConn().Close() }, false, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answered := make(chan struct{})
			p, cfg := tlsPeer(t, ca.issue(t, "127.0.0.1", false), ca, func(c *peerConn) {
				c.request()
				c.send(okAnswer)
				if c.n == 1 {
					<-answered
					tc.end(c)
					return
				}
				<-c.p.gone
			})
			var retries atomic.Int64
			pool := newTestPool(t, Options{Observe: Observe{Retry: func(string, bool) { retries.Add(1) }}}, cfg)
			mustCall(t, pool)
			cn := pool.endpoints[0].idle[0]
			if tc.blind {
				// Both looks: at the socket and into the buffers of TLS.
				blind(t, pool)
				cn.nc = &blindTLS{Conn: cn.nc.(*tls.Conn)}
			}
			close(answered)
			if !tc.fails {
				closedSeen(t, cn)
				mustCall(t, pool)
			} else if _, _, err := call(t, pool, body); !asError(t, err).Sent {
				t.Errorf("%v", err)
			}
			if p.requests.Load() != 2 || retries.Load() != tc.retries {
				t.Errorf("%d requests, %d retries", p.requests.Load(), retries.Load())
			}
		})
	}
}

// blindTLS answers the look into TLS's buffers, which is its first Read of one byte,
// as if nothing were there.
type blindTLS struct {
	*tls.Conn
	looked bool
}

func (b *blindTLS) Read(p []byte) (int, error) {
	if len(p) == 1 && !b.looked {
		b.looked = true
		return 0, timeoutError{}
	}
	return b.Conn.Read(p)
}

type timeoutError struct{}

func (timeoutError) Error() string   { return "nothing there" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }
