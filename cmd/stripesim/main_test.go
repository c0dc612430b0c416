package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/simulator"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

// startRun runs the command and returns its URL.
func startRun(t *testing.T, args ...string) (base string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), w, io.Discard)
		_ = w.Close()
		done <- err
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		cancel()
		t.Fatalf("no listening line: %v, %v", err, <-done)
	}
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return regexp.MustCompile(`https?://[^ ]+`).FindString(line), stop
}

// ask is a request of an account's owner.
func ask(t *testing.T, method, address string, form url.Values) (int, map[string]any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+stripesim.Key)
	r.Header.Set("Stripe-Version", stripesim.APIVersion)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, out
}

func TestRestartKeepsCustomers(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "journal")
	base, stop := startRun(t, "-state", state)
	_, made := ask(t, "POST", base+"/v1/customers", url.Values{"name": {"Ada"}})
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	if _, err := http.Get(base + "/"); err == nil {
		t.Error("still listening after the end")
	}
	base, _ = startRun(t, "-state", state)
	if status, c := ask(t, "GET", base+"/v1/customers/"+made["id"].(string), nil); status != http.StatusOK || c["name"] != "Ada" {
		t.Errorf("%d %v", status, c)
	}
	res, err := http.Get(base + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(b), "No money moves") {
		t.Errorf("%d %s, %v", res.StatusCode, b, err)
	}
	if err := run(t.Context(), []string{"-addr", "127.0.0.1:0", "-state", state}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second process: %v", err)
	}
	if base, _ := startRun(t, "-public-url", "http://pay.localhost:7"); base != "http://pay.localhost:7" {
		t.Errorf("behind another address it says that it listens on %s", base)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		err  error
		says string
	}{
		{[]string{"-h"}, flag.ErrHelp, "billing bootstrap"},
		{[]string{"-version"}, nil, "stripesim "},
		{[]string{"-nope"}, simulator.ErrUsage, "-nope"},
		{[]string{"serve"}, simulator.ErrUsage, "takes no arguments"},
		{[]string{"-addr", ":9101"}, simulator.ErrUsage, "only on loopback"},
		{[]string{"-addr", "127.0.0.1:0", "-public-url", "nonsense"}, nil, "write it like http"},
		{[]string{"-addr", "127.0.0.1:0", "-state", "/nowhere/x"}, nil, "/nowhere/x"},
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
