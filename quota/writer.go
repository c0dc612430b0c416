package quota

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// op is what is done to a hold; settleScript knows the letters.
type op byte

const (
	opSettle  op = 's'
	opRelease op = 'r'
	opAbandon op = 'a'
)

// The writer's timing. A batch waits for linger, so that settlements of the same
// moment share a script call; while one flush is under way the next gathers by
// itself. An account that fails is tried again after minRetry, doubling to maxRetry.
const (
	linger       = time.Millisecond
	writeTimeout = 2 * time.Second
	minRetry     = 5 * time.Millisecond
	maxRetry     = time.Second
	// maxPerCall bounds one script call, during which Redis serves nobody else.
	maxPerCall = 256
	// maxPerFlush bounds one pipeline and so the time it takes.
	maxPerFlush = 64
	// tombstoneTTL is how long an abandoned id is refused: far longer than a command
	// can linger in a socket.
	tombstoneTTL = time.Hour
)

// record is one operation that Redis has not taken yet.
type record struct {
	id    string
	op    op
	used  int64
	epoch uint64 // of writer when it was added
}

type accountID struct{ customer, period string }

// backlog is what waits for one account. Accounts fail and are retried each on
// their own, so that one with a broken key holds up nobody else.
type backlog struct {
	accountID
	records []record
	retry   time.Duration // 0 until it fails
	notYet  time.Time
}

// writer carries settlements to Redis: it never blocks who adds one, and never gives
// one up. All methods are safe for concurrent use.
type writer struct {
	client redis.UniversalClient
	logger *slog.Logger
	script *redis.Script
	wake   func(customer string)
	outage *outage

	kick    chan struct{} // capacity 1: there is something new
	ctx     context.Context
	cancel  context.CancelFunc
	stopped chan struct{}

	mu       sync.Mutex // guards the following; never held during I/O
	queue    map[accountID]*backlog
	epoch    uint64
	open     map[uint64]int // records not written yet by epoch
	flushers []flusher
}

type flusher struct {
	epoch uint64 // waits until no record of this or an earlier epoch is open
	done  chan struct{}
}

func newWriter(client redis.UniversalClient, logger *slog.Logger, wake func(string), out *outage) *writer {
	w := &writer{
		client:  client,
		logger:  logger,
		script:  redis.NewScript(settleScript),
		wake:    wake,
		outage:  out,
		kick:    make(chan struct{}, 1),
		stopped: make(chan struct{}),
		queue:   make(map[accountID]*backlog),
		open:    make(map[uint64]int),
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	go w.run()
	return w
}

func (w *writer) add(h Hold, what op, used int64) {
	id := accountID{h.Customer, h.PeriodID}
	w.mu.Lock()
	b := w.queue[id]
	if b == nil {
		b = &backlog{accountID: id}
		w.queue[id] = b
	}
	b.records = append(b.records, record{id: h.ID, op: what, used: min(used, maxTokens), epoch: w.epoch})
	w.open[w.epoch]++
	w.mu.Unlock()
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *writer) pending() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.openUpTo(w.epoch)
}

func (w *writer) openUpTo(epoch uint64) int {
	n := 0
	for e, open := range w.open {
		if e <= epoch {
			n += open
		}
	}
	return n
}

// flush waits until every record added before the call is written.
func (w *writer) flush(ctx context.Context) error {
	w.mu.Lock()
	if w.openUpTo(w.epoch) == 0 {
		w.mu.Unlock()
		return nil
	}
	f := flusher{epoch: w.epoch, done: make(chan struct{})}
	w.flushers = append(w.flushers, f)
	w.epoch++
	w.mu.Unlock()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush settlements: %w", ctx.Err())
	case <-w.stopped:
		return fmt.Errorf("flush settlements: ledger is closed")
	}
}

// stop ends the writer and returns how many records were not written.
func (w *writer) stop() int {
	w.cancel()
	<-w.stopped
	return w.pending()
}

func (w *writer) run() {
	defer close(w.stopped)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		work, next := w.take(time.Now())
		if len(work) == 0 {
			// Nothing is due: sleep until something is added or a retry is due.
			timer.Reset(next)
			select {
			case <-w.ctx.Done():
				return
			case <-timer.C:
				continue
			case <-w.kick:
			}
			timer.Reset(linger)
			select {
			case <-w.ctx.Done():
				return
			case <-timer.C:
			}
			continue
		}
		w.write(work)
		if w.ctx.Err() != nil {
			return
		}
	}
}

// take removes what is due from the queue. Without any it returns how long it takes
// until the first retry.
func (w *writer) take(now time.Time) (work []*backlog, next time.Duration) {
	next = time.Hour
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, b := range w.queue {
		if wait := b.notYet.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		if len(work) == maxPerFlush {
			break
		}
		taken := b
		if len(b.records) > maxPerCall {
			taken = &backlog{accountID: id, records: b.records[:maxPerCall:maxPerCall], retry: b.retry}
			b.records = b.records[maxPerCall:]
		} else {
			delete(w.queue, id)
		}
		work = append(work, taken)
	}
	return work, next
}

// write sends one script call per account in one pipeline. What fails returns to the
// queue: the script makes a repeated record harmless.
func (w *writer) write(work []*backlog) {
	ctx, cancel := context.WithTimeout(w.ctx, writeTimeout)
	defer cancel()
	calls := make([]*redis.Cmd, len(work))
	// The pipeline's own error is that of its first failed call.
	_, _ = w.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, b := range work {
			calls[i] = p.EvalSha(ctx, w.script.Hash(), accountKeys(b.customer, b.period), settleArgs(b.records)...)
		}
		return nil
	})
	loaded := false
	for i, b := range work {
		err := calls[i].Err()
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			// Redis is new, or was told to forget its scripts.
			if !loaded {
				err = w.script.Load(ctx, w.client).Err()
				loaded = err == nil
			}
			if loaded {
				err = w.script.EvalSha(ctx, w.client, accountKeys(b.customer, b.period), settleArgs(b.records)...).Err()
			}
		}
		if err != nil {
			w.again(b, err)
			continue
		}
		w.outage.worked()
		w.wake(b.customer)
		w.done(b)
	}
}

func settleArgs(records []record) []any {
	args := make([]any, 1, 1+3*len(records))
	args[0] = tombstoneTTL.Milliseconds()
	for _, r := range records {
		args = append(args, r.id, string(rune(r.op)), r.used)
	}
	return args
}

// again puts b back in front of what was added meanwhile.
func (w *writer) again(b *backlog, err error) {
	first := b.retry == 0
	b.retry = min(max(2*b.retry, minRetry), maxRetry)
	b.notYet = time.Now().Add(b.retry)
	w.mu.Lock()
	if newer := w.queue[b.accountID]; newer != nil {
		b.records = append(b.records, newer.records...)
	}
	w.queue[b.accountID] = b
	w.mu.Unlock()
	// One line when trouble starts and one per second of it is enough.
	if w.ctx.Err() == nil && (first || b.retry == maxRetry) {
		w.logger.Warn("quota settlements cannot be written; will retry",
			"customer", b.customer, "period", b.period, "waiting", len(b.records), "error", err)
	}
}

func (w *writer) done(b *backlog) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range b.records {
		if w.open[r.epoch]--; w.open[r.epoch] == 0 {
			delete(w.open, r.epoch)
		}
	}
	waiting := w.flushers[:0]
	for _, f := range w.flushers {
		if w.openUpTo(f.epoch) == 0 {
			close(f.done)
		} else {
			waiting = append(waiting, f)
		}
	}
	clear(w.flushers[len(waiting):])
	w.flushers = waiting
}
