package upstream

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// peer is a scripted upstream: each accepted connection runs the script.
type peer struct {
	t        *testing.T
	ln       net.Listener
	accepted atomic.Int64
	requests atomic.Int64 // requests read to their end
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
	gone     chan struct{} // closed when the test ends
	once     sync.Once
}

// peerConn is one accepted connection.
type peerConn struct {
	net.Conn
	p *peer
	r *bufio.Reader
	n int // which connection, from 1
}

// newPeer starts a peer on loopback. The script owns the connection, which is closed
// when it returns.
func newPeer(t *testing.T, script func(c *peerConn)) *peer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newPeerOn(t, ln, script)
}

func newPeerOn(t *testing.T, ln net.Listener, script func(c *peerConn)) *peer {
	p := &peer{t: t, ln: ln, gone: make(chan struct{})}
	p.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			n := int(p.accepted.Add(1))
			p.mu.Lock()
			p.conns = append(p.conns, c)
			p.mu.Unlock()
			p.wg.Go(func() {
				defer c.Close()
				script(&peerConn{Conn: c, p: p, r: bufio.NewReader(c), n: n})
			})
		}
	})
	t.Cleanup(p.stopOnce)
	return p
}

func (p *peer) stopOnce() { p.once.Do(p.stop) }

func (p *peer) stop() {
	close(p.gone)
	_ = p.ln.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *peer) url() string { return "http://" + p.ln.Addr().String() + "/v1" }

// request reads one request with its body; ok is false when the connection ended.
func (c *peerConn) request() (r *http.Request, body string, ok bool) {
	r, err := http.ReadRequest(c.r)
	if err != nil {
		return nil, "", false
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, "", false
	}
	c.p.requests.Add(1)
	return r, string(b), true
}

func (c *peerConn) send(s string) { _, _ = io.WriteString(c.Conn, s) }

// waitClosed blocks until the other side closes.
func (c *peerConn) waitClosed() { _, _ = io.Copy(io.Discard, c.r) }

// reset closes with an RST.
func (c *peerConn) reset() {
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	_ = c.Conn.Close()
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

// answerAll answers every request with okAnswer.
func answerAll(c *peerConn) {
	for {
		if _, _, ok := c.request(); !ok {
			return
		}
		c.send(okAnswer)
	}
}

func testConfig(base string) Config {
	c := Config{
		Name: "kimi", BaseURL: base, Face: FaceOpenAI, AllowPrivate: true,
		Keys:   []Key{{Name: "a", Secret: "sk-fake-a"}},
		Models: map[string]string{"kimi-k2": "kimi-k2-0905"},
	}
	c.FirstByteTimeout, c.IdleTimeout = Duration(5*time.Second), Duration(5*time.Second)
	return c
}

func newTestPool(t testing.TB, opts Options, cfgs ...Config) *Pool {
	t.Helper()
	p, err := NewPool(cfgs, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func pick(t testing.TB, p *Pool) *Target {
	t.Helper()
	tg, err := p.Pick(kimi.OpenAI, []byte("kimi-k2"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return tg
}

var body = &Request{Body: [][]byte{[]byte(`{"model":"kimi-k2"}`)}}

// call makes one whole exchange and returns the body.
func call(t testing.TB, p *Pool, req *Request) (*Response, string, error) {
	t.Helper()
	tg := pick(t, p)
	r, err := tg.Do(req, nil)
	defer func() { tg.Release(Result{Failed: err != nil}) }()
	if err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(r)
	r.Close(true)
	return r, string(b), err
}

func mustCall(t testing.TB, p *Pool) *Response {
	t.Helper()
	r, b, err := call(t, p, body)
	if err != nil || r.Status != 200 || b != "{}" {
		t.Fatalf("call: %v %q", err, b)
	}
	return r
}

// asError returns err as *Error.
func asError(t testing.TB, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want *Error", err, err)
	}
	return e
}

// waitFor polls for something another goroutine or the kernel is about to do.
func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("timed out waiting for %s\n%s", what, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(time.Millisecond)
	}
}

// authority is a certificate authority made for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: filepath.Join(t.TempDir(), "ca.pem")}
	a.cert, _ = x509.ParseCertificate(der)
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a server configuration for the given name or address.
func (a *authority) issue(t testing.TB, name string, expired bool) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if expired {
		tmpl.NotAfter = time.Now().Add(-time.Hour)
	}
	if ip := net.ParseIP(name); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:   tls.VersionTLS12,
	}
}

// tlsPeer is a peer that speaks TLS, and a configuration that trusts it.
func tlsPeer(t *testing.T, server *tls.Config, ca *authority, script func(c *peerConn)) (*peer, Config) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := newPeerOn(t, tls.NewListener(ln, server), script)
	c := testConfig("https://" + ln.Addr().String() + "/v1")
	c.CAFile = ca.file
	return p, c
}

// bigBody does not fit into the socket buffers of both sides.
func bigBody() *Request { return &Request{Body: [][]byte{make([]byte, 32<<20)}} }
