package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/poller"
)

func (a *app) loadCommand() *cobra.Command {
	var cfg load.Config
	var shape load.Shape
	var tokens []string
	var header string
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Send requests to a proxy and print how it answers",
		Long: `load sends requests to a running proxy. With --rate they arrive at that rate whatever
the answers do, and latency counts from when a request was to be sent. Without it all
connections are kept busy. The result is printed as JSON; times are microseconds.`,
		Example: `  openclaw-bench load --target 127.0.0.1:8080 --token "$(cat .run/token)" --rate 5
  openclaw-bench load --target 127.0.0.1:8080 --token "$(cat .run/token)" --stream --connections 4 --tokens-per-second 50`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := poller.Raise(); err != nil {
				return err
			}
			cfg.Closed = cfg.Rate == 0
			if header != "" {
				header += "\r\n"
			}
			shape.Stamp = shape.Stream
			cfg.Jobs = shape.Jobs(cfg.Target, header, tokens)
			cfg.Progress = progress(a.stderr)
			r, err := load.Run(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			text, err := json.MarshalIndent(r, "", "  ")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s\n", text)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Target, "target", "127.0.0.1:8080", "host:port of the proxy, without TLS")
	f.StringSliceVar(&tokens, "token", nil, "credentials, used in turn")
	f.StringVar(&header, "header", "", "one more line of each request's head, such as \"X-A: b\"")
	f.Float64Var(&cfg.Rate, "rate", 0, "requests per second; 0 keeps all connections busy")
	f.BoolVar(&cfg.Poisson, "poisson", false, "random arrivals with that rate")
	f.Uint64Var(&cfg.Seed, "seed", 1, "of random arrivals")
	f.IntVar(&cfg.Connections, "connections", 64, "at most; streams need one each")
	f.IntVar(&cfg.Threads, "threads", 1, "threads that drive the connections")
	f.DurationVar(&cfg.Warmup, "warmup", time.Second, "before anything is counted")
	f.DurationVar(&cfg.Duration, "duration", 10*time.Second, "that is counted")
	f.DurationVar(&cfg.Timeout, "timeout", 30*time.Second, "of one answer")
	f.DurationVar(&cfg.Ramp, "ramp", 0, "over which the first requests of all connections are spread")
	f.BoolVar(&shape.Stream, "stream", false, "ask for streams")
	f.BoolVar(&shape.Anthropic, "anthropic", false, "use the Anthropic face instead of the OpenAI one")
	f.IntVar(&shape.BodyBytes, "body-bytes", 1024, "size of a request's body")
	f.IntVar(&shape.OutputTokens, "output-tokens", 100, "length of an answer")
	f.Float64Var(&shape.TokensPerSecond, "tokens-per-second", 0, "pace of an answer; 0 is as fast as possible")
	f.DurationVar(&shape.TTFT, "ttft", 0, "time of the upstream to its first token")
	return cmd
}

// progress prints a line each second.
func progress(w io.Writer) func(load.Progress) {
	var last load.Progress
	return func(p load.Progress) {
		seconds := (p.Elapsed - last.Elapsed).Seconds()
		fmt.Fprintf(w, "%5.1f of %.0f s  %7.0f answers/s  %8.0f events/s  %6d open  %d failures\n",
			p.Elapsed.Seconds(), p.Total.Seconds(), float64(p.Answers-last.Answers)/seconds, float64(p.Events-last.Events)/seconds, p.Open, p.Failures)
		last = p
	}
}
