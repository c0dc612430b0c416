package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/bench/controlplane"
	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/platform"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// controlOptions are the flags of control.
type controlOptions struct {
	controlplane.Bench
	atMost  time.Duration
	dir     string
	keep    bool
	results string
}

func (a *app) controlCommand() *cobra.Command {
	var o controlOptions
	cmd := &cobra.Command{
		Use:   "control",
		Short: "Measure the api of the control plane with many customers and usage events",
		Long: `control starts a Postgres and a Redis of its own, fills Postgres with customers, periods
and usage events, as years of service leave them, runs the api, and asks what customers
and operators ask, for different customers and pages each time. It prints how long
answers took, and fails if 99 of 100 answers to any question took longer than --at-most.
What it made is removed. With the defaults that is about 6 GB.`,
		Example: `  openclaw-bench control
  openclaw-bench control --customers 1000 --events 100000 --months 3 --duration 2s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.control(cmd, &o) },
	}
	f := cmd.Flags()
	f.IntVar(&o.Customers, "customers", 100_000, "customers")
	f.IntVar(&o.Events, "events", 10_000_000, "usage events")
	f.IntVar(&o.Months, "months", 24, "over which they are spread")
	f.IntVar(&o.Clients, "clients", 16, "that ask at the same time")
	f.Float64Var(&o.Rate, "rate", 100, "requests per second, of all clients")
	f.DurationVar(&o.Duration, "duration", 10*time.Second, "of each question")
	f.DurationVar(&o.atMost, "at-most", 50*time.Millisecond, "how long 99 of 100 answers may take")
	f.StringVar(&o.dir, "dir", "", "where data and logs are kept meanwhile (default: the system's temporary directory)")
	f.BoolVar(&o.keep, "keep", false, "keep data and logs, and say where they are")
	f.StringVar(&o.results, "results", "bench/results", "directory for results")
	return cmd
}

func (a *app) control(cmd *cobra.Command, o *controlOptions) (err error) {
	if o.Customers < 100 || o.Months < 1 || o.Events < 100*o.Months || o.Clients < 1 || o.Rate <= 0 || o.Rate > controlplane.MaxRate {
		return usageError{errors.New("at least 100 customers, 1 month, 100 events a month, 1 client and a rate up to 1,000 are needed")}
	}
	o.Say = a.say()
	_, bin, err := a.bin()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "openclaw-bench-")
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	defer func() {
		if o.keep {
			o.Say("data and logs are in %s", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err := os.Chmod(dir, 0o711); err != nil { // Postgres runs as another user
		return fmt.Errorf("control: %w", err)
	}
	run := a.newRun(record.KindControl, cmd)
	results, err := o.measure(cmd.Context(), platform.Options{Bin: bin, Dir: dir, Env: a.env()})
	if err != nil {
		return err
	}
	if err := controlplane.Print(cmd.OutOrStdout(), results); err != nil {
		return err
	}
	var slow []error
	for _, r := range results {
		run.Samples = append(run.Samples, sampleOf(r))
		if r.P99 > o.atMost || len(r.Failures) > 0 {
			slow = append(slow, fmt.Errorf("%s: p99 %s, failures %v", r.Question, r.P99, r.Failures))
		}
	}
	run.Seconds = time.Since(run.At).Seconds()
	path, err := run.Save(o.results)
	if err != nil {
		return err
	}
	o.Say("results: %s", path)
	return errors.Join(slow...)
}

func (o *controlOptions) measure(ctx context.Context, platformOptions platform.Options) ([]controlplane.Result, error) {
	p, err := platform.StartControl(ctx, platformOptions)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return o.Run(ctx, p)
}

func sampleOf(r controlplane.Result) record.Sample {
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	s := record.Sample{Peer: "control", Phase: r.Question, Load: load.Result{
		Seconds: r.Seconds, Answers: int64(r.Answers), Bytes: int64(r.MeanBytes) * int64(r.Answers),
		Latency: load.Quantiles{Count: int64(r.Answers), P50: us(r.P50), P99: us(r.P99), Max: us(r.Max)},
	}}
	for what, n := range r.Failures {
		if s.Load.Failures == nil {
			s.Load.Failures = map[string]int64{}
		}
		s.Load.Failures[what] = int64(n)
	}
	return s
}
