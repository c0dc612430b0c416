// Command openclawctl is the operators' command line. Run "openclawctl --help".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// The exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2 // the command line or the environment is wrong
	exitUnpublished = 3 // saved, but the proxies may not know yet
	exitDifferent   = 4 // the ledger differs
)

// usageError marks an error of the command line or of the environment.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	root := rootCommand(getenv)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "openclawctl:", contract.TokenPattern.ReplaceAllString(err.Error(), "ocp_[redacted]"))
	switch {
	case errors.Is(err, customers.ErrUnpublished):
		fmt.Fprintln(stderr, "The change holds. The billing-worker, or the next openclawctl, publishes it once Redis answers.")
		return exitUnpublished
	case errors.Is(err, errDifferent):
		return exitDifferent
	case errors.As(err, &usageError{}), isCobraUsage(err):
		fmt.Fprintf(stderr, "See %q.\n", cmd.CommandPath()+" --help")
		return exitUsage
	case errors.Is(err, control.ErrSchema):
		fmt.Fprintln(stderr, `Run "control migrate" with the same DATABASE_URL.`)
	}
	return exitFailed
}

// isCobraUsage recognises what cobra reports itself and gives no type to.
func isCobraUsage(err error) bool {
	for _, prefix := range []string{"unknown command", "required flag", "accepts ", "requires ", "unknown flag", "unknown shorthand"} {
		if strings.HasPrefix(err.Error(), prefix) {
			return true
		}
	}
	return false
}

func rootCommand(getenv func(string) string) *cobra.Command {
	a := &app{getenv: getenv}
	root := &cobra.Command{
		Use:   "openclawctl",
		Short: "Create customers and tokens, set limits, see what was used",
		Long: `openclawctl creates customers and proxy tokens, sets limits and shows what was used.

It works on the control plane's own databases, which it finds through the environment:

  DATABASE_URL                 Postgres, such as postgres://openclaw@127.0.0.1:5432/openclaw
  REDIS_URL                    Redis, such as redis://127.0.0.1:6379/0,
                               redis-cluster://host:port,host:port, or
                               redis-sentinel://sentinel:port,sentinel:port/0?master=name
  OPENCLAW_TOKEN_PEPPER_FILE   file with the pepper that token-proxy uses ("token create" only)
  OPENCLAW_TOKEN_PEPPER        the pepper itself, or file:PATH, instead of the file
  STRIPE_SECRET_KEY            secret key of the Stripe account ("billing" only)
  OPENCLAW_ACTOR               who is named in the audit log; default: $USER

A change is saved first and then published to the proxies. If Redis is away it stays
saved, the exit code is 3, and it is published later.`,
		Example: `  openclawctl customer create --name "Ada Lovelace" --tier starter
  openclawctl token create --customer c4mzq7n2k5w3xj6ha
  openclawctl quota set --customer c4mzq7n2k5w3xj6ha --limit 2000000
  openclawctl usage --customer c4mzq7n2k5w3xj6ha --events 20
  openclawctl token revoke t7k2mhc5wq3xj6n4z
  openclawctl customer suspend c4mzq7n2k5w3xj6ha
  openclawctl ledger verify`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			// Whatever is given as an id may come back in an error and end in a log.
			secret := slices.ContainsFunc(args, looksSecret)
			cmd.Flags().Visit(func(f *pflag.Flag) { secret = secret || looksSecret(f.Value.String()) })
			if secret {
				return usageError{errors.New("this looks like a proxy token: commands take ids, never tokens")}
			}
			if a.output != "table" && a.output != "json" {
				return usageError{fmt.Errorf("--output %q: want table or json", a.output)}
			}
			return nil
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "table", "table or json")
	root.AddCommand(a.customerCommand(), a.tokenCommand(), a.quotaCommand(), a.usageCommand(), a.ledgerCommand(), a.feedCommand(), a.billingCommand())
	return root
}
