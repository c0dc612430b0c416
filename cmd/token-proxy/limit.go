package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// checkedFor is how long a connection that was found to lead to a trusted server may be idle:
// shorter than it takes a server to become a replica, for want of an answer, and a master again.
const checkedFor = 5 * time.Second

// guardedClient returns a second client to the Redis of client, whose connections lead only
// to servers that the quota's epoch trusts.
func guardedClient(target *redisclient.Target, opts redisclient.Options, client redis.UniversalClient) redis.UniversalClient {
	opts.IdleTime = checkedFor
	opts.OnConnect = quota.NewGuard(client).Check
	return target.Open(opts)
}

// watchLimit logs, until ctx ends, why tokens cannot be reserved, and when they can again.
func watchLimit(ctx context.Context, leases *quota.Leases, log *slog.Logger) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	before := "not started"
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := ""
		err := leases.Ready()
		if err != nil {
			now = err.Error()
		}
		switch {
		case now == before:
		case err != nil:
			log.Warn("tokens cannot be reserved: requests get 503", "reason", now)
		default:
			log.Info("tokens can be reserved", "epoch", leases.Stats().Epoch)
		}
		before = now
	}
}
