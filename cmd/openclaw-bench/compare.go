package main

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/andreabadesso/openclaw-cloud/bench/compare"
	"github.com/andreabadesso/openclaw-cloud/bench/lab"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
	"github.com/andreabadesso/openclaw-cloud/bench/report"
)

// setup is the flags of commands that set up a lab.
type setup struct {
	peers     []string
	customers int
	portkey   string
	workers   int
	apart     bool
	delay     time.Duration
	retries   int
	quiet     float64
	dir       string
	keep      bool
	results   string
}

func (s *setup) flags(f *pflag.FlagSet, names []string) {
	f.StringSliceVar(&s.peers, "peers", names, "proxies to measure")
	f.IntVar(&s.customers, "customers", 4000, "customers of token-proxy, with one token each; each may send 10 requests per second")
	f.StringVar(&s.portkey, "portkey", peers.PortkeyDir, "where scripts/install-deps has put Portkey")
	f.IntVar(&s.workers, "workers", 1, "worker processes of nginx, threads of HAProxy")
	f.BoolVar(&s.apart, "apart", true, "give the proxies the last processor for themselves, and all else the others")
	f.DurationVar(&s.delay, "scheduling-delay", 0, "limits.scheduling_delay of token-proxy; negative: it refuses nothing for want of processors (default: its own)")
	f.IntVar(&s.retries, "retries", 1, "how often a measurement is repeated during which something else used the machine")
	f.Float64Var(&s.quiet, "quiet", 0.4, "processors that something else may use without that")
	f.StringVar(&s.dir, "dir", "", "where data and logs are kept meanwhile (default: the system's temporary directory)")
	f.BoolVar(&s.keep, "keep", false, "keep data and logs, and say where they are")
	f.StringVar(&s.results, "results", "bench/results", "directory for results")
}

func (a *app) lab(s *setup, say func(string, ...any)) (lab.Options, error) {
	self, bin, err := a.bin()
	if err != nil {
		return lab.Options{}, err
	}
	return lab.Options{
		Self: self, Bin: bin, Dir: s.dir, Keep: s.keep, Env: a.env(), Peers: s.peers, Portkey: s.portkey,
		Workers: s.workers, Apart: s.apart, SchedulingDelay: s.delay, Customers: s.customers, Retries: s.retries, Quiet: s.quiet, Say: say,
	}, nil
}

// newRun begins the record of a run: every flag is a setting.
func (a *app) newRun(kind string, cmd *cobra.Command) *record.Run {
	r := &record.Run{
		Kind: kind, At: time.Now().UTC().Truncate(time.Second), Revision: revision(), Machine: record.ThisMachine(),
		Command: "openclaw-bench " + strings.Join(portable(a.args), " "),
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		switch value := f.Value.String(); {
		case local(f.Name) || f.Name == "help" || f.Name == "quick":
		case f.Name == "trace" && value != "":
			r.Settings = append(r.Settings, record.Setting{Name: f.Name, Value: filepath.Base(value)})
		default:
			r.Settings = append(r.Settings, record.Setting{Name: f.Name, Value: value})
		}
	})
	return r
}

// local reports whether a flag is about this machine only, or a secret, and so in no result.
func local(name string) bool {
	switch name {
	case "dir", "keep", "results", "portkey", "token", "tokens-file":
		return true
	}
	return false
}

// portable leaves out local flags. A trace is told from others by its name.
func portable(args []string) []string {
	var kept []string
	for i := 0; i < len(args); i++ {
		name, _, whole := strings.Cut(args[i], "=")
		flag, is := strings.CutPrefix(name, "--")
		switch {
		case is && local(flag):
			if !whole && flag != "keep" {
				i++ // its value
			}
		case name == "--trace":
			kept = append(kept, name)
			if _, value, ok := strings.Cut(args[i], "="); ok {
				kept = append(kept, filepath.Base(value))
			} else if i++; i < len(args) {
				kept = append(kept, filepath.Base(args[i]))
			}
		default:
			kept = append(kept, args[i])
		}
	}
	return kept
}

