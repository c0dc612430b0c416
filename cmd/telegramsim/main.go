// Command telegramsim runs the simulated Telegram of internal/telegramsim on its own, for people.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/andreabadesso/openclaw-cloud/internal/simulator"
	"github.com/andreabadesso/openclaw-cloud/internal/telegramsim"
)

const usage = `telegramsim - a simulated Telegram on loopback, with pages on which people write to bots

Usage:
  telegramsim [flags]

It stands in for https://api.telegram.org, and its pages for https://t.me:
  telegramsim -addr 127.0.0.1:9102 -state telegramsim.json &
  curl -s http://127.0.0.1:9102/sim/bots -d '{"username":"try_bot"}'          # its token
  curl -s http://127.0.0.1:9102/sim/bots/try_bot/messages \
    -d '{"user":{"id":11,"name":"Ana","language":"pt-br"},"text":"hello"}'    # a person writes
  curl -s http://127.0.0.1:9102/sim/bots/try_bot/chats/11                     # what there is
  curl -s http://127.0.0.1:9102/bot$TOKEN/getUpdates                          # what the bot hears
In a browser: http://127.0.0.1:9102/ makes bots, and http://127.0.0.1:9102/try_bot?start=… is a chat.

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
	addr, publicURL, state, bot, tokenFile string
	version                                bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("telegramsim", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.addr, "addr", "127.0.0.1:9102", "listening `address`, on loopback; port 0 takes a free one")
	fs.StringVar(&o.publicURL, "public-url", "", "`URL` by which browsers reach it (default: by -addr)")
	fs.StringVar(&o.state, "state", "", "`file` that keeps the bots; without it they are forgotten at the end")
	fs.StringVar(&o.bot, "bot", "", "`username` of a bot that there is from the beginning")
	fs.StringVar(&o.tokenFile, "bot-token-file", "", "`file` into which its token is written")
	fs.BoolVar(&o.version, "version", false, "print the version")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, simulator.ErrUsage
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "telegramsim takes no arguments, only flags: %q (see telegramsim -h)\n", fs.Args())
		return o, simulator.ErrUsage
	}
	if (o.bot == "") != (o.tokenFile == "") {
		fmt.Fprintln(stderr, "-bot and -bot-token-file go together")
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
		fmt.Fprintln(stdout, "telegramsim", simulator.Version())
		return nil
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return fmt.Errorf("telegramsim: %w", err)
	}
	defer listener.Close()
	url := o.publicURL
	if url == "" {
		url = "http://" + listener.Addr().String()
	}
	sim, err := telegramsim.Open(telegramsim.Options{URL: url, State: o.state})
	if err != nil {
		return err
	}
	defer sim.Close()
	if o.bot != "" {
		if err := firstBot(sim, o.bot, o.tokenFile); err != nil {
			return fmt.Errorf("telegramsim: bot %s: %w", o.bot, err)
		}
	}
	fmt.Fprintf(stdout, "telegramsim listening on %s (bots are made there)\n", url)
	// Polls and open pages would keep it from ending.
	return simulator.Serve(ctx, "telegramsim", listener, sim.Handler(), sim.Close)
}

// firstBot makes a bot unless there is one, and writes its token into a file.
func firstBot(sim *telegramsim.Server, username, file string) error {
	b := sim.Bot(username)
	if b == nil {
		var err error
		if b, err = sim.Register(username); err != nil {
			return err
		}
	}
	return telegramsim.WritePrivate(file, b.Token()+"\n")
}
