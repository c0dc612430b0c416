package billing

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
)

// Store is where the ledger writes. RecordUsage is all or nothing, and harmless to
// repeat: see store.Store.
type Store interface {
	RecordUsage(ctx context.Context, deliveries []control.Delivery, dead []control.DeadLetter) (control.Recorded, error)
	EnsurePartitions(ctx context.Context) error
	Acked(ctx context.Context) (map[string]int64, error)
}

// Options of a Ledger. The zero value has the defaults.
type Options struct {
	// Consumer is this worker's name in the consumer group. Two workers must never
	// share one. Default: random.
	Consumer string
	// ReadEntries is how many stream entries are read, and claimed, at once. Default 64.
	ReadEntries int
	// TxEvents is about how many events are written in one transaction; an entry is
	// never divided. Default 1,000.
	TxEvents int
	// Gather is how long entries gather, after a read that found fewer than ReadEntries,
	// before the next read. With it the number of commands and transactions depends on
	// time, not on how many entries come. Default 100 ms.
	Gather time.Duration
	// Block is how long Redis keeps a read waiting for the first entry. It delays
	// nothing but the end of Run. Default 500 ms.
	Block time.Duration
	// ClaimIdle is how long an entry may be pending before it is taken from a worker
	// that seems dead. Taking it from one that is merely slow is harmless. Default 30 s.
	ClaimIdle time.Duration
	// CommitTimeout bounds one attempt to write one transaction. Default 15 s.
	CommitTimeout time.Duration
	// FinishWithin is how long the batch in hand may take to be written after Run's
	// context has ended. What is not written by then stays pending. Default 10 s.
	FinishWithin time.Duration
	// AckedEvery is how often what replicas may forget is published again, so that it
	// comes back after Redis lost it. Default 3 s.
	AckedEvery time.Duration
	// RetryMin and RetryMax bound the pause between attempts while Redis or Postgres
	// is away. Defaults 50 ms and 2 s.
	RetryMin, RetryMax time.Duration
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer

	// step, in tests, is called at each named step; an error ends Run there and then,
	// as a kill would.
	step func(name string) error
}

// Validate says what is wrong with o, if anything.
func (o Options) Validate() error { return o.setDefaults() }

func (o *Options) setDefaults() error {
	if o.Consumer == "" {
		o.Consumer = "ledger-" + strings.ToLower(rand.Text()[:16])
	}
	var errs []error
	for _, n := range []struct {
		name  string
		value *int
		def   int
	}{{"ReadEntries", &o.ReadEntries, 64}, {"TxEvents", &o.TxEvents, 1000}} {
		if *n.value == 0 {
			*n.value = n.def
		}
		if *n.value < 0 {
			errs = append(errs, fmt.Errorf("%s must be positive", n.name))
		}
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"Gather", &o.Gather, 100 * time.Millisecond}, {"Block", &o.Block, 500 * time.Millisecond}, {"ClaimIdle", &o.ClaimIdle, 30 * time.Second},
		{"CommitTimeout", &o.CommitTimeout, 15 * time.Second}, {"FinishWithin", &o.FinishWithin, 10 * time.Second},
		{"AckedEvery", &o.AckedEvery, 3 * time.Second},
		{"RetryMin", &o.RetryMin, 50 * time.Millisecond}, {"RetryMax", &o.RetryMax, 2 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.def
		}
		if *d.value < time.Millisecond {
			errs = append(errs, fmt.Errorf("%s must be at least 1ms", d.name))
		}
	}
	if o.RetryMin > o.RetryMax {
		errs = append(errs, errors.New("RetryMin must not exceed RetryMax"))
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.step == nil {
		o.step = func(string) error { return nil }
	}
	return errors.Join(errs...)
}

// Ledger is one worker. Create it with NewLedger.
type Ledger struct {
	stream  stream
	store   Store
	opts    Options
	log     *slog.Logger
	metrics *metrics
}

