// Package meter carries usage events from the journal to the Redis stream that the
// billing-worker reads, in batches, so that Redis work grows with time and not with
// requests. When Postgres has them, and the limit has been charged for them, the journal
// forgets them. (That the limit is charged is the work of quota.Leases, which reads the
// journal by itself.)
//
// Everything here may be repeated: an event counts once per number. So after a crash, when
// Redis has lost its data, and when acknowledgements stay away although the stream has
// nothing of it any more (a batch fell between two workers), all that is not acknowledged
// is sent anew. What the stream still has waits there, however long Postgres is away.
package meter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
	"github.com/andreabadesso/openclaw-cloud/proxy/journal"
)

// Options of a Meter. Zero values mean the default in parentheses.
type Options struct {
	MaxBatch int           // events in one stream entry (500)
	Linger   time.Duration // how long the first event of a batch waits for company (20 ms)
	Timeout  time.Duration // of one Redis command (1 s)
	AckEvery time.Duration // how often acknowledgements are read (250 ms)
	Resend   time.Duration // without an acknowledgement for so long, events that Redis has no more are sent again (15 s)
	Logger   *slog.Logger  // required
}

func (o *Options) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = 500
	}
	def(&o.Linger, 20*time.Millisecond)
	def(&o.Timeout, time.Second)
	def(&o.AckEvery, 250*time.Millisecond)
	def(&o.Resend, 15*time.Second)
}

// Events that Redis still has are sent again too, in case that no worker comes to see
// them, but first after distrust × Resend, and then twice as late each time: copies of them
// must not fill Redis while Postgres is away. The pause between two looks doubles too, up to
// distrust × Resend, whenever what is gone was sent again in vain.
const distrust = 20

// entry is an entry of the stream, and the number of the newest event in it.
type entry struct {
	id   string
	last int64
}

// Limit knows for which events the limit was charged. The implementation is quota.Leases.
type Limit interface {
	// Forgettable returns the number up to which the journal may forget events that were
	// acknowledged before the call.
	Forgettable(ctx context.Context) (int64, error)
	// Epoch changes when Redis may have lost what it had.
	Epoch() int64
}

// Meter is safe for concurrent use. Create it with New, end it with Close.
type Meter struct {
	rdb   redis.UniversalClient
	log   *journal.Journal
	limit Limit
	opts  Options

	mu     sync.Mutex
	sent   int64         // number of the newest event that was sent
	moved  chan struct{} // closed, and replaced, when sent grows
	acked  int64         // number up to which Postgres has them all
	epoch  int64         // in which those above were sent
	newest entry         // the last one sent
	// witness was the newest entry when the wait for its acknowledgement began. Once it is
	// off the stream, those before it are too.
	witness  entry
	since    time.Time     // when acked last grew, or the events above it were sent (again)
	lookAt   time.Time     // when to see whether the witness is still there
	wait     time.Duration // between two looks
	patience time.Duration // how long the stream is believed
	wake     func()        // ends the wait for an event to send; nil before the first

	stop context.CancelFunc
	done sync.WaitGroup
}

// New starts a Meter that begins with what the journal has not forgotten.
func New(rdb redis.UniversalClient, j *journal.Journal, limit Limit, o Options) *Meter {
	o.setDefaults()
	ctx, stop := context.WithCancel(context.Background())
	start := j.Forgotten()
	m := &Meter{
		rdb: rdb, log: j, limit: limit, opts: o,
		sent: start, acked: start, moved: make(chan struct{}), stop: stop,
	}
	m.trust()
	m.done.Go(func() { m.ship(ctx) })
	m.done.Go(func() { m.followAcks(ctx) })
	return m
}

// Queued returns how many events are not in Redis yet.
func (m *Meter) Queued() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int(m.log.Last() - m.sent)
}

// Unacknowledged returns how many events are not in Postgres yet, as far as is known.
func (m *Meter) Unacknowledged() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.log.Last() - m.acked
}

// Flush waits until every event so far is in Redis.
func (m *Meter) Flush(ctx context.Context) error {
	last := m.log.Last()
	for {
		m.mu.Lock()
		moved, missing := m.moved, last-m.sent
		m.mu.Unlock()
		if missing <= 0 {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("flush usage events: %d are not in Redis: %w", missing, ctx.Err())
		}
	}
}

// Close stops sending. Call Flush first.
func (m *Meter) Close() {
	m.stop()
	m.done.Wait()
}

// ship sends events as they come.
func (m *Meter) ship(ctx context.Context) {
	backoff := m.opts.Linger
	for {
		m.mu.Lock()
		after := m.sent
		m.mu.Unlock()
		if !m.await(ctx, after) {
			return
		}
		if m.Queued() < m.opts.MaxBatch && !pause(ctx, m.opts.Linger) {
			return
		}
		err := m.send(ctx, after)
		switch {
		case err == nil:
			backoff = m.opts.Linger
			continue
		case ctx.Err() != nil:
			return
		}
		m.opts.Logger.Warn("usage events wait", "queued", m.Queued(), "error", err)
		backoff = min(2*backoff, time.Second)
		if !pause(ctx, backoff) {
			return
		}
	}
}

