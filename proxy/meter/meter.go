// Package meter carries usage events from the request path to the Redis stream that
// the billing-worker reads. Record never blocks; events wait in memory while Redis is
// away, in order, and are sent in batches so that Redis work grows with time and not
// with requests.
//
// What waits here is lost with the process: a journal file under it is what makes
// metering survive kill -9.
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
)

// Options of a Meter. Zero values mean the default in parentheses.
type Options struct {
	Replica   string        // random id of this process; required
	MaxQueued int           // events that may wait before Full reports true (100,000)
	MaxBatch  int           // events in one stream entry (500)
	Linger    time.Duration // how long the first event of a batch waits for company (5 ms)
	Timeout   time.Duration // of one Redis command (1 s)
	Logger    *slog.Logger  // required
}

// Meter is safe for concurrent use. Create it with New, end it with Close.
type Meter struct {
	rdb  redis.UniversalClient
	opts Options

	mu    sync.Mutex
	seq   int64            // number of the newest event
	sent  int64            // number of the newest event in Redis
	queue []contract.Event // those between, in the order of their numbers
	moved chan struct{}    // closed, and replaced, when sent grows
	wake  chan struct{}

	stop context.CancelFunc
	done chan struct{}
}

// New starts a Meter.
func New(rdb redis.UniversalClient, o Options) *Meter {
	if o.MaxQueued <= 0 {
		o.MaxQueued = 100_000
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = 500
	}
	if o.Linger <= 0 {
		o.Linger = 5 * time.Millisecond
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &Meter{rdb: rdb, opts: o, wake: make(chan struct{}, 1), moved: make(chan struct{}), stop: stop, done: make(chan struct{})}
	go m.run(ctx)
	return m
}

// Record numbers e and queues it. It sets e's Replica and Seq.
func (m *Meter) Record(e contract.Event) {
	m.mu.Lock()
	m.seq++
	e.Replica, e.Seq = m.opts.Replica, m.seq
	m.queue = append(m.queue, e)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Full reports whether so many events wait that new work should be refused rather than
// its usage be put at risk.
func (m *Meter) Full() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queue) >= m.opts.MaxQueued
}

// Queued returns how many events are not in Redis yet.
func (m *Meter) Queued() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queue)
}

// Flush waits until every event recorded so far is in Redis, whatever is recorded
// meanwhile.
func (m *Meter) Flush(ctx context.Context) error {
	m.mu.Lock()
	last := m.seq
	m.mu.Unlock()
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
	<-m.done
}

func (m *Meter) run(ctx context.Context) {
	defer close(m.done)
	backoff := m.opts.Linger
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		}
		if !pause(ctx, m.opts.Linger) {
			return
		}
		for {
			n, err := m.send(ctx)
			if err == nil {
				backoff = m.opts.Linger
				if n == 0 {
					break
				}
				continue
			}
			if errors.Is(err, context.Canceled) {
				return
			}
			m.opts.Logger.Warn("usage events wait for Redis", "queued", m.Queued(), "error", err)
			backoff = min(2*backoff, time.Second)
			if !pause(ctx, backoff) {
				return
			}
		}
	}
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

// send appends the oldest events to the stream as one entry. An answer that was lost
// means that they are sent again: the reader knows events by their number.
func (m *Meter) send(ctx context.Context) (int, error) {
	m.mu.Lock()
	n := min(len(m.queue), m.opts.MaxBatch)
	events := m.queue[:n:n] // only this goroutine removes from the front
	m.mu.Unlock()
	if n == 0 {
		return 0, nil
	}
	b, err := contract.EncodeBatch(contract.Batch{Replica: m.opts.Replica, Events: events})
	if err != nil {
		return 0, fmt.Errorf("encode usage batch: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, m.opts.Timeout)
	defer cancel()
	err = m.rdb.XAdd(ctx, &redis.XAddArgs{Stream: contract.UsageStreamKey, Values: []any{contract.UsageField, b}}).Err()
	if err != nil {
		return 0, fmt.Errorf("append usage batch: %w", err)
	}
	m.mu.Lock()
	m.queue = m.queue[n:]
	if len(m.queue) == 0 {
		m.queue = nil // the array may have grown large during an outage
	}
	m.sent += int64(n)
	close(m.moved)
	m.moved = make(chan struct{})
	m.mu.Unlock()
	return n, nil
}
