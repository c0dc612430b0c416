// Package simulator runs a simulator of somebody else's service as a program of its own, for people: on
// loopback only, until it is told to end. It knows none of the services.
package simulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"
)

// ErrUsage is a mistake on the command line that has been explained already.
var ErrUsage = errors.New("wrong usage")

// drain is how long requests in hand may take once it is to end.
const drain = 5 * time.Second

// ExitCode is what a program ends with whose work ended with err, which it tells unless that was done.
func ExitCode(err error, stderr io.Writer) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrUsage):
		return 2
	}
	fmt.Fprintln(stderr, err)
	return 1
}

// CheckAddress refuses an address to listen at that others than this machine can reach: whoever reaches a
// simulator may do anything there.
func CheckAddress(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	if a, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !a.IsLoopback()) {
		return fmt.Errorf("address %q: only on loopback, such as 127.0.0.1:9100: whoever reaches it may do anything", address)
	}
	return nil
}

// Serve serves until ctx ends, and then for as long as what is in hand takes, but not for ever. closing, which
// may be nil, is called when it begins to end: for what would go on by itself, such as event streams.
func Serve(ctx context.Context, name string, listener net.Listener, handler http.Handler, closing func()) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	if closing != nil {
		server.RegisterOnShutdown(closing)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("%s: %w", name, err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", name, err), server.Close())
	}
	return nil
}

// Version is the module's version, or the commit that the program was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = s.Value
		}
	}
	return v + " " + info.GoVersion
}
