package testenv

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

const (
	clusterMasters = 3
	clusterSlots   = 16384
	clusterReady   = 60 * time.Second
)

// ClusterServer is a private Redis Cluster: three masters, which share the keys, and no
// replicas. Its methods are safe for concurrent use, and fail the test when they cannot
// do what they say.
type ClusterServer struct {
	URL     string // redis-cluster://127.0.0.1:PORT,127.0.0.1:PORT,…
	Masters []*RedisServer

	t   testing.TB
	ids []string // of the masters
}

// RedisCluster starts a cluster, empty and ready for commands. It ends with the test.
// Redis 7 or newer is needed.
func RedisCluster(t testing.TB, opts ...RedisOption) *ClusterServer {
	t.Helper()
	c := &ClusterServer{t: t}
	var buses []int
	var addrs []string
	for range clusterMasters {
		bus := 0
		s := newRedis(t, func(s *RedisServer, first bool) ([]string, error) {
			if first {
				// Where servers have it of their own accord, 10000 above the port, connections
				// may have taken it.
				bus = FreePort(t)
			}
			return append(localserver.RedisArgs(s.dir, s.Port, s.args...),
				"--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", strconv.Itoa(bus)), nil
		}, opts...)
		c.Masters = append(c.Masters, s)
		buses = append(buses, bus)
		addrs = append(addrs, s.Addr)
	}
	c.URL = "redis-cluster://" + strings.Join(addrs, ",")
	ctx := context.Background()
	for i, s := range c.Masters {
		client := s.Client()
		first, last := i*clusterSlots/clusterMasters, (i+1)*clusterSlots/clusterMasters-1
		c.must("assign slots", client.ClusterAddSlotsRange(ctx, first, last).Err())
		c.must("number a master", client.Do(ctx, "cluster", "set-config-epoch", i+1).Err())
		id, err := client.ClusterMyID(ctx).Result()
		c.must("read the id of a master", err)
		c.ids = append(c.ids, id)
		// All pairs, so that nobody has to wait for gossip.
		for j := range i {
			c.must("join masters", client.Do(ctx, "cluster", "meet", "127.0.0.1", c.Masters[j].Port, buses[j]).Err())
		}
	}
	c.awaitReady()
	return c
}

func (c *ClusterServer) must(what string, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("testenv: Redis Cluster: %s: %v", what, err)
	}
}

// awaitReady waits until every master serves, and knows who has which slots.
func (c *ClusterServer) awaitReady() {
	c.t.Helper()
	deadline := time.Now().Add(clusterReady)
	for _, s := range c.Masters {
		client := redis.NewClient(&redis.Options{Addr: s.Addr})
		defer client.Close()
		for {
			info, err := client.ClusterInfo(context.Background()).Result()
			if err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d\r\n", clusterSlots)) &&
				strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r\n", clusterMasters)) {
				break
			}
			if time.Now().After(deadline) {
				c.t.Fatalf("testenv: Redis Cluster is not ready after %v: %v\n%s\n%s", clusterReady, err, info, tail(s.dir+"/log"))
			}
			time.Sleep(10 * time.Millisecond) // a poll: the servers announce nothing
		}
	}
}

// RedisURL returns c.URL.
func (c *ClusterServer) RedisURL() string { return c.URL }

// Client returns a new client of the cluster, which heeds the deadlines of contexts. It
// is closed when the test ends.
func (c *ClusterServer) Client() *redis.ClusterClient {
	var addrs []string
	for _, s := range c.Masters {
		addrs = append(addrs, s.Addr)
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, ContextTimeoutEnabled: true, DisableRoutingPolicies: true})
	c.t.Cleanup(func() { _ = client.Close() })
	return client
}

// UniversalClient returns c.Client().
func (c *ClusterServer) UniversalClient() redis.UniversalClient { return c.Client() }

// FlushAll removes all data. One master's alone goes by its own FlushAll.
func (c *ClusterServer) FlushAll() {
	c.t.Helper()
	for _, s := range c.Masters {
		s.FlushAll()
	}
}

// Stop kills all masters with SIGKILL.
func (c *ClusterServer) Stop() {
	for _, s := range c.Masters {
		s.Stop()
	}
}

// Start starts the masters that are stopped, and waits until the cluster serves again.
func (c *ClusterServer) Start() {
	c.t.Helper()
	for _, s := range c.Masters {
		s.Start()
	}
	c.awaitReady()
}

// Pause freezes all masters.
func (c *ClusterServer) Pause() {
	c.t.Helper()
	for _, s := range c.Masters {
		s.Pause()
	}
}

// Resume ends Pause.
func (c *ClusterServer) Resume() {
	c.t.Helper()
	for _, s := range c.Masters {
		s.Resume()
	}
}

// Of returns the master that has key.
func (c *ClusterServer) Of(key string) *RedisServer {
	c.t.Helper()
	_, i := c.find(key)
	return c.Masters[i]
}

// find returns the slot of key and the number of the master that has it.
func (c *ClusterServer) find(key string) (slot, master int) {
	c.t.Helper()
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: c.Masters[0].Addr})
	defer client.Close()
	n, err := client.ClusterKeySlot(ctx, key).Result()
	c.must("find the slot of a key", err)
	shards, err := client.ClusterShards(ctx).Result()
	c.must("list slots", err)
	for _, shard := range shards {
		if slices.ContainsFunc(shard.Slots, func(r redis.SlotRange) bool { return r.Start <= n && n <= r.End }) {
			return int(n), slices.Index(c.ids, shard.Nodes[0].ID)
		}
	}
	c.t.Fatalf("testenv: Redis Cluster: nobody has slot %d", n)
	return 0, 0
}

// Move moves the slot of key, with all its keys, to another master, as an operator does
// who adds a server. In the middle of it, when all keys are moved and the slot is not
// (so that clients are sent to the other master one command at a time), it calls halfway.
func (c *ClusterServer) Move(key string, halfway func()) {
	c.t.Helper()
	ctx := context.Background()
	slot, from := c.find(key)
	to := (from + 1) % len(c.Masters)
	open := func(i int) *redis.Client {
		client := redis.NewClient(&redis.Options{Addr: c.Masters[i].Addr})
		c.t.Cleanup(func() { _ = client.Close() })
		return client
	}
	source, target := open(from), open(to)
	setSlot := func(client *redis.Client, args ...any) {
		c.t.Helper()
		c.must("move a slot", client.Do(ctx, append([]any{"cluster", "setslot", slot}, args...)...).Err())
	}
	setSlot(target, "importing", c.ids[from])
	setSlot(source, "migrating", c.ids[to])
	host, port, err := net.SplitHostPort(c.Masters[to].Addr)
	c.must("move a slot", err)
	for {
		keys, err := source.ClusterGetKeysInSlot(ctx, slot, 100).Result()
		c.must("list the keys of a slot", err)
		if len(keys) == 0 {
			break
		}
		args := []any{"migrate", host, port, "", 0, 10_000, "keys"}
		for _, k := range keys {
			args = append(args, k)
		}
		c.must("move keys", source.Do(ctx, args...).Err())
	}
	if halfway != nil {
		halfway()
	}
	setSlot(target, "node", c.ids[to])
	for i := range c.Masters {
		setSlot(open(i), "node", c.ids[to])
	}
}
