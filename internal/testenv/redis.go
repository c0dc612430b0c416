package testenv

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

// RedisServer is a private Redis with an append-only file and no eviction. Its
// methods are safe for concurrent use, and fail the test when they cannot do
// what they say.
type RedisServer struct {
	URL  string // redis://127.0.0.1:PORT/0
	Addr string // 127.0.0.1:PORT
	Port int

	t       testing.TB
	program string
	dir     string
	args    []string
	// command returns the arguments of redis-server; nil for those of a server that is
	// alone. It is called for each start, and may choose more ports where first.
	command func(s *RedisServer, first bool) ([]string, error)

	mu      sync.Mutex
	process *process // nil while stopped
	clients []*redis.Client
}

// RedisOption changes how Redis starts a server.
type RedisOption func(*RedisServer)

// RedisArgs adds arguments of redis-server, for example
// RedisArgs("--maxmemory", "20mb"). They win over the defaults.
func RedisArgs(args ...string) RedisOption {
	return func(s *RedisServer) { s.args = append(s.args, args...) }
}

// Redis starts a private Redis, empty and ready for commands. It ends with the
// test. An existing server named by REDIS_URL is never used: tests stop, pause
// and empty theirs.
func Redis(t testing.TB, opts ...RedisOption) *RedisServer {
	t.Helper()
	return newRedis(t, nil, opts...)
}

func newRedis(t testing.TB, command func(*RedisServer, bool) ([]string, error), opts ...RedisOption) *RedisServer {
	t.Helper()
	program, err := localserver.FindRedis()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := workDir("redis-")
	if err != nil {
		t.Fatal(err)
	}
	s := &RedisServer{t: t, program: program, dir: dir, command: command}
	for _, opt := range opts {
		opt(s)
	}
	t.Cleanup(s.close)
	// A program that is none of ours may take the port between the choice and the start.
	for attempt := 1; ; attempt++ {
		s.Port = FreePort(t)
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))
		s.URL = "redis://" + s.Addr + "/0"
		err := s.start(true)
		if err == nil {
			return s
		}
		if attempt == 3 {
			t.Fatal(err)
		}
	}
}

// Client returns a new client of the server, which heeds the deadlines of
// contexts. It is closed when the test ends.
func (s *RedisServer) Client() *redis.Client {
	s.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.Addr, ContextTimeoutEnabled: true})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = append(s.clients, client)
	return client
}

// Stop kills the server with SIGKILL and waits for its end. Everything it
// acknowledged is there again after Start.
func (s *RedisServer) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

// Start starts the server again on the same port and data, and waits until it
// has loaded them. It does nothing while the server runs.
func (s *RedisServer) Start() {
	s.t.Helper()
	if err := s.start(false); err != nil {
		s.t.Fatal(err)
	}
}

// StartEmpty is Start on a new disk: without data. The server must be stopped, and be no
// part of a Cluster.
func (s *RedisServer) StartEmpty() {
	s.t.Helper()
	s.mu.Lock()
	running := s.process != nil
	s.mu.Unlock()
	if running {
		s.t.Fatal("testenv: StartEmpty of a running Redis")
	}
	for _, name := range []string{"appendonlydir", "appendonly.aof", "dump.rdb"} {
		if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
			s.t.Fatalf("testenv: start Redis empty: %v", err)
		}
	}
	s.Start()
}

// Pause freezes the server: connections stay open and nothing is answered.
func (s *RedisServer) Pause() {
	s.t.Helper()
	s.send(syscall.SIGSTOP)
}

// Resume ends Pause.
func (s *RedisServer) Resume() {
	s.t.Helper()
	s.send(syscall.SIGCONT)
}

// FlushAll removes all data, as a loss of the data would.
func (s *RedisServer) FlushAll() {
	s.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.Addr})
	defer client.Close()
	if err := client.FlushAll(context.Background()).Err(); err != nil {
		s.t.Fatalf("testenv: flush Redis: %v", err)
	}
}

func (s *RedisServer) send(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		s.t.Fatalf("testenv: %v for a stopped Redis", sig)
	}
	if err := s.process.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("testenv: %v for Redis: %v", sig, err)
	}
}

func (s *RedisServer) start(first bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return nil
	}
	args := localserver.RedisArgs(s.dir, s.Port, s.args...)
	if s.command != nil {
		var err error
		if args, err = s.command(s, first); err != nil {
			return err
		}
	}
	p, err := start(syscall.SIGKILL, nil, s.dir, filepath.Join(s.dir, "log"), s.program, args...)
	if err != nil {
		return err
	}
	if err := p.ready(20*time.Second, func() error { return pingRedis(s.Addr) }); err != nil {
		p.end(syscall.SIGKILL)
		return err
	}
	s.process = p
	return nil
}

// pingRedis asks whether the server at addr takes commands. It speaks the
// protocol itself: a client's retries and pool would only slow the poll down.
func pingRedis(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer := make([]byte, 128)
	n, err := conn.Read(answer)
	if err != nil {
		return err
	}
	// -NOAUTH comes from a server that a test gave a password: it is up.
	if a := string(answer[:n]); a != "+PONG\r\n" && (n < 7 || a[:7] != "-NOAUTH") {
		return fmt.Errorf("PING answered %q", a)
	}
	return nil
}

func (s *RedisServer) kill() {
	if s.process == nil {
		return
	}
	s.process.end(syscall.SIGKILL)
	s.process = nil
}

func (s *RedisServer) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, client := range s.clients {
		_ = client.Close()
	}
	if s.process != nil && s.process.exited() {
		s.t.Errorf("testenv: Redis ended by itself: %v\n%s", s.process.err, tail(s.process.log))
	}
	s.kill()
	_ = os.RemoveAll(s.dir)
}
