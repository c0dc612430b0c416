package quota

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"
)

// perServer runs one command for each key, in as few trips as there are servers. queue
// makes the command for keys[i] with c, a pipeline or client itself, and returns it; of
// several for the same key the last one counts. It is called for several keys at once.
//
// With a Redis Cluster, client.Pipelined would fail all commands, those that were answered
// too, when the context ends while one server is silent. Here a server fails only its own,
// and holds up no other's: not those that have to be repeated either, because the server
// no longer has the key.
func perServer(ctx context.Context, client redis.UniversalClient, keys []string, queue func(c redis.Cmdable, i int) redis.Cmder) {
	byServer := map[redis.Cmdable][]int{}
	cluster, isCluster := client.(*redis.ClusterClient)
	for i, key := range keys {
		server := redis.Cmdable(client)
		if isCluster {
			if master, err := cluster.MasterForKey(ctx, key); err == nil {
				server = master
			} // else the client of the cluster fails, and says why
		}
		byServer[server] = append(byServer[server], i)
	}
	var servers sync.WaitGroup
	for server, which := range byServer {
		servers.Go(func() {
			rest := pipelined(ctx, server, which, queue)
			if len(rest) == 0 {
				return
			}
			queue(client, rest[0]) // now it knows the script
			for _, i := range pipelined(ctx, server, rest[1:], queue) {
				queue(client, i)
			}
		})
	}
	servers.Wait()
}

// pipelined makes some of the commands of perServer in one trip, and returns those that the
// server did not run.
func pipelined(ctx context.Context, server redis.Cmdable, which []int, queue func(c redis.Cmdable, i int) redis.Cmder) (rest []int) {
	made := make([]redis.Cmder, len(which))
	// Its own error is that of its first failed command.
	_, _ = server.Pipelined(ctx, func(p redis.Pipeliner) error {
		for n, i := range which {
			made[n] = queue(p, i)
		}
		return nil
	})
	for n, i := range which {
		if wasNotRun(made[n].Err()) {
			rest = append(rest, i)
		}
	}
	return rest
}

// runAll runs a script once for each key, with that key alone and its arguments, as
// perServer does. It returns the answers in the order of the keys.
func runAll(ctx context.Context, client redis.UniversalClient, script *redis.Script, keys []string, args [][]any) []*redis.Cmd {
	calls := make([]*redis.Cmd, len(keys))
	perServer(ctx, client, keys, func(c redis.Cmdable, i int) redis.Cmder {
		if c == redis.Cmdable(client) {
			calls[i] = script.Run(ctx, c, keys[i:i+1], args[i]...)
		} else {
			calls[i] = script.EvalSha(ctx, c, keys[i:i+1], args[i]...)
		}
		return calls[i]
	})
	return calls
}

// wasNotRun reports whether a server answered that it did not run a command that it, or the
// server to which a Cluster has moved the key, would run.
func wasNotRun(err error) bool {
	for _, prefix := range []string{"NOSCRIPT", "MOVED", "ASK", "TRYAGAIN"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}
