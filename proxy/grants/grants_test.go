package grants_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
)

func TestMain(m *testing.M) {
	redis.SetLogger(discard{}) // it has much to say about servers that tests stop
	testenv.Main(m)
}

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}

// newClient returns a client as the programs have it.
func newClient(t testing.TB, server testenv.AnyRedis) redis.UniversalClient {
	t.Helper()
	target, err := redisclient.Parse(server.RedisURL())
	if err != nil {
		t.Fatal(err)
	}
	client := target.Open(redisclient.Options{})
	t.Cleanup(func() { client.Close() })
	return client
}

// reader is a running Cache whose reads of grants a test can count and hold up.
type reader struct {
	*grants.Cache
	gets atomic.Int64

	mu   sync.Mutex
	hold chan struct{} // a read that has Redis' answer waits for it to be closed
	held chan struct{} // gets one message for each read that waits

	changes chan *contract.Grant
	reloads chan struct{}
}

func start(t testing.TB, server testenv.AnyRedis, opts grants.Options) *reader {
	t.Helper()
	r := startSilent(t, server, opts)
	eventually(t, "ready", r.Ready)
	return r
}

func startSilent(t testing.TB, server testenv.AnyRedis, opts grants.Options) *reader {
	t.Helper()
	client := newClient(t, server)
	r := &reader{
		held:    make(chan struct{}, 10_000),
		changes: make(chan *contract.Grant, 100_000),
		reloads: make(chan struct{}, 1000),
	}
	client.AddHook(r)
	if opts.ReadTimeout == 0 {
		opts.ReadTimeout = 5 * time.Second // machines under test are slow at times
	}
	opts.Logger = slog.New(slog.DiscardHandler)
	var err error
	if r.Cache, err = grants.New(client, opts); err != nil {
		t.Fatal(err)
	}
	r.OnChange(func(_ contract.Digest, g *contract.Grant) { r.changes <- g })
	r.OnReload(func() { r.reloads <- struct{}{} })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		r.Close()
	})
	return r
}

func (r *reader) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *reader) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (r *reader) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == "get" {
			r.gets.Add(1)
			r.mu.Lock()
			hold := r.hold
			r.mu.Unlock()
			if hold != nil {
				r.held <- struct{}{}
				<-hold
			}
		}
		return err
	}
}

// holdReads makes reads wait after Redis has answered, until release is called.
func (r *reader) holdReads() (release func()) {
	hold := make(chan struct{})
	r.mu.Lock()
	r.hold = hold
	r.mu.Unlock()
	return func() {
		r.mu.Lock()
		r.hold = nil
		r.mu.Unlock()
		close(hold)
	}
}

// publisher writes what the control plane would. It is a plain copy of the format, in
// two steps, for a test can then leave out or break any of them.
type publisher struct {
	t      testing.TB
	client redis.UniversalClient
	silent bool // no pub/sub message

	mu  sync.Mutex
	seq int64
}

// newPublisher returns what stands in for the control plane, which marks Redis as complete.
func newPublisher(t testing.TB, server testenv.AnyRedis) *publisher {
	p := &publisher{t: t, client: newClient(t, server)}
	p.set(contract.FeedComplete, "first")
	return p
}

func (p *publisher) store(d contract.Digest, g contract.Grant) {
	p.t.Helper()
	b, err := contract.EncodeGrant(g)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.client.Set(context.Background(), contract.GrantKey(d), b, 0).Err(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *publisher) put(d contract.Digest, g contract.Grant) (seq int64) {
	p.t.Helper()
	p.store(d, g)
	return p.announce(contract.Change{Kind: contract.ChangeGrant, Digest: d.Hex(), Grant: &g})
}

func (p *publisher) announce(c contract.Change) (seq int64) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq++
	c.Seq = p.seq
	if c.Grant != nil {
		c.Grant.Format = contract.GrantFormat
	}
	text, err := contract.EncodeChange(c)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(c.Seq, string(text))
	return c.Seq
}

