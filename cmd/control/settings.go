package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
)

// fromEnvironment gives flags that are not on the command line the value of their
// environment variable: --database-url is DATABASE_URL.
func fromEnvironment(flags *pflag.FlagSet, getenv func(string) string) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := envName(f)
		if value := getenv(name); name != "" && !f.Changed && value != "" {
			if err := flags.Set(f.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("%s is %q%s: want %s", name, value, wrongPart(f, value), wanted(f)))
				// So that it is complained about once. How pflag shows a map is not how it reads one.
				_ = flags.Set(f.Name, strings.Trim(f.DefValue, "[]"))
			}
		}
	})
	return errors.Join(errs...)
}

// wanted describes the values of a flag.
func wanted(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "duration":
		return "a duration such as 10s"
	case "int", "int32", "int64":
		return "a whole number"
	case "float64":
		return "a number"
	case "bool":
		return "true or false"
	case "stringSlice":
		return "texts separated by commas"
	case "stringToString":
		return "name=value, or several of them separated by commas, such as " + strings.Trim(f.DefValue, "[]")
	}
	return "a " + f.Value.Type()
}

// wrongPart says which part of a value of several is wrong, where that can be told.
func wrongPart(f *pflag.Flag, value string) string {
	if f.Value.Type() != "stringToString" || !strings.Contains(value, ",") {
		return ""
	}
	for part := range strings.SplitSeq(value, ",") {
		if !strings.Contains(part, "=") {
			return fmt.Sprintf(", of which %q has no =", part)
		}
	}
	return ""
}

func envName(f *pflag.Flag) string {
	if f.Name == "help" || f.Name == "check-config" {
		return ""
	}
	return strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// describeEnvironment adds to each flag's help the name of its variable.
func describeEnvironment(flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if name := envName(f); name != "" {
			f.Usage += " [$" + name + "]"
		}
	})
}

// command wires what all roles share: settings from flags and environment, their
// validation, --check-config and the log.
func command(cmd *cobra.Command, getenv func(string) string, validate func() error, work func(*cobra.Command, *slog.Logger) error) *cobra.Command {
	check := cmd.Flags().Bool("check-config", false, "say what is wrong with the settings, and exit")
	level := cmd.Flags().String("log-level", "info", "debug, info, warn or error")
	describeEnvironment(cmd.Flags())
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var logLevel slog.Level
		err := errors.Join(fromEnvironment(cmd.Flags(), getenv), validate())
		if lerr := logLevel.UnmarshalText([]byte(*level)); lerr != nil {
			err = errors.Join(err, fmt.Errorf("--log-level %q: use debug, info, warn or error", *level))
		}
		if err != nil {
			return usageError{fmt.Errorf("settings:\n%w", err)}
		}
		if *check {
			fmt.Fprintln(cmd.OutOrStdout(), "configuration is valid")
			return nil
		}
		return work(cmd, newLogger(cmd.OutOrStdout(), logLevel, cmd.Name()))
	}
	return cmd
}

func newLogger(w io.Writer, level slog.Level, service string) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})).With("service", service)
}

// redisLog sends what go-redis has to say to our log: it is one line per lost
// connection, about what is reported anyway by whom it hit.
type redisLog struct{ log *slog.Logger }

func (r redisLog) Printf(ctx context.Context, format string, v ...any) {
	r.log.DebugContext(ctx, "go-redis: "+fmt.Sprintf(format, v...))
}

// databaseUsage and databaseFlag are the same in all roles.
const (
	databaseFlag  = "database-url"
	databaseUsage = "Postgres, as a URL"
)

// checkDatabaseURL reads s, and says what is wrong with it.
func checkDatabaseURL(s *secretFlag) error {
	if err := s.read(); err != nil {
		return err
	}
	u, err := url.Parse(s.Reveal())
	switch {
	case s.Text == "":
		return errors.New("--database-url (DATABASE_URL) is required, such as postgres://user@127.0.0.1:5432/openclaw")
	case err != nil:
		// The error of url.Parse repeats the URL, and with it the password.
		return errors.New("--database-url: not a URL")
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		return errors.New("--database-url: must begin with postgres://")
	}
	return nil
}

// redisTarget reads s, and where it leads to.
func redisTarget(s *secretFlag) (*redisclient.Target, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	if s.Text == "" {
		return nil, errors.New("--redis-url (REDIS_URL) is required, such as redis://127.0.0.1:6379/0")
	}
	target, err := redisclient.Parse(s.Reveal())
	if err != nil {
		return nil, fmt.Errorf("--redis-url: %w", err)
	}
	return target, nil
}

func positive(name string, d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("--%s: %s is not positive", name, d)
	}
	return nil
}
