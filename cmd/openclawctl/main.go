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
	"github.com/andreabadesso/openclaw-cloud/control/client"
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
	exitUnpublished = 3 // saved, but some proxies may not know yet
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
	case errors.Is(err, errNotApplied), errors.Is(err, errEarlier):
		return exitUnpublished
	case errors.Is(err, client.ErrSignIn):
		fmt.Fprintln(stderr, `Sign in with "openclawctl login", or set OPENCLAW_API_EMAIL and OPENCLAW_API_PASSWORD_FILE.`)
	case errors.Is(err, client.ErrUnreachable) && getenv("DATABASE_URL") != "" && branch(cmd).GroupID != groupAPI:
		fmt.Fprintln(stderr, `With --direct, commands that can do without the api work on the databases of DATABASE_URL and REDIS_URL.`)
	case errors.Is(err, control.ErrSchema):
		fmt.Fprintln(stderr, `Run "control migrate" with the same DATABASE_URL.`)
	}
	return exitFailed
}

// branch is the command of the first level that cmd belongs to.
func branch(cmd *cobra.Command) *cobra.Command {
	for cmd.HasParent() && cmd.Parent().HasParent() {
		cmd = cmd.Parent()
	}
	return cmd
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

// The groups of commands, by what they need.
const (
	groupAPI      = "api"
	groupEither   = "either"
	groupDatabase = "database"
	groupMixed    = "mixed" // have commands of both kinds
	groupOutside  = "outside"
)

// group returns what a group is called in the help.
func group(id string) *cobra.Group {
	title := "Some by the api, some without it:"
	switch id {
	case groupEither:
		title = "By the api, or on the databases themselves (--direct):"
	case groupAPI:
		title = "By the api:"
	case groupOutside:
		title = "From outside, without a session:"
	case groupDatabase:
		title = "Without the api, so that they are there when it is not:"
	}
	return &cobra.Group{ID: id, Title: title}
}

func grouped(parent *cobra.Command, id string, commands ...*cobra.Command) {
	parent.AddGroup(group(id))
	for _, c := range commands {
		c.GroupID = id
		parent.AddCommand(c)
	}
}

func rootCommand(getenv func(string) string) *cobra.Command {
	a := &app{getenv: getenv}
	root := &cobra.Command{
		Use:   "openclawctl",
		Short: "Create customers and tokens, set limits, see what was used",
		Long: `openclawctl is the operators' command line: it creates customers and proxy tokens, sets limits,
shows what was used, and looks after what went wrong.

It speaks to the operators' api. Sign in once ("openclawctl login --help"), or let it sign in by
itself:

  OPENCLAW_API_URL             the operators' api, such as https://ops.example.com
  OPENCLAW_API_EMAIL           who signs in
  OPENCLAW_API_PASSWORD_FILE   file whose first line is the password
  OPENCLAW_SESSION_FILE        where the session is kept; default: ~/.config/openclaw/session.json

What has to work without the api goes to the control plane's databases, and other commands do so
with --direct, or if DATABASE_URL is set and nothing says where the api is:

  DATABASE_URL                 Postgres, such as postgres://openclaw@127.0.0.1:5432/openclaw
  REDIS_URL                    Redis, such as redis://127.0.0.1:6379/0,
                               redis-cluster://host:port,host:port, or
                               redis-sentinel://sentinel:port,sentinel:port/0?master=name
  OPENCLAW_TOKEN_PEPPER_FILE   file with the pepper that token-proxy uses ("token create" only)
  OPENCLAW_TOKEN_PEPPER        the pepper itself, or file:PATH, instead of the file
  STRIPE_SECRET_KEY            secret key of the Stripe account (for "billing bootstrap", and
                               for "ledger verify" to ask Stripe, too)
  OPENCLAW_ACTOR               who is named in the audit log; default: $USER. By the api it is
                               the operator that signed in

Whatever the api is asked to change it changes once, however often the network makes openclawctl
ask. An error that leaves open whether something was done says how to repeat the command so that
it does nothing twice.

A change is saved first and then published to the proxies. If Redis is away it stays
saved, the exit code is 3, and it is published later. The other exit codes: 0 done, 1 failed,
2 wrong command line or environment, 4 the ledger differs.`,
		Example: `  openclawctl login --api-url https://ops.example.com --email ada@example.com
  openclawctl customer create --name "Ada Lovelace" --tier starter
  openclawctl token create --customer c4mzq7n2k5w3xj6ha
  openclawctl quota set --customer c4mzq7n2k5w3xj6ha --limit 2000000 --reason "agreed by mail"
  openclawctl usage --customer c4mzq7n2k5w3xj6ha
  openclawctl token revoke t7k2mhc5wq3xj6n4z
  openclawctl customer suspend c4mzq7n2k5w3xj6ha --reason "three failed payments"
  openclawctl ledger verify
  openclawctl smoke --url https://api.example.com
  source <(openclawctl completion bash)`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			// Whatever is given as an id may come back in an error and end in a log.
			secret := slices.ContainsFunc(args, looksSecret)
			cmd.Flags().Visit(func(f *pflag.Flag) { secret = secret || looksSecret(f.Value.String()) })
			if secret {
				return usageError{errors.New("this looks like a proxy token: commands take ids, never tokens")}
			}
			if !slices.Contains(outputs(), a.output) {
				return usageError{fmt.Errorf("--output %q: want table, json or yaml", a.output)}
			}
			return nil
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVarP(&a.output, "output", "o", "table", "table, json or yaml")
	f.StringVar(&a.apiURL, "api-url", "", "the operators' api [$OPENCLAW_API_URL]")
	f.BoolVar(&a.plain, "plain-http", false, "the api may be http:// on another machine: everyone on the way can read passwords and tokens")
	f.StringVar(&a.key, "idempotency-key", "", "repeat a command that went by the api with the key that it printed: nothing is done twice")
	f.BoolVar(&a.direct, "direct", false, "work on the databases themselves, without the api")
	f.StringVar(&a.database, "database-url", "", "Postgres, with --direct; arguments are visible to others, so use the environment for passwords [$DATABASE_URL]")
	f.StringVar(&a.redisURL, "redis-url", "", "Redis, with --direct [$REDIS_URL]")
	complete(root, "output", fixed(outputs()...))
	grouped(root, groupEither, a.customerCommand(), a.tokenCommand(), a.quotaCommand(), a.usageCommand())
	grouped(root, groupAPI, a.loginCommand(), a.logoutCommand(), a.whoamiCommand(), a.boxCommand(), a.trafficCommand(), a.tierCommand(), a.jobCommand(),
		a.auditCommand(), a.operatorCommand(), a.openapiCommand())
	grouped(root, groupMixed, a.ledgerCommand(), a.billingCommand())
	grouped(root, groupDatabase, a.feedCommand())
	grouped(root, groupOutside, a.smokeCommand())
	finish(root)
	return root
}
