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
	check atomic.Pointer[func(context.Context) error]
}

func (r *readiness) set(check func(context.Context) error) { r.check.Store(&check) }

func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	check := r.check.Load()
	if check == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), 2*time.Second)
	defer cancel()
	if err := (*check)(ctx); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}