// NewLedger returns a worker that reads from client and writes to store. The client
// must be the worker's own, since its reads block and are never repeated by the client.
func NewLedger(client redis.UniversalClient, store Store, opts Options) (*Ledger, error) {
	if err := opts.setDefaults(); err != nil {
		return nil, fmt.Errorf("new ledger: %w", err)
	}
	client.AddHook(readOnce{})
	m, err := newMetrics(opts.Registerer)
	if err != nil {
		return nil, fmt.Errorf("new ledger: %w", err)
	}
	return &Ledger{
		stream:  stream{client: client, consumer: opts.Consumer, block: opts.Block, count: int64(opts.ReadEntries)},
		store:   store,
		opts:    opts,
		log:     opts.Logger.With("consumer", opts.Consumer),
		metrics: m,
	}, nil
}

// Ready reports whether the last contacts with Redis and with Postgres went well; the
// error says what is wrong. It is safe for concurrent use.
func (l *Ledger) Ready() error { return l.metrics.ready() }

// errKilled is what a test's step returned.
type errKilled struct{ error }

// Run works until ctx ends, then finishes the batch in hand and returns nil. While
// Redis or Postgres is away it keeps trying. Call it once.
func (l *Ledger) Run(ctx context.Context) error {
	l.log.Info("usage ledger starts")
	work, stop := outlive(ctx, l.opts.FinishWithin)
	defer stop()
	wait := backoff{min: l.opts.RetryMin, max: l.opts.RetryMax}
	for ctx.Err() == nil {
		err := l.session(ctx, work, &wait)
		if killed := (errKilled{}); errors.As(err, &killed) {
			return killed.error
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		pause := wait.next()
		l.metrics.retry(stepRedis, err)
		l.log.Warn("usage ledger: Redis failed, trying again", "error", err, "pause", pause)
		sleep(ctx, pause)
	}
	if err := l.stream.leave(work); err != nil {
		l.log.Info("usage ledger: could not leave the consumer group; another worker will tidy up", "error", err)
	}
	l.log.Info("usage ledger ends")
	return nil
}

// session reads and writes until ctx ends or Redis fails. It begins with what this
// consumer has pending: after a failure, that is what Redis handed out in a reply
// that did not arrive, or an acknowledgement that did not.
func (l *Ledger) session(ctx, work context.Context, wait *backoff) error {
	if err := l.stream.ensureGroup(work); err != nil {
		return err
	}
	if err := l.republish(work); err != nil {
		return err
	}
	publishAt := time.Now().Add(l.opts.AckedEvery)
	if err := l.drain(ctx, work, l.stream.readPending); err != nil {
		return err
	}
	var claimAt, tidyAt time.Time // at once
	for ctx.Err() == nil {
		now := time.Now()
		if !now.Before(claimAt) {
			if err := l.drain(ctx, work, l.stream.claimer(l.opts.ClaimIdle)); err != nil {
				return err
			}
			claimAt = now.Add(max(l.opts.ClaimIdle/3, 10*time.Millisecond))
		}
		if !now.Before(tidyAt) {
			if err := l.tidy(work); err != nil {
				return err
			}
			tidyAt = now.Add(tidyEvery)
		}
		if !now.Before(publishAt) {
			if err := l.republish(work); err != nil {
				return err
			}
			publishAt = now.Add(l.opts.AckedEvery)
		}
		entries, err := l.stream.readNew(ctx)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			faultpoint.At("billing.read.after")
		}
		l.metrics.answered(stepRedis)
		wait.reset()
		if err := l.write(ctx, work, entries); err != nil {
			return err
		}
		if 0 < len(entries) && len(entries) < l.opts.ReadEntries {
			sleep(ctx, l.opts.Gather)
		}
	}
	return nil
}

// drain writes what read returns until that is nothing.
func (l *Ledger) drain(ctx, work context.Context, read func(context.Context) ([]entry, error)) error {
	for ctx.Err() == nil {
		entries, err := read(work)
		if err != nil || len(entries) == 0 {
			return err
		}
		if err := l.write(ctx, work, entries); err != nil {
			return err
		}
	}
	return nil
}

// tidyEvery is how often a worker looks after partitions, dead consumers and the
// backlog's size.
const tidyEvery = 10 * time.Second