func (p *publisher) write(seq int64, text string) {
	p.t.Helper()
	ctx := context.Background()
	_, err := p.client.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		tx.HSet(ctx, contract.FeedStateKey, contract.FeedSeq, seq)
		tx.XAdd(ctx, &redis.XAddArgs{Stream: contract.FeedLogKey, ID: strconv.FormatInt(seq, 10) + "-0", Values: []any{"c", text}})
		if !p.silent {
			tx.Publish(ctx, contract.FeedChannel, text)
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

func newDigest() (d contract.Digest) {
	_, _ = rand.Read(d[:]) // never fails
	return d
}

func grant(version int64, status contract.Status) contract.Grant {
	start := time.Date(2031, 5, 1, 0, 0, 0, 0, time.UTC)
	return contract.Grant{
		TokenID: "t1", CustomerID: "c1", BoxID: "b1", Tier: "starter",
		Version: version, Status: status,
		RequestsPerSecond: 10, Burst: 20, Concurrent: 4,
		MonthlyLimit: 1_000_000, LimitVersion: version,
		Period:  contract.Period{ID: "2031-05", Start: start, End: start.AddDate(0, 1, 0)},
		Weights: contract.Weights{Prompt: 1, Cached: 1, Completion: 1},
	}
}

func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !check(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not: %s", what)
		}
	}
}

func (r *reader) want(t testing.TB, d contract.Digest, version int64, status contract.Status) {
	t.Helper()
	g, err := r.Lookup(context.Background(), d)
	if err != nil {
		t.Fatalf("look up: %v", err)
	}
	if g.Version != version || g.Status != status {
		t.Fatalf("got version %d, %s; want %d, %s", g.Version, g.Status, version, status)
	}
}

func (r *reader) wantError(t testing.TB, d contract.Digest, want error) {
	t.Helper()
	if g, err := r.Lookup(context.Background(), d); !errors.Is(err, want) || g != nil {
		t.Fatalf("got %v, %v; want %v", g, err, want)
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, server testenv.AnyRedis) {
		p := newPublisher(t, server)
		active, suspended, revoked, unknown, broken := newDigest(), newDigest(), newDigest(), newDigest(), newDigest()
		p.put(active, grant(1, contract.StatusActive))
		p.put(suspended, grant(2, contract.StatusSuspended))
		p.put(revoked, grant(3, contract.StatusRevoked))
		p.client.Set(context.Background(), contract.GrantKey(broken), `{"format":99}`, 0)

		idle, err := grants.New(p.client, grants.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := idle.Lookup(context.Background(), active); !errors.Is(err, grants.ErrStale) || idle.Ready() {
			t.Errorf("before Run: %v, ready %v", err, idle.Ready())
		}
		idle.Close()
		idle.Close()

		r := start(t, server, grants.Options{NegativeTTL: time.Hour})
		for range 3 {
			r.want(t, active, 1, contract.StatusActive)
			r.want(t, suspended, 2, contract.StatusSuspended)
			r.want(t, revoked, 3, contract.StatusRevoked)
			r.wantError(t, unknown, grants.ErrUnknownToken)
			r.wantError(t, broken, grants.ErrUnavailable)
		}
		if n := r.gets.Load(); n != 4+3 {
			t.Errorf("%d reads, want one each and three of the broken one", n)
		}
		if s := r.Stats(); s.Hits != 6 || s.Negatives != 2 || s.Misses != 7 || s.FeedSeq != 3 || s.FeedAge > 10*time.Second {
			t.Errorf("stats %+v", s)
		}
	})
}

// From the announcement to the refusal, with and without pub/sub.
func TestRevocationIsSeen(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		name := "by message"
		if silent {
			name = "with every message dropped"
		}
		t.Run(name, func(t *testing.T) {
			testenv.SingleAndCluster(t, func(t *testing.T, server testenv.AnyRedis) { testRevocationIsSeen(t, server, silent) })
		})
	}
}

