package upstream

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"
)

// Phase says how far an exchange had come when it failed.
type Phase string

// The phases, in order.
const (
	PhaseRequest Phase = "request" // the request itself was refused; nothing was contacted
	PhaseDial    Phase = "dial"    // waiting for a connection, resolving, connecting, egress proxy
	PhaseTLS     Phase = "tls"
	PhaseWrite   Phase = "write"
	PhaseHead    Phase = "head"
	PhaseBody    Phase = "body"
)

// Error is a failed exchange with an upstream.
type Error struct {
	Upstream string // Config.Name
	Phase    Phase
	Sent     bool  // a byte of the request may have reached the upstream
	Timeout  bool  // one of the configured limits passed
	Canceled bool  // Canceler.Cancel ended it; Err is (or wraps) the cause given there
	Err      error // what happened
}

func (e *Error) Error() string {
	what := ""
	switch {
	case e.Canceled:
		what = " canceled"
	case e.Timeout:
		what = " timed out"
	}
	return fmt.Sprintf("upstream %s: %s%s: %v", e.Upstream, e.Phase, what, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// ErrNoModel means that no upstream is configured for the face and model.
var ErrNoModel = errors.New("upstream: no upstream serves this model")

// ErrCanceled is the cause recorded by Cancel(nil).
var ErrCanceled = errors.New("upstream: canceled")

// ErrPrivateAddress means that an upstream's name leads to an address in a private,
// loopback, link-local or otherwise special range and allow_private is not set.
var ErrPrivateAddress = errors.New("upstream: address is not public (set allow_private to permit it)")

// ErrHeader means that a header value or path of a Request holds a control character
// or that the request head is too large; nothing was sent.
var ErrHeader = errors.New("upstream: header value not allowed")

// ErrClosed means that the Pool was closed.
var ErrClosed = errors.New("upstream: pool is closed")

// noDescriptors reports whether err means that this process or machine may open no more
// files. A resolver keeps only the words of what stopped it.
func noDescriptors(err error) bool {
	var dns *net.DNSError
	for _, full := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, full) || errors.As(err, &dns) && strings.Contains(dns.Err, full.Error()) {
			return true
		}
	}
	return false
}

// Reasons of an UnavailableError.
const (
	ReasonBreaker     = "breaker_open"     // every endpoint's breaker is open
	ReasonCooling     = "keys_cooling"     // an endpoint is up, but its keys are cooling
	ReasonRefused     = "keys_refused"     // like ReasonCooling, because the upstream refused the keys
	ReasonConnections = "connections_used" // max_conns reached and none came free in time
)

// UnavailableError means that a model is configured but nothing can serve it now.
type UnavailableError struct {
	RetryAfter time.Duration // whole seconds, at least one: the earliest that anything changes
	Reason     string        // one of the Reason constants
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("upstream: unavailable (%s), retry after %s", e.Reason, e.RetryAfter)
}
