package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/durableredis"
)

const (
	// evictionEvery is how often Redis is asked whether it still keeps what it is given.
	evictionEvery = 2 * time.Second
	// mendUnsafeEvery is how often, at most, grants are written again to a Redis that goes on
	// evicting them.
	mendUnsafeEvery = time.Minute
)

// evictions watches a Redis that was set up rightly when the process was started, and may be
// set up otherwise since, or have evicted keys before. Limits notice by themselves what is
// missing; a token whose grant is missing would be refused as unknown, so all grants are
// written again.
type evictions struct {
	client  redis.UniversalClient
	service *customers.Service
	log     *slog.Logger

	unsafe, evicted prometheus.Gauge
	note            atomic.Pointer[string] // what is wrong with Redis

	mended   int64 // as many were evicted when all grants were there
	mendedAt time.Time
}

func newEvictions(client redis.UniversalClient, service *customers.Service, registry prometheus.Registerer, log *slog.Logger) (*evictions, error) {
	e := &evictions{client: client, service: service, log: log}
	e.unsafe = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "control_redis_unsafe", Help: "1 while Redis is set up so that it may lose what it is given.",
	})
	e.evicted = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "control_redis_evicted_keys", Help: "Keys that Redis has evicted since it was started; it must never evict one.",
	})
	for _, g := range []prometheus.Gauge{e.unsafe, e.evicted} {
		if err := registry.Register(g); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return e, nil
}

// Note is what is wrong with Redis, for /readyz; "" if nothing is. A worker whose Redis is
// unsafe stays ready: it is needed to mend what is lost.
func (e *evictions) Note() string {
	if text := e.note.Load(); text != nil {
		return *text
	}
	return ""
}

// look asks once, and mends. It returns how many tokens were written again.
func (e *evictions) look(ctx context.Context) (int, error) {
	limited, cancel := context.WithTimeout(ctx, evictionEvery)
	evicted, err := durableredis.Look(limited, e.client)
	cancel()
	unsafe := errors.Is(err, durableredis.ErrUnsafe)
	if err != nil && !unsafe {
		return 0, err
	}
	text := ""
	if e.unsafe.Set(0); unsafe {
		text = err.Error()
		e.unsafe.Set(1)
	}
	if text != e.Note() {
		if text != "" {
			e.log.Error("Redis is set up so that it loses data: customers may be refused, and limits are made anew again and again", "error", text)
		} else {
			e.log.Info("Redis keeps data again")
		}
		e.note.Store(&text)
	}
	e.evicted.Set(float64(evicted))
	switch {
	case evicted < e.mended: // it was started again
		e.mended = 0
	case evicted == e.mended || unsafe && time.Since(e.mendedAt) < mendUnsafeEvery:
		return 0, nil
	}
	if evicted == 0 {
		return 0, nil
	}
	e.log.Error("Redis has evicted keys: all grants are written again", "evicted", evicted)
	e.mendedAt = time.Now()
	done, err := e.service.RepublishAll(ctx)
	if err != nil && done.Tokens == 0 {
		return 0, err
	}
	e.mended = evicted
	return done.Tokens, err
}

// notes puts together what is to be noted.
func notes(all ...func() string) func() string {
	return func() string {
		var out []string
		for _, note := range all {
			if text := note(); text != "" {
				out = append(out, text)
			}
		}
		return strings.Join(out, "; ")
	}
}
