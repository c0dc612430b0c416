package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/bench/lab"
	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/poller"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
	"github.com/andreabadesso/openclaw-cloud/bench/replay"
	"github.com/andreabadesso/openclaw-cloud/bench/trace"
)

// replayOptions are the flags of replay.
type replayOptions struct {
	setup
	play       replay.Config
	file       string
	tokensFile string
	tokens     []string
	watch      time.Duration
}

func (a *app) replayCommand() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Play a trace of real traffic",
		Long: `replay plays a trace in Mooncake's format: each request arrives at its time, with a prompt of
its size, and wants an answer of its length. With --target it goes to a running
installation, and the result is printed. Without it replay starts a token-proxy with all
that belongs to it, watches its memory, goroutines and open files, and keeps the result.

Arrivals are --speed times as fast as in the trace; answers keep the pace of a model, so that at
20 times the speed 20 times as many are open at a time. The pace is asked for as kimisim and
"openclaw-bench origin" understand it; a real Kimi has its own.`,
		Example: `  openclaw-bench replay --speed 20
  openclaw-bench replay --trace hour.jsonl --speed 20
  openclaw-bench replay --target 127.0.0.1:8080 --token "$(cat .run/token)" --speed 0.1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := poller.Raise(); err != nil {
				return err
			}
			if err := o.read(); err != nil {
				return err
			}
			if o.play.Target == "" {
				say := a.say()
				return a.measure(cmd, record.KindReplay, &o.setup, say, func(ctx context.Context, l *lab.Lab, r *record.Run) error {
					return o.ownPlatform(ctx, l, r, a.stderr)
				})
			}
			return o.target(cmd.Context(), a.stdout, a.stderr)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.file, "trace", "", "file with the trace (default: the sample of 300 requests that ships with this program)")
	f.Float64Var(&o.play.Speed, "speed", 1, "how much faster than in the trace requests arrive")
	f.IntVar(&o.play.Repeat, "repeat", 1, "how often the trace is played, once after the other")
	f.DurationVar(&o.play.Jitter, "jitter", trace.Grid, "over which arrivals are spread: the grid that the trace has them on; 0 leaves them")
	f.Float64Var(&o.play.TokensPerSecond, "tokens-per-second", 40, "pace of answers, on average")
	f.Float64Var(&o.play.Spread, "spread", 0.5, "share by which answers are slower or faster")
	f.DurationVar(&o.play.TTFT, "ttft", 300*time.Millisecond, "time of the upstream to its first token")
	f.Uint64Var(&o.play.Seed, "seed", 1, "of jitter and pace")
	f.BoolVar(&o.play.Anthropic, "anthropic", false, "use the Anthropic face instead of the OpenAI one")
	f.IntVar(&o.play.Connections, "connections", 8000, "at most")
	f.DurationVar(&o.play.Timeout, "timeout", 5*time.Minute, "of one answer")
	f.StringVar(&o.play.Target, "target", "", "host:port, or an http URL, of a running proxy")
	f.StringSliceVar(&o.tokens, "token", nil, "credentials for it, used in turn")
	f.StringVar(&o.tokensFile, "tokens-file", "", "file with such credentials, one a line")
	f.DurationVar(&o.watch, "watch", 5*time.Second, "how often an own token-proxy is looked at")
	f.IntVar(&o.customers, "customers", 4000, "customers of an own token-proxy")
	f.StringVar(&o.dir, "dir", "", "where its data and logs are kept meanwhile (default: the system's temporary directory)")
	f.BoolVar(&o.keep, "keep", false, "keep data and logs, and say where they are")
	f.StringVar(&o.results, "results", "bench/results", "directory for results")
	return cmd
}

// read completes the options by the files that they name.
func (o *replayOptions) read() error {
	o.peers = []string{peers.TokenProxy}
	o.play.Target = strings.TrimSuffix(strings.TrimPrefix(o.play.Target, "http://"), "/")
	if strings.Contains(o.play.Target, "/") {
		return usageError{fmt.Errorf("--target: want host:port, without TLS and path, instead of %q", o.play.Target)}
	}
	if o.tokensFile != "" {
		text, err := os.ReadFile(o.tokensFile)
		if err != nil {
			return fmt.Errorf("--tokens-file: %w", err)
		}
		o.tokens = append(o.tokens, strings.Fields(string(text))...)
	}
	o.play.Tokens = o.tokens
	if o.file == "" {
		o.play.Trace = trace.Sample()
		return nil
	}
	f, err := os.Open(o.file)
	if err != nil {
		return fmt.Errorf("--trace: %w", err)
	}
	defer f.Close()
	o.play.Trace, err = trace.Read(f)
	return err
}

// target plays against a running installation.
func (o *replayOptions) target(ctx context.Context, stdout, stderr io.Writer) error {
	cfg, err := replay.Load(o.play)
	if err != nil {
		return err
	}
	cfg.Progress = progress(stderr)
	r, err := load.Run(ctx, cfg)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s\n", text)
	return err
}

// ownPlatform plays against a token-proxy of its own and watches that.
func (o *replayOptions) ownPlatform(ctx context.Context, l *lab.Lab, run *record.Run, stderr io.Writer) error {
	r := l.Find(peers.TokenProxy)
	if err := l.Warm(ctx, r); err != nil {
		return err
	}
	o.play.Target, o.play.Tokens = r.Addr, r.Tokens
	cfg, err := replay.Load(o.play)
	if err != nil {
		return err
	}
	sum := trace.Sum(o.play.Trace)
	run.Settings = append(run.Settings, record.Setting{Name: "requests", Value: fmt.Sprint(sum.Requests)},
		record.Setting{Name: "prompt tokens", Value: fmt.Sprint(sum.Input)}, record.Setting{Name: "answer tokens", Value: fmt.Sprint(sum.Output)})
	cfg.Progress = progress(stderr)
	stop := lab.Watch(ctx, r, o.watch)
	s, err := l.Measure(ctx, r, record.PhaseReplay, cfg)
	points, werr := stop()
	if err != nil {
		return err
	}
	if werr != nil {
		return werr
	}
	run.Samples, run.Series = []record.Sample{s}, points
	return nil
}
