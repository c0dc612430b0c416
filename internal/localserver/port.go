package localserver

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// Ports are taken from below the range from which the kernel picks the local
// ports of outgoing connections (32768 on Linux, 49152 on macOS), so that no
// connection takes the port of a server that is stopped for a while.
const (
	firstPort = 20000
	lastPort  = 32000
)

// FreePort returns a loopback TCP port on which nothing listens, and which no
// process of this user that chose its own with FreePort has or will be given
// while this process lives. To look and then to listen is not enough: two test
// programs that run side by side would now and then start their servers on the
// same port, and the one that came second would talk to the other's.
func FreePort() (int, error) { return ports().next() }

// portBook notes in a file which ports are taken: the byte at the offset of a
// port is locked by the process that has it. Such locks end with their process.
type portBook struct {
	mu   sync.Mutex
	file *os.File
	err  error
	used map[int]bool // this process's own locks do not exclude it
}

var ports = sync.OnceValue(func() *portBook {
	name := filepath.Join(os.TempDir(), "openclaw-ports-"+strconv.Itoa(os.Getuid()))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	return &portBook{file: f, err: err, used: make(map[int]bool)}
})

func (b *portBook) next() (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, fmt.Errorf("localserver: note the ports in use: %w", b.err)
	}
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if b.used[port] {
			continue
		}
		lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart, Start: int64(port), Len: 1}
		err := syscall.FcntlFlock(b.file.Fd(), syscall.F_SETLK, &lock)
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("localserver: lock a port: %w", err)
		}
		// It stays ours even when something else listens there: it is no use to others.
		b.used[port] = true
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("localserver: free port: %w", err)
		}
		return port, nil
	}
	return 0, errors.New("localserver: no free TCP port found on 127.0.0.1")
}
