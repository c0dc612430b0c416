package quota

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Options of Leases. Zero values mean the default in parentheses.
type Options struct {
	Timeout     time.Duration // of one Redis command (600 ms)
	SettleEvery time.Duration // the tick: how often those are called for that hurry; the others each tenth (100 ms)
	FollowEvery time.Duration // how often the epoch is read (250 ms)
	Grace       time.Duration // how long leases may be used without hearing from Redis (10 s), if the control plane allows it
	ReturnAfter time.Duration // how long idle tokens of a silent customer are kept at least, and half as long again at most (5 s)
	ForgetAfter time.Duration // how long an account with nothing in it is remembered (1 min)
	Logger      *slog.Logger  // (slog.Default)
	Guard       *Guard        // what checks the connections of the guarded client, if it is one of a Cluster
}

func (o *Options) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.Timeout, DefaultTimeout)
	def(&o.SettleEvery, 100*time.Millisecond)
	def(&o.FollowEvery, 250*time.Millisecond)
	def(&o.Grace, 10*time.Second)
	def(&o.ReturnAfter, 5*time.Second)
	def(&o.ForgetAfter, time.Minute)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Leases is a replica's side of the limit. Reservations are answered from tokens that it
// has leased; what was used is read in the journal, and so counts after a crash too. Create
// it with NewLeases, end it with Close. Safe for concurrent use.
//
// It needs the control plane: to be registered, and for records; see Keeper. Until then,
// and when nothing is heard from Redis for the grace, reservations fail with ErrUnavailable.
//
// Redis work grows with time and with the number of active customers, not with requests:
// about one call per customer and second, and one per tick where little of the lease is left,
// each of a constant number of commands. Only where a customer is close to the limit do
// reservations make calls of their own, and those that come together share one.
type Leases struct {
	client    redis.UniversalClient // for the epoch, for recalls
	guarded   redis.UniversalClient // for records: only Redis servers that the epoch trusts
	journal   Journal
	opts      Options
	sync      *redis.Script
	setFields *redis.Script
	wait      *redis.Script
	start     time.Time
	begun     int64 // number of the newest event of earlier lives

	shards    [accountShards]shard
	dirty     dirtyList
	callsGone atomic.Int64 // highest number of a call for an account that was forgotten
	waiters   waiters
	servers   servers
	missing   missing
	recalls   recallFilter

	epoch     atomic.Int64 // 0 before the first
	open      atomic.Bool  // leases may grow
	lost      atomic.Bool  // declared lost: nothing is served any more
	obeyed    atomic.Int64 // nanoseconds of grace that the control plane allows; 0 for any
	confirmed atomic.Int64 // when this replica was last known to be registered; 0 for never

	reading sync.Mutex   // held while events are taken from the journal, or an epoch begins
	at      atomic.Int64 // number of the newest event that was taken
	base    atomic.Int64 // number of the newest event that the epoch's records contain
	caught  atomic.Bool

	beating  sync.Mutex // held while the epoch is followed; guards what follows
	retiring bool       // no beat shows a living replica any more
	beaten   bool       // this life has given a sign of itself, or is about to
	waited   int64      // how often it has said that it waits until it may

	swept atomic.Bool   // no earlier life's lease is left over
	hurry atomic.Bool   // find what is left over at once
	kick  chan struct{} // capacity 1: tick now
	nudge chan struct{} // capacity 1: look at the epoch now
	stop  context.CancelFunc

	spawning sync.Mutex // guards closed, and beginning to wait for done
	closed   bool
	done     sync.WaitGroup
}

var _ Ledger = (*Leases)(nil)

const accountShards = 64

type shard struct {
	mu sync.RWMutex
	by map[accountKey]*account
}