// await waits for an event to send, or until resend says that events that were sent have
// to be sent again. It reports false when the Meter or the journal was closed.
func (m *Meter) await(ctx context.Context, after int64) bool {
	waiting, wake := context.WithCancel(ctx)
	defer wake()
	m.mu.Lock()
	m.wake = wake
	moved := m.sent != after
	m.mu.Unlock()
	if moved {
		return true
	}
	err := m.log.Wait(waiting, after)
	return err == nil || ctx.Err() == nil && errors.Is(err, context.Canceled)
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// send ships what comes after number after, as one entry.
func (m *Meter) send(ctx context.Context, after int64) error {
	events, err := m.log.Next(after, m.opts.MaxBatch)
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	if len(events) == 0 {
		return nil
	}
	b, err := contract.EncodeBatch(contract.Batch{Replica: m.log.Replica(), Events: events})
	if err != nil {
		return fmt.Errorf("encode usage batch: %w", err)
	}
	timed, cancel := context.WithTimeout(ctx, m.opts.Timeout)
	defer cancel()
	faultpoint.At("meter.add.before")
	id, err := m.rdb.XAdd(timed, &redis.XAddArgs{Stream: contract.UsageStreamKey, Values: []any{contract.UsageField, b}}).Result()
	faultpoint.At("meter.add.after")
	if err != nil {
		return fmt.Errorf("append usage batch: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sent != after {
		return nil // told to send again meanwhile
	}
	if m.sent == m.acked {
		m.trust() // nothing was outstanding: the wait begins now
	}
	m.newest = entry{id, events[len(events)-1].Seq}
	m.advance(m.newest.last)
	return nil
}

// advance takes note that all up to n need not be sent. m.mu is held.
func (m *Meter) advance(n int64) {
	if n <= m.sent {
		return
	}
	m.sent = n
	close(m.moved)
	m.moved = make(chan struct{})
}

// followAcks learns what Postgres has, has sent again what stays unacknowledged, and lets
// the journal forget.
func (m *Meter) followAcks(ctx context.Context) {
	t := time.NewTicker(m.opts.AckEvery)
	defer t.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		m.followEpoch()
		if m.log.Forgotten() == m.log.Last() {
			continue
		}
		err := m.readAck(ctx)
		if err == nil {
			// After it: what Forgettable answers holds for what was acknowledged before.
			err = m.forget(ctx)
		}
		if err != nil && ctx.Err() == nil && !failed {
			m.opts.Logger.Warn("the journal keeps usage events for now; will retry", "error", err)
		}
		failed = err != nil
	}
}

func (m *Meter) readAck(ctx context.Context) error {
	timed, cancel := context.WithTimeout(ctx, m.opts.Timeout)
	defer cancel()
	// Before the acknowledgement: it and the removal from the stream are one.
	late, gone, err := m.look(timed)
	if err != nil {
		return err
	}
	n, err := m.rdb.HGet(timed, contract.UsageAckedKey, m.log.Replica()).Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("read acknowledgement: %w", err)
	}
	if last := m.log.Last(); n > last {
		return fmt.Errorf("BUG: event %d is acknowledged, the newest one is %d", n, last)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if n <= m.acked {
		if late {
			m.resendLate(gone)
		}
		return nil
	}
	m.acked = n
	m.trust()
	m.advance(n) // what was to be sent again may have arrived after all
	return nil
}

// look sees, when an acknowledgement is late, whether the stream still has what waits for it.
func (m *Meter) look(ctx context.Context) (late, gone bool, err error) {
	m.mu.Lock()
	if m.witness.last <= m.acked {
		m.witness = m.newest
	}
	witness := m.witness
	late = m.sent > m.acked && witness.last > m.acked && !time.Now().Before(m.lookAt)
	m.mu.Unlock()
	if !late {
		return false, false, nil
	}
	found, err := m.rdb.XRangeN(ctx, contract.UsageStreamKey, witness.id, witness.id, 1).Result()
	if err != nil {
		return false, false, fmt.Errorf("look for usage events that were sent: %w", err)
	}
	return true, len(found) == 0, nil
}

// forget lets the journal forget the events that Postgres has and that are settled in
// Redis, in records that will not be rebuilt without them: see quota.Leases.Forgettable.
func (m *Meter) forget(ctx context.Context) error {
	m.mu.Lock()
	acked := m.acked
	m.mu.Unlock()
	if acked <= m.log.Forgotten() {
		return nil
	}
	settled, err := m.limit.Forgettable(ctx)
	if err != nil {
		return fmt.Errorf("forget: %w", err)
	}
	if n := min(acked, settled); n > m.log.Forgotten() {
		if err := m.log.Forget(n); err != nil {
			return fmt.Errorf("forget: %w", err)
		}
	}
	return nil
}

// followEpoch goes back to the last acknowledged event when Redis may have lost what was
// sent.
func (m *Meter) followEpoch() {
	epoch := m.limit.Epoch()
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch != 0 && epoch != m.epoch {
		m.epoch = epoch
		m.resend()
	}
}

// resendLate goes back to the last acknowledged event if what was sent is gone, or has been
// on the stream for too long. m.mu is held.
func (m *Meter) resendLate(gone bool) {
	now := time.Now()
	switch {
	case gone:
		m.wait = min(2*m.wait, distrust*m.opts.Resend)
		m.resend()
	case now.Sub(m.since) >= m.patience:
		m.patience *= 2
		m.resend()
	}
	m.lookAt = now.Add(m.wait)
}

// resend goes back to the last acknowledged event. m.mu is held.
func (m *Meter) resend() {
	if m.sent <= m.acked {
		return
	}
	m.opts.Logger.Info("sending unacknowledged usage events again", "from", m.acked+1, "to", m.sent)
	m.sent, m.newest, m.witness = m.acked, entry{}, entry{}
	m.since = time.Now()
	m.lookAt = m.since.Add(m.wait)
	if m.wake != nil {
		m.wake()
	}
}

// trust begins to wait for an acknowledgement. m.mu is held.
func (m *Meter) trust() {
	m.wait, m.patience = m.opts.Resend, distrust*m.opts.Resend
	m.since = time.Now()
	m.lookAt = m.since.Add(m.wait)
}
