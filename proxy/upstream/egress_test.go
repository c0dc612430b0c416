package upstream

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// egressProxy is an HTTP CONNECT or SOCKS5 proxy that sends everything to one place.
func egressProxy(t *testing.T, serve func(c net.Conn, r *bufio.Reader) (target string, ok bool), to string) (addr string, targets chan string) {
	t.Helper()
	targets = make(chan string, 16)
	p := newPeer(t, func(c *peerConn) {
		target, ok := serve(c.Conn, c.r)
		if !ok {
			return
		}
		targets <- target
		up, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer up.Close()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(up, c.r); _ = up.(*net.TCPConn).CloseWrite() })
		_, _ = io.Copy(c.Conn, up)
		_ = c.Conn.Close()
		wg.Wait()
	})
	return p.ln.Addr().String(), targets
}

// connectProxy speaks CONNECT and demands user:p@ss.
func connectProxy(c net.Conn, r *bufio.Reader) (string, bool) {
	req, err := http.ReadRequest(r)
	if err != nil || req.Method != http.MethodConnect {
		return "", false
	}
	if req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("user:p@ss")) {
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return "", false
	}
	_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	return req.Host, true
}

// socksProxy speaks SOCKS5 (RFC 1928, 1929) and demands user:p@ss.
func socksProxy(c net.Conn, r *bufio.Reader) (string, bool) {
	read := func(n int) []byte { b := make([]byte, n); _, _ = io.ReadFull(r, b); return b }
	if h := read(2); h[0] != 5 || !strings.Contains(string(read(int(h[1]))), "\x02") {
		return "", false
	}
	_, _ = c.Write([]byte{5, 2})
	read(1)
	user := string(read(int(read(1)[0])))
	pass := string(read(int(read(1)[0])))
	if user != "user" || pass != "p@ss" {
		_, _ = c.Write([]byte{1, 1})
		return "", false
	}
	_, _ = c.Write([]byte{1, 0})
	var host string
	switch read(4)[3] {
	case 1:
		host = net.IP(read(4)).String()
	case 3:
		host = string(read(int(read(1)[0])))
	default:
		return "", false
	}
	port := binary.BigEndian.Uint16(read(2))
	_, _ = c.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 80})
	return net.JoinHostPort(host, strconv.Itoa(int(port))), true
}

func TestEgressProxy(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, tc := range []struct {
		scheme string
		serve  func(net.Conn, *bufio.Reader) (string, bool)
	}{{"http", connectProxy}, {"socks5", socksProxy}} {
		t.Run(tc.scheme, func(t *testing.T) {
			t.Parallel()
			up, cfg := tlsPeer(t, ca.issue(t, "api.example.com", false), ca, answerAll)
			addr, targets := egressProxy(t, tc.serve, up.ln.Addr().String())
			cfg.BaseURL, cfg.AllowPrivate = "https://api.example.com/v1", false
			cfg.EgressProxy = Secret(tc.scheme + "://user:p%40ss@" + addr)
			pool := newTestPool(t, Options{}, cfg)
			mustCall(t, pool)
			mustCall(t, pool)
			if up.accepted.Load() != 1 || up.requests.Load() != 2 {
				t.Errorf("%d requests on %d connections", up.requests.Load(), up.accepted.Load())
			}
			// The name is resolved by the proxy, never here.
			if got := <-targets; got != "api.example.com:443" {
				t.Errorf("proxy was asked for %q", got)
			}
		})
		t.Run(tc.scheme+", wrong password", func(t *testing.T) {
			t.Parallel()
			addr, _ := egressProxy(t, tc.serve, "127.0.0.1:1")
			cfg := testConfig("http://api.example.com/v1")
			cfg.EgressProxy = Secret(tc.scheme + "://user:hunter2@" + addr)
			pool := newTestPool(t, Options{}, cfg)
			_, _, err := call(t, pool, body)
			if e := asError(t, err); e.Phase != PhaseDial || e.Sent || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v", err)
			}
		})
		for _, how := range []string{"timeout", "cancel"} {
			t.Run(tc.scheme+", silent proxy, "+how, func(t *testing.T) {
				t.Parallel()
				p := newPeer(t, func(c *peerConn) { c.waitClosed() })
				cfg := testConfig("http://api.example.com/v1")
				cfg.EgressProxy = Secret(tc.scheme + "://" + p.ln.Addr().String())
				cfg.ConnectTimeout = Duration(300 * time.Millisecond)
				pool := newTestPool(t, Options{}, cfg)
				tg := pick(t, pool)
				defer tg.Release(Result{})
				var c Canceler
				if how == "cancel" {
					pool.endpoints[0].cfg.ConnectTimeout = Duration(time.Minute)
					time.AfterFunc(50*time.Millisecond, func() { c.Cancel(errGone) })
				}
				start := time.Now()
				_, err := tg.Do(body, &c)
				took := time.Since(start)
				e := asError(t, err)
				if e.Phase != PhaseDial || e.Canceled != (how == "cancel") || e.Timeout != (how == "timeout") {
					t.Errorf("%+v", e)
				}
				if took > 10*time.Second {
					t.Errorf("took %v", took)
				}
				p.drained() // the connection to the proxy is closed, not left behind
			})
		}
	}
}

func TestEgressProxyLiteralPrivateTarget(t *testing.T) {
	t.Parallel()
	var dialed atomic.Bool
	dial := guardLiteral(&Config{}, func(context.Context, string) (net.Conn, error) { dialed.Store(true); return nil, io.EOF })
	if _, err := dial(t.Context(), "169.254.169.254:80"); !errors.Is(err, ErrPrivateAddress) || dialed.Load() {
		t.Errorf("%v", err)
	}
	if _, err := dial(t.Context(), "api.example.com:443"); err != io.EOF {
		t.Errorf("%v", err)
	}
}

func TestPublicAddr(t *testing.T) {
	t.Parallel()
	for _, a := range []string{
		"127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
		"100.100.100.200", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.0.192", "198.18.0.1",
		"::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
	} {
		if publicAddr(netip.MustParseAddr(a)) {
			t.Errorf("%s counts as public", a)
		}
	}
	for _, a := range []string{"8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8"} {
		if !publicAddr(netip.MustParseAddr(a)) {
			t.Errorf("%s does not count as public", a)
		}
	}
	if publicAddr(netip.Addr{}) {
		t.Error("the zero address counts as public")
	}
}

// A name that resolves to loopback is refused when connecting, not only in the URL.
func TestNameThatResolvesToPrivate(t *testing.T) {
	t.Parallel()
	p := newPeer(t, answerAll)
	_, port, _ := net.SplitHostPort(p.ln.Addr().String())
	cfg := testConfig("https://api.example.com:" + port + "/v1")
	cfg.AllowPrivate = false
	pool := newTestPool(t, Options{}, cfg)
	pool.endpoints[0].addr = "localhost:" + port // as if DNS had said so
	_, _, err := call(t, pool, body)
	if e := asError(t, err); e.Phase != PhaseDial || e.Sent || !errors.Is(err, ErrPrivateAddress) {
		t.Errorf("%v", err)
	}
	if p.accepted.Load() != 0 {
		t.Error("connected all the same")
	}
}
