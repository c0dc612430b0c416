// Package feed publishes grants and changes of the configuration to Redis, where
// every proxy reads them. Postgres stays the truth: its outbox calls this package
// again for whatever it is not sure has arrived, and every call may be repeated.
//
// A change goes to Redis in two steps, in this order: the grant to its own key, and
// then its announcement, numbered without gaps, to the log and the channel. Who has
// read an announcement therefore finds a grant at least as new under its key, and a
// Redis that has lost the grant has lost the announcement too.
package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// ErrRevoked says that the grant is revoked for ever, so that nothing was written.
// The caller must mint another token.
var ErrRevoked = errors.New("grant is revoked")

// OutdatedError says that a grant of another content with the same or a newer version
// is stored, so that nothing was written: the change was overtaken, or who numbers the
// grants has gone back, as Postgres does when it is restored from a backup. In that
// case the caller must number the grant above Stored and put it again.
type OutdatedError struct {
	Version int64 // of the grant that was to be put
	Stored  int64 // of the grant that is stored
}

func (e *OutdatedError) Error() string {
	return fmt.Sprintf("version %d of the grant is stored, which version %d cannot replace", e.Stored, e.Version)
}

// What grantScript answers.
const (
	grantStored    = 1  // it is stored now
	grantKept      = 0  // a revoked one is stored, of the same or a newer version
	grantRevoked   = -1 // a revoked one is stored, of an older version
	grantOutdated  = -2 // another one is stored, of the same or a newer version
	revokeAttempts = 10
)

// grantScript writes a grant whose version is newer than the stored one. The stored
// one of a revoked token is never replaced by one that is not revoked. Versions are
// compared as decimal strings: they may be larger than the numbers Lua has.
//
//	KEYS[1] GrantKey
//	ARGV: grant, version, status
//	answer: {one of the above, the stored grant, its version}
const grantScript = `
local old = redis.call('GET', KEYS[1])
if old and old ~= ARGV[1] then
  -- The quote in front keeps limit_version apart; inside a string it would be escaped.
  local version = string.match(old, '"version":(%d+)')
  local status = string.match(old, '"status":"(%a+)"')
  local newer = version and (#version > #ARGV[2] or (#version == #ARGV[2] and version >= ARGV[2]))
  if status == 'revoked' then
    if newer then return {0, old, version} end
    if ARGV[3] ~= 'revoked' then return {-1, old, version} end
  elseif newer then
    return {-2, old, version}
  end
end
redis.call('SET', KEYS[1], ARGV[1])
return {1, ARGV[1], ARGV[2]}
`

// changeScript numbers a change, appends it to the log and publishes it. If the
// number was lost but the log was not, it goes on from the log. If it would give out a number
// that is known to be given out already, Redis has lost the change that had it: it says that grants
// may be missing, which a rebuild under way cannot take back, and goes on above.
//
//	KEYS[1] FeedStateKey, KEYS[2] FeedLogKey
//	ARGV: the change up to its number, the change after it, length of the log, channel,
//	      the newest number that is known to be given out
//	answer: the number
const changeScript = `
local seq = redis.call('HINCRBY', KEYS[1], '` + contract.FeedSeq + `', 1)
local top = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if top then
  local last = tonumber(string.match(top[1], '^(%d+)'))
  if last >= seq then
    seq = last + 1
    redis.call('HSET', KEYS[1], '` + contract.FeedSeq + `', string.format('%.0f', seq))
  end
end
if seq <= tonumber(ARGV[5]) then
  redis.call('HDEL', KEYS[1], '` + contract.FeedComplete + `', '` + contract.FeedRebuild + `')
  seq = tonumber(ARGV[5]) + 1
  redis.call('HSET', KEYS[1], '` + contract.FeedSeq + `', string.format('%.0f', seq))
end
local number = string.format('%.0f', seq)
local change = ARGV[1] .. number .. ARGV[2]
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], number .. '-0', 'c', change)
redis.call('PUBLISH', ARGV[4], change)
return seq
`

// Publisher publishes changes. It is safe for concurrent use: concurrent calls for
// the same digest end with the newest version stored, and announced at least once.
type Publisher struct {
	client redis.UniversalClient
	grant  *redis.Script
	change *redis.Script
}