func (l *Ledger) tidy(work context.Context) error {
	backlog, err := l.stream.tidy(work, max(consumerIdle, 2*l.opts.ClaimIdle))
	if err != nil {
		return err
	}
	l.metrics.backlog.Set(float64(backlog))
	attempt, cancel := context.WithTimeout(work, l.opts.CommitTimeout)
	defer cancel()
	if err := l.store.EnsurePartitions(attempt); err != nil {
		// Not fatal: RecordUsage creates what it needs.
		l.metrics.retry(stepPostgres, err)
		l.log.Warn("usage ledger: cannot create partitions ahead", "error", err)
		return nil
	}
	l.metrics.answered(stepPostgres)
	return nil
}

// republish publishes what all live replicas may forget. Without Postgres there is
// nothing new to say, and the old is said again later.
func (l *Ledger) republish(work context.Context) error {
	attempt, cancel := context.WithTimeout(work, l.opts.CommitTimeout)
	defer cancel()
	faultpoint.At("billing.republish.before")
	acked, err := l.store.Acked(attempt)
	if err != nil {
		l.metrics.retry(stepPostgres, err)
		l.log.Warn("usage ledger: cannot read what replicas may forget", "error", err)
		return nil
	}
	l.metrics.answered(stepPostgres)
	return PublishAcked(work, l.stream.client, acked)
}

// write commits and acknowledges entries, some at a time. It returns an error only
// if Redis fails or there is no time left; all that is then not acknowledged is
// still pending.
func (l *Ledger) write(ctx, work context.Context, entries []entry) error {
	for len(entries) > 0 {
		var b batch
		n := 0
		for n < len(entries) && (n == 0 || b.size() < l.opts.TxEvents) {
			b.add(entries[n])
			n++
		}
		if err := l.step("read"); err != nil {
			return err
		}
		faultpoint.At("billing.record.before")
		recorded, err := l.commit(ctx, work, &b)
		if err != nil {
			return err
		}
		if err := l.step("committed"); err != nil {
			return err
		}
		faultpoint.At("billing.acknowledge.before")
		if err := l.stream.acknowledge(work, b.ids, recorded.Acked); err != nil {
			return err
		}
		faultpoint.At("billing.acknowledge.after")
		l.metrics.answered(stepRedis)
		if err := l.step("acknowledged"); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// commit tries until b is written. After ctx has ended it goes on until work ends.
func (l *Ledger) commit(ctx, work context.Context, b *batch) (control.Recorded, error) {
	l.metrics.inHand(b.oldest)
	defer l.metrics.inHand(time.Time{})
	wait := backoff{min: l.opts.RetryMin, max: l.opts.RetryMax}
	for {
		begin := time.Now()
		attempt, cancel := context.WithTimeout(work, l.opts.CommitTimeout)
		recorded, err := l.store.RecordUsage(attempt, b.deliveries, b.dead)
		cancel()
		if err == nil {
			l.metrics.committed(recorded, b.oldest, begin)
			for _, d := range recorded.Parked {
				l.log.Error("usage ledger: parked", "stream_id", d.StreamID, "index", d.Index, "reason", d.Reason)
			}
			return recorded, nil
		}
		if work.Err() != nil {
			return control.Recorded{}, fmt.Errorf("write usage: no time left: %w", err)
		}
		pause := wait.next()
		l.metrics.retry(stepPostgres, err)
		l.log.Warn("usage ledger: cannot write, trying again", "error", err, "events", len(b.deliveries), "pause", pause)
		// The pause ends early when ctx does, so that there is one last attempt.
		if ctx.Err() == nil {
			sleep(ctx, pause)
		} else {
			sleep(work, pause)
		}
	}
}

func (l *Ledger) step(name string) error {
	if err := l.opts.step(name); err != nil {
		return errKilled{err}
	}
	return nil
}

// outlive returns a context that ends a while after ctx does.
func outlive(ctx context.Context, while time.Duration) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(while, cancel) })
	return work, func() { stop(); cancel() }
}

// backoff doubles from min to max.
type backoff struct{ min, max, last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, b.min), b.max)
	return b.last
}

func (b *backoff) reset() { b.last = 0 }

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