// NewLeases starts the replica's side. guarded is a second client to the same Redis, whose
// connections are checked by the Guard in o. Both must heed the deadlines of contexts
// (ContextTimeoutEnabled). The clients stay open.
func NewLeases(client, guarded redis.UniversalClient, j Journal, o Options) *Leases {
	o.setDefaults()
	ctx, stop := context.WithCancel(context.Background())
	l := &Leases{
		client: client, guarded: guarded, journal: j, opts: o, sync: redis.NewScript(syncScript), setFields: redis.NewScript(joinScript),
		wait: redis.NewScript(waitScript), start: time.Now(), begun: j.Last(), stop: stop,
		kick: make(chan struct{}, 1), nudge: make(chan struct{}, 1),
	}
	for i := range l.shards {
		l.shards[i].by = map[accountKey]*account{}
	}
	l.at.Store(j.Forgotten())
	l.caught.Store(l.at.Load() >= l.begun)
	l.done.Go(func() { l.read(ctx) })
	l.done.Go(func() { l.follow(ctx) })
	l.done.Go(func() { l.tick(ctx) })
	l.done.Go(func() { l.hearRecalls(ctx) })
	if j.Life() > 1 {
		l.done.Go(func() { l.sweepLeftOver(ctx) })
	} else {
		l.swept.Store(true)
	}
	return l
}

// now is the time since the start, by a clock that nobody sets. It goes on while the
// process is stopped.
func (l *Leases) now() time.Duration { return time.Since(l.start) }

// grace is how long leases may be used without hearing from Redis.
func (l *Leases) grace() time.Duration {
	if allowed := time.Duration(l.obeyed.Load()); allowed > 0 {
		return min(allowed, l.opts.Grace)
	}
	return l.opts.Grace
}

// usable reports whether leases may be used: not when others may have been told that
// this replica's are lost.
func (l *Leases) usable(now time.Duration) bool {
	c := l.confirmed.Load()
	return c != 0 && now-time.Duration(c) < l.grace() && !l.lost.Load() && l.caught.Load()
}

// ErrLost says that others were given what this replica leased. It cannot serve any more.
var ErrLost = errors.New("this replica's journal was declared lost: start it with a new one")

// Ready reports why nothing can be reserved; nil if it can. ErrLost stays for good.
func (l *Leases) Ready() error {
	switch {
	case l.lost.Load():
		return ErrLost
	case l.confirmed.Load() == 0:
		return errors.New("not registered yet: the control plane has to take note of this replica")
	case !l.caught.Load():
		return errors.New("what was used before the start is not read yet")
	case !l.usable(l.now()):
		return errors.New("nothing was heard from Redis for too long")
	}
	return nil
}

// Usage reads the record of acct. An account without one has the limit of acct and no
// use. The error is ErrUnavailable (wrapped) or the context's.
func (l *Leases) Usage(ctx context.Context, acct Account) (Usage, error) {
	u, mark, err := readUsage(ctx, l.client, l.opts.Timeout, acct, l.journal.Replica())
	if err != nil {
		return u, err
	}
	// What this replica has not written yet is used all the same.
	if a := l.find(accountKey{acct.Customer, acct.Period.ID}); a != nil {
		a.mu.Lock()
		for _, s := range a.pending {
			if s.seq > mark {
				u.Settled += s.tokens
				u.Held = max(u.Held-s.tokens, 0)
			}
		}
		a.mu.Unlock()
	}
	return u, nil
}

// Changed returns a channel that is closed at the next settlement or release of the
// customer that this replica knows of, or after a minute.
func (l *Leases) Changed(customer string) <-chan struct{} { return l.waiters.wait(customer) }

// Flush waits until every event that is in the journal now is settled in Redis.
func (l *Leases) Flush(ctx context.Context) error {
	last := l.journal.Last()
	for {
		l.reading.Lock()
		up := l.settledUpTo()
		l.reading.Unlock()
		if up >= last {
			return nil
		}
		if l.lost.Load() {
			return fmt.Errorf("settle usage: %w", ErrLost)
		}
		l.each(func(a *account) {
			if len(a.pending) > 0 && a.flight == nil {
				a.mark(true)
			}
		})
		l.tickNow()
		if !pause(ctx, 5*time.Millisecond) {
			return fmt.Errorf("settle usage: events after %d of %d are not in Redis: %w", up, last, ctx.Err())
		}
	}
}

