// Command token-proxy is the data plane of openclaw-cloud: see package proxy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
	"github.com/andreabadesso/openclaw-cloud/proxy"
	"github.com/andreabadesso/openclaw-cloud/proxy/announce"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
	"github.com/andreabadesso/openclaw-cloud/proxy/journal"
	"github.com/andreabadesso/openclaw-cloud/proxy/meter"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

func main() {
	path := flag.String("config", "/etc/openclaw/token-proxy.json", "configuration file (JSON; fields and defaults: proxy.Config)")
	check := flag.Bool("check-config", false, "read the configuration, say what is wrong with it, and exit")
	version := flag.Bool("version", false, "print the version and exit")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "token-proxy authenticates, limits, forwards and meters LLM requests.\n\nUsage: token-proxy -config FILE\n\n")
		flag.PrintDefaults()
		fmt.Fprintf(flag.CommandLine.Output(), "\nA secret in the file may be written as \"file:PATH\" or \"env:NAME\".\n")
	}
	flag.Parse()
	faultpoint.Watch(os.Getenv)
	if *version {
		fmt.Println(buildVersion())
		return
	}
	cfg, pepper, err := load(*path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "token-proxy:", err)
		os.Exit(2)
	}
	if *check {
		fmt.Println("configuration is valid")
		return
	}
	lines := newLogWriter(os.Stdout)
	err = run(cfg, pepper, lines)
	lines.flush(time.Second)
	if err != nil {
		fmt.Fprintln(os.Stderr, "token-proxy:", err)
		os.Exit(1)
	}
}

func buildVersion() string {
	if bi, ok := debug.ReadBuildInfo(); ok {
		return bi.Main.Version + " " + bi.GoVersion
	}
	return "unknown"
}

func load(path string) (proxy.Config, []byte, error) {
	cfg, err := proxy.LoadConfig(path, secret)
	if err != nil {
		return cfg, nil, err
	}
	pool, err := upstream.NewPool(cfg.Upstreams, upstream.Options{}) // reads what the configuration names
	if err != nil {
		return cfg, nil, fmt.Errorf("configuration %s:\n%w", path, err)
	}
	pool.Close()
	pepper, err := os.ReadFile(cfg.TokenPepperFile)
	if err != nil {
		return cfg, nil, fmt.Errorf("read token_pepper_file: %w", err)
	}
	pepper = []byte(strings.TrimSpace(string(pepper)))
	if _, err := contract.NewHasher(pepper); err != nil {
		return cfg, nil, fmt.Errorf("token_pepper_file: %w", err)
	}
	return cfg, pepper, nil
}

// secret resolves "file:PATH" and "env:NAME".
func secret(v string) (string, error) {
	if p, ok := strings.CutPrefix(v, "file:"); ok {
		b, err := os.ReadFile(p)
		if err != nil {
			return "", fmt.Errorf("read secret: %w", err)
		}
		return strings.TrimSpace(string(b)), nil
	}
	if name, ok := strings.CutPrefix(v, "env:"); ok {
		s := os.Getenv(name)
		if s == "" {
			return "", fmt.Errorf("read secret: environment variable %s is not set", name)
		}
		return s, nil
	}
	return v, nil
}

func newLogger(level string, out io.Writer) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // validated with the configuration
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: l}))
}

