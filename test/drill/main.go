// Command drill runs the whole system under load, hurts it in every way that it promises
// to bear, and then compares what the simulated upstream, Redis and Postgres say that
// was used. It exits with 1, and keeps logs and books, when a promise was broken.
//
// Everything that happens follows from a seed: how the simulated upstream counts tokens
// (which the proxies cannot know), the faults with their times and targets, and the
// requests. DRILL_SEED plays the same again, as far as the operating system allows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

func main() {
	o, err := parse(os.Args[1:], os.Getenv)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "drill:", err)
		os.Exit(2)
	}
	redis.SetLogger(silent{}) // the drill's own clients meet a dead Redis all the time
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, o))
}

// silent is a logger of go-redis.
type silent struct{}

// Printf does nothing.
func (silent) Printf(context.Context, string, ...any) {}

// options are what a run can be told.
type options struct {
	seconds int
	seed    uint64
	proxies int
	workers int
	streams int
	rate    int
	clients int
	small   int
	settle  time.Duration
	cluster bool
	race    bool
	keep    bool
	dryRun  bool
}

func parse(args []string, getenv func(string) string) (o options, err error) {
	fs := flag.NewFlagSet("drill", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), "drill runs the whole system under load and faults and compares all books in the end.\n\nUsage: drill [flags]\n\n")
		fs.PrintDefaults()
	}
	fs.IntVar(&o.seconds, "seconds", 120, "how long the load and the faults last, 30 or more [$DRILL_SECONDS]")
	fs.Uint64Var(&o.seed, "seed", 0, "seed of everything that is drawn; 0 draws one [$DRILL_SEED]")
	fs.IntVar(&o.proxies, "proxies", 3, "token-proxies")
	fs.IntVar(&o.workers, "workers", 2, "billing-workers")
	fs.IntVar(&o.streams, "streams", 210, "long streams to keep open, over all proxies")
	fs.IntVar(&o.rate, "rate", 50, "short requests per second")
	fs.IntVar(&o.clients, "customers", 40, "customers")
	fs.IntVar(&o.small, "small", 12, "customers among them whose limit is reached or nearly so")
	fs.DurationVar(&o.settle, "settle", 2*time.Minute, "how long each thing that has to happen by itself after the faults may take")
	fs.BoolVar(&o.cluster, "cluster", false, "use a Redis Cluster of three masters [$DRILL_CLUSTER=1]")
	fs.BoolVar(&o.race, "race", false, "build the programs with the race detector")
	fs.BoolVar(&o.keep, "keep", false, "keep logs and data also when all is well")
	fs.BoolVar(&o.dryRun, "n", false, "only print the plan of faults")
	for name, set := range map[string]func(string) error{
		"DRILL_SECONDS": func(v string) (err error) { o.seconds, err = strconv.Atoi(v); return err },
		"DRILL_SEED":    func(v string) (err error) { o.seed, err = strconv.ParseUint(v, 10, 64); return err },
		"DRILL_CLUSTER": func(v string) (err error) { o.cluster, err = strconv.ParseBool(v); return err },
	} {
		if v := getenv(name); v != "" {
			if err := set(v); err != nil {
				return o, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	switch {
	case fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.seconds < 30:
		err = fmt.Errorf("%d seconds are too few: 30 or more", o.seconds)
	case o.proxies < 1 || o.workers < 1 || o.streams < 1 || o.rate < 1 || o.clients <= o.small || o.small < 1:
		err = errors.New("there must be at least one of everything, and more customers than small ones")
	}
	if o.seed == 0 {
		o.seed = 1 + rand.Uint64N(1_000_000_000)
	}
	return o, err
}

// run is one drill. It returns the exit code.
func run(ctx context.Context, o options) int {
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Printf("%s %7.1fs  %s\n", time.Now().Format(clock), time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	dir, err := os.MkdirTemp("", "openclaw-drill-")
	if err == nil {
		err = os.Chmod(dir, 0o711) // Postgres may run as another user, who has to pass
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "drill:", err)
		return 1
	}
	fmt.Printf("seed %d (DRILL_SEED=%d plays the same again), %d s, files in %s\n", o.seed, o.seed, o.seconds, dir)
	d := &drill{options: o, say: say, sys: &system{dir: dir, bin: filepath.Join(dir, "bin")}}
	broken, err := d.run(ctx)
	d.sys.stop()
	switch {
	case err == nil && !broken && !o.keep:
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "drill:", err)
		}
		if !o.dryRun {
			fmt.Printf("\nAll promises were kept (seed %d).\n", o.seed)
		}
		return 0
	case ctx.Err() != nil:
		_ = os.RemoveAll(dir)
		fmt.Fprintln(os.Stderr, "drill: interrupted; everything is stopped and removed")
		return 130
	case err != nil:
		fmt.Fprintln(os.Stderr, "drill:", err)
	}
	fmt.Printf("\nseed %d; logs, plan and violations are in %s\n", o.seed, dir)
	if broken || err != nil {
		return 1
	}
	return 0
}

// drill is one run.
type drill struct {
	options
	say func(format string, args ...any)
	sys *system
}

