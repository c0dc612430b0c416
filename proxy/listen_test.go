package proxy

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/proxy/hangup"
)

func watcher(t *testing.T) *hangup.Watcher {
	t.Helper()
	w, err := hangup.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// A zone may hold quotes, and the access log writes addresses as they are.
func TestHopsHaveNoZone(t *testing.T) {
	t.Parallel()
	for _, hop := range []string{`fe80::1%x","customer":"evil`, `[fe80::1%a"b]:80`, "fe80::1"} {
		if a, ok := parseHop(hop); !ok || a.String() != "fe80::1" {
			t.Errorf("%s is read as %s, %v", hop, a, ok)
		}
	}
}

// outOfFiles is a listener that fails a few times.
type outOfFiles struct {
	net.Listener
	left atomic.Int32
}

func (l *outOfFiles) Accept() (net.Conn, error) {
	if l.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// One accept that fails must not end the server: connections that are open would go on,
// and no new one would ever come.
func TestFailedAcceptsAreRepeated(t *testing.T) {
	t.Parallel()
	var logged strings.Builder
	ln, err := listen("127.0.0.1:0", 10, 10, func(netip.Addr) bool { return false }, watcher(t), slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ln.uploads = &uploads{}
	broken := &outOfFiles{Listener: ln.Listener}
	broken.left.Store(3)
	ln.Listener = broken
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatalf("accept gave up: %v", err)
	}
	_ = conn.Close()
	if n := strings.Count(logged.String(), "too many open files"); n != 3 {
		t.Errorf("logged %d times: %s", n, logged.String())
	}
	_ = ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
