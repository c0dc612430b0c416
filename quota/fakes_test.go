package quota_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// disk is what survives a replica's death: the contents of its journal.
type disk struct {
	name string

	mu        sync.Mutex
	life      uint64
	events    []contract.Event // number i+1 is at i; never cut, forgotten tells what is gone
	forgotten int64
	open      map[*request]struct{}
	changed   chan struct{}
}

// request is a request in flight.
type request struct {
	hold quota.Hold
	used int64 // as far as it has come
}

func newDisk(name string) *disk {
	return &disk{name: name, open: map[*request]struct{}{}, changed: make(chan struct{})}
}

// journal is a disk during one life. It implements quota.Journal as journal.Journal does.
type journal struct {
	*disk
	life   uint64
	closed atomic.Bool
}

var errJournalClosed = errors.New("journal closed")

// start begins a life: what was left open becomes events.
func (d *disk) start() *journal {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life++
	for r := range d.open {
		d.append(r, r.used)
	}
	return &journal{disk: d, life: d.life}
}

func (d *disk) append(r *request, used int64) int64 {
	delete(d.open, r)
	seq := int64(len(d.events) + 1)
	d.events = append(d.events, contract.Event{
		Replica: d.name, Seq: seq, CustomerID: r.hold.Customer, PeriodID: r.hold.PeriodID,
		Reserved: r.hold.Tokens, Settled: used,
	})
	close(d.changed)
	d.changed = make(chan struct{})
	return seq
}

// begin notes a request before it is sent.
func (j *journal) begin(h quota.Hold) *request {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := &request{hold: h}
	j.open[r] = struct{}{}
	return r
}

// complete ends a request as an event, and returns its number.
func (j *journal) complete(r *request, used int64) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.append(r, used)
}

// abandon ends a request of which nothing was used. The caller releases its hold.
func (j *journal) abandon(r *request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.open, r)
}

// use does a whole request.
func (j *journal) use(h quota.Hold, used int64) { j.complete(j.begin(h), used) }

func (j *journal) Replica() string { return j.name }
func (j *journal) Life() uint64    { return j.life }

func (j *journal) Last() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return int64(len(j.events))
}

func (j *journal) Forgotten() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.forgotten
}

func (j *journal) forget(n int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.forgotten = max(j.forgotten, n)
}

func (j *journal) Next(after int64, n int) ([]contract.Event, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed.Load():
		return nil, errJournalClosed
	case after < j.forgotten:
		return nil, fmt.Errorf("events after %d: those up to %d are forgotten", after, j.forgotten)
	}
	some := j.events[after:]
	return append([]contract.Event(nil), some[:min(n, len(some))]...), nil
}

func (j *journal) Wait(ctx context.Context, after int64) error {
	for {
		j.mu.Lock()
		last, changed := int64(len(j.events)), j.changed
		j.mu.Unlock()
		switch {
		case j.closed.Load():
			return errJournalClosed
		case last > after:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// replica is a running life of one.
type replica struct {
	*quota.Leases
	j *journal
	d *disk
}

// quick are options under which tests need not wait long, on slow machines too.
func quick() quota.Options {
	return quota.Options{
		Timeout: 5 * time.Second, SettleEvery: 10 * time.Millisecond, FollowEvery: 15 * time.Millisecond,
		Grace: time.Minute, ReturnAfter: 200 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
}

// guardedClient returns a client that talks to trusted servers only.
func guardedClient(t testing.TB, server *testenv.RedisServer, plain redis.UniversalClient) *redis.Client {
	client := redis.NewClient(&redis.Options{
		Addr: server.Addr, ContextTimeoutEnabled: true, DialTimeout: time.Second, PoolSize: 32,
		OnConnect: quota.NewGuard(plain).Check,
	})
	t.Cleanup(func() { client.Close() })
	return client
}

// start begins a life of a replica on the disk and waits until it can serve.
func start(t testing.TB, server *testenv.RedisServer, d *disk, o quota.Options) *replica {
	t.Helper()
	plain := newClient(t, server)
	return startWith(t, plain, guardedClient(t, server, plain), d, o)
}

func startWith(t testing.TB, plain, guarded redis.UniversalClient, d *disk, o quota.Options) *replica {
	t.Helper()
	j := d.start()
	r := &replica{Leases: quota.NewLeases(plain, guarded, j, o), j: j, d: d}
	t.Cleanup(r.kill)
	until(t, "the replica is ready", func() error { return r.Ready() })
	return r
}

// untilOpen waits until leases may grow in an epoch that is not older than number.
func (r *replica) untilOpen(t testing.TB, number int64) {
	t.Helper()
	until(t, "leases may grow", func() error {
		if s := r.Stats(); s.Epoch < number || !s.Open {
			return fmt.Errorf("%+v, ready: %v", s, r.Ready())
		}
		return nil
	})
}

// kill ends the life as SIGKILL would; no harm if it has ended.
func (r *replica) kill() {
	quota.Kill(r.Leases)
	r.j.closed.Store(true)
}

// close ends the life as SIGTERM would.
func (r *replica) close(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	r.j.closed.Store(true)
}

// patience is how long tests wait for what happens within milliseconds on an idle machine.
const patience = 30 * time.Second

// until polls until check returns nil.
func until(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still not after %v: %v", what, patience, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
