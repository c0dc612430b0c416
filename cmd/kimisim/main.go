// Command kimisim runs the Kimi simulator of internal/kimi/kimisim on its own.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/simulator"
)

const usage = `kimisim - a Kimi simulator on a real socket, both wire formats

Usage:
  kimisim [flags]

Try it:
  kimisim -addr 127.0.0.1:9400 &
  curl -sN http://127.0.0.1:9400/v1/chat/completions -H 'Authorization: Bearer sk-fake' \
    -d '{"model":"kimi-k2.5","stream":true,"messages":[{"role":"user","content":"hello"}]}'
  curl -s  http://127.0.0.1:9400/sim/ledger           # every token it put on the wire

Break one request (header, or [[sim:{...}]] in the last user message):
  curl -sN ... -H 'X-Sim: {"cut_mid_event":3}'
  curl -sN ... -H 'X-Sim: {"error":"429 RPM","retry_after":"7s"}'
Break the next two requests, or all of them:
  curl -s  http://127.0.0.1:9400/sim/script   -d '[{"stall_after_events":2},{"reset":true}]'
  curl -sX PUT http://127.0.0.1:9400/sim/behavior -d '{"ttft":"300ms","tokens_per_second":40}'

Paths: /v1, /coding/v1 (OpenAI and Anthropic face), /anthropic/v1. The folder's README
lists every behaviour and the tokenizer.

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	os.Exit(simulator.ExitCode(err, os.Stderr))
}

// options are the flags.
type options struct {
	cfg        kimisim.Config
	cert, key  string
	selfSigned string
	drain      time.Duration
	version    bool
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.version {
		fmt.Fprintln(stdout, "kimisim", simulator.Version())
		return nil
	}
	ca := ""
	switch {
	case o.selfSigned != "":
		conf, pem, err := kimisim.SelfSigned()
		if err != nil {
			return err
		}
		ca = filepath.Join(o.selfSigned, "kimisim-ca.pem")
		if err := os.MkdirAll(o.selfSigned, 0o755); err != nil {
			return fmt.Errorf("kimisim: folder for the CA file: %w", err)
		}
		if err := os.WriteFile(ca, pem, 0o644); err != nil {
			return fmt.Errorf("kimisim: CA file: %w", err)
		}
		o.cfg.TLS = conf
	case o.cert != "" || o.key != "":
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return fmt.Errorf("kimisim: -tls-cert and -tls-key: %w", err)
		}
		o.cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	}
	sim, err := kimisim.New(o.cfg)
	if err != nil {
		return err
	}
	line := fmt.Sprintf("kimisim listening on %s (OpenAI %s, Anthropic %s, ledger %s/sim/ledger)", sim.URL(), sim.OpenAIBase(), sim.AnthropicBase(), sim.URL())
	if ca != "" {
		line += " CA " + ca
	}
	fmt.Fprintln(stdout, line)
	<-ctx.Done()
	stopping, cancel := context.WithTimeout(context.Background(), o.drain)
	defer cancel()
	if err := sim.Shutdown(stopping); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{cfg: kimisim.Config{KeyLimits: map[string]kimisim.KeyLimit{}}}
	b := &o.cfg.Defaults
	fs := flag.NewFlagSet("kimisim", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.cfg.Addr, "addr", "127.0.0.1:9400", "listening `address`; port 0 takes a free one")
	list(fs, "keys", "accepted API `keys`, comma separated (default: any)", func(v string) error {
		o.cfg.Keys = append(o.cfg.Keys, v)
		return nil
	})
	list(fs, "models", "served model `ids`, comma separated (default: Kimi's)", func(v string) error {
		o.cfg.Models = append(o.cfg.Models, kimisim.Model{ID: v, ImageIn: true, VideoIn: true, Reasoning: true})
		return nil
	})
	list(fs, "limit", "limits of one key as `key=RPM/CONCURRENCY`, 0 for none, comma separated", func(v string) error {
		key, limit, err := parseLimit(v)
		o.cfg.KeyLimits[key] = limit
		return err
	})
	fs.Func("behavior", "default behaviour as `JSON`; the flags below are short for parts of it", func(v string) error {
		return json.Unmarshal([]byte(v), b)
	})
	fs.DurationVar(&b.TTFT, "ttft", 0, "time to the first event")
	fs.Float64Var(&b.TokensPerSecond, "tps", 0, "tokens per second (0: as fast as possible)")
	fs.IntVar(&b.TokensPerChunk, "tokens-per-chunk", 1, "tokens in one event")
	fs.IntVar(&b.OutputTokens, "output-tokens", 0, "length of an answer (0: 16 to 143, by the prompt)")
	fs.IntVar(&b.CachedTokens, "cached-tokens", 0, "cached part of a prompt (-1: about all of it)")
	fs.IntVar(&b.ReasoningTokens, "reasoning-tokens", 0, "reasoning before the text")
	fs.Float64Var(&o.cfg.TokenizerRatio, "ratio", 4, "prompt bytes per token, 1 or more")
	fs.IntVar(&o.cfg.TemplateTokensPerMessage, "template-tokens", 3, "prompt tokens added per message (-1: none)")
	fs.IntVar(&o.cfg.MaxLedger, "max-ledger", 50000, "ledger entries kept; totals are kept for ever")
	fs.BoolVar(&o.cfg.KeepBodies, "keep-bodies", false, "keep request bodies in the ledger")
	fs.BoolVar(&o.cfg.RequireUserAgent, "require-user-agent", false, "turn on the User-Agent gate of /coding")
	fs.StringVar(&o.cert, "tls-cert", "", "serve HTTPS with this certificate `file`")
	fs.StringVar(&o.key, "tls-key", "", "and this key `file`")
	fs.StringVar(&o.selfSigned, "tls-self-signed", "", "serve HTTPS with a fresh certificate; its CA goes to kimisim-ca.pem in this `folder`")
	fs.DurationVar(&o.drain, "drain", 5*time.Second, "how long answers in flight may take after SIGTERM")
	fs.BoolVar(&o.version, "version", false, "print the version")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, simulator.ErrUsage
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "kimisim takes no arguments, only flags: %q (see kimisim -h)\n", fs.Args())
		return nil, simulator.ErrUsage
	}
	return o, nil
}

// list adds a flag that takes comma separated values and may be repeated.
func list(fs *flag.FlagSet, name, help string, add func(string) error) {
	fs.Func(name, help, func(v string) error {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			if err := add(part); err != nil {
				return err
			}
		}
		return nil
	})
}

func parseLimit(v string) (string, kimisim.KeyLimit, error) {
	key, rest, ok := strings.Cut(v, "=")
	rpm, conc, ok2 := strings.Cut(rest, "/")
	r, err1 := strconv.Atoi(rpm)
	c, err2 := strconv.Atoi(conc)
	if !ok || !ok2 || err1 != nil || err2 != nil {
		return "", kimisim.KeyLimit{}, fmt.Errorf("%q is not KEY=RPM/CONCURRENCY, such as sk-fake-1=60/4", v)
	}
	return key, kimisim.KeyLimit{RPM: r, Concurrency: c}, nil
}