// moduleRoot returns where the source of the system is: above the working directory.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/andreabadesso/openclaw-cloud").Output()
	if err != nil {
		return "", fmt.Errorf("where is the source? run this in the checkout: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// run reports whether a promise was broken.
func (d *drill) run(ctx context.Context) (broken bool, err error) {
	root, err := moduleRoot()
	if err != nil {
		return false, err
	}
	during := time.Duration(d.seconds) * time.Second
	plan, err := d.plan(root, during)
	if err != nil {
		return false, err
	}
	if d.dryRun {
		for _, f := range plan {
			fmt.Println(f)
		}
		return false, nil
	}
	if err := writeLines(filepath.Join(d.sys.dir, "plan.txt"), plan); err != nil {
		return false, err
	}
	rng := rand.New(rand.NewPCG(d.seed, 0x51))
	sim := kimisim.Config{
		TokenizerRatio: 1 + 5*rng.Float64(), TemplateTokensPerMessage: 1 + rng.IntN(8), MaxLedger: 1 << 24,
	}
	d.say("%d faults planned; building the programs", len(plan))
	if err := build(ctx, root, d.sys.bin, d.race); err != nil {
		return false, err
	}
	d.say("starting Redis, Postgres, the simulator (%.2f bytes a token), %d billing-workers and %d token-proxies", sim.TokenizerRatio, d.workers, d.proxies)
	if err := newSystem(ctx, d.sys, size{proxies: d.proxies, workers: d.workers, cluster: d.cluster, sim: sim}); err != nil {
		return false, err
	}
	customers, limits, err := d.sys.newCustomers(ctx, d.clients, d.small, during, rng)
	if err != nil {
		return false, err
	}
	return d.under(ctx, customers, limits, plan, during)
}

func (d *drill) plan(root string, during time.Duration) ([]fault, error) {
	where := layout{proxies: d.proxies, workers: d.workers, nodes: 1, limited: d.small, customers: d.clients}
	for i := range d.proxies {
		where.links = append(where.links, fmt.Sprintf("proxy %d to kimi", i))
	}
	for i := range d.workers {
		where.links = append(where.links, fmt.Sprintf("worker %d to postgres", i))
	}
	if d.cluster {
		where.nodes = clusterNodes
		for i := range clusterNodes {
			where.links = append(where.links, fmt.Sprintf("everybody to redis %d", i))
		}
	} else {
		for i := range d.proxies {
			where.links = append(where.links, fmt.Sprintf("proxy %d to redis", i))
		}
		for i := range d.workers {
			where.links = append(where.links, fmt.Sprintf("worker %d to redis", i))
		}
	}
	var err error
	if where.proxyPoints, where.workerPoints, err = findPoints(root); err != nil {
		return nil, err
	}
	return makePlan(d.seed, during, where), nil
}

// under loads the running system, plays the plan, and judges.
func (d *drill) under(ctx context.Context, customers []*customer, limits []int64, plan []fault, during time.Duration) (broken bool, err error) {
	var urls []string
	for _, p := range d.sys.proxies {
		urls = append(urls, p.url)
	}
	l := newLoad(d.seed, customers, urls, d.streams, d.rate)
	defer l.close()
	d.sys.sim.Script(l.answer)
	w, err := newWatcher(ctx, d.sys, l, limits)
	if err != nil {
		return false, err
	}
	in := newInjector(d.sys, l, w, d.seed, d.say)

	d.say("load and faults for %v: %d long streams, %d requests/s, %d customers", during, d.streams, d.rate, len(customers))
	watching, stopWatching := context.WithCancel(context.Background())
	watched := make(chan struct{})
	go func() { w.run(watching); close(watched) }()
	defer func() { stopWatching(); <-watched }()

	timed, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	loaded, played := make(chan struct{}), make(chan struct{})
	go func() { l.run(timed); close(loaded) }()
	go func() { in.play(timed, plan); close(played) }()
	d.progress(timed, l, in)
	<-played
	if ctx.Err() != nil {
		l.hangUp()
		<-loaded
		return false, ctx.Err()
	}

	d.say("no more faults; everything runs again, what is in flight may end")
	if err := d.sys.mend(); err != nil {
		return false, err
	}
	select {
	case <-loaded:
	case <-time.After(30 * time.Second):
		d.say("%d requests have not ended; their clients hang up", attemptsLeft(l))
		l.hangUp()
		<-loaded
	}
	longest, until := l.longestGap()
	e := &ending{sys: d.sys, load: l, watch: w, within: d.settle}
	d.say("waiting until all is settled")
	e.settle(ctx)
	stopWatching()
	<-watched
	e.agree(ctx, false) // proxies that run may keep some for what comes next
	d.say("one last request of everybody who has tokens left")
	unserved := make([]string, len(customers))
	e.serveLast(ctx, unserved)
	e.settle(ctx)
	in.crashes = append(in.crashes, e.stopProxies()...)
	in.crashes = append(in.crashes, d.sys.confessions()...)
	e.agree(ctx, true)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	f, err := e.collect(ctx, unserved)
	if err != nil {
		return false, err
	}
	f.crashes, f.lost, f.weak = in.crashes, in.lost, in.weak(during)
	v := judge(f)
	d.say("answers: %s", l.statusLine(false))
	d.say("the longest time in which no answer began: %.1f s, until %s", longest.Seconds(), until.Format(clock))
	show(os.Stdout, f, v, in, w.samples.Load())
	return len(v.violations) > 0, writeLines(filepath.Join(d.sys.dir, "violations.txt"), v.sorted())
}

// progress says every few seconds how it goes, until ctx ends.
func (d *drill) progress(ctx context.Context, l *load, in *injector) {
	for {
		if pause(ctx, 5*time.Second); ctx.Err() != nil {
			return
		}
		_, open := l.openStreams(-1)
		in.mu.Lock()
		kills, faults := len(in.kills), sumOf(in.counts)
		in.mu.Unlock()
		d.say("%d requests, %d streams open, %d faults, %d kills; %s", len(l.all()), open, faults, kills, l.statusLine(true))
	}
}

// writeLines writes one thing a line.
func writeLines[T any](path string, list []T) error {
	var b strings.Builder
	for _, x := range list {
		fmt.Fprintln(&b, x)
	}
	return os.WriteFile(path, []byte(b.String()), 0o600)
}
