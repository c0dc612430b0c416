package redisclient

import "github.com/redis/go-redis/v9"

// Sentinel returns what t says of Sentinels, which no client tells.
func Sentinel(t *Target) *redis.FailoverOptions { return t.sentinel }
