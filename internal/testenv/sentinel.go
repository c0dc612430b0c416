package testenv

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	sentinelMaster = "openclaw" // its name
	sentinelCount  = 3
	sentinelReady  = 60 * time.Second
	// sentinelDownAfter is how long a master must be silent: longer than a busy machine
	// keeps one waiting.
	sentinelDownAfter = 2 * time.Second
)

// SentinelServer is a private Redis with one replica, and three Sentinels, which make the
// replica the master when the master dies. Its methods are safe for concurrent use, and
// fail the test when they cannot do what they say.
type SentinelServer struct {
	URL string // redis-sentinel://127.0.0.1:PORT,…/0?master=NAME

	t         testing.TB
	servers   [2]*RedisServer
	sentinels []*RedisServer
}

// RedisSentinel starts the servers and waits until the replica follows and the
// Sentinels know of each other. All of it ends with the test.
func RedisSentinel(t testing.TB, opts ...RedisOption) *SentinelServer {
	t.Helper()
	s := &SentinelServer{t: t}
	// Without waiting for more replicas to come.
	opts = append([]RedisOption{RedisArgs("--repl-diskless-sync-delay", "0")}, opts...)
	s.servers[0] = Redis(t, opts...)
	s.servers[1] = Redis(t, append(opts, RedisArgs("--replicaof", "127.0.0.1", strconv.Itoa(s.servers[0].Port)))...)
	s.await("the replica follows", func() error {
		return infoHas(s.servers[1], "master_link_status:up")
	})
	var addrs []string
	for range sentinelCount {
		one := newRedis(t, s.sentinelCommand)
		s.sentinels = append(s.sentinels, one)
		addrs = append(addrs, one.Addr)
	}
	s.URL = "redis-sentinel://" + strings.Join(addrs, ",") + "/0?master=" + sentinelMaster
	for _, one := range s.sentinels {
		s.await("the Sentinels are ready", func() error {
			return s.ask(one, func(ctx context.Context, c *redis.SentinelClient) error {
				state, err := c.Master(ctx, sentinelMaster).Result()
				if err != nil {
					return err
				}
				if state["num-slaves"] != "1" || state["num-other-sentinels"] != strconv.Itoa(sentinelCount-1) {
					return fmt.Errorf("it knows %s replicas and %s other Sentinels", state["num-slaves"], state["num-other-sentinels"])
				}
				return c.CkQuorum(ctx, sentinelMaster).Err()
			})
		})
	}
	return s
}

// sentinelCommand writes a Sentinel's configuration, which the Sentinel then keeps its
// state in.
func (s *SentinelServer) sentinelCommand(one *RedisServer, first bool) ([]string, error) {
	path := filepath.Join(one.dir, "sentinel.conf")
	if first {
		config := fmt.Sprintf(`bind 127.0.0.1
port %d
dir %s
sentinel monitor %[3]s 127.0.0.1 %[4]d 2
sentinel down-after-milliseconds %[3]s %[5]d
sentinel failover-timeout %[3]s 10000
`, one.Port, one.dir, sentinelMaster, s.servers[0].Port, sentinelDownAfter.Milliseconds())
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			return nil, fmt.Errorf("testenv: %w", err)
		}
	}
	return []string{path, "--sentinel"}, nil
}

// await polls until check succeeds.
func (s *SentinelServer) await(what string, check func() error) {
	s.t.Helper()
	deadline := time.Now().Add(sentinelReady)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("testenv: Redis Sentinel: not so after %v: %s: %v", sentinelReady, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func infoHas(s *RedisServer, line string) error {
	client := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1})
	defer client.Close()
	info, err := client.Info(context.Background(), "replication").Result()
	if err == nil && !strings.Contains(info, line+"\r\n") {
		err = fmt.Errorf("INFO of %s has no %s", s.Addr, line)
	}
	return err
}

func (s *SentinelServer) ask(one *RedisServer, do func(context.Context, *redis.SentinelClient) error) error {
	client := redis.NewSentinelClient(&redis.Options{Addr: one.Addr, MaxRetries: -1, ContextTimeoutEnabled: true})
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return do(ctx, client)
}

// masterOf returns the number of the server that a Sentinel names.
func (s *SentinelServer) masterOf(one *RedisServer) (n int, err error) {
	err = s.ask(one, func(ctx context.Context, c *redis.SentinelClient) error {
		address, err := c.GetMasterAddrByName(ctx, sentinelMaster).Result()
		if err != nil {
			return err
		}
		for i, server := range s.servers {
			if net.JoinHostPort(address[0], address[1]) == server.Addr {
				n = i
				return nil
			}
		}
		return fmt.Errorf("a Sentinel names %v", address)
	})
	return n, err
}

func (s *SentinelServer) present() int {
	s.t.Helper()
	n := 0
	s.await("a Sentinel answers", func() (err error) { n, err = s.masterOf(s.sentinels[0]); return err })
	return n
}

// Master returns the server that is the master at present.
func (s *SentinelServer) Master() *RedisServer { return s.servers[s.present()] }

// Replica returns the other server.
func (s *SentinelServer) Replica() *RedisServer { return s.servers[1-s.present()] }

// FailOver kills the master, and waits until all Sentinels have made the replica the
// master. The killed one may be started, and then becomes the replica.
func (s *SentinelServer) FailOver() {
	s.t.Helper()
	old := s.present()
	s.servers[old].Stop()
	for _, one := range s.sentinels {
		s.await("the replica is the master", func() error {
			n, err := s.masterOf(one)
			if err == nil && n == old {
				err = fmt.Errorf("a Sentinel still names the old one")
			}
			return err
		})
	}
	s.await("the replica is the master", func() error { return infoHas(s.servers[1-old], "role:master") })
}

// RedisURL returns s.URL.
func (s *SentinelServer) RedisURL() string { return s.URL }

// Client returns a new client of the master, which heeds the deadlines of contexts. It
// is closed when the test ends.
func (s *SentinelServer) Client() *redis.Client {
	var addrs []string
	for _, one := range s.sentinels {
		addrs = append(addrs, one.Addr)
	}
	client := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: sentinelMaster, SentinelAddrs: addrs, ContextTimeoutEnabled: true})
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// UniversalClient returns s.Client().
func (s *SentinelServer) UniversalClient() redis.UniversalClient { return s.Client() }

// FlushAll removes all data of the master, and so of the replica.
func (s *SentinelServer) FlushAll() {
	s.t.Helper()
	s.Master().FlushAll()
}

// Stop kills master and replica. The Sentinels stay.
func (s *SentinelServer) Stop() {
	for _, server := range s.servers {
		server.Stop()
	}
}

// Start starts master and replica where they are stopped.
func (s *SentinelServer) Start() {
	s.t.Helper()
	for _, server := range s.servers {
		server.Start()
	}
}

// Pause freezes master and replica.
func (s *SentinelServer) Pause() {
	s.t.Helper()
	for _, server := range s.servers {
		server.Pause()
	}
}

// Resume ends Pause.
func (s *SentinelServer) Resume() {
	s.t.Helper()
	for _, server := range s.servers {
		server.Resume()
	}
}
