package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control/smoke"
)

func (a *app) smokeCommand() *cobra.Command {
	var cfg smoke.Config
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "smoke",
		Short: "Check an installation from outside, after a deployment",
		Long: `smoke asks an installation what a customer would, and says what is wrong and what to do. It
needs no session and no database:

  --url               the customers' api: it describes itself, strangers are refused, what is
                      not public is not there, and with --revision it was built from that
  --probes-url        the api's probes, which are not public: it is alive and ready
  --proxy-url         token-proxy: strangers are refused
  --proxy-probes-url  token-proxy's probes

With a proxy token, and --proxy-url, one small completion is streamed, and has to show in what
the token's customer has used. It is paid for, so give it a customer of its own, whose other
requests cannot be taken for it. The token comes by the environment only:

  OPENCLAW_SMOKE_TOKEN_FILE  file with the token
  OPENCLAW_SMOKE_TOKEN       the token itself, instead of the file

What fails is tried again until --timeout, for a roll-out may be under way. The exit code is 0 if
everything passed once, 1 if not.`,
		Example: `  openclawctl smoke --url https://api.example.com --revision "$(git rev-parse HEAD)"
  kubectl -n platform port-forward deploy/token-proxy 18080:8080 19090:9090 &
  OPENCLAW_SMOKE_TOKEN_FILE=token openclawctl smoke --url https://api.example.com \
    --proxy-url http://127.0.0.1:18080 --proxy-probes-url http://127.0.0.1:19090 --timeout 5m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if within <= 0 {
				return usageError{fmt.Errorf("--timeout %s: it must be longer than nothing", within)}
			}
			var err error
			if cfg.Token, err = a.smokeToken(); err != nil {
				return err
			}
			cfg.Plain = a.plain
			cfg.Failed = notYet(cmd.ErrOrStderr())
			ctx, cancel := context.WithTimeout(cmd.Context(), within)
			defer cancel()
			began := time.Now()
			results, err := smoke.Run(ctx, cfg)
			if errors.Is(err, smoke.ErrConfig) {
				return usageError{err}
			}
			if serr := a.show(cmd, results, smokeTable(results)); serr != nil {
				return serr
			}
			return explained(err, results, time.Since(began))
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.API, "url", "", "the customers' api, such as https://api.example.com (required)")
	f.StringVar(&cfg.APIProbes, "probes-url", "", "where the api has /healthz and /readyz, such as http://127.0.0.1:8083")
	f.StringVar(&cfg.Proxy, "proxy-url", "", "token-proxy, without /v1, such as http://127.0.0.1:8080")
	f.StringVar(&cfg.ProxyProbes, "proxy-probes-url", "", "where token-proxy has /healthz and /readyz, such as http://127.0.0.1:9090")
	f.StringVar(&cfg.Revision, "revision", "", "the commit that the api must be built from, or its first 12 digits or more")
	f.StringVar(&cfg.Model, "model", "", "model of the completion; default: the first that the token may use")
	f.DurationVar(&within, "timeout", 2*time.Minute, "until when to try again what fails")
	_ = cmd.MarkFlagRequired("url") // fails only for a flag that is not there
	return cmd
}

// smokeToken is the proxy token of the environment; "" if there is none. No error holds it.
func (a *app) smokeToken() (string, error) {
	file, token := a.getenv("OPENCLAW_SMOKE_TOKEN_FILE"), a.getenv("OPENCLAW_SMOKE_TOKEN")
	switch {
	case file != "" && token != "":
		return "", usageError{errors.New("OPENCLAW_SMOKE_TOKEN and OPENCLAW_SMOKE_TOKEN_FILE are both set: which one?")}
	case file != "":
		b, err := os.ReadFile(file)
		if err != nil {
			return "", usageError{fmt.Errorf("the proxy token: %w", err)}
		}
		token = string(b)
		if strings.TrimSpace(token) == "" {
			return "", usageError{errors.New("the file of OPENCLAW_SMOKE_TOKEN_FILE is empty")}
		}
	}
	return strings.TrimSpace(token), nil
}

// notYet says what is waited for, each reason once.
func notYet(stderr io.Writer) func(smoke.Result) {
	said := map[string]string{}
	return func(r smoke.Result) {
		if said[r.Check] != r.Detail {
			said[r.Check] = r.Detail
			fmt.Fprintln(stderr, "openclawctl: not yet:", r.Check+":", printable(r.Detail))
		}
	}
}

func smokeTable(results []smoke.Result) table {
	t := table{head: []string{"RESULT", "CHECK", "TIME", "ATTEMPTS", "WHAT WAS SEEN"}}
	for _, r := range results {
		verdict := "ok"
		if !r.OK {
			verdict = "FAILED"
		}
		t.rows = append(t.rows, []string{verdict, r.Check, number(r.Millis) + " ms", number(int64(r.Attempts)), r.Detail})
	}
	return t
}

// explained adds to an error what to do about each check that failed.
func explained(err error, results []smoke.Result, took time.Duration) error {
	if err == nil {
		return nil
	}
	var b strings.Builder
	for _, r := range results {
		if !r.OK {
			fmt.Fprintf(&b, "\n  %s: %s", r.Check, printable(r.Detail))
			if r.Advice != "" {
				fmt.Fprintf(&b, "\n    %s", r.Advice)
			}
		}
	}
	return fmt.Errorf("%w after %s%s", err, took.Round(time.Second), b.String())
}
