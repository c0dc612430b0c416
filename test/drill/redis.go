package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

// redisServer is the system's Redis: one node, or the three masters of a Cluster. The
// drill itself reaches it directly, the system through links.
type redisServer struct {
	program string
	dir     string
	cluster bool
	nodes   []*redisNode
	client  redis.UniversalClient // the drill's own, past all links
}

// redisNode is one redis-server and its data.
type redisNode struct {
	name     string
	port     int // where it listens
	announce int // in a Cluster, the port that clients are told: that of its link
	bus      int // in a Cluster, where nodes talk to each other
	dir      string
	saved    string // directory with an older copy of the data; "" before the first

	mu      sync.Mutex // guards process and the data while it is down
	process *process
}

// clusterNodes is how many masters a Cluster has.
const clusterNodes = 3

// directTimeout bounds what the drill asks Redis itself: it may be frozen.
const directTimeout = 400 * time.Millisecond

func newRedis(dir string, cluster bool) (*redisServer, error) {
	program, err := localserver.FindRedis()
	if err != nil {
		return nil, err
	}
	r := &redisServer{program: program, dir: dir, cluster: cluster}
	n := 1
	if cluster {
		n = clusterNodes
	}
	for i := range n {
		node := &redisNode{name: "redis", dir: filepath.Join(dir, fmt.Sprintf("redis%d", i))}
		if cluster {
			node.name = fmt.Sprintf("redis %d", i)
			// 10000 above the port, where it would be by default, connections may have taken it.
			if node.bus, err = localserver.FreePort(); err != nil {
				return nil, err
			}
		}
		if node.port, err = localserver.FreePort(); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(node.dir, 0o700); err != nil {
			return nil, fmt.Errorf("redis: %w", err)
		}
		r.nodes = append(r.nodes, node)
	}
	return r, nil
}

// run starts all nodes and connects the drill's own client. In a Cluster the links have
// to be there, because nodes announce them.
func (r *redisServer) run() error {
	for _, n := range r.nodes {
		if err := r.start(n); err != nil {
			return err
		}
	}
	if !r.cluster {
		r.client = redis.NewClient(&redis.Options{
			Addr: local(r.nodes[0].port), ContextTimeoutEnabled: true, MaxRetries: -1,
			DialTimeout: directTimeout, ReadTimeout: directTimeout, WriteTimeout: directTimeout,
		})
		return nil
	}
	if err := r.form(); err != nil {
		return fmt.Errorf("form the Redis Cluster: %w", err)
	}
	direct := map[string]string{}
	var addrs []string
	for _, n := range r.nodes {
		direct[local(n.announce)] = local(n.port)
		addrs = append(addrs, local(n.announce))
	}
	dialer := &net.Dialer{Timeout: directTimeout}
	r.client = redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: addrs, ContextTimeoutEnabled: true, MaxRetries: -1, MaxRedirects: 3,
		DialTimeout: directTimeout, ReadTimeout: directTimeout, WriteTimeout: directTimeout,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if d, ok := direct[addr]; ok {
				addr = d
			}
			return dialer.DialContext(ctx, network, addr)
		},
	})
	return poll(20*time.Second, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return r.client.Set(ctx, "drill", "formed", time.Minute).Err()
	})
}

// url is where programs reach Redis: through the ports of links.
func (r *redisServer) url(ports ...int) string {
	if !r.cluster {
		return "redis://" + local(ports[0]) + "/0"
	}
	var hosts []string
	for _, p := range ports {
		hosts = append(hosts, local(p))
	}
	return "redis-cluster://" + strings.Join(hosts, ",")
}