func run(cfg proxy.Config, pepper []byte, lines io.Writer) error {
	log := newLogger(cfg.LogLevel, lines).With("service", proxy.ServiceName)
	var access io.Writer
	if log.Enabled(context.Background(), slog.LevelInfo) {
		access = lines
	}
	j, err := journal.Open(cfg.JournalDir, journal.Options{Slots: cfg.Limits.JournalSlots, LogBytes: cfg.Limits.JournalBytes, Logger: log})
	if err != nil {
		return fmt.Errorf("journal_dir %s: %w", cfg.JournalDir, err)
	}
	defer j.Close()
	replica := j.Replica()
	log = log.With("replica", replica)
	if n := len(j.Recovered()); n > 0 {
		log.Warn("the last run ended in the middle: its open requests are billed as far as they came", "requests", n)
	}
	timeout := time.Duration(cfg.Timeouts.Redis)

	target, err := redisclient.Parse(cfg.RedisURL.Reveal())
	if err != nil {
		return fmt.Errorf("redis_url: %w", err)
	}
	redis.SetLogger(quietRedis{log})
	// Each caller has its own policy of repeating.
	ropts := redisclient.Options{Timeout: timeout, MaxRetries: -1, DialerRetries: 1}
	rdb := target.Open(ropts)
	defer rdb.Close()
	guard := quota.NewGuard(rdb)
	guarded := guardedClient(target, ropts, guard)
	defer guarded.Close()
	reg := prometheus.NewRegistry()
	redisKeeps, err := newDurability(rdb, cfg.AllowUnsafe, reg, log)
	if err != nil {
		return err
	}

	hasher, err := contract.NewHasher(pepper)
	if err != nil {
		return err
	}
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := proxy.NewMetrics(reg)

	pool, err := upstream.NewPool(cfg.Upstreams, upstream.Options{Logger: log, Observe: metrics.Observe()})
	if err != nil {
		return err
	}
	defer pool.Close()
	cache, err := grants.New(rdb, grants.Options{
		MaxEntries: cfg.Limits.CachedTokens, Grace: time.Duration(cfg.Timeouts.Grace), ReadTimeout: timeout, Logger: log, Replica: replica,
	})
	if err != nil {
		return err
	}
	leases := quota.NewLeases(rdb, guarded, j, quota.Options{Timeout: timeout, Grace: time.Duration(cfg.Timeouts.Grace), Logger: log, Guard: guard})
	rates := quota.NewRates(rdb, quota.RateOptions{Replica: replica, Logger: log})
	events := meter.New(rdb, j, leases, meter.Options{Timeout: max(timeout, time.Second), Logger: log})

	srv, err := proxy.New(cfg, proxy.Deps{
		Grants: cache, Ledger: leases, Rates: rates, Journal: j, Meter: events, Pool: pool,
		Hasher: hasher, Metrics: metrics, Logger: log, AccessLog: access,
	})
	if err != nil {
		return err
	}
	if err := srv.Listen(); err != nil {
		return err
	}
	adminLn, err := net.Listen("tcp", cfg.Admin)
	if err != nil {
		return fmt.Errorf("listen for admin: %w", err)
	}
	admin := &http.Server{Handler: redisKeeps.gate(srv.Admin(reg)), ReadHeaderTimeout: 10 * time.Second}

	life, stop := context.WithCancel(context.Background())
	defer stop()
	failed := make(chan error, 4)
	background := func(name string, f func() error) {
		go func() {
			if err := f(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		}()
	}
	background("check of Redis", func() error { return redisKeeps.run(life) })
	background("watch of the limit", func() error { watchLimit(life, leases, log); return nil })
	background("grants feed", func() error { return cache.Run(life) })
	background("admin listener", func() error { return admin.Serve(adminLn) })
	background("public listener", srv.Serve)
	go tidy(life, tidyEvery)
	var announced sync.WaitGroup
	announced.Go(func() {
		announce.Run(life, rdb, announce.Options{Replica: replica, Read: srv.Traffic, Timeout: timeout, Logger: log})
	})
	log.Info("listening", "addr", srv.Addr().String(), "admin", adminLn.Addr().String(), "models", srv.Models(), "version", buildVersion())

	sig, unhook := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer unhook()
	var cause error
	select {
	case <-sig.Done():
	case cause = <-failed:
		log.Error("ending because a part failed", "error", cause)
	}
	unhook() // a second signal ends the process at once
	drainErr := srv.Drain(context.Background())
	stop()
	announced.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err = errors.Join(cause, drainErr, rates.Close(ctx))
	if admin.Shutdown(ctx) != nil {
		_ = admin.Close() // whoever still reads a profile or metrics has lost nothing of ours
	}
	events.Close()
	cache.Close()
	if err == nil {
		log.Info("drained")
	}
	return err
}

// quietRedis takes go-redis' own messages, several a second during an outage, to the
// debug log: those who call Redis log what failed.
type quietRedis struct{ log *slog.Logger }

func (q quietRedis) Printf(_ context.Context, format string, args ...any) {
	q.log.Debug("redis client", "detail", fmt.Sprintf(format, args...))
}