// NewPublisher returns a Publisher on client, which stays the caller's.
func NewPublisher(client redis.UniversalClient) *Publisher {
	return &Publisher{client: client, grant: redis.NewScript(grantScript), change: redis.NewScript(changeScript)}
}

// PutGrant stores g under digest and announces what is stored then. It returns the
// number of the announcement. A revoked grant is stored whatever is there: above a
// newer version it gets a version of its own. Any other g is not stored over a revoked
// grant, which is announced again, or ErrRevoked, nor over a newer one, which is an
// *OutdatedError. After an error other than these two the grant may be stored,
// announced, both or neither: repeat the call. A revoked grant's key stays for ever.
func (p *Publisher) PutGrant(ctx context.Context, digest contract.Digest, g contract.Grant) (seq int64, err error) {
	return p.PutGrantAfter(ctx, digest, g, 0)
}

// PutGrantAfter is PutGrant for who knows, from before the call, that newest was announced. If Redis
// has no announcement so new it has lost some, and says from then on that it is not complete: see State. To
// look at numbers afterwards would not tell once as many changes were announced as were lost.
func (p *Publisher) PutGrantAfter(ctx context.Context, digest contract.Digest, g contract.Grant, newest int64) (seq int64, err error) {
	for attempt := 1; ; attempt++ {
		stored, err := p.put(ctx, digest, g)
		outdated := (*OutdatedError)(nil)
		if errors.As(err, &outdated) && g.Status == contract.StatusRevoked && attempt < revokeAttempts && outdated.Stored < math.MaxInt64 {
			g.Version = outdated.Stored + 1 // readers heed only what is newer
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("put grant of token %s: %w", g.TokenID, err)
		}
		return p.announce(ctx, contract.Change{Kind: contract.ChangeGrant, Digest: digest.Hex(), Grant: stored}, newest)
	}
}

// put stores g, and returns what is stored then.
func (p *Publisher) put(ctx context.Context, digest contract.Digest, g contract.Grant) (*contract.Grant, error) {
	encoded, err := contract.EncodeGrant(g)
	if err != nil {
		return nil, err
	}
	reply, err := p.grant.Run(ctx, p.client, []string{contract.GrantKey(digest)}, encoded, g.Version, string(g.Status)).Slice()
	if err != nil {
		return nil, err
	}
	return grantAnswer(reply, g)
}

// grantAnswer reads what grantScript answered about g.
func grantAnswer(reply []any, g contract.Grant) (*contract.Grant, error) {
	if len(reply) < 2 {
		return nil, errors.New("unexpected answer")
	}
	switch reply[0] {
	case int64(grantRevoked):
		return nil, fmt.Errorf("version %d: %w", g.Version, ErrRevoked)
	case int64(grantOutdated):
		// The stored grant need not be one that this build can read.
		text, _ := reply[len(reply)-1].(string)
		stored, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("version of the stored grant: %w", err)
		}
		return nil, &OutdatedError{Version: g.Version, Stored: stored}
	}
	text, _ := reply[1].(string)
	stored, err := contract.DecodeGrant([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("stored grant: %w", err)
	}
	return stored, nil
}

// Reload tells every reader to forget what it knows and to read anew. It returns the
// number of the announcement.
func (p *Publisher) Reload(ctx context.Context) (seq int64, err error) {
	return p.announce(ctx, contract.Change{Kind: contract.ChangeReload}, 0)
}

func (p *Publisher) announce(ctx context.Context, c contract.Change, newest int64) (seq int64, err error) {
	c.Seq = 0
	encoded, err := contract.EncodeChange(c)
	if err != nil {
		return 0, fmt.Errorf("announce change: %w", err)
	}
	// The number is known only inside the script, which therefore gets both sides.
	head, tail, found := bytes.Cut(encoded, []byte(`"seq":0`))
	if !found {
		return 0, errors.New("announce change: encoding has no number")
	}
	head = append(bytes.Clone(head), `"seq":`...)
	seq, err = p.change.Run(ctx, p.client, []string{contract.FeedStateKey, contract.FeedLogKey},
		head, tail, contract.FeedLogLen, contract.FeedChannel, newest).Int64()
	if err != nil {
		return 0, fmt.Errorf("announce change: %w", err)
	}
	return seq, nil
}