// start starts a node that is down and waits until it has loaded its data.
func (r *redisServer) start(n *redisNode) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && !n.process.ended() {
		return nil
	}
	var extra []string
	if r.cluster {
		extra = []string{
			"--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "2000",
			// A node that is down takes its own slots with it, not those of the others.
			"--cluster-require-full-coverage", "no",
			"--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", strconv.Itoa(n.announce),
			"--cluster-port", strconv.Itoa(n.bus),
		}
	}
	p, err := start(spec{
		name: n.name, path: r.program, args: localserver.RedisArgs(n.dir, n.port, extra...),
		dir: n.dir, env: os.Environ(), log: filepath.Join(r.dir, "redis.log"),
	})
	if err != nil {
		return err
	}
	n.process = p
	return poll(20*time.Second, func() error {
		if p.ended() {
			return fmt.Errorf("%s ended at its start: %v", n.name, p.err)
		}
		client := n.direct()
		defer client.Close()
		return client.Ping(context.Background()).Err()
	})
}

// direct returns a client of this node alone, whatever slots it has.
func (n *redisNode) direct() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: local(n.port), MaxRetries: -1, DialTimeout: directTimeout, ReadTimeout: 2 * time.Second, WriteTimeout: directTimeout,
	})
}

// form gives each node a third of the slots and introduces them to each other.
func (r *redisServer) form() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	const slots = 16384
	for i, n := range r.nodes {
		client := n.direct()
		defer client.Close()
		if err := client.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			return err
		}
		if err := client.ClusterAddSlotsRange(ctx, i*slots/len(r.nodes), (i+1)*slots/len(r.nodes)-1).Err(); err != nil {
			return err
		}
		for _, other := range r.nodes[:i] {
			if err := client.Do(ctx, "CLUSTER", "MEET", "127.0.0.1", other.port, other.bus).Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// down kills a node.
func (n *redisNode) down() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		n.process.kill()
	}
}

func (n *redisNode) freeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		n.process.freeze()
	}
}

func (n *redisNode) thaw() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		n.process.thaw()
	}
}

// dataDir is what a node loads at its start. A Cluster's nodes.conf is not part of it: a
// node that lost its data still knows who it is.
func (n *redisNode) dataDir() string { return filepath.Join(n.dir, "appendonlydir") }

// wipe removes a node's data. It must be down.
func (n *redisNode) wipe() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return os.RemoveAll(n.dataDir())
}

// errNoCopy says that there is no older copy to restore yet.
var errNoCopy = errors.New("no older copy of Redis' data yet")

// restore puts the older copy in place of a node's data. It must be down.
func (n *redisNode) restore() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.saved == "" {
		return errNoCopy
	}
	if err := os.RemoveAll(n.dataDir()); err != nil {
		return err
	}
	return os.CopyFS(n.dataDir(), os.DirFS(n.saved))
}

// save copies a node's data while it runs, as a snapshot of its disk would. The copy may
// end in the middle of a command, which Redis cuts off when it loads it.
func (n *redisNode) save() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil || n.process.ended() {
		return nil
	}
	client := n.direct()
	defer client.Close()
	info, err := client.Info(context.Background(), "persistence").Result()
	if err != nil || strings.Contains(info, "aof_rewrite_in_progress:1") {
		return err // files come and go during a rewrite
	}
	to := filepath.Join(n.dir, fmt.Sprintf("copy-%d", time.Now().UnixNano()))
	if err := os.CopyFS(to, os.DirFS(n.dataDir())); err != nil {
		return errors.Join(err, os.RemoveAll(to))
	}
	if n.saved != "" {
		if err := os.RemoveAll(n.saved); err != nil {
			return err
		}
	}
	n.saved = to
	return nil
}

// flushAll makes every one of the nodes that answers forget all it has.
func flushAll(nodes []*redisNode) error {
	var errs []error
	for _, n := range nodes {
		client := n.direct()
		if err := client.FlushAll(context.Background()).Err(); err != nil {
			errs = append(errs, fmt.Errorf("FLUSHALL of %s: %w", n.name, err))
		}
		_ = client.Close()
	}
	return errors.Join(errs...)
}

func (r *redisServer) stop() {
	if r.client != nil {
		_ = r.client.Close()
	}
	for _, n := range r.nodes {
		n.down()
	}
}
