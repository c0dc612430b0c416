package testenv

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Move moves the slot of key, with all its keys, to another master. See MoveTo.
func (c *ClusterServer) Move(key string, halfway func()) {
	c.t.Helper()
	_, from := c.find(key)
	c.MoveTo(key, c.Masters[(slices.Index(c.Masters, from.RedisServer)+1)%len(c.Masters)], halfway)
}

// MoveTo moves the slot of key, with all its keys, to another master, as an operator does
// who adds a server. In the middle of it, when all keys are moved and the slot is not
// (so that clients are sent to the other master one command at a time), it calls halfway.
func (c *ClusterServer) MoveTo(key string, target *RedisServer, halfway func()) {
	c.t.Helper()
	ctx := context.Background()
	slot, from := c.find(key)
	to := c.of(target)
	setSlot := func(n *clusterNode, args ...any) {
		c.t.Helper()
		c.must("move a slot", n.Client().Do(ctx, append([]any{"cluster", "setslot", slot}, args...)...).Err())
	}
	setSlot(to, "importing", from.id)
	setSlot(from, "migrating", to.id)
	for {
		keys, err := from.Client().ClusterGetKeysInSlot(ctx, slot, 100).Result()
		c.must("list the keys of a slot", err)
		if len(keys) == 0 {
			break
		}
		args := []any{"migrate", "127.0.0.1", to.Port, "", 0, 10_000, "keys"}
		for _, k := range keys {
			args = append(args, k)
		}
		c.must("move keys", from.Client().Do(ctx, args...).Err())
	}
	if halfway != nil {
		halfway()
	}
	setSlot(to, "node", to.id)
	for _, s := range c.Masters {
		setSlot(c.of(s), "node", to.id)
	}
}

func (c *ClusterServer) of(s *RedisServer) *clusterNode {
	c.t.Helper()
	i := slices.IndexFunc(c.all, func(n *clusterNode) bool { return n.RedisServer == s })
	if i < 0 {
		c.t.Fatalf("testenv: Redis Cluster: %s is none of its servers", s.Addr)
	}
	return c.all[i]
}

// AddMaster adds a master that has no slots yet, and becomes one of Masters.
func (c *ClusterServer) AddMaster() *RedisServer {
	c.t.Helper()
	n := c.start()
	c.join(len(c.all) - 1)
	c.awaitReady()
	c.Masters = append(c.Masters, n.RedisServer)
	return n.RedisServer
}

// AddReplica adds a replica of a master, and waits until it has its data.
func (c *ClusterServer) AddReplica(master *RedisServer) *RedisServer {
	c.t.Helper()
	n := c.start()
	c.join(len(c.all) - 1)
	c.awaitReady()
	c.must("add a replica", n.Client().Do(context.Background(), "cluster", "replicate", c.of(master).id).Err())
	c.AwaitReplica(n.RedisServer)
	return n.RedisServer
}

// AwaitReplica waits until a server is the replica of another and has its data.
func (c *ClusterServer) AwaitReplica(replica *RedisServer) {
	c.t.Helper()
	c.await("a replica has the data of its master", replica, "replication", "master_link_status:up")
}

// TakeOver has a replica become the master in place of its own, with the data that it has,
// whether its master lives or not. The old one, if it lives, becomes its replica. It waits
// until all servers that are given know that.
func (c *ClusterServer) TakeOver(replica *RedisServer, tell ...*RedisServer) {
	c.t.Helper()
	id := c.of(replica).id
	c.must("take over", replica.Client().Do(context.Background(), "cluster", "failover", "takeover").Err())
	for _, s := range append(tell, replica) {
		client := redis.NewClient(&redis.Options{Addr: s.Addr})
		defer client.Close()
		deadline := time.Now().Add(clusterReady)
		for {
			nodes, err := client.ClusterNodes(context.Background()).Result()
			if err == nil && slices.ContainsFunc(strings.Split(nodes, "\n"), func(line string) bool {
				return strings.HasPrefix(line, id) && strings.Contains(line, "master") && strings.Count(line, " ") > 7 // it has slots
			}) {
				break
			}
			if time.Now().After(deadline) {
				c.t.Fatalf("testenv: Redis Cluster: %s does not know the new master after %v: %v\n%s", s.Addr, clusterReady, err, nodes)
			}
			time.Sleep(10 * time.Millisecond) // a poll: the servers announce nothing
		}
	}
}

// await polls a section of INFO.
func (c *ClusterServer) await(what string, s *RedisServer, section, want string) {
	c.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.Addr})
	defer client.Close()
	deadline := time.Now().Add(clusterReady)
	for {
		info, err := client.Info(context.Background(), section).Result()
		if err == nil && strings.Contains(info, want) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("testenv: Redis Cluster: %s: not after %v: %v", what, clusterReady, fmt.Errorf("%w\n%s", err, info))
		}
		time.Sleep(10 * time.Millisecond) // a poll: the servers announce nothing
	}
}
