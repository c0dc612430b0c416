package quota

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// maxTokens is the largest number of tokens that Lua, whose numbers are doubles,
// still counts one by one even after a few additions. Larger limits count as this
// much; larger reservations always exceed.
const maxTokens = 1 << 51

// Defaults of RedisOptions.
const (
	DefaultTimeout = 250 * time.Millisecond
	DefaultHoldTTL = 2 * time.Hour
)

// RedisOptions configure a RedisLedger.
type RedisOptions struct {
	// Replica names this process among all that share the Redis. Required.
	Replica string
	// Timeout is how long Reserve, SetLimit and Usage wait for Redis at most.
	// Defaults to 250 ms.
	Timeout time.Duration
	// HoldTTL is how long the hold of a process that died stays. It must be longer
	// than the longest request: a hold that outlives it is freed, and what is settled
	// on it afterwards, although counted, was no longer reserved. Defaults to 2 h.
	HoldTTL time.Duration
	// Logger gets what cannot be returned to a caller. Defaults to slog.Default().
	Logger *slog.Logger
}

// RedisLedger is a Ledger that keeps every counter in Redis. A reservation is one
// script call; settlements are queued and written in batches, and kept until Redis
// took them.
//
// The client should have ContextTimeoutEnabled, so that RedisOptions.Timeout bounds
// its reads; else its own timeouts and retries do. Redis must run with noeviction
// and AOF: a lost hold is a lost settlement. (With appendfsync everysec a Redis that
// is killed may lose two seconds of what it acknowledged, with always nothing.)
//
// Memory: one record of about 100 bytes per settlement that Redis has not taken yet.
type RedisLedger struct {
	client  redis.UniversalClient
	opts    RedisOptions
	reserve *redis.Script
	limit   *redis.Script
	restore *redis.Script

	prefix  string
	counter atomic.Int64 // of hold ids

	writer  *writer
	waiters waiters
	outage  outage
}

var _ Ledger = (*RedisLedger)(nil)

