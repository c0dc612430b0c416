// Command openclaw-bench measures token-proxy, alone and beside other proxies, on the
// machine that it runs on. Run "openclaw-bench --help".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	a := &app{getenv: os.Getenv, stdout: os.Stdout, stderr: os.Stderr, args: os.Args[1:]}
	err := a.root().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "openclaw-bench:", err)
	if errors.As(err, &usageError{}) {
		os.Exit(2)
	}
	os.Exit(1)
}

// usageError marks an error of the command line.
type usageError struct{ error }

// app is what the commands share.
type app struct {
	getenv         func(string) string
	stdout, stderr io.Writer
	args           []string
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "openclaw-bench",
		Short: "Measure token-proxy, alone and beside other proxies",
		Long: `openclaw-bench measures token-proxy on this machine: how much processor time a request
and an event of a stream cost, how much memory an open stream needs, and how much latency
is added, beside nginx and other proxies in the same run. It also plays traces of real
traffic against any installation. It needs Linux.`,
		Example: `  openclaw-bench compare --quick
  openclaw-bench report
  openclaw-bench load --target 127.0.0.1:8080 --token "$(cat .run/token)" --rate 50 --stream`,
		SilenceErrors: true, SilenceUsage: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetArgs(a.args)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(a.compareCommand(), a.reportCommand(), a.loadCommand(), a.originCommand(), a.peerCommand(), a.traceCommand(),
		a.streamsCommand(), a.overloadCommand(), a.grantsCommand(), a.replayCommand(), a.syscallsCommand(), a.controlCommand(), a.profileCommand())
	return root
}

// say prints a line of progress with the time since the start.
func (a *app) say() func(format string, args ...any) {
	began := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(a.stderr, "%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// bin is where the programs are that this one was built with.
func (a *app) bin() (self, dir string, err error) {
	self, err = os.Executable()
	if err != nil {
		return "", "", fmt.Errorf("find the own program: %w", err)
	}
	dir = filepath.Dir(self)
	for _, name := range []string{"token-proxy", "control"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", "", fmt.Errorf("%s is not beside this program: run `make build`", name)
		}
	}
	return self, dir, nil
}

// env is the environment of what is measured.
func (a *app) env() []string {
	env := []string{"PATH=" + a.getenv("PATH"), "HOME=" + os.TempDir(), "LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"} {
		if v := a.getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// builtFrom is the revision that this program, and those beside it, were built from. "make
// build" has the linker set it.
var builtFrom string

// revision names what was measured, as far as it is known.
func revision() string {
	if builtFrom != "" {
		return builtFrom
	}
	return record.Revision()
}
