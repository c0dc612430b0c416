package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/bench/compare"
	"github.com/andreabadesso/openclaw-cloud/bench/lab"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/poller"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
	"github.com/andreabadesso/openclaw-cloud/bench/scale"
)

// measure sets up a lab, runs do in it, and saves the samples.
func (a *app) measure(cmd *cobra.Command, kind string, s *setup, say func(string, ...any), do func(context.Context, *lab.Lab, *record.Run) error) error {
	o, err := a.lab(s, say)
	if err != nil {
		return err
	}
	r := a.newRun(kind, cmd)
	l, err := lab.Start(cmd.Context(), o)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := do(cmd.Context(), l, r); err != nil {
		return err
	}
	return a.save(r, l, s, say)
}

func (a *app) streamsCommand() *cobra.Command {
	var s setup
	c := scale.Streams{Say: a.say()}
	cmd := &cobra.Command{
		Use:   "streams",
		Short: "Measure memory and lag with thousands of open streams",
		Long: `streams opens more and more streams at each proxy and measures memory per stream, CPU per
event, and the lag of events. A proxy needs two descriptors per stream: a step that the limit
of open files does not allow is lowered to what it does.`,
		Example: `  openclaw-bench streams --steps 1000,10000 --peers direct,nginx,token-proxy`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			files, err := poller.Raise()
			if err != nil {
				return err
			}
			for i := range c.Steps {
				if most := int(min(files, 1<<20))/2 - 400; c.Steps[i] > most {
					c.Say("%d streams need more than the %d files that a process may have open here: %d instead", c.Steps[i], files, most)
					c.Steps[i] = most
				}
			}
			return a.measure(cmd, record.KindStreams, &s, c.Say, func(ctx context.Context, l *lab.Lab, r *record.Run) error {
				r.Settings = append(r.Settings, record.Setting{Name: "open files", Value: strconv.FormatUint(files, 10)})
				r.Samples, err = c.Run(ctx, l)
				return err
			})
		},
	}
	f := cmd.Flags()
	s.flags(f, []string{"direct", "nginx", "haproxy", "token-proxy"})
	f.IntSliceVar(&c.Steps, "steps", []int{1000, 5000, 10_000}, "streams at a time")
	f.DurationVar(&c.Interval, "interval", time.Second, "between two events of a stream")
	f.DurationVar(&c.Duration, "duration", 12*time.Second, "that is counted, 3 s or more")
	f.IntVar(&c.Body, "body-bytes", 1024, "size of a request's body")
	return cmd
}

func (a *app) overloadCommand() *cobra.Command {
	var s setup
	c := scale.Overload{Say: a.say(), PerCustomer: 10}
	cmd := &cobra.Command{
		Use:   "overload",
		Short: "Measure how token-proxy behaves under more load than it can take",
		Long: `overload finds out how many requests per second a proxy takes, and then offers a part of
that up to twice as many: how many are served, how many refused, and how long do those
wait that are served? The same once more with few customers who send more than they may.`,
		Example: `  openclaw-bench overload --steps 0.5,1,2`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.measure(cmd, record.KindOverload, &s, c.Say, func(ctx context.Context, l *lab.Lab, r *record.Run) (err error) {
				r.Samples, err = c.Run(ctx, l)
				return err
			})
		},
	}
	f := cmd.Flags()
	s.flags(f, []string{"nginx", "token-proxy"})
	f.Float64SliceVar(&c.Steps, "steps", []float64{0.1, 0.5, 0.75, 1, 1.5, 2}, "times the load that it can take")
	f.DurationVar(&c.Duration, "duration", 5*time.Second, "of each step")
	f.IntVar(&c.Connections, "connections", 4000, "at most; requests beyond wait in the generator, and that counts")
	f.IntVar(&c.Customers, "few-customers", 100, "customers that send more than the 10 requests per second that they may")
	f.IntVar(&c.Body, "body-bytes", 1024, "size of a request's body")
	return cmd
}

func (a *app) grantsCommand() *cobra.Command {
	var s setup
	c := scale.Grants{Say: a.say()}
	cmd := &cobra.Command{
		Use:   "grants",
		Short: "Measure the cost of a request with up to a million grants in Redis",
		Long: `grants measures token-proxy alone, and together with nginx for its processor time, with more and more
grants in Redis. Before that it counts what Redis executes at several rates of the same customers.`,
		Example: `  openclaw-bench grants --steps 1,1000,100000`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.peers = []string{compare.Baseline, peers.TokenProxy}; cmd.Flags().Changed("peers") || cmd.Flags().Changed("customers") {
				return usageError{errors.New("grants measures nginx and token-proxy, with --active customers")}
			}
			s.customers = c.Active
			return a.measure(cmd, record.KindGrants, &s, c.Say, func(ctx context.Context, l *lab.Lab, r *record.Run) (err error) {
				r.Samples, err = c.Run(ctx, l)
				return err
			})
		},
	}
	f := cmd.Flags()
	s.flags(f, nil)
	for _, name := range []string{"peers", "customers", "portkey"} { // they are given
		_ = f.MarkHidden(name)
	}
	f.IntSliceVar(&c.Steps, "steps", []int{1, 1000, 100_000, 1_000_000}, "grants, ascending")
	f.IntVar(&c.Active, "active", 1000, "customers that send requests, at most")
	f.Float64SliceVar(&c.Rates, "redis-rates", []float64{1000, 3000, 6000, 10_000}, "requests per second at which Redis' commands are counted, 18 s after they began")
	f.IntVar(&c.Few, "redis-customers", 100, "customers that send those")
	f.IntVar(&c.Rounds, "rounds", 7, "rounds at each step, with one measurement of token-proxy alone and three with nginx in each")
	f.DurationVar(&c.Duration, "duration", time.Second, "of each measurement; ten times as long for Redis' commands")
	f.IntVar(&c.Body, "body-bytes", 1024, "size of a request's body")
	return cmd
}

func (a *app) syscallsCommand() *cobra.Command {
	var s setup
	c := scale.Syscalls{Say: a.say()}
	cmd := &cobra.Command{
		Use:   "syscalls",
		Short: "Count system calls per request and per event, with strace",
		Long: `syscalls attaches strace to each proxy under a small load and counts its system calls. What a
proxy does on its own (timers, its talk with Redis) is in them.`,
		Example: `  openclaw-bench syscalls --peers nginx,token-proxy`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.measure(cmd, record.KindSyscalls, &s, c.Say, func(ctx context.Context, l *lab.Lab, r *record.Run) (err error) {
				r.Samples, err = c.Run(ctx, l)
				return err
			})
		},
	}
	f := cmd.Flags()
	s.flags(f, []string{"nginx", "haproxy", "fasthttp", "token-proxy"})
	// strace works beside the proxy: with one processor between them both would wait.
	s.apart = false
	f.Lookup("apart").DefValue = "false"
	f.Float64Var(&c.Rate, "rate", 200, "requests per second")
	f.IntVar(&c.Streams, "streams", 20, "streams at a time")
	f.DurationVar(&c.Interval, "interval", 20*time.Millisecond, "between two events of a stream")
	f.DurationVar(&c.Duration, "duration", 5*time.Second, "of each count")
	f.IntVar(&c.Body, "body-bytes", 1024, "size of a request's body")
	return cmd
}
