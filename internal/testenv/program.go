package testenv

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// Program is a program under test that runs beside it. It ends with the test, and
// with the test process, however that ends. Its methods are safe for concurrent use.
type Program struct{ p *process }

// Start runs a program with exactly the environment env, its output appended to the
// file log.
func Start(t testing.TB, env []string, log, path string, args ...string) *Program {
	t.Helper()
	p, err := startWith(env, syscall.SIGKILL, nil, "", log, path, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	return &Program{p}
}

// Stop sends SIGTERM, and SIGKILL after limit, and returns what Wait reported.
func (p *Program) Stop(limit time.Duration) error {
	_ = p.p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.p.done:
	case <-time.After(limit):
		p.Kill()
	}
	return p.p.err
}

// Kill ends the program with SIGKILL and waits.
func (p *Program) Kill() {
	_ = p.p.cmd.Process.Kill() // it may have ended already
	<-p.p.done
}

// Signal sends sig, such as SIGSTOP.
func (p *Program) Signal(sig os.Signal) error { return p.p.cmd.Process.Signal(sig) }

// Ended reports whether the program has ended.
func (p *Program) Ended() bool { return p.p.exited() }

// Pid is the process's.
func (p *Program) Pid() int { return p.p.cmd.Process.Pid }
