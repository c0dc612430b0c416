//go:build faultpoints

package faultpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// FileVariable names the environment variable with the file that arms a point.
const FileVariable = "OPENCLAW_FAULTPOINT_FILE"

// pollEvery is how often the file is looked at.
const pollEvery = 10 * time.Millisecond

// arming is one order: die at the n-th passage of a point.
type arming struct {
	point string
	left  atomic.Int64
	fired string // file that says so
}

// armed is what the process is to die at; nil is nothing. A process has one life to lose,
// so this is one variable for all of it.
var armed atomic.Pointer[arming]

// At dies here if this point is armed and passed for the n-th time since.
func At(point string) {
	a := armed.Load()
	if a == nil || a.point != point || a.left.Add(-1) != 0 {
		return
	}
	// So that the one who armed it knows that it was not killed by anybody else.
	_ = os.WriteFile(a.fired, []byte(point+"\n"), 0o600)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // nothing of what follows may happen
}

// Watch reads the name of a file from the environment and arms what stands in it,
// "<point> <n>": at once, so that points of the start can be armed too, and whenever it
// changes. An empty or absent file disarms. When a point fires, its name is written to
// the file of the same name with ".fired" added.
func Watch(getenv func(string) string) {
	path := getenv(FileVariable)
	if path == "" {
		return
	}
	last := read(path)
	arm(path, last)
	go func() {
		for range time.Tick(pollEvery) {
			if now := read(path); now != last {
				last = now
				arm(path, now)
			}
		}
	}()
}

func read(path string) string {
	b, _ := os.ReadFile(path) // an absent file arms nothing
	return string(b)
}

func arm(path, order string) {
	point, times, ok := strings.Cut(strings.TrimSpace(order), " ")
	if !ok {
		armed.Store(nil)
		return
	}
	n, err := strconv.ParseInt(times, 10, 64)
	if err != nil || n < 1 {
		fmt.Fprintf(os.Stderr, "faultpoint: %s: %q is not \"<point> <n>\"\n", path, order)
		return
	}
	a := &arming{point: point, fired: path + ".fired"}
	a.left.Store(n)
	armed.Store(a)
}
