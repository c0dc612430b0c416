// Package grants is what a proxy knows about tokens: a cache in front of Redis that
// is never older than the configuration feed allows.
//
// The promise: once the feed has said that a grant changed, an older version is never
// returned again, however late a read or a cache write finishes; and when the feed was
// not heard for the grace, nothing is returned at all. The ristretto caches are only
// memory of what was read, they may drop or delay what they like. What makes an entry
// good is checked at each look-up:
//
//   - its generation is the present one (a new generation begins when changes may
//     have been missed),
//   - its version is not below the floor, the newest version that the feed announced
//     for its digest,
//   - it has not expired. Floors are kept longer than entries live, so that no entry
//     outlives the floor that condemns it.
//
// After a loss of Redis' data a grant that Redis has is good at once, but one that it
// does not have may just not be published again yet: until it is, Lookup answers
// ErrUnavailable and not ErrUnknownToken. See absence for how that is told.
package grants

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// The errors of Lookup.
var (
	// ErrUnknownToken says that no grant has this digest.
	ErrUnknownToken = errors.New("unknown token")
	// ErrUnavailable says that the grant is not cached and Redis did not give it, or does
	// not have it but has lost its data.
	ErrUnavailable = errors.New("grant cannot be read")
	// ErrStale says that the feed was not heard for the grace, or not yet.
	ErrStale = errors.New("configuration feed is out of reach")
)

// Options configure a Cache. The zero value takes the defaults.
type Options struct {
	// MaxEntries is how many grants are kept. An eighth as many unknown digests are
	// kept besides; they never displace a grant. Defaults to 100,000.
	MaxEntries int64
	// NegativeTTL is how long a digest stays unknown without asking Redis again, unless
	// the feed announces its grant. Defaults to 2 s.
	NegativeTTL time.Duration
	// PositiveTTL is how long a grant is returned without reading it again. Then it is
	// read in the background while it is returned for a little longer. It is a safety net:
	// changes come by the feed. Defaults to 5 min.
	PositiveTTL time.Duration
	// Grace is how long grants are served without hearing the feed. Defaults to 10 s.
	Grace time.Duration
	// PollInterval is how often the feed is asked for its newest change. Defaults to
	// 250 ms.
	PollInterval time.Duration
	// ReadTimeout bounds each read of Redis, and how long a Lookup waits for one.
	// Defaults to 250 ms.
	ReadTimeout time.Duration
	// Replica is the id under which Redis is told how far the feed was applied. Defaults to
	// "", which tells nothing.
	Replica string
	// Logger gets what cannot be returned to a caller. Defaults to slog.Default().
	Logger *slog.Logger
	// Now is the clock; its times should carry a monotonic reading. Defaults to time.Now.
	Now func() time.Time
}

