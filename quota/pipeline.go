package quota

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"
)

// runAll runs a script once for each key, with that key alone and its arguments, in as few
// trips as there are servers. It returns the answers in the order of the keys.
//
// With a Redis Cluster, client.Pipelined would fail all commands, those that were answered
// too, when the context ends while one server is silent. Here a server fails only its own,
// and holds up no other's: not those that have to be repeated either, because the server
// does not know the script or no longer has the key.
func runAll(ctx context.Context, client redis.UniversalClient, script *redis.Script, keys []string, args [][]any) []*redis.Cmd {
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
	calls := make([]*redis.Cmd, len(keys))
	var servers sync.WaitGroup
	for server, which := range byServer {
		servers.Go(func() {
			// Its own error is that of its first failed command.
			_, _ = server.Pipelined(ctx, func(p redis.Pipeliner) error {
				for _, i := range which {
					calls[i] = script.EvalSha(ctx, p, keys[i:i+1], args[i]...)
				}
				return nil
			})
			for _, i := range which {
				if notRun(calls[i].Err()) {
					calls[i] = script.Run(ctx, client, keys[i:i+1], args[i]...)
				}
			}
		})
	}
	servers.Wait()
	return calls
}

// notRun reports whether a server answered that it did not run a script that it, or the
// server to which a Cluster has moved the key, would run.
func notRun(err error) bool {
	for _, prefix := range []string{"NOSCRIPT", "MOVED", "ASK", "TRYAGAIN"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}