func testRevocationIsSeen(t *testing.T, server testenv.AnyRedis, silent bool) {
	p := newPublisher(t, server)
	p.silent = silent
	r := start(t, server, grants.Options{})
	eventually(t, "subscribed", func() bool { return subscribers(t, p.client) == 1 })
	var worst, total time.Duration
	slow := 0
	const rounds = 20
	for range rounds {
		d := newDigest()
		p.put(d, grant(1, contract.StatusActive))
		r.want(t, d, 1, contract.StatusActive)
		p.put(d, grant(2, contract.StatusRevoked))
		published := time.Now()
		eventually(t, "revoked", func() bool {
			g, err := r.Lookup(context.Background(), d)
			return err == nil && g.Status == contract.StatusRevoked
		})
		took := time.Since(published)
		worst, total = max(worst, took), total+took
		if took > time.Second {
			slow++ // for once it may be the machine
		}
	}
	t.Logf("seen after %v on average, %v at worst", total/rounds, worst)
	if slow > 3 {
		t.Errorf("%d of %d are seen after more than a second", slow, rounds)
	}
}

// subscribers counts those who hear the feed, on any server of Redis.
func subscribers(t testing.TB, client redis.UniversalClient) int64 {
	t.Helper()
	count := func(ctx context.Context, c *redis.Client) int64 {
		return c.PubSubNumSub(ctx, contract.FeedChannel).Val()[contract.FeedChannel]
	}
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		return count(t.Context(), client.(*redis.Client))
	}
	var n atomic.Int64
	err := cluster.ForEachMaster(t.Context(), func(ctx context.Context, c *redis.Client) error {
		n.Add(count(ctx, c))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n.Load()
}

func TestNegativeIsReplaced(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	r := start(t, server, grants.Options{NegativeTTL: time.Hour})
	d := newDigest()
	r.wantError(t, d, grants.ErrUnknownToken)
	seq := p.put(d, grant(1, contract.StatusActive))
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
	r.want(t, d, 1, contract.StatusActive)

	short := start(t, server, grants.Options{NegativeTTL: time.Millisecond})
	d = newDigest()
	short.wantError(t, d, grants.ErrUnknownToken)
	p.store(d, grant(1, contract.StatusActive)) // never announced
	eventually(t, "found", func() bool { _, err := short.Lookup(context.Background(), d); return err == nil })
}

func TestMissesAreCollapsed(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	r := start(t, server, grants.Options{NegativeTTL: time.Minute})
	// Often, for it takes a look-up that misses just before another one's read ends.
	for i := range 30 {
		known, d := i%2 == 0, newDigest()
		if known {
			p.store(d, grant(1, contract.StatusActive))
		}
		before := r.gets.Load()
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				g, err := r.Lookup(context.Background(), d)
				if known && (err != nil || g.Version != 1) || !known && !errors.Is(err, grants.ErrUnknownToken) {
					t.Errorf("got %v, %v", g, err)
				}
			})
		}
		wg.Wait()
		if n := r.gets.Load() - before; n != 1 {
			t.Errorf("%d reads for 1,000 look-ups", n)
		}
	}
}

// A caller that gives up takes nobody along.
func TestCanceledCaller(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	d := newDigest()
	p.put(d, grant(1, contract.StatusActive))
	r := start(t, server, grants.Options{})
	release := r.holdReads()
	ctx, cancel := context.WithCancel(context.Background())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := r.Lookup(ctx, d); first <- err }()
	<-r.held
	go func() { _, err := r.Lookup(context.Background(), d); second <- err }()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the canceled one: %v", err)
	}
	release()
	if err := <-second; err != nil {
		t.Errorf("the other one: %v", err)
	}
	if n := r.gets.Load(); n != 1 {
		t.Errorf("%d reads", n)
	}
}

func TestOnChange(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, server testenv.AnyRedis) {
		p := newPublisher(t, server)
		r := start(t, server, grants.Options{})
		d := newDigest()
		p.put(d, grant(1, contract.StatusActive))
		p.put(d, grant(1, contract.StatusActive)) // repeated by the outbox
		p.put(d, grant(4, contract.StatusSuspended))
		p.put(d, grant(3, contract.StatusActive)) // late
		p.put(d, grant(5, contract.StatusRevoked))
		p.announce(contract.Change{Kind: contract.ChangeReload})
		<-r.reloads
		var got []int64
		for len(r.changes) > 0 {
			got = append(got, (<-r.changes).Version)
		}
		if len(got) != 3 || got[0] != 1 || got[1] != 4 || got[2] != 5 {
			t.Errorf("told of versions %v, want 1, 4, 5", got)
		}
	})
}
