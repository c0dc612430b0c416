package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stopLimit is how long a server may take to end after being told to.
const stopLimit = 10 * time.Second

// process is one server process under this test process.
type process struct {
	cmd    *exec.Cmd
	log    string
	signal string // the janitor's name of the signal that ends it in order
	done   chan struct{}
	err    error // why it ended; valid once done is closed
}

// start runs a server with its output appended to the file log. It dies with
// this process by the signal sig.
func start(sig syscall.Signal, cred *syscall.Credential, dir, log, name string, args ...string) (*process, error) {
	return startWith(append(os.Environ(), "LC_ALL=C"), sig, cred, dir, log, name, args...)
}

func startWith(env []string, sig syscall.Signal, cred *syscall.Credential, dir, log, name string, args ...string) (*process, error) {
	j, err := theJanitor()
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("testenv: %w", err)
	}
	defer out.Close()
	p := &process{cmd: exec.Command(name, args...), log: log, done: make(chan struct{}), signal: "KILL"}
	if sig == syscall.SIGQUIT {
		p.signal = "QUIT"
	}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = env
	// A process group of its own, so that Ctrl-C reaches the test first.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: cred}
	dieWithParent(p.cmd.SysProcAttr, sig)
	if err := onLauncher(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("testenv: start %s: %w", filepath.Base(name), err)
	}
	j.note("pid", p.signal, p.cmd.Process.Pid)
	go func() {
		p.err = p.cmd.Wait()
		j.note("gone", p.signal, p.cmd.Process.Pid)
		close(p.done)
	}()
	return p, nil
}

// exited reports whether the process has ended.
func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// end sends sig and waits for the end, with SIGKILL as the last resort.
func (p *process) end(sig syscall.Signal) {
	// A stopped process acts on nothing but SIGKILL until it is continued.
	_ = p.cmd.Process.Signal(sig)
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-p.done:
	case <-time.After(stopLimit):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// ready calls probe until it succeeds, the process ends, or limit has passed.
func (p *process) ready(limit time.Duration, probe func() error) error {
	deadline := time.Now().Add(limit)
	for {
		if p.exited() {
			return fmt.Errorf("testenv: %s ended at start: %v\n%s", filepath.Base(p.cmd.Path), p.err, tail(p.log))
		}
		err := probe()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("testenv: %s is not ready after %v: %w\n%s", filepath.Base(p.cmd.Path), limit, err, tail(p.log))
		}
		time.Sleep(10 * time.Millisecond) // a poll: the servers announce nothing
	}
}

// tail returns the last lines of a log file.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// workDir returns a new directory below the one that goes with this process.
// The caller removes it when the test ends.
func workDir(pattern string) (string, error) {
	j, err := theJanitor()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(j.root, pattern)
	if err != nil {
		return "", fmt.Errorf("testenv: %w", err)
	}
	return dir, nil
}

// Main runs the tests of a package, shuts down what they shared and exits. Call
// it from TestMain.
func Main(m *testing.M) {
	code := m.Run()
	stopShared()
	os.Exit(code)
}

// stopShared ends the shared servers that run, and removes all files.
func stopShared() {
	sharedCluster.stop()
	sharedPlane.stop()
	if j, err := theJanitor(); err == nil {
		j.close()
	}
}
