// Package redisclient turns the setting that says where Redis is into a client: of one
// server, of a Cluster, or of the master that Sentinels name.
//
// The URL is parsed by go-redis, so its options (?pool_size=20&…) are understood as
// documented there. What go-redis has no form for is added here: a list of hosts, and
// schemes that say what they are. Options that would send reads to replicas are refused:
// a replica may not have a revocation yet.
package redisclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Forms are the forms of a URL, for help and error texts.
const Forms = "redis://[user:password@]host:port/database, redis-cluster://[user:password@]host:port,host:port, " +
	"or redis-sentinel://[user:password@]sentinel:port,sentinel:port/database?master=name " +
	"(with TLS: rediss://, rediss-cluster://, rediss-sentinel://)"

// reloadTopology is how often a client of a Cluster asks which server has which keys, at
// most: go-redis does not ask when a server stops answering, and its own interval of a
// minute is longer than the grace of the proxies.
const reloadTopology = 2 * time.Second

// Options are the caller's own. A zero value leaves it to the URL, or to go-redis.
type Options struct {
	// Timeout is for dialing, for writing and for reading, each. Contexts' deadlines
	// are respected besides.
	Timeout time.Duration
	// MaxRetries is how often a command is sent again that failed; -1 is never. A client
	// of a Cluster follows redirections all the same, for which max_redirects is the
	// option, and may send again for the same reason.
	MaxRetries int
	// DialerRetries is how often a connection is tried to be made.
	DialerRetries int
	// PoolSize is how many connections there are at most, to each server.
	PoolSize int
	// IdleTime is how long a connection may be unused before another one is made instead.
	IdleTime time.Duration
	// OnConnect, if it fails, refuses a new connection to a Redis server. It is not
	// called for connections to Sentinels.
	OnConnect func(ctx context.Context, conn *redis.Conn) error
}

// Target is where Redis is. It is immutable and may open any number of clients. Nothing
// that it says of itself has its password.
type Target struct {
	// One of them is set.
	single   *redis.Options
	cluster  *redis.ClusterOptions
	sentinel *redis.FailoverOptions
}

// Open returns a client, which the caller closes. It contacts nobody.
func (t *Target) Open(o Options) redis.UniversalClient {
	switch {
	case t.cluster != nil:
		c := *t.cluster
		common{
			&c.DialTimeout, &c.ReadTimeout, &c.WriteTimeout, &c.MaxRetries, &c.DialerRetries, &c.PoolSize, &c.ConnMaxIdleTime, &c.ContextTimeoutEnabled,
		}.set(o)
		c.OnConnect = o.OnConnect
		c.ClusterStateReloadInterval = reloadTopology
		// Routing by policies asks the servers for a list of all commands first, and waits
		// for it longer than the caller's deadline.
		c.DisableRoutingPolicies = true
		return redis.NewClusterClient(&c)
	case t.sentinel != nil:
		c := *t.sentinel
		common{
			&c.DialTimeout, &c.ReadTimeout, &c.WriteTimeout, &c.MaxRetries, &c.DialerRetries, &c.PoolSize, &c.ConnMaxIdleTime, &c.ContextTimeoutEnabled,
		}.set(o)
		c.OnConnect = onMaster(o.OnConnect)
		return redis.NewFailoverClient(&c)
	}
	c := *t.single
	common{
		&c.DialTimeout, &c.ReadTimeout, &c.WriteTimeout, &c.MaxRetries, &c.DialerRetries, &c.PoolSize, &c.ConnMaxIdleTime, &c.ContextTimeoutEnabled,
	}.set(o)
	c.OnConnect = o.OnConnect
	return redis.NewClient(&c)
}

// common are the fields that the options of all kinds of clients have.
type common struct {
	dial, read, write                   *time.Duration
	maxRetries, dialerRetries, poolSize *int
	idle                                *time.Duration
	contextTimeout                      *bool
}

func (c common) set(o Options) {
	*c.contextTimeout = true
	if o.Timeout != 0 {
		*c.dial, *c.read, *c.write = o.Timeout, o.Timeout, o.Timeout
	}
	if o.MaxRetries != 0 {
		*c.maxRetries = o.MaxRetries
	}
	if o.DialerRetries != 0 {
		*c.dialerRetries = o.DialerRetries
	}
	if o.PoolSize != 0 {
		*c.poolSize = o.PoolSize
	}
	if o.IdleTime != 0 {
		*c.idle = o.IdleTime
	}
}

// errNotMaster says that Sentinel named a server that is not, or not yet, the master.
var errNotMaster = errors.New("the server that Sentinel named is not the master")

// onMaster returns an OnConnect that asks a server for its role. go-redis calls it for
// connections to the Sentinels too, which next must not judge. And it does not itself
// look whether the server is a master: right after a fail-over it may be a replica again.
func onMaster(next func(context.Context, *redis.Conn) error) func(context.Context, *redis.Conn) error {
	return func(ctx context.Context, conn *redis.Conn) error {
		cmd := redis.NewSliceCmd(ctx, "role")
		if err := conn.Process(ctx, cmd); err != nil {
			return fmt.Errorf("ask Redis for its role: %w", err)
		}
		role := ""
		if answer := cmd.Val(); len(answer) > 0 {
			role, _ = answer[0].(string)
		}
		switch role {
		case "sentinel":
			return nil
		case "master":
			if next != nil {
				return next(ctx, conn)
			}
			return nil
		}
		return fmt.Errorf("%w: its role is %q", errNotMaster, role)
	}
}
