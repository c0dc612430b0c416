package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/durableredis"
)

const (
	// firstCheck bounds the check at the start, which a Redis that is away delays.
	firstCheck = 2 * time.Second
	// checkEvery is how often a Redis that could not be asked, or is unsafe, is asked again.
	checkEvery = time.Second
	// watchEvery is how often one is asked that was safe.
	watchEvery = 5 * time.Second
)

// durability knows whether Redis keeps what it is given. Until that is known the proxy
// is not ready: it must not take customers to a Redis that forgets what they used.
type durability struct {
	client redis.UniversalClient
	log    *slog.Logger
	wrong  atomic.Pointer[error] // nil once Redis is known to be safe
	unsafe prometheus.Gauge
}

// newDurability asks Redis once. It fails if Redis answers that it is unsafe; one that
// does not answer is asked again by run. With allowed nothing is asked for.
func newDurability(client redis.UniversalClient, allowed bool, registry prometheus.Registerer, log *slog.Logger) (*durability, error) {
	d := &durability{client: client, log: log, unsafe: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "token_proxy_redis_unsafe", Help: "1 while Redis is set up so that it may lose what it is given: that it evicts keys, or has no append-only file.",
	})}
	if err := registry.Register(d.unsafe); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	err := d.ask(firstCheck)
	switch {
	case err == nil:
		return d, nil
	case allowed:
		log.Warn("Redis may lose data: allowed by allow_unsafe_redis", "error", err)
		return d, nil
	case errors.Is(err, durableredis.ErrUnsafe):
		return nil, fmt.Errorf("%w (or set allow_unsafe_redis, for development)", err)
	}
	log.Warn("it is not known whether Redis keeps data; not ready until it is", "error", err)
	d.wrong.Store(&err)
	return d, nil
}

func (d *durability) ask(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return durableredis.Check(ctx, d.client)
}

// run asks until Redis is known to be safe, and from then on whether it still is, until ctx
// ends. A proxy that was ready once stays so: what a Redis that is set up otherwise loses is
// refused, not let through, and without any proxy nobody at all would be served.
func (d *durability) run(ctx context.Context) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for before := d.ready(); before != nil; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := d.ask(checkEvery)
		if err == nil {
			d.wrong.Store(nil)
			d.log.Info("Redis keeps data")
			break
		}
		d.wrong.Store(&err)
		if errors.Is(err, durableredis.ErrUnsafe) && err.Error() != before.Error() {
			d.log.Error("not ready", "error", err)
		}
		before = err
	}
	tick.Reset(watchEvery)
	for said := ""; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := d.ask(watchEvery)
		if err != nil && !errors.Is(err, durableredis.ErrUnsafe) {
			continue // away: nothing is known
		}
		text := ""
		if d.unsafe.Set(0); err != nil {
			text = err.Error()
			d.unsafe.Set(1)
		}
		switch {
		case text == said:
		case text == "":
			d.log.Info("Redis keeps data again")
		default:
			d.log.Error("Redis is set up so that it loses data: customers may be refused", "error", text)
		}
		said = text
	}
}

// ready returns what keeps the proxy from being ready.
func (d *durability) ready() error {
	if err := d.wrong.Load(); err != nil {
		return *err
	}
	return nil
}

// gate lets /readyz say so, and leaves everything else to admin.
func (d *durability) gate(admin http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", admin)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := d.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		admin.ServeHTTP(w, r)
	})
	return mux
}
