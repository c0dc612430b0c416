// Package announce tells Redis, once in a while, what passes through a replica, for operators
// to look at. It costs a command each time, however many requests there are, and nothing
// waits for it.
package announce

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Options of an announcement. Replica and Read are required.
type Options struct {
	Replica string
	// Read says what is to be announced. It is called by one goroutine.
	Read    func() contract.Traffic
	Every   time.Duration // default contract.TrafficEvery
	Timeout time.Duration // of a command; default 1 s
	Logger  *slog.Logger  // default slog.Default()
}

// Run announces until ctx ends, and takes back what it announced then. While Redis is away
// nothing is announced, and what was is forgotten there by and by.
func Run(ctx context.Context, client redis.UniversalClient, o Options) {
	if o.Every <= 0 {
		o.Every = contract.TrafficEvery
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	key := contract.TrafficKey(o.Replica)
	defer func() {
		timed, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.Timeout)
		defer cancel()
		_ = client.Del(timed, key).Err() // what stays is forgotten soon
	}()
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	for {
		if err := tell(ctx, client, key, o); err != nil && ctx.Err() == nil {
			o.Logger.Debug("cannot announce the traffic", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func tell(ctx context.Context, client redis.UniversalClient, key string, o Options) error {
	text, err := json.Marshal(o.Read())
	if err != nil {
		return err
	}
	timed, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	return client.Set(timed, key, text, contract.TrafficKept).Err()
}
