package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	pid, parent, ticks, err := parseStat([]byte("4711 (a (b) c) S 42 4711 4711 0 -1 4194560 1 2 3 4 100 20 7 8 20 0 1 0 99 1 1"))
	if err != nil || pid != 4711 || parent != 42 || ticks != 120 {
		t.Errorf("%d, %d, %d, %v", pid, parent, ticks, err)
	}
	for _, text := range []string{"", "1 (a", "1 (a) S 2", "x (a) S 2 1 1 0 -1 0 0 0 0 0 1 1 0"} {
		if _, _, _, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestParseRollup(t *testing.T) {
	t.Parallel()
	pss, err := parseRollup([]byte("00400000-7fff ---p 00000000 00:00 0 [rollup]\nRss:  20 kB\nPss:      12 kB\nPss_Anon: 4 kB\n"))
	if err != nil || pss != 12*1024 {
		t.Errorf("%d, %v", pss, err)
	}
	if _, err := parseRollup([]byte("Rss: 20 kB\n")); err == nil {
		t.Error("a missing Pss is accepted")
	}
}

func TestParseBusy(t *testing.T) {
	t.Parallel()
	busy, stolen, err := parseBusy([]byte("cpu  100 20 30 9999 888 4 6 7 0 0\ncpu0 1 1 1 1 1 1 1\n"))
	if err != nil || busy != 1600*time.Millisecond || stolen != 70*time.Millisecond {
		t.Errorf("%v, %v, %v", busy, stolen, err)
	}
	if _, _, err := parseBusy([]byte("intr 1 2 3 4 5 6 7 8\n")); err == nil {
		t.Error("another file is accepted")
	}
}

func TestParseSwitches(t *testing.T) {
	t.Parallel()
	if n, err := parseSwitches([]byte("Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t5\n")); err != nil || n != 12 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := parseSwitches([]byte("voluntary_ctxt_switches:\t7\n")); err == nil {
		t.Error("a missing count is accepted")
	}
}

func start(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(Command{Name: "sh", Path: "/bin/sh", Args: []string{"-c", script}, Env: os.Environ(), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.End(0) })
	return p
}

// The processor time of children counts, and that of a process that waits hardly does.
func TestCPUOfATree(t *testing.T) {
	t.Parallel()
	busy, idle := start(t, "sh -c 'while :; do :; done' & wait"), start(t, "sleep 60; :")
	deadline := time.Now().Add(20 * time.Second)
	for {
		pids, err := busy.Tree()
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it has no child: %v", pids)
		}
		time.Sleep(5 * time.Millisecond)
	}
	m, err := NewMeter(busy, nil, idle)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewMeter(idle)
	if err != nil {
		t.Fatal(err)
	}
	w.Begin()
	m.Begin()
	for m.End(); m.Spent() < 20*time.Millisecond; m.End() {
		if time.Now().After(deadline) {
			t.Fatalf("the meter shows %v of a busy process", m.Spent())
		}
		time.Sleep(5 * time.Millisecond)
	}
	if w.End(); w.Spent() > 10*time.Millisecond {
		t.Errorf("the meter shows %v of a process that sleeps", w.Spent())
	}
	if n, err := busy.Switches(); err != nil || n == 0 {
		t.Errorf("%d context switches, %v", n, err)
	}
	pids, err := busy.Tree()
	if err != nil || len(pids) != 2 {
		t.Fatalf("the tree is %v, %v", pids, err)
	}
	// Its child ends with it, and is collected by whoever inherits it.
	busy.End(0)
	for gone := false; !gone; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pids[1]))
		gone = err != nil || strings.Contains(string(b), ") Z ")
		if !gone && time.Now().After(deadline) {
			t.Fatal("the child of an ended process goes on")
		}
	}
	if n, err := idle.Memory(); err != nil || n < 64<<10 || n > 64<<20 {
		t.Errorf("a process that sleeps has %d bytes, %v", n, err)
	}
}

func TestAwaitAndEnd(t *testing.T) {
	t.Parallel()
	p := start(t, "echo why it failed; exit 3")
	never := func(context.Context) error { return errors.New("not yet") }
	if err := p.Await(t.Context(), 20*time.Second, never); err == nil || !strings.Contains(err.Error(), "why it failed") {
		t.Errorf("a process that ended: %v", err)
	}
	p = start(t, "trap '' TERM; while :; do sleep 0.05; done")
	if err := p.Await(t.Context(), 30*time.Millisecond, never); err == nil || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("a process that is never ready: %v", err)
	}
	p.End(50 * time.Millisecond) // it does not end by itself
	if _, err := p.Memory(); err == nil {
		t.Error("it is still there")
	}
}
