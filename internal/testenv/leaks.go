package testenv

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"
)

// settleTime is how long goroutines and descriptors have to go away after the
// test and all its other cleanups.
const settleTime = 5 * time.Second

// NoLeaks checks at the end of the test, after the cleanups registered later
// than this call, that no goroutine and no file descriptor is left that did not
// exist at the call. Both get some seconds to go away. Call it first in the
// test, and not in a parallel test: it would see what the others have open.
//
// What this package itself keeps for the whole process is not counted.
// Descriptors are compared on Linux and macOS only.
func NoLeaks(t testing.TB) {
	t.Helper()
	noLeaks(t, settleTime)
}

func noLeaks(t testing.TB, settle time.Duration) {
	t.Helper()
	warmUp(t)
	goroutines := goroutineStacks()
	files := openFiles()
	t.Cleanup(func() {
		if t.Failed() {
			return // its leaks would only hide the reason
		}
		var left []string
		for deadline := time.Now().Add(settle); ; time.Sleep(20 * time.Millisecond) {
			http.DefaultClient.CloseIdleConnections()
			left = leaked(goroutines, files)
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				break
			}
		}
		t.Errorf("testenv: the test left behind:\n%s", strings.Join(left, "\n\n"))
	})
}

// warmUp makes the runtime and this package open what they keep open anyway.
func warmUp(t testing.TB) {
	t.Helper()
	if _, err := theJanitor(); err != nil {
		t.Fatal(err)
	}
	launcher()
	FreePort(t) // opens the book of ports
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	l.Close()
}

func leaked(goroutines, files map[string]string) []string {
	var left []string
	for id, stack := range goroutineStacks() {
		if _, ok := goroutines[id]; !ok {
			left = append(left, stack)
		}
	}
	for fd, target := range openFiles() {
		if old, ok := files[fd]; !ok || old != target {
			left = append(left, fmt.Sprintf("file descriptor %s: %s", fd, target))
		}
	}
	sort.Strings(left)
	return left
}

// goroutineStacks returns the stacks of all goroutines by their header's id,
// without the caller's own and without this package's keepers.
func goroutineStacks() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	stacks := make(map[string]string)
	for i, stack := range strings.Split(string(buf), "\n\n") {
		if i == 0 {
			continue // the caller
		}
		if strings.Contains(stack, "internal/testenv.start") || strings.Contains(stack, "internal/testenv.init") {
			continue // waits for a shared server, or is the launcher
		}
		if strings.Contains(stack, "os/signal.signal_recv") || strings.Contains(stack, "runtime.ReadTrace") {
			continue // of the testing package
		}
		id, _, _ := strings.Cut(stack, " [")
		stacks[id] = stack
	}
	return stacks
}

// openFiles returns what each descriptor of this process refers to.
func openFiles() map[string]string {
	dir := "/proc/self/fd"
	if runtime.GOOS != "linux" {
		dir = "/dev/fd"
	}
	files := make(map[string]string)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return files
	}
	for _, entry := range entries {
		target, err := os.Readlink(dir + "/" + entry.Name())
		if err != nil {
			if runtime.GOOS == "linux" {
				continue // the one that read this directory
			}
			target = "open"
		}
		// A handle of a child, such as the shared server.
		if target == "anon_inode:[pidfd]" {
			continue
		}
		// The one that reads this directory, on systems without links.
		if strings.HasPrefix(target, "/proc/") && strings.HasSuffix(target, "/fd") {
			continue
		}
		files[entry.Name()] = target
	}
	return files
}
