package testenv

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// Ports are taken from below the range from which the kernel picks the local
// ports of outgoing connections (32768 on Linux, 49152 on macOS), so that no
// connection takes the port of a server that a test stops for a while.
const (
	firstPort = 20000
	lastPort  = 32000
)

// ports remembers what this process has handed out.
type ports struct {
	mu   sync.Mutex
	used map[int]bool
}

var handedOut = &ports{used: make(map[int]bool)}

// FreePort returns a loopback TCP port on which nothing listens, and which this
// process has not been given before.
func FreePort(t testing.TB) int {
	t.Helper()
	port, ok := handedOut.next()
	if !ok {
		t.Fatal("testenv: no free TCP port found on 127.0.0.1")
	}
	return port
}

func (p *ports) next() (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if p.used[port] {
			continue
		}
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l.Close()
		p.used[port] = true
		return port, true
	}
	return 0, false
}
