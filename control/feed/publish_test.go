package feed_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func grant(version int64, status contract.Status) contract.Grant {
	start := time.Date(2031, 5, 1, 0, 0, 0, 0, time.UTC)
	return contract.Grant{
		// Texts that look like the fields which the script looks for.
		TokenID: `t"version":99,"status":"revoked"`, CustomerID: "c1", BoxID: "b1", Tier: `"version":98`,
		Version: version, Status: status,
		RequestsPerSecond: 10, Burst: 20, Concurrent: 4,
		MonthlyLimit: 1_000_000, LimitVersion: 77,
		Period:  contract.Period{ID: "2031-05", Start: start, End: start.AddDate(0, 1, 0)},
		Weights: contract.Weights{Prompt: 1, Cached: 1, Completion: 1},
		Models:  []string{`\"version\":97`},
	}
}

func digest(t testing.TB) contract.Digest {
	var d contract.Digest
	if _, err := rand.Read(d[:]); err != nil {
		t.Fatal(err)
	}
	return d
}

func start(t testing.TB) (*redis.Client, *feed.Publisher) {
	client := testenv.Redis(t).Client()
	return client, feed.NewPublisher(client)
}

// startOn returns a client as the programs have it, and a Publisher on it.
func startOn(t testing.TB, server testenv.AnyRedis) (redis.UniversalClient, *feed.Publisher) {
	t.Helper()
	target, err := redisclient.Parse(server.RedisURL())
	if err != nil {
		t.Fatal(err)
	}
	client := target.Open(redisclient.Options{})
	t.Cleanup(func() { _ = client.Close() })
	return client, feed.NewPublisher(client)
}

func stored(t testing.TB, client redis.Cmdable, d contract.Digest) *contract.Grant {
	t.Helper()
	b, err := client.Get(context.Background(), contract.GrantKey(d)).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	g, err := contract.DecodeGrant(b)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// log returns the feed's log, and fails if it has gaps or does not end at the number.
func log(t testing.TB, client redis.Cmdable) []contract.Change {
	t.Helper()
	ctx := context.Background()
	entries, err := client.XRange(ctx, contract.FeedLogKey, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	var changes []contract.Change
	for _, e := range entries {
		if len(e.Values) != 1 {
			t.Fatalf("entry %s has fields %v", e.ID, e.Values)
		}
		c, err := contract.DecodeChange([]byte(e.Values["c"].(string)))
		if err != nil {
			t.Fatal(err)
		}
		if e.ID != fmt.Sprintf("%d-0", c.Seq) {
			t.Fatalf("entry %s has number %d", e.ID, c.Seq)
		}
		if n := len(changes); n > 0 && changes[n-1].Seq+1 != c.Seq {
			t.Fatalf("gap between %d and %d", changes[n-1].Seq, c.Seq)
		}
		changes = append(changes, c)
	}
	if n := len(changes); n > 0 {
		if seq, err := client.HGet(ctx, contract.FeedStateKey, contract.FeedSeq).Int64(); err != nil || seq != changes[n-1].Seq {
			t.Fatalf("number is %d, %v; the log ends at %d", seq, err, changes[n-1].Seq)
		}
	}
	return changes
}

func TestPutGrant(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, server testenv.AnyRedis) {
		client, p := startOn(t, server)
		ctx := context.Background()
		d := digest(t)
		sub := client.Subscribe(ctx, contract.FeedChannel)
		defer sub.Close()
		if _, err := sub.Receive(ctx); err != nil {
			t.Fatal(err)
		}
		const big = math.MaxInt64 - 2 // a double cannot tell it from its neighbours
		var announced int64
		for i, step := range []struct {
			version int64
			status  contract.Status
			want    int64 // the version stored afterwards
			blocked int64 // the version that an OutdatedError names
		}{
			{3, contract.StatusActive, 3, 0},
			{3, contract.StatusActive, 3, 0},    // repeated
			{3, contract.StatusSuspended, 3, 3}, // the same number for something else
			{2, contract.StatusActive, 3, 3},
			{10, contract.StatusSuspended, 10, 0}, // more than 3, although less as text
			{9, contract.StatusActive, 10, 10},
			{11, contract.StatusActive, 11, 0},
			{big, contract.StatusActive, big, 0},
			{big - 1, contract.StatusSuspended, big, big},
			{big - 1, contract.StatusRevoked, big + 1, 0}, // gets a number of its own
			{big, contract.StatusActive, big + 1, 0},      // late: the revocation stays
			{big + 1, contract.StatusActive, big + 1, 0},
			{2, contract.StatusRevoked, big + 1, 0},
		} {
			seq, err := p.PutGrant(ctx, d, grant(step.version, step.status))
			if g := stored(t, client, d); g.Version != step.want {
				t.Errorf("step %d: version %d is stored, want %d", i, g.Version, step.want)
			}
			if step.blocked != 0 {
				outdated := (*feed.OutdatedError)(nil)
				if !errors.As(err, &outdated) || outdated.Stored != step.blocked || outdated.Version != step.version {
					t.Errorf("step %d: %v, want an OutdatedError of version %d", i, err, step.blocked)
				}
				continue
			}
			announced++
			if err != nil || seq != announced {
				t.Fatalf("step %d: number %d, %v; want %d", i, seq, err, announced)
			}
			changes := log(t, client)
			last := changes[len(changes)-1]
			if last.Seq != seq || last.Grant.Version != step.want || last.Digest != d.Hex() {
				t.Errorf("step %d: announced %+v", i, last)
			}
			message, err := sub.ReceiveMessage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if c, err := contract.DecodeChange([]byte(message.Payload)); err != nil || c.Seq != seq || c.Grant.Version != step.want {
				t.Errorf("step %d: published %+v, %v", i, c, err)
			}
		}
		if g := stored(t, client, d); g.Status != contract.StatusRevoked {
			t.Errorf("status %s at the end", g.Status)
		}
	})
}

