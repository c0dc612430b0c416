package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
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
