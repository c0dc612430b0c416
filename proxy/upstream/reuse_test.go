package upstream

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

func TestRequestAsSent(t *testing.T) {
	t.Parallel()
	got := make(chan *http.Request, 1)
	gotBody := make(chan string, 1)
	p := newPeer(t, func(c *peerConn) {
		for {
			r, b, ok := c.request()
			if !ok {
				return
			}
			got <- r
			gotBody <- b
			c.send(okAnswer)
		}
	})
	openai := testConfig(p.url())
	anthropic := testConfig(p.url())
	anthropic.Name, anthropic.Face, anthropic.EstimatePath = "anth", FaceAnthropic, "/tokenizers/estimate-token-count"
	pool := newTestPool(t, Options{}, openai, anthropic)
	full := &Request{
		Body: [][]byte{[]byte(`{"a":`), []byte(`1}`)}, Accept: []byte("text/event-stream"), UserAgent: []byte("claude-code/0.1.0"),
		ContentType: []byte("application/json; charset=utf-8"), AnthropicVersion: []byte("2023-06-01"),
		AnthropicBeta: []byte("x-1"), Traceparent: []byte("00-11-22-01"),
	}
	for _, tc := range []struct {
		name         string
		face         kimi.Face
		method, path string
		req          *Request
		line         string
		head         map[string]string
		body         string
	}{
		{"openai", kimi.OpenAI, "", "", body, "POST /v1/chat/completions", map[string]string{
			"Authorization": "Bearer sk-fake-a", "Content-Type": "application/json", "User-Agent": "openclaw-cloud",
		}, `{"model":"kimi-k2"}`},
		{"anthropic, all fields", kimi.Anthropic, "", "", full, "POST /v1/messages", map[string]string{
			"X-Api-Key": "sk-fake-a", "Content-Type": "application/json; charset=utf-8", "User-Agent": "claude-code/0.1.0",
			"Accept": "text/event-stream", "Anthropic-Version": "2023-06-01", "Anthropic-Beta": "x-1", "Traceparent": "00-11-22-01",
		}, `{"a":1}`},
		{"models", kimi.OpenAI, "GET", "/models", &Request{}, "GET /v1/models", map[string]string{
			"Authorization": "Bearer sk-fake-a", "User-Agent": "openclaw-cloud",
		}, ""},
		{"estimate", kimi.Anthropic, "POST", "/tokenizers/estimate-token-count", body, "POST /v1/tokenizers/estimate-token-count", map[string]string{
			"X-Api-Key": "sk-fake-a", "Content-Type": "application/json", "User-Agent": "openclaw-cloud",
		}, `{"model":"kimi-k2"}`},
	} {
		tg, err := pool.Pick(tc.face, []byte("kimi-k2"), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var resp *Response
		if tc.path == "" {
			resp, err = tg.Do(tc.req, nil)
		} else {
			resp, err = tg.DoPath(tc.method, tc.path, tc.req, nil)
		}
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		resp.Close(true)
		tg.Release(Result{})
		r, b := <-got, <-gotBody
		if l := r.Method + " " + r.RequestURI; l != tc.line {
			t.Errorf("%s: request line %q, want %q", tc.name, l, tc.line)
		}
		if r.Host != p.ln.Addr().String() || b != tc.body || r.ContentLength != int64(len(tc.body)) {
			t.Errorf("%s: host %q body %q length %d", tc.name, r.Host, b, r.ContentLength)
		}
		tc.head["Accept-Encoding"] = "identity"
		if tc.body != "" {
			tc.head["Content-Length"] = r.Header.Get("Content-Length")
		}
		if len(r.Header) != len(tc.head) {
			t.Errorf("%s: headers %v, want exactly %v", tc.name, r.Header, tc.head)
		}
		for k, v := range tc.head {
			if len(r.Header[k]) != 1 || r.Header.Get(k) != v {
				t.Errorf("%s: %s = %q, want %q", tc.name, k, r.Header[k], v)
			}
		}
	}
}

func TestRequestRefusesControlBytes(t *testing.T) {
	t.Parallel()
	p := newPeer(t, answerAll)
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	for _, bad := range []string{"a\r\nX-Evil: 1", "a\nb", "a\rb", "a\x00b", "a\x1fb", "a\x7fb", strings.Repeat("a", maxRequestHead+1)} {
		for name, req := range map[string]*Request{
			"accept": {Accept: []byte(bad)}, "agent": {UserAgent: []byte(bad)}, "type": {ContentType: []byte(bad)},
			"version": {AnthropicVersion: []byte(bad)}, "beta": {AnthropicBeta: []byte(bad)}, "trace": {Traceparent: []byte(bad)},
		} {
			_, _, err := call(t, pool, req)
			if e := asError(t, err); e.Phase != PhaseRequest || e.Sent || !strings.Contains(err.Error(), ErrHeader.Error()) {
				t.Errorf("%s %.12q: %v", name, bad, err)
			}
		}
	}
	for _, path := range []string{"models", "/a b", "/a\r\nb", "/é", "/a#b", "/\x00"} {
		tg := pick(t, pool)
		if _, err := tg.DoPath("GET", path, &Request{}, nil); asError(t, err).Phase != PhaseRequest {
			t.Errorf("path %q: %v", path, err)
		}
		if _, err := tg.DoPath("DELETE", "/x", &Request{}, nil); asError(t, err).Phase != PhaseRequest {
			t.Errorf("method: %v", err)
		}
		tg.Release(Result{})
	}
	if n := p.accepted.Load(); n != 0 {
		t.Errorf("%d connections for refused requests", n)
	}
}

func TestKeepAliveReuse(t *testing.T) {
	t.Parallel()
	chunked := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=\"y\"\r\n}\r\n0\r\nTrailer: v\r\n\r\n"
	for name, tc := range map[string]struct {
		answer string
		conns  int64
	}{
		"length":               {okAnswer, 1},
		"chunked":              {chunked, 1},
		"connection close":     {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", 5},
		"HTTP/1.0":             {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 5},
		"HTTP/1.0 keep-alive":  {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", 1},
		"bytes behind length":  {okAnswer + "HTTP/1.1 200 OK\r\n", 5},
		"bytes behind chunked": {chunked + "x", 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t, func(c *peerConn) {
				for {
					if _, _, ok := c.request(); !ok {
						return
					}
					c.send(tc.answer)
				}
			})
			pool := newTestPool(t, Options{}, testConfig(p.url()))
			for i := range 5 {
				mustCall(t, pool)
				if n := p.accepted.Load(); n != min(int64(i+1), tc.conns) {
					t.Errorf("%d connections after call %d", n, i)
				}
			}
			if n := p.accepted.Load(); n != tc.conns {
				t.Errorf("%d connections, want %d", n, tc.conns)
			}
		})
	}
}

func TestNoBodyStatuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer string
		reuse  bool
	}{
		"204":         {"HTTP/1.1 204 No Content\r\n\r\n", true},
		"304":         {"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n", true},
		"204 chunked": {"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", false},
		"204 length":  {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t, func(c *peerConn) {
				for {
					if _, _, ok := c.request(); !ok {
						return
					}
					c.send(tc.answer)
				}
			})
			pool := newTestPool(t, Options{}, testConfig(p.url()))
			for range 2 {
				if _, b, err := call(t, pool, body); err != nil || b != "" {
					t.Fatalf("%q %v", b, err)
				}
			}
			if n := p.accepted.Load(); (n == 1) != tc.reuse {
				t.Errorf("%d connections", n)
			}
		})
	}
}

