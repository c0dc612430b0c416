package main

import (
	"bufio"
	"bytes"
	"context"
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

// startRun runs the command and returns its URL.
func startRun(t *testing.T, args ...string) (base string, stop func() error) {
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

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
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

// The first bot has the same token each time, which is in a file of its owner's.
func TestFirstBot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	state, file := filepath.Join(dir, "bots.json"), filepath.Join(dir, "token")
	args := []string{"-state", state, "-bot", "first_bot", "-bot-token-file", file}
	base, stop := startRun(t, args...)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	token := strings.TrimSpace(string(text))
	if status, b := get(t, base+"/bot"+token+"/getMe"); status != http.StatusOK || !strings.Contains(b, `"username":"first_bot"`) {
		t.Errorf("%d %s", status, b)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	startRun(t, args...)
	if again, err := os.ReadFile(file); err != nil || string(again) != string(text) {
		t.Errorf("another token, %v", err)
	}
}

// A poll that waits does not keep the program from ending, and is told.
func TestPollEnds(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	base, stop := startRun(t, "-bot", "first_bot", "-bot-token-file", file)
	token, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	polled := make(chan string, 2)
	poll := func() {
		res, err := http.Get(base + "/bot" + strings.TrimSpace(string(token)) + "/getUpdates?timeout=50")
		if err != nil {
			polled <- err.Error()
			return
		}
		res.Body.Close()
		polled <- res.Status
	}
	go poll()
	go poll()
	// The later one has ended the earlier one, and so is there itself.
	if said := <-polled; said != "409 Conflict" {
		t.Fatalf("of two polls the first ended with %s", said)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if said := <-polled; said != "502 Bad Gateway" {
		t.Errorf("the poll ended with %s", said)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		err  error
		says string
	}{
		{[]string{"-h"}, flag.ErrHelp, "getUpdates"},
		{[]string{"-version"}, nil, "telegramsim "},
		{[]string{"-nope"}, simulator.ErrUsage, "-nope"},
		{[]string{"serve"}, simulator.ErrUsage, "takes no arguments"},
		{[]string{"-bot", "x_bot"}, simulator.ErrUsage, "go together"},
		{[]string{"-addr", "0.0.0.0:9102"}, simulator.ErrUsage, "only on loopback"},
		{[]string{"-addr", "127.0.0.1:0", "-bot", "nobody", "-bot-token-file", "x"}, nil, "ends in bot"},
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
