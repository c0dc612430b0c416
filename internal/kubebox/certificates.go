package kubebox

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime of all certificates: as long as anybody keeps a directory.
const lifetime = 10 * 365 * 24 * time.Hour

// writeCertificates makes all keys and certificates of a control plane in the directory dir, which
// must not exist yet. There are three authorities: the cluster's own, that of etcd, whose data is
// above all rights, and that of the front proxy.
func writeCertificates(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("kubebox: %w", err)
	}
	cluster, err := newAuthority(dir, "ca", "kubernetes")
	if err != nil {
		return err
	}
	etcd, err := newAuthority(dir, "etcd-ca", "etcd")
	if err != nil {
		return err
	}
	frontProxy, err := newAuthority(dir, "front-proxy-ca", "front-proxy")
	if err != nil {
		return err
	}
	for _, leaf := range []struct {
		by           *authority
		file         string
		name, group  string
		alsoAsServer bool
	}{
		{cluster, "server", "kube-apiserver", "", true},
		{cluster, "admin", "admin", "system:masters", false},
		{cluster, "controller-manager", "system:kube-controller-manager", "", false},
		{cluster, "scheduler", "system:kube-scheduler", "", false},
		{cluster, "kwok", "kwok", "system:masters", false},
		{etcd, "etcd", "etcd", "", true},
		{frontProxy, "front-proxy", "front-proxy", "", false},
	} {
		if err := leaf.by.issue(dir, leaf.file, leaf.name, leaf.group, leaf.alsoAsServer); err != nil {
			return err
		}
	}
	return writeServiceAccountKey(dir)
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// newAuthority makes an authority and writes it to file.crt and file.key.
func newAuthority(dir, file, name string) (*authority, error) {
	template := template(name, "")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	a := &authority{certificate: template}
	var err error
	if a.certificate, a.key, err = a.sign(dir, file, template); err != nil {
		return nil, err
	}
	return a, nil
}

// loadAuthority reads an authority that newAuthority wrote.
func loadAuthority(dir, file string) (*authority, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, file+".crt"), filepath.Join(dir, file+".key"))
	if err != nil {
		return nil, fmt.Errorf("kubebox: the authority %s: %w", file, err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("kubebox: the key of the authority %s cannot sign", file)
	}
	return &authority{certificate: pair.Leaf, key: key}, nil
}

// issue writes a client's certificate for the user name in group, or that of a server on loopback, to
// file.crt and file.key.
func (a *authority) issue(dir, file, name, group string, server bool) error {
	template := template(name, group)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(firstServiceAddress)}
		template.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	}
	_, _, err := a.sign(dir, file, template)
	return err
}

func template(name, group string) *x509.Certificate {
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: new(big.Int).SetInt64(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour), // a clock may be set back
		NotAfter:     now.Add(lifetime),
	}
	if group != "" {
		t.Subject.Organization = []string{group}
	}
	return t
}

// sign makes a key and a certificate of it; an authority without a key signs its own.
func (a *authority) sign(dir, file string, template *x509.Certificate) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("kubebox: make a key: %w", err)
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), signer)
	if err != nil {
		return nil, nil, fmt.Errorf("kubebox: sign the certificate of %s: %w", file, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("kubebox: the certificate of %s: %w", file, err)
	}
	if err := writePEM(filepath.Join(dir, file+".crt"), "CERTIFICATE", der); err != nil {
		return nil, nil, err
	}
	return certificate, key, writeKey(filepath.Join(dir, file+".key"), key)
}

// writeServiceAccountKey makes the key by which tokens of ServiceAccounts are signed.
func writeServiceAccountKey(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("kubebox: make a key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("kubebox: the key of ServiceAccounts: %w", err)
	}
	if err := writePEM(filepath.Join(dir, "service-account.pub"), "PUBLIC KEY", public); err != nil {
		return err
	}
	return writeKey(filepath.Join(dir, "service-account.key"), key)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("kubebox: %s: %w", filepath.Base(path), err)
	}
	return writePEM(path, "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("kubebox: %w", err)
	}
	return nil
}