func TestInterimResponses(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(c *peerConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.send("HTTP/1.1 100 Continue\r\n\r\n")
			c.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + okAnswer)
		}
	})
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	for range 3 {
		mustCall(t, pool)
	}
	if n := p.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	for name, answer := range map[string]string{
		"too many": strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxInterim+1) + okAnswer,
		"upgrade":  "HTTP/1.1 101 Switching Protocols\r\n\r\n",
	} {
		p := newPeer(t, func(c *peerConn) { c.request(); c.send(answer); c.waitClosed() })
		pool := newTestPool(t, Options{}, testConfig(p.url()))
		if _, _, err := call(t, pool, body); asError(t, err).Phase != PhaseHead {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(c *peerConn) {
		c.request()
		c.send("HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
		c.waitClosed()
	})
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	r, _, err := call(t, pool, body)
	if err != nil || r.Status != 307 || p.requests.Load() != 1 {
		t.Fatalf("%v %+v", err, r)
	}
}

// An upstream that refuses a request before it has read it all still is heard.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(c *peerConn) {
		b := make([]byte, 1000)
		_, _ = io.ReadFull(c.r, b)
		c.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
		_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
		c.waitClosed()
	})
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	r, _, err := call(t, pool, &Request{Body: [][]byte{make([]byte, 8<<20)}})
	if err != nil || r.Status != 413 {
		t.Fatalf("%v %+v", err, r)
	}
}

