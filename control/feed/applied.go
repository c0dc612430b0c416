package feed

import (
	"context"
	"fmt"
	"strconv"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Applied returns how far each of some replicas has applied the feed: the number of the
// newest change. One that has not said so is not in it.
func (p *Publisher) Applied(ctx context.Context, replicas []string) (map[string]int64, error) {
	out := make(map[string]int64, len(replicas))
	if len(replicas) == 0 {
		return out, nil
	}
	values, err := p.client.HMGet(ctx, contract.FeedAppliedKey, replicas...).Result()
	if err != nil {
		return nil, fmt.Errorf("what replicas have applied: %w", err)
	}
	for i, v := range values {
		if text, ok := v.(string); ok {
			if out[replicas[i]], err = strconv.ParseInt(text, 10, 64); err != nil {
				return nil, fmt.Errorf("what replica %s has applied: %w", replicas[i], err)
			}
		}
	}
	return out, nil
}
