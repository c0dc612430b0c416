// Command control is the control plane of openclaw-cloud: one binary, one role per
// subcommand. Run "control --help".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
)

func main() {
	faultpoint.Watch(os.Getenv)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// builtFrom is the revision that this program was built from. "make build" and Nix have the
// linker set it.
var builtFrom string

// The exit codes.
const (
	exitFailed = 1
	exitUsage  = 2 // the command line or the configuration is wrong
)

// usageError marks an error that another try will not cure.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "control",
		Short: "The control plane of openclaw-cloud",
		Long: `control runs one role of the control plane of openclaw-cloud.

Every setting is a flag and an environment variable; the flag wins.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(apiCommand(getenv), billingWorkerCommand(getenv), migrateCommand(getenv), addOperatorCommand(getenv), addLoginCommand(getenv), resealCommand(getenv), operatorCommand(getenv), onboardingAgentCommand(getenv), webCommand(getenv))
	for i, a := range args {
		if a == "-check-config" { // as token-proxy spells it
			args[i] = "--check-config"
		}
	}
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "control:", err)
	if errors.As(err, &usageError{}) || strings.HasPrefix(err.Error(), "unknown command") {
		return exitUsage
	}
	return exitFailed
}
