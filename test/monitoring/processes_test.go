//go:build linux

package monitoring

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// pid is that of a program of the stack, by its name there.
func (w *world) pid(name string) int {
	w.t.Helper()
	if p := w.programs[name]; p != nil {
		return p.Pid()
	}
	pid, err := strconv.Atoi(strings.Fields(w.read(name + ".pid"))[0])
	if err != nil {
		w.t.Fatal(err)
	}
	return pid
}

// status is the state of a process, as proc(5) calls it, and its parent; "" if there is none.
func status(pid int) (state string, parent int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	// The program's name in parentheses may hold anything: count from its end.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return "", 0
	}
	parent, _ = strconv.Atoi(fields[1])
	return fields[0], parent
}

// children are the processes that a process has started.
func children(t *testing.T, pid int) (list []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if child, err := strconv.Atoi(e.Name()); err == nil {
			if _, parent := status(child); parent == pid {
				list = append(list, child)
			}
		}
	}
	return list
}

// frozen stops programs and their children, which neither answer nor are gone, until the test lets them go
// on.
func (w *world) frozen(names ...string) (resume func()) {
	w.t.Helper()
	var pids []int
	stop := func(pid int) error {
		pids = append(pids, pid)
		return syscall.Kill(pid, syscall.SIGSTOP)
	}
	resume = sync.OnceFunc(func() {
		for _, pid := range slices.Backward(pids) {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended by itself
		}
	})
	w.t.Cleanup(resume) // or devstack would have to kill it
	for _, name := range names {
		pid := w.pid(name)
		// Once it is stopped it starts no more of them.
		if err := stop(pid); err != nil {
			w.t.Fatalf("stop %s: %v", name, err)
		}
		for _, child := range children(w.t, pid) {
			_ = stop(child) // it may have ended by itself
		}
	}
	return resume
}

// away ends a program of the stack, as who drains a node does. back starts it again, as it was started
// before but for more arguments.
func (w *world) away(name string) (back func(more ...string)) {
	w.t.Helper()
	pid := w.pid(name)
	read := func(file string) []string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil || len(text) == 0 {
			w.t.Fatalf("how %s was started is not known: %v", name, err)
		}
		return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
	}
	args, env := read("cmdline"), read("environ")
	if p := w.programs[name]; p != nil {
		_ = p.Stop(30 * time.Second) // how it ends is told by its log
	} else {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			w.t.Fatalf("end %s: %v", name, err)
		}
		w.eventually(name+" has ended", 30*time.Second, func() string {
			if state, _ := status(pid); state != "" && state != "Z" && state != "X" {
				return "it runs"
			}
			return ""
		})
	}
	return func(more ...string) {
		args = append(args, more...)
		w.programs[name] = testenv.Start(w.root, env, w.logOf(name), args[0], args[1:]...)
	}
}

// again starts a program of the stack anew, with more arguments.
func (w *world) again(name string, more ...string) {
	w.t.Helper()
	w.away(name)(more...)
}

// logOf is where a program of the stack writes what it does, whoever started it.
func (w *world) logOf(name string) string { return filepath.Join(w.run, "logs", name+".log") }

// showLogs shows what programs wrote last, should the test have failed.
func (w *world) showLogs(names ...string) {
	for _, name := range names {
		if text, err := os.ReadFile(w.logOf(name)); err == nil && w.root.Failed() {
			w.root.Logf("%s: %s", name, text[max(0, len(text)-3000):])
		}
	}
}
