package billing

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// raiseAcked writes what replicas may forget, and never lowers it: workers publish in
// any order. Numbers up to 2^53 compare exactly.
//
//	KEYS[1] UsageAckedKey
//	ARGV: replica, number, replica, number, …
const raiseAcked = `
for i = 1, #ARGV, 2 do
	local known = tonumber(redis.call('HGET', KEYS[1], ARGV[i]))
	if not known or known < tonumber(ARGV[i + 1]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return redis.status_reply('OK')`

// ackedAtOnce is how many replicas one call of raiseAcked is given.
const ackedAtOnce = 500

// publishAcked adds to p what publishes acked.
func publishAcked(ctx context.Context, p redis.Pipeliner, acked map[string]int64) {
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(acked)), ackedAtOnce) {
		args := make([]any, 0, 2*len(chunk))
		for _, replica := range chunk {
			args = append(args, replica, acked[replica])
		}
		p.Eval(ctx, raiseAcked, []string{contract.UsageAckedKey}, args...)
	}
}

// PublishAcked tells replicas what they may forget: by replica the highest n such that
// all of its events 1…n are in Postgres. It may be repeated, and in any order.
func PublishAcked(ctx context.Context, client redis.UniversalClient, acked map[string]int64) error {
	if len(acked) == 0 {
		return nil
	}
	_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error { publishAcked(ctx, p, acked); return nil })
	if err != nil {
		return fmt.Errorf("publish acknowledgements: %w", err)
	}
	return nil
}
