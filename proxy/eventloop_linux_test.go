package proxy_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// Every stream is driven by the event loop, and none where that is not wanted.
func TestStreamsAreLooped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for driver, want := range map[string]uint32{"eventloop": 4, "": 4, "goroutine": 0} {
		r := w.replica(func(c *proxy.Config) { c.StreamDriver = driver })
		tok, _ := w.token(nil)
		for _, f := range faces {
			r.post(f, tok, chat(true, "hello"))
			r.post(f, tok, chat(false, "hello"))
			r.post(f, tok, chat(true, sim(kimisim.Behavior{CutAfterEvents: 3})))
		}
		if n := r.LoopStreams(); n != want {
			t.Errorf("driver %q: %d streams of 4 are looped", driver, n)
		}
	}
}

// secured gives a simulator a certificate, and replicas the root to trust.
func secured(t *testing.T) (*tls.Config, option) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	return conf, func(c *proxy.Config) {
		for i := range c.Upstreams {
			c.Upstreams[i].CAFile = file
		}
	}
}

// With a TLS upstream streams end as they do with a plain one, in every way.
func TestEndingsTLS(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, e := range endings {
			f := faces[int(version)%2]
			t.Run(tls.VersionName(version)+"/"+e.name, func(t *testing.T) {
				t.Parallel()
				conf, trusting := secured(t)
				conf.MaxVersion = version
				w := newWorldWith(t, kimisim.Config{TLS: conf})
				r := w.replica(impatient, trusting)
				checkEnding(t, w, r, f, e)
				if n := r.LoopStreams(); e.leave >= 0 && n != 1 {
					t.Errorf("%d streams of one are looped", n)
				}
			})
		}
	}
}

// The total time of an exchange passes also while its client does not read, which is told that it
// did when it reads again.
func TestTotalTimeBesideASlowClient(t *testing.T) {
	t.Parallel()
	const tokens = 250_000 // more than is buffered anywhere
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(func(c *proxy.Config) {
				c.Timeouts.Write = proxy.Duration(time.Hour)
				for i := range c.Upstreams {
					c.Upstreams[i].TotalTimeout, c.Upstreams[i].IdleTimeout = proxy.Duration(1500*time.Millisecond), proxy.Duration(time.Hour)
				}
			})
			tok, _ := w.token(nil)
			conn := dialSmall(t, r)
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			k := &kept{t, conn, bufio.NewReader(conn), tok}
			k.say(k.text(f, capped(chat(true, sim(kimisim.Behavior{OutputTokens: tokens})), tokens)))
			ev := w.events(1)[0]
			if ev.Outcome != contract.OutcomeUpstreamTimeout || ev.Basis != contract.BasisEstimated {
				t.Errorf("outcome %s, basis %s", ev.Outcome, ev.Basis)
			}
			w.upstreamClosed(time.Now())
			resp := k.head()
			b, err := io.ReadAll(resp.Body)
			if err != nil || !strings.Contains(string(b), "upstream_timeout") || complete(string(b)) {
				t.Errorf("%d bytes, %v: …%s", len(b), err, b[max(0, len(b)-300):])
			}
			checkCounts(t, ev, received(string(b)))
			k.say(k.text(f, chat(false, "hello")))
			k.whole(false)
		})
	}
}
