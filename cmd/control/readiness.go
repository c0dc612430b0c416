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

// pingWithin is how long /readyz and /metrics wait for Postgres to tell that it is away: less than who asks waits.
const pingWithin = time.Second

// reachStore opens the store as soon as Postgres answers. From when it is called the metrics tell whether
// Postgres does: each time that they are read it is asked.
func reachStore(ctx context.Context, url string, metrics prometheus.Registerer, log *slog.Logger) (st *store.Store, err error) {
	var reached atomic.Pointer[store.Store]
	asking := context.WithoutCancel(ctx) // also while the process finishes what is in hand
	up := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "control_postgres_up", Help: "1 if Postgres answered within a second when this was read, and 0 if it did not.",
	}, func() float64 {
		st := reached.Load()
		if st == nil {
			return 0
		}
		limited, cancel := context.WithTimeout(asking, pingWithin)
		defer cancel()
		if st.Ping(limited) != nil {
			return 0
		}
		return 1
	})
	if err := metrics.Register(up); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	err = untilReached(ctx, log, "Postgres", func() (err error) { st, err = openStore(ctx, url); return err })
	reached.Store(st)
	return st, err
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
