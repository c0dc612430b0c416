package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

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
			})
		}
	}
}
