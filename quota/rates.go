package quota

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"
)

// Defaults of RateOptions.
const (
	DefaultSyncInterval = 200 * time.Millisecond
	DefaultRateGrace    = 10 * time.Second
	DefaultReplicas     = 3
)

// RateOptions configure Rates.
type RateOptions struct {
	// Replica names this process among all that share the Redis. Required.
	Replica string
	// SyncInterval is how often a customer that is using up its bucket is shared out
	// anew. Defaults to 200 ms.
	SyncInterval time.Duration
	// Grace is how long the last share stays in force when Redis does not answer.
	// Defaults to 10 s.
	Grace time.Duration
	// Replicas is how many replicas to reckon with, at least, after the grace: each
	// then refills with this part of the rate. Defaults to 3.
	Replicas int
	// Logger gets what cannot be returned to a caller. Defaults to slog.Default().
	Logger *slog.Logger
	// Now is the clock behind the times that Allow is given. Defaults to time.Now.
	Now func() time.Time
}

// Rates is a RateLimiter whose rate is shared out among replicas through Redis.
//
// Each replica starts with a full bucket of Burst requests that does not refill. A
// customer that uses up half of it becomes contended here: a background loop then
// tells Redis, every SyncInterval, how many requests per second this replica is
// asked for, and gets a part of the rate in proportion, as refill. The parts handed
// out are kept in Redis and never sum above the rate: a replica gains only what
// another has given back. Once the bucket is full again the customer leaves.
//
// So in any 10 s a replica admits at most Burst and its refill, and the refill of
// all is at most the rate. Redis sees one command per contended customer, replica
// and SyncInterval, however many requests come.
type Rates struct {
	client redis.UniversalClient
	opts   RateOptions
	script *redis.Script

	seed   maphash.Seed
	shards [rateShards]rateShard

	mu        sync.Mutex // guards the following
	joining   []*bucket  // contended since the loop last looked
	contended map[*bucket]struct{}

	lost time.Time // when all of Redis stopped answering, zero while any does; the loop's own

	kick    chan struct{} // capacity 1: joining is not empty
	cancel  context.CancelFunc
	stopped chan struct{}
}

var _ RateLimiter = (*Rates)(nil)

const rateShards = 64

type rateShard struct {
	mu sync.RWMutex
	by map[string]*bucket
}

// bucket is the state of one customer. The limiter has a lock of its own, but needs
// one around it: fed with times out of order it would refill twice for the same time.
type bucket struct {
	customer string

	mu        sync.Mutex // guards the following; held for no I/O
	limiter   *rate.Limiter
	refill    float64 // the limiter's limit, per second
	rate      RequestRate
	last      time.Time // newest time seen; time does not go back here
	used      time.Time // of the last request
	offered   int64     // requests since the last sync, refused ones included
	contended bool
	evicted   bool

	// The share. The loop alone writes these, under mu.
	demand   float64   // requests per second, smoothed
	measured time.Time // when offered was last read
	synced   bool      // since it became contended
	peers    int       // replicas that share the rate, this one included
	lost     time.Time // when the Redis that has it stopped answering, zero while it does
}

