package billing

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// stream is one consumer of the usage stream.
type stream struct {
	client   redis.UniversalClient
	consumer string
	block    time.Duration
	count    int64
}

// readOnce keeps a client from repeating a read or a claim after its connection broke. Redis
// may have handed out entries in the reply that was lost: what follows by itself would leave
// them pending, unseen until they may be claimed. The ledger begins anew with what is
// pending. A redirection by a Cluster is followed all the same.
type readOnce struct{}

func (readOnce) DialHook(next redis.DialHook) redis.DialHook { return next }

func (readOnce) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (readOnce) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		switch cmd.(type) {
		case *redis.XStreamSliceCmd, *redis.XAutoClaimCmd:
			cmd = onceCmd{cmd}
		}
		return next(ctx, cmd)
	}
}

// onceCmd is a command that go-redis does not send again.
type onceCmd struct{ redis.Cmder }

// NoRetry says so.
func (onceCmd) NoRetry() bool { return true }

// ensureGroup creates the consumer group if it is not there: at the first start, and
// after Redis lost its data. It begins with the stream's first entry, since whatever
// is on the stream is not acknowledged.
func (s *stream) ensureGroup(ctx context.Context) error {
	err := s.client.XGroupCreateMkStream(ctx, contract.UsageStreamKey, contract.UsageGroup, "0").Err()
	if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") {
		return fmt.Errorf("create consumer group: %w", err)
	}
	return nil
}

// readNew waits at most block for entries that no consumer has been given.
func (s *stream) readNew(ctx context.Context) ([]entry, error) {
	return s.read(ctx, ">", s.block)
}

// readPending returns entries that were given to this consumer and are not
// acknowledged, oldest first.
func (s *stream) readPending(ctx context.Context) ([]entry, error) {
	return s.read(ctx, "0", -1)
}

func (s *stream) read(ctx context.Context, from string, block time.Duration) ([]entry, error) {
	streams, err := s.client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: contract.UsageGroup, Consumer: s.consumer,
		Streams: []string{contract.UsageStreamKey, from}, Count: s.count, Block: block,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read usage stream: %w", err)
	}
	var list []entry
	for _, st := range streams {
		list = append(list, entries(st.Messages)...)
	}
	return list, nil
}

// claimer returns a function that takes over, page by page, entries that have been
// pending for minIdle, and returns none when it has been through all of them.
func (s *stream) claimer(minIdle time.Duration) func(context.Context) ([]entry, error) {
	cursor, done := "0-0", false
	return func(ctx context.Context) ([]entry, error) {
		for !done {
			messages, next, err := s.client.XAutoClaim(ctx, &redis.XAutoClaimArgs{
				Stream: contract.UsageStreamKey, Group: contract.UsageGroup, Consumer: s.consumer,
				MinIdle: minIdle, Start: cursor, Count: s.count,
			}).Result()
			if err != nil {
				return nil, fmt.Errorf("claim pending entries: %w", err)
			}
			cursor, done = next, next == "0-0"
			if len(messages) > 0 {
				return entries(messages), nil
			}
		}
		return nil, nil
	}
}

func entries(messages []redis.XMessage) []entry {
	list := make([]entry, len(messages))
	for i, m := range messages {
		list[i] = entry{id: m.ID, fields: m.Values}
	}
	return list
}

// acknowledge publishes what replicas may forget, and takes entries off the pending
// list and off the stream: all or nothing, so that the stream holds exactly what is
// not yet in Postgres, and a worker that dies before leaves it all to the next one.
// There is one group on this stream; a second one would lose entries.
func (s *stream) acknowledge(ctx context.Context, ids []string, acked map[string]int64) error {
	_, err := s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		publishAcked(ctx, p, acked)
		p.XAck(ctx, contract.UsageStreamKey, contract.UsageGroup, ids...)
		p.XDel(ctx, contract.UsageStreamKey, ids...)
		return nil
	})
	if err != nil {
		return fmt.Errorf("acknowledge entries: %w", err)
	}
	return nil
}

// consumerIdle is how long a consumer must have been silent before its name is
// removed from the group; a live one speaks several times a second.
const consumerIdle = 10 * time.Minute

// removeConsumer removes a consumer that has nothing pending. Removing one that has
// would lose its entries, and asking first in another command would be a race.
const removeConsumer = `
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
	return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return -1`

// tidy removes the names of consumers that have been silent for idle and left
// nothing. It returns how many entries the stream holds.
func (s *stream) tidy(ctx context.Context, idle time.Duration) (int64, error) {
	consumers, err := s.client.XInfoConsumers(ctx, contract.UsageStreamKey, contract.UsageGroup).Result()
	if err != nil {
		return 0, fmt.Errorf("list consumers: %w", err)
	}
	for _, c := range consumers {
		if c.Name == s.consumer || c.Pending > 0 || c.Idle < idle {
			continue
		}
		if err := s.remove(ctx, c.Name); err != nil {
			return 0, err
		}
	}
	n, err := s.client.XLen(ctx, contract.UsageStreamKey).Result()
	if err != nil {
		return 0, fmt.Errorf("length of the usage stream: %w", err)
	}
	return n, nil
}

// leave removes this consumer's own name if it has nothing pending.
func (s *stream) leave(ctx context.Context) error { return s.remove(ctx, s.consumer) }

func (s *stream) remove(ctx context.Context, consumer string) error {
	err := s.client.Eval(ctx, removeConsumer, []string{contract.UsageStreamKey}, contract.UsageGroup, consumer).Err()
	if err != nil {
		return fmt.Errorf("remove consumer %s: %w", consumer, err)
	}
	return nil
}
