package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/bench/lab"
	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// profileOptions are the flags of profile.
type profileOptions struct {
	setup
	out      string
	streams  int
	requests int
	body     int
	interval time.Duration
	duration time.Duration
	tls      bool
}

func (a *app) profileCommand() *cobra.Command {
	var o profileOptions
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Take a CPU profile of token-proxy under load, also for profile-guided optimization",
		Long: `profile runs token-proxy with all that belongs to it under whole answers and streams at the
same time, and writes a CPU profile of it that "go tool pprof" reads, and "go build" as
cmd/token-proxy/default.pgo.`,
		Example: `  openclaw-bench profile --out cpu.pprof && go tool pprof -top bin/token-proxy cpu.pprof
  openclaw-bench profile --streams 0
  openclaw-bench profile --out cmd/token-proxy/default.pgo`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.profile(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.out, "out", "cpu.pprof", "file to write")
	f.IntVar(&o.streams, "streams", 200, "streams at a time; 0 for whole answers only")
	f.IntVar(&o.requests, "requests", 16, "connections that ask for whole answers; 0 for streams only")
	f.IntVar(&o.body, "body-bytes", 1024, "size of a request's body")
	f.DurationVar(&o.interval, "interval", 10*time.Millisecond, "between two events of a stream")
	f.DurationVar(&o.duration, "duration", 20*time.Second, "of the profile")
	f.BoolVar(&o.tls, "tls", false, "with a TLS upstream")
	f.IntVar(&o.customers, "customers", 4000, "customers, with one token each")
	f.StringVar(&o.dir, "dir", "", "where data and logs are kept meanwhile (default: the system's temporary directory)")
	f.BoolVar(&o.keep, "keep", false, "keep data and logs, and say where they are")
	return cmd
}

func (a *app) profile(ctx context.Context, o *profileOptions) error {
	if o.streams <= 0 && o.requests <= 0 {
		return usageError{errors.New("--streams and --requests are both 0: there is no load")}
	}
	o.peers = []string{"token-proxy"}
	if o.tls {
		o.peers = []string{"token-proxy-tls"}
	}
	say := a.say()
	options, err := a.lab(&o.setup, say)
	if err != nil {
		return err
	}
	l, err := lab.Start(ctx, options)
	if err != nil {
		return err
	}
	defer l.Close()
	r := l.Running[0]
	if err := l.Warm(ctx, r); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var loads []load.Config
	if o.streams > 0 {
		perSecond := float64(time.Second) / float64(o.interval)
		loads = append(loads, load.Config{Connections: o.streams, Ramp: time.Second, Jobs: lab.Jobs(r, load.Shape{
			Stream: true, Stamp: true, BodyBytes: o.body, TokensPerSecond: perSecond, OutputTokens: max(2, int(perSecond*5)),
		})})
	}
	if o.requests > 0 {
		loads = append(loads, load.Config{Connections: o.requests, Jobs: lab.Jobs(r, load.Shape{BodyBytes: o.body, OutputTokens: 16})})
	}
	done := make(chan error, len(loads))
	for _, cfg := range loads {
		cfg.Closed, cfg.Warmup, cfg.Duration = true, 2*time.Second, o.duration+time.Second
		go func() {
			s, err := l.Measure(ctx, r, record.PhaseRequests, cfg)
			if err == nil {
				say("%d answers, %d events; failures %v", s.Load.Answers, s.Load.Events, s.Load.Failures)
			}
			done <- err
		}()
	}
	text, err := cpuProfile(ctx, "http://"+r.Admin+"/debug/pprof/profile", o.duration)
	if err != nil {
		cancel()
	}
	for range loads {
		if lerr := <-done; err == nil {
			err = lerr
		}
	}
	if err != nil {
		return err
	}
	if err := os.WriteFile(o.out, text, 0o644); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	say("the profile is in %s", o.out)
	return nil
}

// cpuProfile asks a program for a profile of the next while, beginning when it is warm.
func cpuProfile(ctx context.Context, url string, length time.Duration) ([]byte, error) {
	t := time.NewTimer(2 * time.Second)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s?seconds=%.0f", url, max(1, length.Seconds())), nil)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300s", resp.Status, text)
	}
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	return text, nil
}
