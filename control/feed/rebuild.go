package feed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// ErrLostAgain says that Redis lost its data while it was rebuilt. Rebuild it again.
var ErrLostAgain = errors.New("Redis lost its data during the rebuild")

// State says what Redis has of the feed.
type State struct {
	// Complete is false if Redis is new, has lost its data, or is being rebuilt.
	Complete bool
	// Seq is the number of the newest change; 0 without any. It never falls, unless
	// Redis went back to an older copy of its data.
	Seq int64
}

// State asks Redis.
func (p *Publisher) State(ctx context.Context) (State, error) {
	values, err := p.client.HMGet(ctx, contract.FeedStateKey, contract.FeedComplete, contract.FeedSeq).Result()
	if err != nil {
		return State{}, fmt.Errorf("state of the feed: %w", err)
	}
	s := State{Complete: values[0] != nil}
	if text, ok := values[1].(string); ok {
		if s.Seq, err = strconv.ParseInt(text, 10, 64); err != nil {
			return State{}, fmt.Errorf("state of the feed: %w", err)
		}
	}
	return s, nil
}

// beginScript marks the feed as incomplete and makes its number at least seq.
//
//	KEYS[1] FeedStateKey
//	ARGV: name of the rebuild, seq
const beginScript = `
redis.call('HDEL', KEYS[1], '` + contract.FeedComplete + `')
redis.call('HSET', KEYS[1], '` + contract.FeedRebuild + `', ARGV[1])
if tonumber(redis.call('HGET', KEYS[1], '` + contract.FeedSeq + `') or 0) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], '` + contract.FeedSeq + `', ARGV[2])
end
return 1
`

// endScript marks the feed as complete if the rebuild is still the one that began.
//
//	KEYS, ARGV: as above, without seq
//	answer: 1, or 0 if it is not
const endScript = `
if redis.call('HGET', KEYS[1], '` + contract.FeedRebuild + `') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], '` + contract.FeedRebuild + `')
redis.call('HSET', KEYS[1], '` + contract.FeedComplete + `', ARGV[1])
return 1
`

// Rebuild runs do, which is to put all grants, and then tells every reader to read
// anew and marks the feed as complete. Changes are numbered above seq from now on: no
// number is given out twice, although Redis may have forgotten which ones were. Only
// one rebuild may run at a time; ErrLostAgain says that it was in vain.
func (p *Publisher) Rebuild(ctx context.Context, seq int64, do func(context.Context) error) error {
	name := rand.Text()
	keys := []string{contract.FeedStateKey}
	if err := redis.NewScript(beginScript).Run(ctx, p.client, keys, name, seq).Err(); err != nil {
		return fmt.Errorf("begin to rebuild the feed: %w", err)
	}
	if err := do(ctx); err != nil {
		return err
	}
	if _, err := p.announce(ctx, contract.Change{Kind: contract.ChangeReload}, seq); err != nil {
		return err
	}
	ended, err := redis.NewScript(endScript).Run(ctx, p.client, keys, name).Int()
	if err != nil {
		return fmt.Errorf("end the rebuild of the feed: %w", err)
	}
	if ended == 0 {
		return fmt.Errorf("rebuild the feed: %w", ErrLostAgain)
	}
	return nil
}

// Entry is one grant and the digest that it is stored under.
type Entry struct {
	Digest contract.Digest
	Grant  contract.Grant
}

// StoreGrants stores grants as PutGrant does, but announces none of them: call Reload
// afterwards. The first result has an error for each grant that was not stored and
// nil for the others, as from PutGrant; a revoked grant that is outdated is one of
// them. The second is of Redis, and then nothing is known of any grant.
func (p *Publisher) StoreGrants(ctx context.Context, entries []Entry) ([]error, error) {
	failed := make([]error, len(entries))
	encoded := make([][]byte, len(entries))
	var good []int
	for i, e := range entries {
		if encoded[i], failed[i] = contract.EncodeGrant(e.Grant); failed[i] == nil {
			good = append(good, i)
		}
	}
	if len(good) == 0 {
		return failed, nil
	}
	store := func(i int, c redis.Scripter, run func(context.Context, redis.Scripter, []string, ...any) *redis.Cmd) *redis.Cmd {
		g := entries[i].Grant
		return run(ctx, c, []string{contract.GrantKey(entries[i].Digest)}, encoded[i], g.Version, string(g.Status))
	}
	calls := make([]*redis.Cmd, len(entries))
	calls[good[0]] = store(good[0], p.client, p.grant.Run) // so that Redis knows the script
	// Its own error is that of its first failed call.
	_, _ = p.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, i := range good[1:] {
			calls[i] = store(i, pipe, p.grant.EvalSha)
		}
		return nil
	})
	for _, i := range good {
		call := calls[i]
		if redis.HasErrorPrefix(call.Err(), "NOSCRIPT") { // another server has taken over
			call = store(i, p.client, p.grant.Run)
		}
		reply, err := call.Slice()
		// Of the errors that Redis answers only this one is the grant's: the others, such as
		// READONLY, CLUSTERDOWN or OOM, say that the server cannot store anything just now.
		if err != nil && !strings.Contains(err.Error(), "WRONGTYPE") {
			return nil, fmt.Errorf("store grants: %w", err)
		}
		if err == nil {
			_, err = grantAnswer(reply, entries[i].Grant)
		}
		if err != nil {
			failed[i] = fmt.Errorf("store grant of token %s: %w", entries[i].Grant.TokenID, err)
		}
	}
	return failed, nil
}
