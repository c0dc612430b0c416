package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/simulator"
)

// startRun runs the command and returns its listening line.
func startRun(t *testing.T, args ...string) (line string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), w, os.Stderr)
		_ = w.Close()
		done <- err
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		cancel()
		t.Fatalf("no listening line: %v, %v", err, <-done)
	}
	var once bool
	stop = func() error {
		if once {
			return nil
		}
		once = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return line, stop
}

var urlIn = regexp.MustCompile(`https?://[^ /]+`)

func chat(t *testing.T, c *http.Client, base, key string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", base+"/v1/chat/completions",
		strings.NewReader(`{"model":"m1","stream":true,"messages":[{"role":"user","content":"hello"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestServesWhatTheFlagsSay(t *testing.T) {
	t.Parallel()
	line, stop := startRun(t, "-keys", "sk-fake-1,sk-fake-2", "-models", "m1", "-limit", "sk-fake-2=1/1",
		"-output-tokens", "3", "-behavior", `{"hidden_tokens":2}`)
	base := urlIn.FindString(line)
	if n, b := chat(t, http.DefaultClient, base, "sk-fake-1"); n != 200 || strings.Count(b, `"content":"tok`) != 3 || !strings.Contains(b, `"completion_tokens":5`) {
		t.Errorf("%d %s", n, b)
	}
	if n, _ := chat(t, http.DefaultClient, base, "sk-fake-3"); n != 401 {
		t.Errorf("unknown key: %d", n)
	}
	chat(t, http.DefaultClient, base, "sk-fake-2")
	if n, _ := chat(t, http.DefaultClient, base, "sk-fake-2"); n != 429 {
		t.Errorf("over the limit: %d", n)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if _, err := http.Get(base + "/healthz"); err == nil {
		t.Error("still listening after the end")
	}
}

func TestSelfSigned(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	line, _ := startRun(t, "-tls-self-signed", dir, "-models", "m1")
	ca := filepath.Join(dir, "kimisim-ca.pem")
	if !strings.Contains(line, ca) {
		t.Errorf("%q does not name %s", line, ca)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	if n, b := chat(t, c, urlIn.FindString(line), "sk-fake-1"); n != 200 {
		t.Errorf("%d %s", n, b)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		err  error
		says string
	}{
		{[]string{"-h"}, flag.ErrHelp, "curl -sN"},
		{[]string{"-version"}, nil, "kimisim "},
		{[]string{"-nope"}, simulator.ErrUsage, "-nope"},
		{[]string{"serve"}, simulator.ErrUsage, "takes no arguments"},
		{[]string{"-limit", "k=1"}, simulator.ErrUsage, "KEY=RPM/CONCURRENCY"},
		{[]string{"-behavior", `{"odd":1}`}, simulator.ErrUsage, "unknown field"},
		{[]string{"-ratio", "0.5"}, nil, "below 1 byte per token"},
		{[]string{"-tls-cert", "missing.pem"}, nil, "-tls-cert"},
		{[]string{"-addr", "127.0.0.1:-1"}, nil, "invalid port"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), tc.args, &out, &out)
		if tc.err != nil && !errors.Is(err, tc.err) {
			t.Errorf("%v: %v, want %v", tc.args, err, tc.err)
		}
		if err != nil {
			out.WriteString(err.Error())
		}
		if !strings.Contains(out.String(), tc.says) {
			t.Errorf("%v: %q does not say %q", tc.args, out.String(), tc.says)
		}
	}
}