// Forgettable returns the number up to which all events are settled in Redis. The journal
// may forget them if the ledger has them too. The number of the ledger must have been read
// before the call: what was acknowledged later may belong to an epoch whose records do
// not contain it. The error is ErrUnavailable (wrapped) or the context's.
func (l *Leases) Forgettable(ctx context.Context) (int64, error) {
	timed, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel()
	epoch, err := l.client.HGet(timed, contract.QuotaEpochKey, "epoch").Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, unavailable("read epoch", ctx, err)
	}
	l.reading.Lock()
	defer l.reading.Unlock()
	if epoch == 0 || epoch != l.epoch.Load() {
		return 0, fmt.Errorf("%w: Redis is at epoch %d, this replica at %d", ErrUnavailable, epoch, l.epoch.Load())
	}
	return l.settledUpTo(), nil
}

// Epoch returns the number of the epoch in which this replica leases; 0 before the first.
// When it changes, Redis may have lost what it had.
func (l *Leases) Epoch() int64 { return max(l.epoch.Load(), 0) }

// Stats is the state of a replica's leases, for metrics.
type Stats struct {
	Epoch     int64
	Open      bool          // leases may grow
	Accounts  int           // that are known
	Leased    int64         // tokens leased
	Held      int64         // of them, held by requests in flight
	Unsettled int64         // of them, used and not known to be in Redis
	Pending   int           // settlements that are not known to be in Redis
	Heard     time.Duration // since this replica was last known to be registered; -1 for never
}

// Stats returns the state of the moment.
func (l *Leases) Stats() Stats {
	s := Stats{Epoch: l.epoch.Load(), Open: l.open.Load(), Heard: -1}
	if c := l.confirmed.Load(); c != 0 {
		s.Heard = l.now() - time.Duration(c)
	}
	l.each(func(a *account) {
		s.Accounts++
		s.Leased += a.lease
		s.Held += a.held
		s.Unsettled += a.unsettled
		s.Pending += len(a.pending)
	})
	return s
}

// Close settles what is settled in the journal, returns all leases, and has this replica
// taken off the register, so that nothing waits for it; if there is no control plane to do
// that, it gives up after 2 s. Nothing may be reserved any more. When the
// context ends first, it stops all the same, and says what is left; that is settled when the
// journal is opened again. A second Close does nothing.
func (l *Leases) Close(ctx context.Context) error {
	l.spawning.Lock()
	closed := l.closed
	l.closed = true
	l.spawning.Unlock()
	if closed {
		return nil
	}
	err := l.leave(ctx)
	l.stop()
	l.done.Wait()
	l.waitNoMore()
	if err != nil {
		return fmt.Errorf("close quota leases: %w", err)
	}
	return nil
}

// spawn runs do in the background, unless Close was called. Close waits for it.
func (l *Leases) spawn(do func()) bool {
	l.spawning.Lock()
	defer l.spawning.Unlock()
	if !l.closed {
		l.done.Go(do)
	}
	return !l.closed
}

// isClosed reports whether Close was called.
func (l *Leases) isClosed() bool {
	l.spawning.Lock()
	defer l.spawning.Unlock()
	return l.closed
}

// find returns an account, nil if it is not known.
func (l *Leases) find(k accountKey) *account {
	s := l.shard(k)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.by[k]
}

// lock returns an account, made if need be, with its lock held.
func (l *Leases) lock(k accountKey) *account {
	s := l.shard(k)
	for {
		a := l.find(k)
		if a == nil {
			s.mu.Lock()
			if a = s.by[k]; a == nil {
				a = &account{key: k, usedAt: l.now(), calls: l.callsGone.Load(), list: &l.dirty}
				s.by[k] = a
			}
			s.mu.Unlock()
		}
		a.mu.Lock()
		if !a.gone {
			return a
		}
		a.mu.Unlock()
	}
}

// each calls do for every account, with its lock held.
func (l *Leases) each(do func(*account)) {
	var all []*account
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.RLock()
		all = all[:0]
		for _, a := range s.by {
			all = append(all, a)
		}
		s.mu.RUnlock()
		for _, a := range all {
			a.mu.Lock()
			if !a.gone {
				do(a)
			}
			a.mu.Unlock()
		}
	}
}

func (l *Leases) shard(k accountKey) *shard {
	h := uint32(2166136261) // FNV-1a
	for i := range len(k.customer) {
		h = (h ^ uint32(k.customer[i])) * 16777619
	}
	return &l.shards[h%accountShards]
}

// unavailable wraps a failure of Redis; nil stays nil.
func unavailable(op string, ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	return fmt.Errorf("%s: %w: %w", op, ErrUnavailable, err)
}
