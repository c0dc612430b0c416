package testenv

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

// AnyRedis is what tests do to a Redis of whatever kind: a RedisServer, a ClusterServer
// or a SentinelServer.
type AnyRedis interface {
	// RedisURL is the URL as the programs take it.
	RedisURL() string
	// UniversalClient returns a new client, which is closed when the test ends.
	UniversalClient() redis.UniversalClient
	// FlushAll removes all data, as a loss of the data would.
	FlushAll()
	// Stop kills all servers that hold data, and Start starts them again with their data.
	Stop()
	Start()
	// Pause freezes all servers that hold data, and Resume ends it.
	Pause()
	Resume()
}

var (
	_ AnyRedis = (*RedisServer)(nil)
	_ AnyRedis = (*ClusterServer)(nil)
	_ AnyRedis = (*SentinelServer)(nil)
)

// SingleAndCluster runs a test on a single Redis and on a Redis Cluster, in parallel.
// It is for what has to work on both: scripts, transactions, streams, channels.
func SingleAndCluster(t *testing.T, test func(t *testing.T, r AnyRedis), opts ...RedisOption) {
	t.Run("single", func(t *testing.T) {
		t.Parallel()
		test(t, Redis(t, opts...))
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		test(t, RedisCluster(t, opts...))
	})
}

// RedisURL returns s.URL.
func (s *RedisServer) RedisURL() string { return s.URL }

// UniversalClient returns s.Client().
func (s *RedisServer) UniversalClient() redis.UniversalClient { return s.Client() }
