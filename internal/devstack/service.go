package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// service is one background process of the stack.
type service struct {
	name  string
	ports []int // that it listens on, if any; free before it starts, and after it stopped

	// prepare makes what the process needs before its start; may be nil.
	prepare func(ctx context.Context) error
	// command says how to start it.
	command func() (command, error)
	// ready returns nil once the process does its work.
	ready func(ctx context.Context) error
	// after is set-up work that needs the running process; may be nil. It is
	// done at each Up, so it must find its own work done.
	after func(ctx context.Context) error

	stopWith  syscall.Signal // ends the process in order
	stopLimit time.Duration  // how long that may take
}

// address is where the service is asked for, "" of one that listens nowhere.
func (svc *service) address() string {
	if len(svc.ports) == 0 {
		return ""
	}
	return address(svc.ports[0])
}

const (
	readyLimit   = 60 * time.Second
	collectLimit = 20 * time.Second
)

func (s *stack) pidFile(name string) string { return s.cfg.path(name + ".pid") }
func (s *stack) logFile(name string) string { return s.cfg.path("logs", name+".log") }

// start makes sure that a service runs and is ready, and prints one line.
func (s *stack) start(ctx context.Context, svc service) error {
	before, running, err := readPID(s.pidFile(svc.name))
	if err != nil {
		return err
	}
	began := time.Now()
	var logged int64
	if info, err := os.Stat(s.logFile(svc.name)); err == nil {
		logged = info.Size()
	}
	var ended <-chan struct{}
	word := "runs already"
	if !running {
		word = "ready"
		if before.pid != 0 {
			collected(collectLimit, before.pid)
		}
		for _, port := range svc.ports {
			if err := s.checkFree(port, svc.name); err != nil {
				return err
			}
		}
		if svc.prepare != nil {
			if err := svc.prepare(ctx); err != nil {
				return err
			}
		}
		cmd, err := svc.command()
		if err != nil {
			return err
		}
		cmd.log = s.logFile(svc.name)
		if _, ended, err = startDetached(cmd, s.pidFile(svc.name)); err != nil {
			return err
		}
		s.started = append(s.started, svc)
	}
	if err := waitReady(ctx, svc, ended); err != nil {
		return fmt.Errorf("%s: %w\n%s\n  the whole log: %s", svc.name, err, logTail(s.logFile(svc.name), logged), s.logFile(svc.name))
	}
	if svc.after != nil {
		if err := svc.after(ctx); err != nil {
			return err
		}
	}
	s.printf("  %-24s %-22s %s (%.1f s)\n", svc.name, svc.address(), word, time.Since(began).Seconds())
	return nil
}

// waitReady polls a service, which has no other way to tell that it is ready.
func waitReady(ctx context.Context, svc service, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := svc.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return errors.New("it ended right after its start")
		case <-ctx.Done():
			return fmt.Errorf("not ready after %v: %w", readyLimit, err)
		case <-tick.C:
		}
	}
}

// checkFree says which port is taken, and how to choose another.
func (s *stack) checkFree(port int, name string) error {
	l, err := net.Listen("tcp4", address(port))
	if err == nil {
		return l.Close()
	}
	variable := s.cfg.Ports.variable(port)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d, wanted by %s, is taken by another program. Choose another: %s=%d make up", port, name, variable, port+1000)
	}
	return fmt.Errorf("port %d, wanted by %s, cannot be used: %w. Choose another: %s=…  make up", port, name, err, variable)
}

// stop ends a service if it runs, and prints one line.
func (s *stack) stop(svc service) error {
	p, running, err := readPID(s.pidFile(svc.name))
	if err != nil {
		return err
	}
	if running {
		killed, err := p.stop(svc.stopWith, svc.stopLimit)
		if err != nil {
			return err
		}
		word := "stopped"
		if killed {
			word = fmt.Sprintf("killed (it did not stop within %v)", svc.stopLimit)
		}
		if err := waitClosed(svc.ports); err != nil {
			return fmt.Errorf("%s: %w", svc.name, err)
		}
		s.printf("  %-24s %s\n", svc.name, word)
	}
	return removeIfExists(s.pidFile(svc.name))
}

// waitClosed checks that nothing listens on the ports of an ended service: a
// killed server's children may need a moment.
func waitClosed(ports []int) error {
	deadline := time.Now().Add(5 * time.Second)
	for _, port := range ports {
		for {
			conn, err := net.DialTimeout("tcp4", address(port), time.Second)
			if err != nil {
				break
			}
			conn.Close()
			if time.Now().After(deadline) {
				return fmt.Errorf("its process has ended, but something still listens on port %d", port)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// answers returns a readiness check: GET url gives 200.
func answers(url string) func(context.Context) error {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(res.Body, 300))
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s: %s", url, res.Status, body)
		}
		return nil
	}
}