// NewRates returns a limiter on client and starts its loop; Close ends it. It does not
// contact Redis. It panics if opts.Replica is empty or contains white space.
func NewRates(client redis.UniversalClient, opts RateOptions) *Rates {
	if opts.Replica == "" {
		panic("BUG: quota: RateOptions.Replica is required")
	}
	if opts.SyncInterval <= 0 {
		opts.SyncInterval = DefaultSyncInterval
	}
	if opts.Grace <= 0 {
		opts.Grace = DefaultRateGrace
	}
	if opts.Replicas <= 0 {
		opts.Replicas = DefaultReplicas
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Rates{
		client:    client,
		opts:      opts,
		script:    redis.NewScript(rateScript),
		seed:      maphash.MakeSeed(),
		contended: make(map[*bucket]struct{}),
		kick:      make(chan struct{}, 1),
		cancel:    cancel,
		stopped:   make(chan struct{}),
	}
	for i := range r.shards {
		r.shards[i].by = make(map[string]*bucket)
	}
	go r.run(ctx)
	return r
}

// Allow takes one request of the customer's bucket. It allocates nothing for a
// customer that it knows, makes no round trip and never blocks on I/O. A rate that is
// not positive admits nothing.
func (r *Rates) Allow(customer string, want RequestRate, now time.Time) (ok bool, remaining int, retry time.Duration) {
	if !(want.PerSecond > 0) || want.Burst <= 0 {
		return false, 0, time.Second
	}
	for {
		b := r.bucket(customer, want, now)
		b.mu.Lock()
		if b.evicted { // between the look-up and the lock
			b.mu.Unlock()
			continue
		}
		now = b.advance(now)
		if b.rate != want {
			b.change(want, now)
		}
		b.used = now
		b.offered++
		ok = b.limiter.AllowN(now, 1)
		tokens := b.limiter.TokensAt(now)
		refill := b.refill
		join := !b.contended && tokens < float64(want.Burst)/2
		if join {
			b.contended = true
			b.measured = now
		}
		b.mu.Unlock()
		if join {
			r.join(b)
		}
		if !ok {
			retry = r.retryAfter(tokens, refill, want)
		}
		return ok, max(int(tokens), 0), retry
	}
}

// Remaining returns what the customer's bucket holds, without taking anything from it.
func (r *Rates) Remaining(customer string, want RequestRate, now time.Time) int {
	s := r.shard(customer)
	s.mu.RLock()
	b := s.by[customer]
	s.mu.RUnlock()
	if b == nil {
		return max(want.Burst, 0)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Before(b.last) {
		now = b.last
	}
	return max(int(min(b.limiter.TokensAt(now), float64(want.Burst))), 0)
}

// retryAfter returns when the bucket holds a whole request again, at the present
// refill or, if there is none yet, after the next sync.
func (r *Rates) retryAfter(tokens, refill float64, want RequestRate) time.Duration {
	if refill <= 0 {
		return max(r.opts.SyncInterval, time.Duration(float64(time.Second)/want.PerSecond))
	}
	seconds := max(1-tokens, 0) / refill
	return time.Duration(min(seconds, 60) * float64(time.Second))
}

// advance returns now, or the newest time seen if that is later.
func (b *bucket) advance(now time.Time) time.Time {
	if now.Before(b.last) {
		return b.last
	}
	b.last = now
	return now
}

func (b *bucket) change(want RequestRate, now time.Time) {
	// A share stays below a rate that was lowered; a higher one comes with the next sync.
	b.setRefill(min(b.refill, want.PerSecond), now)
	b.limiter.SetBurstAt(now, want.Burst)
	b.rate = want
}

// setRefill changes the tokens per second from now on.
func (b *bucket) setRefill(perSecond float64, now time.Time) {
	b.refill = perSecond
	b.limiter.SetLimitAt(now, rate.Limit(perSecond))
}

func (r *Rates) shard(customer string) *rateShard {
	return &r.shards[maphash.String(r.seed, customer)%rateShards]
}

func (r *Rates) bucket(customer string, want RequestRate, now time.Time) *bucket {
	s := r.shard(customer)
	s.mu.RLock()
	b := s.by[customer]
	s.mu.RUnlock()
	if b != nil {
		return b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.by[customer]; b != nil {
		return b
	}
	// The key must not alias a buffer that the caller will use again.
	owned := strings.Clone(customer)
	b = &bucket{customer: owned, limiter: rate.NewLimiter(0, want.Burst), rate: want, last: now, used: now}
	s.by[owned] = b
	return b
}

func (r *Rates) join(b *bucket) {
	r.mu.Lock()
	r.joining = append(r.joining, b)
	r.mu.Unlock()
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Customers returns how many customers have a bucket, and how many of them are
// contended.
func (r *Rates) Customers() (buckets, contended int) {
	for i := range r.shards {
		r.shards[i].mu.RLock()
		buckets += len(r.shards[i].by)
		r.shards[i].mu.RUnlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return buckets, len(r.contended) + len(r.joining)
}

// Close stops the loop and gives the shares back, as far as the context allows. What
// it cannot give back expires within a second or so. The client stays open.
func (r *Rates) Close(ctx context.Context) error {
	r.cancel()
	<-r.stopped
	r.mu.Lock()
	r.take()
	customers := make([]string, 0, len(r.contended))
	for b := range r.contended {
		b.mu.Lock()
		b.setRefill(0, b.last)
		b.mu.Unlock()
		customers = append(customers, b.customer)
	}
	clear(r.contended)
	r.mu.Unlock()
	if err := r.leave(ctx, customers); err != nil {
		return fmt.Errorf("close rate limiter: %w", err)
	}
	return nil
}

// take moves the joining buckets to the contended ones. r.mu is held.
func (r *Rates) take() []*bucket {
	joined := r.joining
	r.joining = nil
	for _, b := range joined {
		r.contended[b] = struct{}{}
	}
	return joined
}
