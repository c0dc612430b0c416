// Command stripesim runs the simulated Stripe of internal/stripesim on its own, for people.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/andreabadesso/openclaw-cloud/internal/simulator"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

const usage = `stripesim - a simulated Stripe on loopback, with pages on which people pay with no money

Usage:
  stripesim [flags]

Its API is Stripe's of version ` + stripesim.APIVersion + `, as far as openclaw-cloud asks for it, with the
secret key ` + stripesim.Key + `:
  stripesim -addr 127.0.0.1:9101 -state stripesim.journal &
  STRIPE_URL=http://127.0.0.1:9101 STRIPE_SECRET_KEY=` + stripesim.Key + ` openclawctl billing bootstrap \
    --webhook-url http://127.0.0.1:8000/v1/webhooks/stripe
Events go, signed, to the webhook endpoints that are on this machine. Its clock is the real one.

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
	addr, publicURL, state string
	version                bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("stripesim", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.addr, "addr", "127.0.0.1:9101", "listening `address`, on loopback; port 0 takes a free one")
	fs.StringVar(&o.publicURL, "public-url", "", "`URL` by which browsers reach it, in which its pages are (default: by -addr)")
	fs.StringVar(&o.state, "state", "", "`file` that keeps what happens; without it all is forgotten at the end")
	fs.BoolVar(&o.version, "version", false, "print the version")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, simulator.ErrUsage
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "stripesim takes no arguments, only flags: %q (see stripesim -h)\n", fs.Args())
		return o, simulator.ErrUsage
	}
	if err := simulator.CheckAddress(o.addr); err != nil {
		fmt.Fprintf(stderr, "-addr: %v\n", err)
		return o, simulator.ErrUsage
	}
	return o, nil
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.version {
		fmt.Fprintln(stdout, "stripesim", simulator.Version())
		return nil
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return fmt.Errorf("stripesim: %w", err)
	}
	url := o.publicURL
	if url == "" {
		url = "http://" + listener.Addr().String()
	}
	sim, err := stripesim.Open(stripesim.Options{URL: url, State: o.state, Logger: slog.New(slog.NewTextHandler(stderr, nil))})
	if err != nil {
		listener.Close()
		return err
	}
	defer sim.Close()
	fmt.Fprintf(stdout, "stripesim listening on %s (no money moves; key %s)\n", url, stripesim.Key)
	return simulator.Serve(ctx, "stripesim", listener, sim.Handler(), nil)
}
