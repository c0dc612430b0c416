package kubebox

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Config says where a control plane lives. All fields but Address are required.
type Config struct {
	Program string // path of the program, from Build
	Dir     string // absolute path of the directory for certificates, kubeconfigs and data; created when missing
	Ports   Ports
	Nodes   int // how many nodes kwok plays; more can be added. With 0 there is no kwok, and nodes have to be real
	// Address is one of this machine's at which pods of a real node find the API server; it is
	// the endpoint of the Service kubernetes. Without it the API server is on loopback only.
	Address string
}

// Ports are the TCP ports of the components, all on 127.0.0.1, and that of the API server on all
// addresses if Config.Address is given. All ask for certificates or rights:
// any account of the machine can reach them.
type Ports struct {
	APIServer, Etcd, EtcdPeers, ControllerManager, Scheduler int
}

// ControlPlane is a prepared directory.
type ControlPlane struct {
	// Program runs all components.
	Program string
	// Dir is where all of it is.
	Dir string
	// URL is that of the API server, https://127.0.0.1:PORT.
	URL string
	// CA is the path of the certificate by which the API server is known, in PEM.
	CA string
	// Kubeconfig is the path of a kubeconfig that may do everything.
	Kubeconfig string

	cfg Config
}

// New returns the control plane that cfg describes. It looks at nothing: Prepare has to have been
// called for the directory, once, before the components start.
func New(cfg Config) *ControlPlane {
	c := &ControlPlane{Program: cfg.Program, Dir: cfg.Dir, URL: "https://" + address(cfg.Ports.APIServer), cfg: cfg}
	c.CA, c.Kubeconfig = c.pki("ca.crt"), c.path("admin.kubeconfig")
	return c
}

// Prepare makes what is missing in the directory, and writes anew what depends on the configuration.
// Certificates are made once, for they must stay the same while the data does.
func (c *ControlPlane) Prepare(ctx context.Context) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("kubebox: %w", err)
	}
	if err := c.makeCertificates(); err != nil {
		return err
	}
	for _, user := range []string{"admin", "controller-manager", "scheduler", "kwok"} {
		certificate, errCertificate := os.ReadFile(c.pki(user + ".crt"))
		key, errKey := os.ReadFile(c.pki(user + ".key"))
		if err := errors.Join(errCertificate, errKey); err != nil {
			return fmt.Errorf("kubebox: %w", err)
		}
		if err := c.writeKubeconfig(c.path(user+".kubeconfig"), "", map[string]any{"client-certificate-data": certificate, "client-key-data": key}); err != nil {
			return err
		}
	}
	stages, err := exec.CommandContext(ctx, c.Program, "stages").Output()
	if err != nil {
		return fmt.Errorf("kubebox: what kwok's nodes and pods do: %w", err)
	}
	if err := os.WriteFile(c.path("stages.yaml"), stages, 0o600); err != nil {
		return fmt.Errorf("kubebox: %w", err)
	}
	return nil
}

func (c *ControlPlane) makeCertificates() error {
	if _, err := os.Stat(c.path("pki")); err == nil {
		return nil
	}
	next := c.path("pki.new")
	if err := os.RemoveAll(next); err != nil { // of an interrupted attempt
		return fmt.Errorf("kubebox: %w", err)
	}
	if err := writeCertificates(next); err != nil {
		return err
	}
	if err := os.Rename(next, c.path("pki")); err != nil {
		return fmt.Errorf("kubebox: %w", err)
	}
	return nil
}

// client returns a client of a server with a certificate of the authority, which shows the named one.
func (c *ControlPlane) client(authority, certificate string) (*http.Client, error) {
	trusted, err := os.ReadFile(c.pki(authority + ".crt"))
	if err != nil {
		return nil, fmt.Errorf("kubebox: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trusted)
	own, err := tls.LoadX509KeyPair(c.pki(certificate+".crt"), c.pki(certificate+".key"))
	if err != nil {
		return nil, fmt.Errorf("kubebox: %w", err)
	}
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true, // nothing is left open, however the server ends
			TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12},
		},
	}, nil
}