// NewRedisLedger returns a ledger on client and starts its writer; Close ends it.
// It does not contact Redis. It panics if opts.Replica is empty, since hold ids
// would then collide.
func NewRedisLedger(client redis.UniversalClient, opts RedisOptions) *RedisLedger {
	if opts.Replica == "" {
		panic("BUG: quota: RedisOptions.Replica is required")
	}
	if opts.Timeout <= 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.HoldTTL <= 0 {
		opts.HoldTTL = DefaultHoldTTL
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	l := &RedisLedger{
		client:  client,
		opts:    opts,
		reserve: redis.NewScript(reserveScript),
		limit:   redis.NewScript(limitScript),
		restore: redis.NewScript(restoreScript),
		prefix:  opts.Replica + "-",
	}
	// A replica's name outlives its process, and an id must never return: counting
	// on from the clock stays ahead of every earlier process of that name as long as
	// each made less than 10⁹ holds a second.
	l.counter.Store(time.Now().UnixNano())
	l.writer = newWriter(client, opts.Logger, l.waiters.wake, &l.outage)
	return l
}

// TryReserve answers Unknown: this ledger knows nothing without Redis.
func (l *RedisLedger) TryReserve(Account, int64) Answer { return Answer{} }

// Reserve asks Redis. If the answer is lost, a release of whatever was granted is
// queued, and wins over the reservation even if it reaches Redis first.
func (l *RedisLedger) Reserve(ctx context.Context, acct Account, tokens int64) (Answer, error) {
	if err := ctx.Err(); err != nil {
		return Answer{}, fmt.Errorf("reserve tokens: %w", err)
	}
	if !l.outage.allow(time.Now()) {
		return Answer{}, fmt.Errorf("reserve tokens: %w: Redis failed a moment ago", ErrUnavailable)
	}
	id := acct.HoldID
	if id == "" {
		id = l.prefix + strconv.FormatInt(l.counter.Add(1), 36)
	}
	hold := Hold{
		ID:       id,
		Customer: acct.Customer,
		PeriodID: acct.Period.ID,
		Tokens:   max(tokens, 0),
	}
	limit, version := knownLimit(acct)
	timed, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel()
	reply, err := l.reserve.Run(timed, l.client, accountKeys(acct.Customer, acct.Period.ID),
		hold.ID, min(hold.Tokens, maxTokens+1), limit, version,
		l.opts.HoldTTL.Milliseconds(), periodEnd(acct)).Int64Slice()
	if err == nil && len(reply) != 4 {
		err = fmt.Errorf("script answered %d numbers", len(reply))
	}
	if err != nil {
		if mayHaveRun(err) {
			l.writer.add(hold, opAbandon, 0)
		}
		if ctx.Err() != nil {
			return Answer{}, fmt.Errorf("reserve tokens: %w", ctx.Err())
		}
		l.outage.failed(time.Now())
		return Answer{}, fmt.Errorf("reserve tokens: %w: %w", ErrUnavailable, err)
	}
	l.outage.worked()
	a := Answer{Limit: reply[1], Settled: reply[2], Held: reply[3]}
	switch reply[0] {
	case 1:
		a.Verdict, a.Hold = Granted, hold
	case 2:
		a.Verdict = Held
	case 3:
		a.Verdict = Exceeds
	default:
		return Answer{}, fmt.Errorf("reserve tokens: %w: hold %s was abandoned before", ErrUnavailable, hold.ID)
	}
	return a, nil
}

// Settle queues the settlement of h.
func (l *RedisLedger) Settle(h Hold, used int64) {
	if h.ID != "" {
		l.writer.add(h, opSettle, min(max(used, 0), h.Tokens))
	}
}

// Release queues the release of h.
func (l *RedisLedger) Release(h Hold) {
	if h.ID != "" {
		l.writer.add(h, opRelease, 0)
	}
}

// SetLimit stores the limit of acct in Redis if its version is newer. The error is
// ErrUnavailable (wrapped) or the context's.
func (l *RedisLedger) SetLimit(ctx context.Context, acct Account) error {
	limit, version := knownLimit(acct)
	timed, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel()
	keys := accountKeys(acct.Customer, acct.Period.ID)
	if err := l.limit.Run(timed, l.client, keys, limit, version, periodEnd(acct)).Err(); err != nil {
		return unavailable("set limit", ctx, err)
	}
	l.waiters.wake(acct.Customer)
	return nil
}

// Restore makes what is settled at least settled, and stores the limit of acct if its
// version is newer: for who knows, after Redis lost its data, what had been settled
// before. It lowers nothing. While Redis has all its data it should not be called:
// what is settled but not yet written here would count twice. The error is
// ErrUnavailable (wrapped) or the context's.
func (l *RedisLedger) Restore(ctx context.Context, acct Account, settled int64) error {
	limit, version := knownLimit(acct)
	timed, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel()
	keys := accountKeys(acct.Customer, acct.Period.ID)
	err := l.restore.Run(timed, l.client, keys, limit, version, periodEnd(acct), min(max(settled, 0), maxTokens)).Err()
	if err != nil {
		return unavailable("restore what is settled", ctx, err)
	}
	return nil
}

// Usage reads the counters of acct. It stores nothing: an account that Redis does
// not know has the limit of acct and no use. The error is ErrUnavailable (wrapped)
// or the context's.
func (l *RedisLedger) Usage(ctx context.Context, acct Account) (Usage, error) {
	timed, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel()
	key := contract.QuotaKey(acct.Customer, acct.Period.ID)
	fields, err := l.client.HMGet(timed, key, "limit", "limit_version", "settled", "held").Result()
	if err != nil {
		return Usage{}, unavailable("read usage", ctx, err)
	}
	var n [4]int64
	for i, f := range fields {
		s, ok := f.(string)
		if !ok {
			n[i] = -1
			continue
		}
		if n[i], err = strconv.ParseInt(s, 10, 64); err != nil {
			return Usage{}, fmt.Errorf("read usage of %s: %w", acct.Customer, err)
		}
	}
	u := Usage{Customer: acct.Customer, PeriodID: acct.Period.ID, Limit: n[0], Settled: max(n[2], 0), Held: max(n[3], 0)}
	if limit, version := knownLimit(acct); n[0] < 0 || version > n[1] {
		u.Limit = limit
	}
	return u, nil
}

// Flush waits until every settlement and release queued before the call is in Redis.
func (l *RedisLedger) Flush(ctx context.Context) error { return l.writer.flush(ctx) }

// Changed returns a channel that is closed when Redis took the next settlement or
// release of the customer from this process, when SetLimit changed the limit here,
// or after a minute.
func (l *RedisLedger) Changed(customer string) <-chan struct{} { return l.waiters.wait(customer) }

// Pending returns how many settlements and releases Redis has not taken yet.
func (l *RedisLedger) Pending() int { return l.writer.pending() }

// Close flushes, then stops the writer. When the context ends first it stops all the
// same and returns an error that says how many settlements were not written. The
// client stays open. Nothing may be settled after Close.
func (l *RedisLedger) Close(ctx context.Context) error {
	err := l.writer.flush(ctx)
	left := l.writer.stop()
	if err != nil {
		return fmt.Errorf("close quota ledger with %d settlements unwritten: %w", left, err)
	}
	return nil
}

// accountKeys returns the keys of the scripts.
func accountKeys(customer, period string) []string {
	return []string{
		contract.QuotaKey(customer, period),
		contract.HoldsKey(customer, period),
		contract.SettledKey(customer, period),
	}
}

func knownLimit(acct Account) (limit, version int64) {
	return min(max(acct.Limit, 0), maxTokens), max(acct.LimitVersion, 0)
}

func periodEnd(acct Account) int64 {
	if acct.Period.End.IsZero() {
		return 0
	}
	return max(acct.Period.End.UnixMilli(), 0)
}

func unavailable(op string, ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	return fmt.Errorf("%s: %w: %w", op, ErrUnavailable, err)
}

// mayHaveRun reports whether a command that failed with err may have been executed,
// or may still be. Only a connection that never came to be, or a pool without a free
// one, rules it out.
func mayHaveRun(err error) bool {
	return !isDialError(err) && !errors.Is(err, redis.ErrPoolTimeout) && !errors.Is(err, redis.ErrPoolExhausted)
}
