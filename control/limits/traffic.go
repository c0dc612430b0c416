package limits

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// Traffic returns what some replicas announce of what passes through them. One that has
// announced nothing lately is not in it, and neither is one that announces what cannot be
// read: it keeps no other from being seen.
func (r *Records) Traffic(ctx context.Context, replicas []string) (map[string]contract.Traffic, error) {
	out := make(map[string]contract.Traffic, len(replicas))
	if len(replicas) == 0 {
		return out, nil
	}
	keys := make([]string, len(replicas))
	for i, id := range replicas {
		keys[i] = contract.TrafficKey(id)
	}
	values, err := r.client.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, fmt.Errorf("read what replicas announce: %w: %w", quota.ErrUnavailable, err)
	}
	for i, v := range values {
		var t contract.Traffic
		if text, ok := v.(string); ok && json.Unmarshal([]byte(text), &t) == nil {
			out[replicas[i]] = t
		}
	}
	return out, nil
}
