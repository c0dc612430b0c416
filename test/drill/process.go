package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// process is a program of the system under drill. It dies with the drill, however that
// ends. Its methods are safe for concurrent use.
type process struct {
	name string // for people, such as "proxy 1"
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how; valid once done is closed

	mu     sync.Mutex
	doomed bool // somebody here has ended it
	frozen bool // stopped by SIGSTOP
}

// spec is how a process is started.
type spec struct {
	name string
	path string
	args []string
	env  []string
	dir  string
	log  string              // output is appended to this file
	cred *syscall.Credential // nil: the drill's own user
}

// start runs a process. It is in a group of its own, so that Ctrl-C reaches the drill
// first, which then ends it.
func start(s spec) (*process, error) {
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	defer out.Close()
	p := &process{name: s.name, cmd: exec.Command(s.path, s.args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = s.dir, s.env
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.cred}
	dieWithParent(p.cmd.SysProcAttr)
	if err := onLauncher(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// launcher is a thread that lives as long as the drill: the kernel sends the death
// signal of a child when the thread that started it ends.
var launcher = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func onLauncher(f func() error) error {
	done := make(chan error, 1)
	launcher() <- func() { done <- f() }
	return <-done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends it with SIGKILL, frozen or not, and waits.
func (p *process) kill() { _ = p.stop(syscall.SIGKILL, 10*time.Second) }

// stop sends a signal that ends it, SIGKILL after limit, and returns how it ended.
func (p *process) stop(sig syscall.Signal, limit time.Duration) error {
	p.mu.Lock()
	p.doomed = true
	_ = p.cmd.Process.Signal(sig) // it may have ended already
	if p.frozen {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		p.frozen = false
	}
	p.mu.Unlock()
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return errors.Join(fmt.Errorf("it did not end within %v of %v", limit, sig), p.err)
}

// freeze stops it (SIGSTOP), thaw lets it go on.
func (p *process) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.doomed {
		p.frozen = true
		_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	}
}

func (p *process) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen {
		p.frozen = false
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
	}
}

// byItself reports whether it has ended without anybody here having ended it.
func (p *process) byItself() bool {
	if !p.ended() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.doomed
}

// forgive says that it was meant to end by itself.
func (p *process) forgive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doomed = true
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// poll calls ok until it succeeds or limit has passed; then it returns the last error.
func poll(limit time.Duration, ok func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := ok()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
