package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/andreabadesso/openclaw-cloud/control/onboarding/chat"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// conversationsFront is the onboarding-agent's listener. It answers probes from the beginning, and
// conversations once there is what they need.
type conversationsFront struct {
	server *http.Server
	ready  *readiness
	chat   atomic.Pointer[chat.Handler]
	ended  chan error
	log    *slog.Logger
}

// serveConversations begins to serve. An answer may take as long as a model may, and then some.
func serveConversations(address string, modelWithin time.Duration, metrics prometheus.Gatherer, log *slog.Logger) (*conversationsFront, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	f := &conversationsFront{ready: &readiness{}, ended: make(chan error, 1), log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("GET /readyz", f.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if h := f.chat.Load(); h != nil {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Retry-After", "2")
		http.Error(w, "starting", http.StatusServiceUnavailable)
	})
	f.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: modelWithin + time.Minute,
		IdleTimeout: 75 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go func() { f.ended <- f.server.Serve(listener) }()
	log.Info("serving conversations", "address", listener.Addr().String())
	return f, nil
}

func (f *conversationsFront) close() { _ = f.server.Close() }

// serve has conversations until ctx ends, and then finishes what is in hand.
func (f *conversationsFront) serve(ctx context.Context, h *chat.Handler, st *store.Store, drainWithin time.Duration) error {
	f.chat.Store(h)
	f.ready.serves(ctx, st.Ping)
	return endWith(ctx, f.server, f.ended, "conversations", h.Drain, drainWithin, f.log)
}
