package billing

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ErrUnsafeRedis says that Redis is set up so that it may lose what it was given.
var ErrUnsafeRedis = errors.New("Redis may lose data")

// CheckRedis returns ErrUnsafeRedis, with what to set, unless Redis keeps every key
// (maxmemory-policy noeviction) and an append-only file. Any other error means that
// Redis could not be asked.
func CheckRedis(ctx context.Context, client redis.UniversalClient) error {
	info := make(map[string]string)
	for _, section := range []string{"memory", "persistence"} {
		text, err := client.Info(ctx, section).Result()
		if err != nil {
			return fmt.Errorf("check Redis: %w", err)
		}
		for line := range strings.Lines(text) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
				info[name] = value
			}
		}
	}
	var wrong []string
	if p := info["maxmemory_policy"]; p != "noeviction" {
		wrong = append(wrong, fmt.Sprintf("maxmemory-policy is %q: set \"maxmemory-policy noeviction\"", p))
	}
	if info["aof_enabled"] != "1" {
		wrong = append(wrong, "there is no append-only file: set \"appendonly yes\"")
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%w: %s", ErrUnsafeRedis, strings.Join(wrong, "; "))
	}
	return nil
}
