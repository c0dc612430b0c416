// Package durableredis says whether a Redis keeps what it is given. Quota counters,
// grants and usage events are kept in Redis: one that evicts keys, or forgets them when
// it restarts, gives customers their limit twice.
package durableredis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// ErrUnsafe says that Redis is set up so that it may lose what it was given, or that it
// is too old.
var ErrUnsafe = errors.New("Redis may lose data")

// The oldest version of Redis that has every command that is used (XAUTOCLAIM).
const (
	oldestMajor = 6
	oldestMinor = 2
)

// Check returns ErrUnsafe, with what to set, unless Redis keeps every key
// (maxmemory-policy noeviction), writes an append-only file, and is 6.2 or newer: each
// master of a Cluster, or the present master where Sentinels watch. It asks by INFO, which
// managed servers allow where they forbid CONFIG. Any other error means that Redis could
// not be asked, so that nothing is known.
func Check(ctx context.Context, client redis.UniversalClient) error {
	_, err := Look(ctx, client)
	return err
}

// Look does what Check does, and returns how many keys were evicted since the servers were
// started, of all masters that answered. A server that evicted some lacks grants and counters,
// also when it is set up rightly by now.
func Look(ctx context.Context, client redis.UniversalClient) (evicted int64, err error) {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		return look(ctx, client, false)
	}
	var mu sync.Mutex
	var wrong, failed []error
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		n, err := look(ctx, master, true)
		mu.Lock()
		defer mu.Unlock()
		evicted += n
		if err == nil {
			return nil
		}
		err = fmt.Errorf("master %s: %w", master.Options().Addr, err)
		if errors.Is(err, ErrUnsafe) {
			wrong = append(wrong, err)
		} else {
			failed = append(failed, err)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("ask the Redis Cluster for its masters: %w", err)
	}
	// That one is unsafe is known, whatever another one did not answer.
	if len(wrong) == 0 {
		wrong = failed
	}
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return evicted, errors.Join(wrong...)
}

// look asks one server, which is asked as one of a Cluster or not.
func look(ctx context.Context, client redis.Cmdable, ofCluster bool) (evicted int64, err error) {
	text, err := client.Info(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("ask Redis how it keeps data (INFO): %w", err)
	}
	info := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	if info["loading"] == "1" {
		// While it reads its append-only file, it says that it has none.
		return 0, errors.New("ask Redis how it keeps data: it is still loading them")
	}
	evicted, _ = strconv.ParseInt(info["evicted_keys"], 10, 64) // where it is not told, there is nothing to know
	var wrong []string
	if policy := info["maxmemory_policy"]; policy != "noeviction" {
		wrong = append(wrong, fmt.Sprintf("maxmemory-policy is %q: set \"maxmemory-policy noeviction\"", policy))
	}
	if info["aof_enabled"] != "1" {
		wrong = append(wrong, "there is no append-only file: set \"appendonly yes\"")
	}
	if version := info["redis_version"]; !recent(version) {
		wrong = append(wrong, fmt.Sprintf("its version is %q: %d.%d or newer is needed", version, oldestMajor, oldestMinor))
	}
	if info["cluster_enabled"] == "1" && !ofCluster {
		wrong = append(wrong, "it is one server of a Redis Cluster and refuses what others have: give a URL that begins with redis-cluster://")
	}
	if len(wrong) > 0 {
		return evicted, fmt.Errorf("%w: %s", ErrUnsafe, strings.Join(wrong, "; "))
	}
	return evicted, nil
}

func recent(version string) bool {
	first, rest, _ := strings.Cut(version, ".")
	second, _, _ := strings.Cut(rest, ".")
	major, err := strconv.Atoi(first)
	if err != nil {
		return false
	}
	minor, err := strconv.Atoi(second)
	return err == nil && (major > oldestMajor || major == oldestMajor && minor >= oldestMinor)
}
