package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// Syscalls runs a load and counts the system calls of the peer's processes meanwhile, per
// answer or event, with strace. That slows the peer down, so the load must be small; times
// and CPU in the sample are worth nothing.
func (l *Lab) Syscalls(ctx context.Context, r *peers.Running, phase string, cfg load.Config) (record.Sample, error) {
	pids, err := r.Proc.Tree()
	if err != nil {
		return record.Sample{}, err
	}
	file := filepath.Join(l.env.Dir, r.Name+".syscalls")
	var trace *exec.Cmd
	var begun, ended error
	// Only what is counted is traced.
	finish := func() error {
		if trace == nil {
			return errors.New("it was not started")
		}
		if err := trace.Process.Signal(syscall.SIGINT); err != nil {
			return err
		}
		_ = trace.Wait() // it ends by the signal; what matters is its file
		return nil
	}
	cfg.Begin = func() {
		args := []string{"-f", "-q", "-c", "-o", file}
		for _, pid := range pids {
			args = append(args, "-p", strconv.Itoa(pid))
		}
		trace = exec.Command("strace", args...)
		begun = trace.Start()
	}
	cfg.End = func() { ended = finish() }
	cfg.Target = r.Addr
	s := record.Sample{Peer: r.Name, Phase: phase}
	if err := l.Settle(ctx); err != nil {
		return s, err
	}
	began := time.Now()
	if s.Load, err = load.Run(ctx, cfg); err != nil {
		return s, errors.Join(fmt.Errorf("%s, %s: %w", r.Name, phase, err), finish())
	}
	if err := errors.Join(begun, ended); err != nil {
		return s, fmt.Errorf("strace of %s: %w (run: scripts/install-deps strace)", r.Name, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return s, fmt.Errorf("strace of %s after %v: %w", r.Name, time.Since(began), err)
	}
	calls, err := parseCalls(text)
	if err != nil {
		return s, fmt.Errorf("strace of %s: %w", r.Name, err)
	}
	s.Syscalls = make(map[string]float64)
	for name, n := range calls {
		s.Syscalls[name] = float64(n) / float64(max(s.Ops(), 1))
	}
	return s, nil
}

// parseCalls reads strace's summary: calls by name.
func parseCalls(text []byte) (map[string]int64, error) {
	calls := make(map[string]int64)
	for line := range bytes.Lines(text) {
		f := strings.Fields(string(line))
		if len(f) < 5 || f[0] == "%" || strings.HasPrefix(f[0], "-") {
			continue
		}
		n, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("unexpected line %q", line)
		}
		if name := f[len(f)-1]; name != "total" {
			calls[name] += n
		}
	}
	if len(calls) == 0 {
		return nil, fmt.Errorf("no calls in %q", text)
	}
	return calls, nil
}
