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

	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// readiness answers /readyz. Until set was called the process is starting.
type readiness struct {
	ready atomic.Pointer[ready]
}

type ready struct {
	check func(context.Context) error
	note  func() string // what to say besides, ready or not; "" for nothing
}

func (r *readiness) set(check func(context.Context) error, note func() string) {
	r.ready.Store(&ready{check, note})
}

// pingWithin is how long Postgres may take to answer before it is noted that it is away: less than a probe waits.
const pingWithin = time.Second

// pingEvery is how often Postgres is asked for the metrics. Whoever reads those does not wait for it.
const pingEvery = 2 * time.Second

// reachStore opens the store as soon as Postgres answers. From when it is called until ctx ends the metrics tell
// whether Postgres does.
func reachStore(ctx context.Context, url string, metrics prometheus.Registerer, log *slog.Logger) (st *store.Store, err error) {
	up := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "control_postgres_up", Help: "1 if Postgres answered within a second when it was last asked, some seconds ago, and 0 if it did not, or all connections to it were taken.",
	})
	if err := metrics.Register(up); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if err := untilReached(ctx, log, "Postgres", func() (err error) { st, err = openStore(ctx, url); return err }); err != nil {
		return nil, err
	}
	up.Set(1)
	go func() {
		tick := time.NewTicker(pingEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			limited, cancel := context.WithTimeout(ctx, pingWithin)
			err := st.Ping(limited)
			cancel()
			switch {
			case ctx.Err() != nil: // which says nothing of Postgres
			case err != nil:
				up.Set(0)
			default:
				up.Set(1)
			}
		}
	}()
	return st, nil
}

// serves has a process that has reached Postgres be ready until ctx ends, also while Postgres is away: that is
// noted. Then all replicas are without it at once, and if none were ready, callers would get an error of whatever
// is in front, which does not say when to come back. A process that cannot reach it at its start, as with a wrong
// password, never comes here. The price: a replica that alone is cut off from Postgres refuses its share.
func (r *readiness) serves(ctx context.Context, ping func(context.Context) error) {
	r.set(func(context.Context) error {
		if ctx.Err() != nil {
			return errors.New("draining")
		}
		return nil
	}, func() string {
		limited, cancel := context.WithTimeout(ctx, pingWithin)
		defer cancel()
		if err := ping(limited); err != nil && ctx.Err() == nil {
			return err.Error()
		}
		return ""
	})
}

func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	now := r.ready.Load()
	if now == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), 2*time.Second)
	defer cancel()
	text := "ready"
	if err := now.check(ctx); err != nil {
		text = err.Error()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, text)
	if note := now.note(); note != "" {
		fmt.Fprintln(w, "note:", note)
	}
}