// writeKubeconfig writes a kubeconfig of this API server. It is JSON, which is YAML; bytes in user
// become base64, as the format wants certificates.
func (c *ControlPlane) writeKubeconfig(path, namespace string, user map[string]any) error {
	ca, err := os.ReadFile(c.CA)
	if err != nil {
		return fmt.Errorf("kubebox: %w", err)
	}
	scope := map[string]any{"cluster": "openclaw", "user": "user"}
	if namespace != "" {
		scope["namespace"] = namespace
	}
	content, err := json.MarshalIndent(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "openclaw",
		"clusters": []any{map[string]any{"name": "openclaw", "cluster": map[string]any{"server": c.URL, "certificate-authority-data": ca}}},
		"users":    []any{map[string]any{"name": "user", "user": user}},
		"contexts": []any{map[string]any{"name": "openclaw", "context": scope}},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("kubebox: %w", err)
	}
	if err := os.WriteFile(path, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("kubebox: %w", err)
	}
	return nil
}

// ServiceAccountKubeconfig writes to file a kubeconfig with which one has the rights of an existing
// ServiceAccount, by a token that the API server makes for it and that is valid for so long.
func (c *ControlPlane) ServiceAccountKubeconfig(ctx context.Context, namespace, name, file string, validFor time.Duration) error {
	var made struct {
		Status struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	wanted := map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
		"spec": map[string]any{"expirationSeconds": int64(validFor.Seconds())},
	}
	if err := c.do(ctx, http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+name+"/token", wanted, &made); err != nil {
		return fmt.Errorf("kubebox: a token of ServiceAccount %s/%s: %w", namespace, name, err)
	}
	return c.writeKubeconfig(file, namespace, map[string]any{"token": made.Status.Token})
}

// UserKubeconfig writes to file a kubeconfig of a user in a group, such as a kubelet's, by a certificate
// of the cluster's authority.
func (c *ControlPlane) UserKubeconfig(file, user, group string) error {
	cluster, err := loadAuthority(c.path("pki"), "ca")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.Dir, "user-")
	if err != nil {
		return fmt.Errorf("kubebox: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := cluster.issue(dir, "user", user, group, false); err != nil {
		return err
	}
	certificate, errCertificate := os.ReadFile(filepath.Join(dir, "user.crt"))
	key, errKey := os.ReadFile(filepath.Join(dir, "user.key"))
	if err := errors.Join(errCertificate, errKey); err != nil {
		return fmt.Errorf("kubebox: %w", err)
	}
	return c.writeKubeconfig(file, "", map[string]any{"client-certificate-data": certificate, "client-key-data": key})
}

// Kubectl runs kubectl with the rights of Kubeconfig, or those of another one that --kubeconfig names,
// with stdin (nil: none), and returns its output. The error has what it wrote about its failure.
func (c *ControlPlane) Kubectl(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.Program, append([]string{"kubectl"}, args...)...)
	cmd.Env = append(c.Env(), "KUBECONFIG="+c.Kubeconfig)
	cmd.Dir, cmd.Stdin = c.Dir, stdin
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("kubebox: kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// Env is the whole environment of the components and of kubectl, whose caches are in Dir.
func (c *ControlPlane) Env() []string {
	return []string{"PATH=/usr/bin:/bin", "HOME=" + c.Dir, "KUBECACHEDIR=" + c.path("cache"), "LC_ALL=C", "TZ=UTC"}
}

// Status is an answer of the API server that is not a success.
type Status struct {
	Code    int
	Message string
}

func (s *Status) Error() string { return strconv.Itoa(s.Code) + ": " + s.Message }

// answered reports whether err is the API server's answer with this code.
func answered(err error, code int) bool {
	var status *Status
	return errors.As(err, &status) && status.Code == code
}

// do sends body, if there is one, as JSON to the API server with all rights and reads the answer into
// the value into, unless it is nil.
func (c *ControlPlane) do(ctx context.Context, method, path string, body, into any) error {
	return c.send(ctx, "ca", "admin", method, c.URL+path, body, into)
}

// send sends a request to a server with a certificate of the authority and shows it the named one.
func (c *ControlPlane) send(ctx context.Context, authority, certificate, method, url string, body, into any) error {
	client, err := c.client(authority, certificate)
	if err != nil {
		return err
	}
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if body == nil {
		content = nil
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return &Status{res.StatusCode, string(answer[:min(len(answer), 1000)])}
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

func (c *ControlPlane) path(name ...string) string {
	return filepath.Join(append([]string{c.Dir}, name...)...)
}

func (c *ControlPlane) pki(file string) string { return c.path("pki", file) }

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
