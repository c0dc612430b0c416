package platform

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// info reads a number of Redis' INFO.
func (p *Platform) info(ctx context.Context, section, name string) (int64, error) {
	text, err := p.client.Info(ctx, section).Result()
	if err != nil {
		return 0, fmt.Errorf("redis info: %w", err)
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, fmt.Errorf("redis info: there is no %s", name)
}

// Commands is how many commands Redis has executed, those inside of scripts included.
func (p *Platform) Commands(ctx context.Context) (int64, error) {
	return p.info(ctx, "stats", "total_commands_processed")
}

// RedisMemory is what Redis' data takes, in bytes.
func (p *Platform) RedisMemory(ctx context.Context) (int64, error) {
	return p.info(ctx, "memory", "used_memory")
}

// published is nil once Redis has the grants of all tokens.
func (p *Platform) published(ctx context.Context) error {
	ok, err := p.client.HExists(ctx, contract.FeedStateKey, contract.FeedComplete).Result()
	if err != nil {
		return fmt.Errorf("platform: redis: %w", err)
	}
	if !ok {
		return errors.New("the grants are not yet in Redis")
	}
	return nil
}

// Lift sets requests per second and in flight of all customers' grants so high that they
// are checked and never reached. Proxies must be started after it.
func (p *Platform) Lift(ctx context.Context) error {
	hasher, err := contract.NewHasher([]byte(pepper))
	if err != nil {
		return fmt.Errorf("lift rates: %w", err)
	}
	for _, token := range p.Tokens {
		key := contract.GrantKey(hasher.Digest([]byte(token)))
		raw, err := p.client.Get(ctx, key).Bytes()
		if err != nil {
			return fmt.Errorf("lift rates: %w", err)
		}
		g, err := contract.DecodeGrant(raw)
		if err != nil {
			return fmt.Errorf("lift rates: %w", err)
		}
		g.Version++
		g.RequestsPerSecond, g.Burst, g.Concurrent = 1e6, 1e6, 100_000
		if raw, err = contract.EncodeGrant(*g); err != nil {
			return fmt.Errorf("lift rates: %w", err)
		}
		if err := p.client.Set(ctx, key, raw, 0).Err(); err != nil {
			return fmt.Errorf("lift rates: %w", err)
		}
	}
	return nil
}

// Idle makes sure that Redis has n grants, by adding such that nobody uses.
func (p *Platform) Idle(ctx context.Context, n int) error {
	now := time.Now().UTC().Truncate(time.Second)
	for p.grants < n {
		pipe := p.client.Pipeline()
		for range min(1000, n-p.grants) {
			var digest contract.Digest
			_, _ = rand.Read(digest[:]) // it never fails
			id := "idle" + strconv.Itoa(p.grants)
			raw, err := contract.EncodeGrant(contract.Grant{
				Version: 1, TokenID: "t" + id, CustomerID: id, BoxID: "b" + id, Tier: "team", Status: contract.StatusActive,
				RequestsPerSecond: 10, Burst: 20, Concurrent: 32, MonthlyLimit: 20_000_000, LimitVersion: 1,
				Period:  contract.Period{ID: now.Format("20060102T150405Z"), Start: now, End: now.AddDate(0, 1, 0)},
				Weights: contract.Weights{Prompt: 1, Cached: 1, Completion: 1},
			})
			if err != nil {
				return fmt.Errorf("idle grants: %w", err)
			}
			pipe.Set(ctx, contract.GrantKey(digest), raw, 0)
			p.grants++
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("idle grants: %w", err)
		}
	}
	return nil
}

// connect opens the platform's own connection to Redis.
func (p *Platform) connect(ctx context.Context) error {
	o, err := redis.ParseURL(p.Redis)
	if err != nil {
		return errors.New("platform: the address of Redis is none") // the error would quote it, password included
	}
	p.client = redis.NewClient(o)
	if err := p.client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("platform: redis: %w", err)
	}
	return nil
}
