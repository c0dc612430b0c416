package proc

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Command says what to run.
type Command struct {
	Name string // in messages, and of the log file
	Path string
	Args []string
	Env  []string            // the whole environment
	Dir  string              // working directory, and that of the log
	Cred *syscall.Credential // nil: this user
	Stop syscall.Signal      // asks for an orderly end; SIGTERM if 0
	// Aside gives way to all others: it stands for what has a machine of its own elsewhere.
	Aside bool
	CPUs  string // those that it may use, as taskset takes them; "" for this program's
}

// Process is a running program. Its methods are safe for concurrent use.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  string
	stop syscall.Signal
	done chan struct{} // closed when it has ended
}

// Start runs a program with its output in Dir/Name.log.
func Start(c Command) (*Process, error) {
	p := &Process{name: c.Name, log: filepath.Join(c.Dir, c.Name+".log"), stop: c.Stop, done: make(chan struct{})}
	if p.stop == 0 {
		p.stop = syscall.SIGTERM
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	defer out.Close()
	line := append([]string{c.Path}, c.Args...)
	// All threads and children inherit both.
	if c.Aside {
		line = append([]string{"nice", "-n", "10"}, line...)
	}
	if c.CPUs != "" {
		line = append([]string{"taskset", "-c", c.CPUs}, line...)
	}
	p.cmd = exec.Command(line[0], line[1:]...)
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = c.Env, c.Dir, out, out
	p.cmd.SysProcAttr = attributes(c.Cred)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended shows in its log
		close(p.done)
	}()
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log returns the last 4 KiB of what it wrote.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-4096):]))
}

// End ends the process, with SIGKILL if it is still there after limit, and what is left of
// its descendants.
func (p *Process) End(limit time.Duration) {
	_ = p.cmd.Process.Signal(p.stop) // it may have ended already
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	// Descendants are in its group, which none of them leads: so its number is not reused
	// while there is one.
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // mostly nothing is left
}

// Await polls ready until it returns nil, at most limit.
func (p *Process) Await(ctx context.Context, limit time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.name, p.Log())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %v: %w: %s", p.name, limit, err, p.Log())
		case <-tick.C:
		}
	}
}

// Accepts returns a check that something listens on addr.
func Accepts(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
}