func TestBodySizes(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	p := newPeer(t, func(c *peerConn) {
		for {
			_, b, ok := c.request()
			if !ok {
				return
			}
			got <- b
			c.send(okAnswer)
		}
	})
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	big := make([]byte, 3<<20)
	for i := range big {
		big[i] = byte(i % 251)
	}
	for _, n := range []int{0, 1, 1000, 65_000, 65_536, 70_000, 262_144, 3 << 20} {
		parts := [][]byte{big[:n/3], nil, big[n/3 : n/2], big[n/2 : n]}
		if _, _, err := call(t, pool, &Request{Body: parts}); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		if b := <-got; b != string(big[:n]) {
			t.Errorf("%d bytes: body differs (%d)", n, len(b))
		}
	}
	if n := p.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// Head is gone after Close, and Close does nothing the second time.
func TestCloseTwice(t *testing.T) {
	t.Parallel()
	p := newPeer(t, answerAll)
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	tg := pick(t, pool)
	r, err := tg.Do(body, nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(r.Head.Get("content-TYPE")) != "application/json" {
		t.Errorf("head %q", r.Head.Get("content-type"))
	}
	r.Close(true)
	r.Close(false)
	tg.Release(Result{})
	if s := pool.Stats()[0]; s.Open != 1 || s.Idle != 1 || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil || r.Head.Get("x") != nil {
		t.Errorf("after Close: %d %v", n, err)
	}
	mustCall(t, pool)
	if p.accepted.Load() != 1 {
		t.Error("not reused")
	}
}

func TestIdleConnectionsAge(t *testing.T) {
	t.Parallel()
	p := newPeer(t, answerAll)
	c := testConfig(p.url())
	c.PoolIdle = Duration(60 * time.Millisecond)
	pool := newTestPool(t, Options{}, c)
	mustCall(t, pool)
	waitFor(t, "the sweeper", func() bool { s := pool.Stats()[0]; return s.Open == 0 && s.Idle == 0 })
	mustCall(t, pool)
	if p.accepted.Load() != 2 {
		t.Error("aged connection reused")
	}
}

func asUnavailable(err error, u **UnavailableError) bool { return errors.As(err, u) }

func TestMaxConns(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	p := newPeer(t, func(c *peerConn) {
		for {
			r, _, ok := c.request()
			if !ok {
				return
			}
			if r.Header.Get("Accept") == "hold" {
				<-hold
			}
			c.send(okAnswer)
		}
	})
	c := testConfig(p.url())
	c.MaxConns = 1
	pool := newTestPool(t, Options{}, c)
	done := make(chan error, 1)
	go func() {
		_, _, err := call(t, pool, &Request{Accept: []byte("hold")})
		done <- err
	}()
	waitFor(t, "the first request", func() bool { return p.requests.Load() == 1 })
	_, _, err := call(t, pool, body)
	e := asError(t, err)
	var u *UnavailableError
	if e.Phase != PhaseDial || e.Sent || !asUnavailable(err, &u) || u.Reason != ReasonConnections {
		t.Fatalf("at the limit: %v", err)
	}
	if f := pool.endpoints[0].breaker.failures.Load(); f != 0 {
		t.Errorf("a full pool counts as %d failures of the endpoint", f)
	}
	// One that is waiting gets the connection that comes free.
	go func() {
		waitFor(t, "a waiter", func() bool {
			ep := pool.endpoints[0]
			ep.mu.Lock()
			defer ep.mu.Unlock()
			return len(ep.waiters) == 1
		})
		close(hold)
	}()
	mustCall(t, pool)
	if err := <-done; err != nil || p.accepted.Load() != 1 {
		t.Errorf("%v, %d connections", err, p.accepted.Load())
	}
}