func TestRevokedIsFinal(t *testing.T) {
	t.Parallel()
	client, p := start(t)
	ctx := context.Background()
	d := digest(t)
	if _, err := p.PutGrant(ctx, d, grant(5, contract.StatusRevoked)); err != nil {
		t.Fatal(err)
	}
	for _, status := range []contract.Status{contract.StatusActive, contract.StatusSuspended} {
		if _, err := p.PutGrant(ctx, d, grant(6, status)); !errors.Is(err, feed.ErrRevoked) {
			t.Errorf("%s after revoked: %v, want ErrRevoked", status, err)
		}
	}
	if g := stored(t, client, d); g.Status != contract.StatusRevoked || g.Version != 5 {
		t.Errorf("stored %s, version %d", g.Status, g.Version)
	}
	if n := len(log(t, client)); n != 1 {
		t.Errorf("%d changes announced, want 1", n)
	}
	if _, err := p.PutGrant(ctx, d, grant(7, contract.StatusRevoked)); err != nil {
		t.Errorf("revoked again: %v", err)
	}
	if ttl := client.TTL(ctx, contract.GrantKey(d)).Val(); ttl != -1 {
		t.Errorf("the revoked grant's key ends in %v", ttl)
	}
}

// A revocation wins although others keep writing newer grants, and whoever follows the
// feed sees it as the newest.
func TestRevocationWinsAgainstNewerGrants(t *testing.T) {
	t.Parallel()
	client, p := start(t)
	ctx := context.Background()
	for range 20 {
		d := digest(t)
		if _, err := p.PutGrant(ctx, d, grant(40, contract.StatusActive)); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for v := int64(41); v < 46; v++ {
				if _, err := p.PutGrant(ctx, d, grant(v, contract.StatusActive)); err != nil && !errors.Is(err, feed.ErrRevoked) &&
					!errors.As(err, new(*feed.OutdatedError)) {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			if _, err := p.PutGrant(ctx, d, grant(2, contract.StatusRevoked)); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if g := stored(t, client, d); g.Status != contract.StatusRevoked {
			t.Fatalf("stored %s, version %d", g.Status, g.Version)
		}
		var last *contract.Grant
		for _, c := range log(t, client) {
			if c.Digest == d.Hex() && (last == nil || c.Grant.Version > last.Version) {
				last = c.Grant
			}
		}
		if last.Status != contract.StatusRevoked {
			t.Fatalf("the newest that was announced is %s, version %d", last.Status, last.Version)
		}
	}
}

func TestInvalidGrant(t *testing.T) {
	t.Parallel()
	client, p := start(t)
	bad := grant(1, contract.StatusActive)
	bad.CustomerID = ""
	if _, err := p.PutGrant(context.Background(), digest(t), bad); err == nil || !strings.Contains(err.Error(), "customer_id") {
		t.Errorf("got %v", err)
	}
	if n := client.DBSize(context.Background()).Val(); n != 0 {
		t.Errorf("%d keys written", n)
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	client, p := start(t)
	for want := range int64(3) {
		if seq, err := p.Reload(context.Background()); err != nil || seq != want+1 {
			t.Fatalf("number %d, %v; want %d", seq, err, want+1)
		}
	}
	for _, c := range log(t, client) {
		if c.Kind != contract.ChangeReload || c.Grant != nil {
			t.Errorf("announced %+v", c)
		}
	}
}

// Any number of publishers number without gaps, and the newest version stays.
func TestConcurrentPublishers(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, server testenv.AnyRedis) {
		client, p := startOn(t, server)
		ctx := context.Background()
		digests := []contract.Digest{digest(t), digest(t), digest(t)}
		const each, perPublisher = 8, 50
		var wg sync.WaitGroup
		var refused atomic.Int64
		for w := range each {
			wg.Go(func() {
				for i := range perPublisher {
					version := int64(1 + (i*7+w*13)%100)
					_, err := p.PutGrant(ctx, digests[i%3], grant(version, contract.StatusActive))
					if outdated := (*feed.OutdatedError)(nil); errors.As(err, &outdated) && outdated.Stored > version {
						refused.Add(1)
					} else if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		changes := log(t, client)
		if want := each*perPublisher - int(refused.Load()); len(changes) != want {
			t.Errorf("%d changes, want %d", len(changes), want)
		}
		newest := map[string]int64{}
		for _, c := range changes {
			newest[c.Digest] = max(newest[c.Digest], c.Grant.Version)
		}
		for _, d := range digests {
			if g := stored(t, client, d); g.Version != newest[d.Hex()] {
				t.Errorf("version %d is stored, %d was announced", g.Version, newest[d.Hex()])
			}
		}
	})
}

func TestLogIsCapped(t *testing.T) {
	t.Parallel()
	client, p := start(t)
	ctx := context.Background()
	// Filling it through the publisher would take long.
	for batch := range 13 {
		if _, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i := range 1000 {
				pipe.XAdd(ctx, &redis.XAddArgs{Stream: contract.FeedLogKey, ID: fmt.Sprintf("%d-0", batch*1000+i+1), Values: []any{"c", "x"}})
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	// The number was lost; it goes on from the log.
	if seq, err := p.Reload(ctx); err != nil || seq != 13_001 {
		t.Fatalf("number %d, %v; want 13001", seq, err)
	}
	if n := client.XLen(ctx, contract.FeedLogKey).Val(); n < contract.FeedLogLen || n > contract.FeedLogLen+200 {
		t.Errorf("the log has %d entries, want about %d", n, contract.FeedLogLen)
	}
	if seq, err := p.Reload(ctx); err != nil || seq != 13_002 {
		t.Fatalf("number %d, %v; want 13002", seq, err)
	}
}

// A Redis that fails in between loses nothing that was answered, and the repeated call
// completes what was not.
func TestRedisFails(t *testing.T) {
	t.Parallel()
	// With everysec a killed Redis may lose what it acknowledged: it delays write(2), and
	// not only fsync(2), while an fsync is under way.
	server := testenv.Redis(t, testenv.RedisArgs("--appendfsync", "no"))
	client := server.Client()
	p := feed.NewPublisher(client)
	ctx := context.Background()
	d := digest(t)
	if _, err := p.PutGrant(ctx, d, grant(1, contract.StatusActive)); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := p.PutGrant(short, d, grant(2, contract.StatusRevoked)); err == nil {
		t.Fatal("no error without Redis")
	}
	server.Start()
	seq, err := p.PutGrant(ctx, d, grant(2, contract.StatusRevoked))
	if err != nil || seq != 2 {
		t.Fatalf("number %d, %v; want 2", seq, err)
	}
	if g := stored(t, client, d); g.Version != 2 || g.Status != contract.StatusRevoked {
		t.Errorf("stored %+v", g)
	}
}
