package testenv

import (
	"context"
	"fmt"
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
// replicas unless they are added. Its methods fail the test when they cannot do what they
// say. Those that say nothing else are safe for concurrent use.
type ClusterServer struct {
	URL     string // redis-cluster://127.0.0.1:PORT,127.0.0.1:PORT,…
	Masters []*RedisServer

	t    testing.TB
	opts []RedisOption
	all  []*clusterNode // masters first
}

// clusterNode is one server of a cluster.
type clusterNode struct {
	*RedisServer
	bus int // port where servers talk to each other
	id  string
}

// RedisCluster starts a cluster, empty and ready for commands. It ends with the test.
// Redis 7 or newer is needed.
func RedisCluster(t testing.TB, opts ...RedisOption) *ClusterServer {
	t.Helper()
	c := &ClusterServer{t: t, opts: opts}
	var addrs []string
	for range clusterMasters {
		n := c.start()
		c.Masters = append(c.Masters, n.RedisServer)
		addrs = append(addrs, n.Addr)
	}
	c.URL = "redis-cluster://" + strings.Join(addrs, ",")
	for i, s := range c.Masters {
		first, last := i*clusterSlots/clusterMasters, (i+1)*clusterSlots/clusterMasters-1
		c.must("assign slots", s.Client().ClusterAddSlotsRange(context.Background(), first, last).Err())
	}
	for i := range c.all {
		c.join(i)
	}
	c.awaitReady()
	return c
}

// start starts a server that knows no other.
func (c *ClusterServer) start() *clusterNode {
	c.t.Helper()
	n := &clusterNode{}
	n.RedisServer = newRedis(c.t, func(s *RedisServer, first bool) ([]string, error) {
		if first {
			// Where servers have it of their own accord, 10000 above the port, connections
			// may have taken it.
			n.bus = FreePort(c.t)
		}
		return append(localserver.RedisArgs(s.dir, s.Port, s.args...),
			"--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", strconv.Itoa(n.bus)), nil
	}, c.opts...)
	id, err := n.Client().ClusterMyID(context.Background()).Result()
	c.must("read the id of a server", err)
	n.id = id
	c.all = append(c.all, n)
	return n
}

// join makes a server known to those before it: all pairs, so that nobody has to wait for
// gossip.
func (c *ClusterServer) join(i int) {
	c.t.Helper()
	ctx := context.Background()
	client := c.all[i].Client()
	c.must("number a server", client.Do(ctx, "cluster", "set-config-epoch", i+1).Err())
	for _, other := range c.all[:i] {
		c.must("join servers", client.Do(ctx, "cluster", "meet", "127.0.0.1", other.Port, other.bus).Err())
	}
}

func (c *ClusterServer) must(what string, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("testenv: Redis Cluster: %s: %v", what, err)
	}
}

// awaitReady waits until every server serves, and knows who has which slots.
func (c *ClusterServer) awaitReady() {
	c.t.Helper()
	deadline := time.Now().Add(clusterReady)
	for _, s := range c.all {
		client := redis.NewClient(&redis.Options{Addr: s.Addr})
		defer client.Close()
		for {
			info, err := client.ClusterInfo(context.Background()).Result()
			if err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d\r\n", clusterSlots)) &&
				strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r\n", len(c.all))) {
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
	_, n := c.find(key)
	return n.RedisServer
}

// find returns the slot of key and the master that has it.
func (c *ClusterServer) find(key string) (slot int, master *clusterNode) {
	c.t.Helper()
	ctx := context.Background()
	for _, asked := range c.all {
		client := redis.NewClient(&redis.Options{Addr: asked.Addr, MaxRetries: -1, ReadTimeout: time.Second})
		defer client.Close()
		n, err := client.ClusterKeySlot(ctx, key).Result()
		if err != nil {
			continue // it is away
		}
		//lint:ignore SA1019 its successor, ClusterShards, lists no single owner of a slot
		ranges, err := client.ClusterSlots(ctx).Result()
		c.must("list slots", err)
		for _, r := range ranges {
			if r.Start <= int(n) && int(n) <= r.End {
				return int(n), c.node(r.Nodes[0].ID)
			}
		}
		c.t.Fatalf("testenv: Redis Cluster: nobody has slot %d", n)
	}
	c.t.Fatal("testenv: Redis Cluster: nobody answers")
	return 0, nil
}

func (c *ClusterServer) node(id string) *clusterNode {
	c.t.Helper()
	i := slices.IndexFunc(c.all, func(n *clusterNode) bool { return n.id == id })
	if i < 0 {
		c.t.Fatalf("testenv: Redis Cluster: no server has the id %s", id)
	}
	return c.all[i]
}
