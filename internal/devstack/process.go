package devstack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// command is a program to run in the background.
type command struct {
	program string
	args    []string
	env     []string            // the whole environment
	dir     string              // working directory
	cred    *syscall.Credential // nil: this user
	log     string              // file that gets its output, appended
}

// process is a started background process as its pid file names it.
type process struct {
	pid int
	id  string // see identity
}

// startDetached runs c in a session of its own, so that it lives on when this
// process and its terminal are gone, and writes its pid file. The channel is
// closed when the process ends while this one still runs.
func startDetached(c command, pidFile string) (process, <-chan struct{}, error) {
	name := filepath.Base(c.program)
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return process{}, nil, fmt.Errorf("devstack: log of %s: %w", name, err)
	}
	defer log.Close()
	cmd := exec.Command(c.program, c.args...)
	cmd.Env, cmd.Dir = c.env, c.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: c.cred}
	if err := cmd.Start(); err != nil {
		return process{}, nil, fmt.Errorf("devstack: start %s: %w", name, err)
	}
	ended := make(chan struct{})
	p := process{pid: cmd.Process.Pid}
	if p.id, err = identity(p.pid); err == nil {
		err = writePrivate(pidFile, fmt.Sprintf("%d %s\n", p.pid, p.id))
	}
	if err != nil {
		// Without its file nobody could find it again.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return process{}, nil, fmt.Errorf("devstack: start %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	return p, ended, nil
}

// readPID returns the process that a pid file names, when it still runs.
func readPID(pidFile string) (p process, running bool, err error) {
	b, err := os.ReadFile(pidFile)
	if errors.Is(err, os.ErrNotExist) {
		return process{}, false, nil
	}
	if err != nil {
		return process{}, false, fmt.Errorf("devstack: %w", err)
	}
	pid, id, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if p.pid, err = strconv.Atoi(pid); err != nil || p.pid <= 1 || id == "" {
		return process{}, false, fmt.Errorf("devstack: %s does not name a process; look at it and remove it", pidFile)
	}
	p.id = id
	running, err = p.running()
	return p, running, err
}

func (p process) running() (bool, error) {
	now, err := identity(p.pid)
	return err == nil && now == p.id, err
}

// stop ends the process with sig, and with SIGKILL when it is still there after
// limit. It reports whether SIGKILL was needed.
func (p process) stop(sig syscall.Signal, limit time.Duration) (killed bool, err error) {
	for _, try := range []struct {
		sig   syscall.Signal
		limit time.Duration
	}{{sig, limit}, {syscall.SIGKILL, 10 * time.Second}} {
		killed = try.sig == syscall.SIGKILL
		if running, err := p.running(); err != nil || !running {
			return false, err
		}
		if err := syscall.Kill(p.pid, try.sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return false, fmt.Errorf("devstack: %v for process %d: %w", try.sig, p.pid, err)
		}
		// Not our child when another run started it, so its end is polled for.
		for deadline := time.Now().Add(try.limit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if running, err := p.running(); err != nil || !running {
				return killed, err
			}
		}
	}
	return true, fmt.Errorf("devstack: process %d is still there after SIGKILL", p.pid)
}

// collected waits a little until the system has forgotten ended processes. Until
// their parent asks how they ended, process lists show them, and Postgres takes
// its predecessor for alive. On most systems that is at once.
func collected(limit time.Duration, pids ...int) {
	deadline := time.Now().Add(limit)
	for _, pid := range pids {
		for time.Now().Before(deadline) && syscall.Kill(pid, 0) == nil {
			if id, err := identity(pid); err != nil || id != "" {
				break // another process by now
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// writePrivate replaces a file by one that only its owner can read.
func writePrivate(path, content string) error {
	next := path + ".new"
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		return fmt.Errorf("devstack: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("devstack: %w", err)
	}
	return nil
}

// logTail returns the last lines of a log after its first from bytes.
func logTail(path string, from int64) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(b[min(from, int64(len(b))):]), "\n"), "\n")
	return "  | " + strings.Join(lines[max(0, len(lines)-15):], "\n  | ")
}
