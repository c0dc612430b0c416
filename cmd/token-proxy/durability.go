package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/durableredis"
)

const (
	// firstCheck bounds the check at the start, which a Redis that is away delays.
	firstCheck = 2 * time.Second
	// checkEvery is how often a Redis that could not be asked, or is unsafe, is asked again.
	checkEvery = time.Second
)

// durability knows whether Redis keeps what it is given. Until that is known the proxy
// is not ready: it must not take customers to a Redis that forgets what they used.
type durability struct {
	client redis.UniversalClient
	log    *slog.Logger
	wrong  atomic.Pointer[error] // nil once Redis is known to be safe
}

// newDurability asks Redis once. It fails if Redis answers that it is unsafe; one that
// does not answer is asked again by run. With allowed nothing is asked for.
func newDurability(client redis.UniversalClient, allowed bool, log *slog.Logger) (*durability, error) {
	d := &durability{client: client, log: log}
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

// run asks until Redis is known to be safe, or ctx ends.
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
			return nil
		}
		d.wrong.Store(&err)
		if errors.Is(err, durableredis.ErrUnsafe) && err.Error() != before.Error() {
			d.log.Error("not ready", "error", err)
		}
		before = err
	}
	return nil
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