// save notes what was measured.
func (a *app) save(r *record.Run, l *lab.Lab, s *setup, say func(string, ...any)) error {
	r.Seconds = time.Since(r.At).Seconds()
	r.Missing = l.Missing
	for _, p := range l.Running {
		r.Peers = append(r.Peers, record.Peer{Name: p.Name, Title: p.Title, Version: p.Version, TLS: p.TLS, Gateway: p.Gateway})
	}
	path, err := r.Save(s.results)
	if err == nil {
		say("results: %s", path)
	}
	return err
}

func (a *app) compareCommand() *cobra.Command {
	var s setup
	var c compare.Config
	var quick bool
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Measure proxies side by side",
		Long: `compare starts all proxies at once and measures them in turn, in several rounds: whole
answers with all connections busy, whole answers at half of that rate, and streams. What
counts are ratios to nginx within a round. With --quick it takes less than two minutes
and says less. GOGC, GOMEMLIMIT, GOMAXPROCS and GODEBUG are passed on to what is measured.`,
		Example: `  openclaw-bench compare
  openclaw-bench compare --quick --peers direct,nginx,token-proxy`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if quick {
				set := cmd.Flags().Changed
				for name, value := range map[string]string{
					"rounds": "3", "together": "1", "together-time": "250ms", "events": "400ms", "short-rounds": "1", "half": "500ms", "memory-rounds": "0",
					"peers": "direct,nginx,haproxy,fasthttp,token-proxy",
				} {
					if !set(name) {
						if err := cmd.Flags().Set(name, value); err != nil {
							return err
						}
					}
				}
			}
			c.Say = a.say()
			o, err := a.lab(&s, c.Say)
			if err != nil {
				return err
			}
			r := a.newRun(record.KindCompare, cmd)
			l, err := lab.Start(cmd.Context(), o)
			if err != nil {
				return err
			}
			defer l.Close()
			if r.Samples, err = compare.Run(cmd.Context(), l, c); err != nil {
				return err
			}
			if err := a.save(r, l, &s, c.Say); err != nil {
				return err
			}
			return report.Print(a.stdout, r)
		},
	}
	var names []string
	for _, p := range peers.All() {
		names = append(names, p.Name)
	}
	f := cmd.Flags()
	s.flags(f, names)
	f.BoolVar(&quick, "quick", false, "few and short rounds")
	f.IntVar(&c.Rounds, "rounds", 7, "rounds of all proxies")
	f.IntVar(&c.ShortRounds, "short-rounds", 7, "rounds of AI gateways and of few streams")
	f.IntVar(&c.Passes, "passes", 1, "measurements of each proxy alone in a round")
	f.IntVar(&c.Together, "together", 2, "measurements of token-proxy's streams together with nginx in a round, for their processor time; up to three times as many where it swings, half as many of others")
	f.DurationVar(&c.TogetherTime, "together-time", time.Second, "time of each of them; three times as long when always busy and with few streams, five times of gateways")
	f.IntVar(&c.Connections, "connections", 64, "connections for whole answers")
	f.IntVar(&c.BodyBytes, "body-bytes", 1024, "size of a request's body")
	f.DurationVar(&c.Warmup, "warmup", 200*time.Millisecond, "before each measurement; twice as long at half of the rate")
	f.DurationVar(&c.Requests, "requests", 400*time.Millisecond, "time with all connections busy, in each pass")
	f.DurationVar(&c.Half, "half", time.Second, "time at half of the rate, in each of a quarter of the passes")
	f.Float64Var(&c.HalfRate, "half-rate", 0, "that rate, in requests per second (default: half of what the slower of nginx and token-proxy takes, made round)")
	f.DurationVar(&c.Events, "events", 700*time.Millisecond, "time with streams, in each pass")
	f.IntVar(&c.Streams, "streams", 200, "streams at a time")
	f.DurationVar(&c.Interval, "interval", 10*time.Millisecond, "between two events of a stream")
	f.IntVar(&c.MemoryStreams, "memory-streams", 2000, "open streams for the memory of one")
	f.DurationVar(&c.MemoryTime, "memory-time", 10*time.Second, "for how long they are open, 3 s or more")
	f.IntVar(&c.MemoryRounds, "memory-rounds", 1, "rounds of that; 0 leaves it out")
	f.BoolVar(&c.Anthropic, "anthropic", false, "use the Anthropic face instead of the OpenAI one")
	return cmd
}
