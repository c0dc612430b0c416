package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// serveUntilEnd serves on a listener until ctx ends, calls drain, and then finishes what is in hand, which may take
// as long as within. It is an error only if serving ends before.
func serveUntilEnd(ctx context.Context, server *http.Server, listener net.Listener, name string, drain func(), within time.Duration, log *slog.Logger) error {
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	log.Info("serving "+name, "address", listener.Addr().String())
	return endWith(ctx, server, ended, name, drain, within, log)
}

// endWith is serveUntilEnd of a server that serves already, and says on ended that it does not any more.
func endWith(ctx context.Context, server *http.Server, ended <-chan error, name string, drain func(), within time.Duration, log *slog.Logger) error {
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", name, err)
	case <-ctx.Done():
	}
	drain()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	if err := server.Shutdown(limited); err != nil {
		log.Warn("requests were cut off", "side", name, "error", err)
		_ = server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", name, err)
	}
	return nil
}