func (o *Options) setDefaults() {
	if o.MaxEntries <= 0 {
		o.MaxEntries = 100_000
	}
	if o.NegativeTTL <= 0 {
		o.NegativeTTL = 2 * time.Second
	}
	if o.PositiveTTL <= 0 {
		o.PositiveTTL = 5 * time.Minute
	}
	if o.Grace <= 0 {
		o.Grace = 10 * time.Second
	}
	if o.PollInterval <= 0 {
		o.PollInterval = 250 * time.Millisecond
	}
	if o.ReadTimeout <= 0 {
		o.ReadTimeout = 250 * time.Millisecond
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Cache answers which grant a token digest has. All methods are safe for concurrent
// use. The client should have ContextTimeoutEnabled, and must not send reads to
// replicas of Redis.
type Cache struct {
	client redis.UniversalClient
	opts   Options
	base   time.Time // all times below are durations since then

	known   *ristretto.Cache[uint64, *entry]
	unknown *ristretto.Cache[uint64, *entry]
	floors  floors
	absence absence
	gen     atomic.Uint64 // the present generation; see drop
	flight  singleflight.Group
	again   sync.Map // digests that are being read again in the background

	ready    atomic.Bool
	heard    atomic.Int64          // when the last poll that was answered was sent
	position atomic.Int64          // number of the newest change applied
	place    atomic.Pointer[place] // the same with its text; nil before the first
	moved    chan struct{}         // position may have changed since tellPosition looked
	failing  atomic.Int64          // until when a read is taken to fail as the last one did

	hits, misses, negatives, reloads atomic.Int64

	mu       sync.Mutex // guards the following
	closed   bool
	onChange []func(contract.Digest, *contract.Grant)
	onReload []func()

	ctx    context.Context // of reads, which are not their first caller's
	cancel context.CancelFunc
	loads  sync.WaitGroup
}

// entry is what one read of Redis said. It is immutable.
type entry struct {
	digest contract.Digest
	grant  *contract.Grant // nil: there is none
	gen    uint64
	soft   time.Duration // to be read again from then on
	hard   time.Duration // not to be used from then on
}

// good reports whether e may still be believed, its age apart.
func (e *entry) good(d *contract.Digest, gen uint64, floor int64) bool {
	if e.gen != gen || e.digest != *d {
		return false
	}
	if e.grant == nil {
		return floor == 0
	}
	return e.grant.Version >= floor
}

// New returns a Cache on client, which stays the caller's. It knows nothing and
// answers ErrStale until Run has heard the feed. Close it after Run has returned.
func New(client redis.UniversalClient, opts Options) (*Cache, error) {
	opts.setDefaults()
	known, err := newStore(opts.MaxEntries)
	if err != nil {
		return nil, fmt.Errorf("grant cache: %w", err)
	}
	unknown, err := newStore(max(opts.MaxEntries/8, 64))
	if err != nil {
		known.Close()
		return nil, fmt.Errorf("grant cache: %w", err)
	}
	c := &Cache{client: client, opts: opts, base: opts.Now(), known: known, unknown: unknown, moved: make(chan struct{}, 1)}
	c.failing.Store(-1)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

func newStore(entries int64) (*ristretto.Cache[uint64, *entry], error) {
	return ristretto.NewCache(&ristretto.Config[uint64, *entry]{
		NumCounters:        10 * entries,
		MaxCost:            entries,
		BufferItems:        64,
		IgnoreInternalCost: true,
	})
}

// Close ends reads under way and frees the memory. Lookup answers ErrUnavailable for
// what it would have to read from then on.
func (c *Cache) Close() {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	c.mu.Unlock()
	if was {
		return
	}
	c.cancel()
	c.loads.Wait()
	c.known.Close()
	c.unknown.Close()
}

// OnChange registers f, to be called with every new version of any grant that the
// feed announces, cached here or not. It is called after look-ups see the change, by
// the goroutine of Run, one at a time: f must not block. Someone who acts on a grant
// for long, such as a stream, must therefore first make f see him and then look the
// grant up once more. Register before Run; f must not change the grant.
func (c *Cache) OnChange(f func(digest contract.Digest, g *contract.Grant)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onChange = append(c.onChange, f)
}

// OnReload registers f, to be called when changes may have been missed, so that any
// grant in use must be looked up again. It is called as OnChange's functions are.
func (c *Cache) OnReload(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onReload = append(c.onReload, f)
}

// Ready reports whether the feed was ever heard. It stays true when Redis goes away.
func (c *Cache) Ready() bool { return c.ready.Load() }

// Stats is a snapshot of what a Cache has done.
type Stats struct {
	Hits      int64         // look-ups answered from memory with a grant
	Negatives int64         // look-ups answered from memory with ErrUnknownToken
	Misses    int64         // look-ups that needed Redis
	Reloads   int64         // how often everything was forgotten
	FeedSeq   int64         // number of the newest change applied
	FeedAge   time.Duration // since the feed was heard; since New if it never was
}

// Stats returns a snapshot.
func (c *Cache) Stats() Stats {
	return Stats{
		Hits:      c.hits.Load(),
		Negatives: c.negatives.Load(),
		Misses:    c.misses.Load(),
		Reloads:   c.reloads.Load(),
		FeedSeq:   c.position.Load(),
		FeedAge:   c.now() - time.Duration(c.heard.Load()),
	}
}

func (c *Cache) now() time.Duration { return c.opts.Now().Sub(c.base) }

// stale reports whether the feed is out of reach. It compares clocks at each call, so
// that a process that was stopped notices at its first look-up.
func (c *Cache) stale(now time.Duration) bool {
	return !c.ready.Load() || now-time.Duration(c.heard.Load()) > c.opts.Grace
}

// memory is what is known of a digest without I/O.
type memory struct {
	grant     *contract.Grant // to be returned as it is; nil if Redis must be asked
	unknown   bool            // Redis said lately that there is none
	fresh     *entry          // what says so, unless it is the feed
	spare     *contract.Grant // to be returned while it is read again
	gen       uint64          // under which spare is good
	announced *contract.Grant // the newest version that the feed announced lately
}

// recall looks into memory. The feed must not be stale.
func (c *Cache) recall(digest *contract.Digest, now time.Duration) (m memory) {
	// The floor is read before the generation: drop works in the opposite order.
	m.announced = c.floors.get(digest)
	if m.announced != nil && m.announced.Status == contract.StatusRevoked { // which is final
		m.grant = m.announced
		return m
	}
	floor := version(m.announced)
	m.gen = c.gen.Load()
	key := binary.LittleEndian.Uint64(digest[:])
	if e, ok := c.known.Get(key); ok && e.good(digest, m.gen, floor) && now < e.hard {
		if now < e.soft {
			m.grant, m.fresh = e.grant, e
		} else {
			m.spare = e.grant
		}
		return m
	}
	if floor == 0 {
		if e, ok := c.unknown.Get(key); ok && e.good(digest, m.gen, 0) && now < e.soft {
			m.unknown, m.fresh = true, e
		}
	}
	return m
}

// Cached returns the grant of a digest if it is in memory and may be used as it is, or
// if the feed announced lately that it is not active. It does no I/O and allocates
// nothing. Where it reports false, Lookup knows more.
func (c *Cache) Cached(digest contract.Digest) (*contract.Grant, bool) {
	now := c.now()
	if c.stale(now) {
		return nil, false
	}
	m := c.recall(&digest, now)
	switch {
	case m.grant != nil:
		c.hits.Add(1)
		return m.grant, true
	case m.spare == nil && m.announced != nil && m.announced.Status != contract.StatusActive:
		return m.announced, true
	}
	return nil, false
}

// Known reports whether a token with this digest is known to have existed: a grant was
// read, however long ago, or the feed announced one, and it was not revoked. That does not
// say what holds now, but nobody guessed the token, so it is worth a Lookup. It does no
// I/O and allocates nothing.
func (c *Cache) Known(digest contract.Digest) bool {
	if g := c.floors.get(&digest); g != nil {
		return g.Status != contract.StatusRevoked
	}
	e, ok := c.known.Get(binary.LittleEndian.Uint64(digest[:]))
	return ok && e.digest == digest && e.grant.Status != contract.StatusRevoked
}

// Lookup returns the grant of a digest. Its status may be any: revoked and suspended
// grants are returned, for the caller to refuse. The grant is shared and must not be
// changed. A grant that is in memory is returned without waiting; otherwise Lookup
// waits for one read, shared by all who want the same digest, until ctx ends or the
// read timeout has passed. If Redis does not answer, what the feed announced will do.
//
// The errors are ErrUnknownToken, ErrUnavailable and ErrStale, possibly wrapped, and
// the context's.
func (c *Cache) Lookup(ctx context.Context, digest contract.Digest) (*contract.Grant, error) {
	now := c.now()
	if c.stale(now) {
		return nil, ErrStale
	}
	m := c.recall(&digest, now)
	switch {
	case m.grant != nil:
		c.hits.Add(1)
		return m.grant, nil
	case m.unknown:
		c.negatives.Add(1)
		return nil, ErrUnknownToken
	case m.spare != nil:
		// Nobody waits for what is only a safety net: Redis may be slow.
		c.refresh(digest)
		c.hits.Add(1)
		return m.spare, nil
	}
	if now < time.Duration(c.failing.Load()) {
		if g := c.floors.get(&digest); g != nil { // anew: time has passed
			c.hits.Add(1)
			return g, nil
		}
	}
	c.misses.Add(1)
	g, err := c.read(ctx, digest)
	if errors.Is(err, ErrUnavailable) {
		if c.stale(c.now()) {
			return nil, ErrStale
		}
		if g := c.floors.get(&digest); g != nil {
			return g, nil
		}
	}
	return g, err
}
