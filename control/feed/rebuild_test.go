package feed_test

import (
	"context"
	"errors"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func entries(t testing.TB, n int) []feed.Entry {
	list := make([]feed.Entry, n)
	for i := range list {
		list[i] = feed.Entry{Digest: digest(t), Grant: grant(2, contract.StatusActive)}
	}
	return list
}

func wantState(t testing.TB, p *feed.Publisher, want feed.State) {
	t.Helper()
	if got, err := p.State(context.Background()); err != nil || got != want {
		t.Fatalf("state %+v, %v; want %+v", got, err, want)
	}
}

func TestRebuild(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, server testenv.AnyRedis) {
		client, p := startOn(t, server)
		ctx := t.Context()
		wantState(t, p, feed.State{})
		list := entries(t, 100)
		store := func(ctx context.Context) error {
			failed, err := p.StoreGrants(ctx, list)
			return errors.Join(append(failed, err)...)
		}
		err := p.Rebuild(ctx, 40, func(ctx context.Context) error {
			wantState(t, p, feed.State{Seq: 40})
			return store(ctx)
		})
		if err != nil {
			t.Fatal(err)
		}
		wantState(t, p, feed.State{Complete: true, Seq: 41})
		for _, e := range list {
			if g := stored(t, client, e.Digest); g.Version != 2 {
				t.Fatalf("stored %+v", g)
			}
		}

		// In the middle of it the data are lost once more.
		err = p.Rebuild(ctx, 50, func(ctx context.Context) error {
			if err := store(ctx); err != nil {
				return err
			}
			server.FlushAll()
			return nil
		})
		if !errors.Is(err, feed.ErrLostAgain) {
			t.Errorf("got %v, want ErrLostAgain", err)
		}
		wantState(t, p, feed.State{Seq: 51}) // no number is given out twice

		// Or a copy takes over that lacks the newest change and looks complete.
		err = p.Rebuild(ctx, 60, func(ctx context.Context) error {
			if err := client.HSet(ctx, contract.FeedStateKey, contract.FeedSeq, 59, contract.FeedComplete, "older").Err(); err != nil {
				return err
			}
			return client.Del(ctx, contract.FeedLogKey).Err()
		})
		if !errors.Is(err, feed.ErrLostAgain) {
			t.Errorf("got %v, want ErrLostAgain", err)
		}
		wantState(t, p, feed.State{Seq: 61})
	})
}

// What cannot be stored for its own sake is told apart from what Redis cannot take now.
func TestStoreGrants(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, server testenv.AnyRedis) {
		client, p := startOn(t, server)
		ctx := t.Context()
		list := entries(t, 6)
		list[1].Grant.CustomerID = ""
		if err := client.LPush(ctx, contract.GrantKey(list[2].Digest), "x").Err(); err != nil {
			t.Fatal(err)
		}
		for i, g := range map[int]contract.Grant{3: grant(9, contract.StatusActive), 4: grant(1, contract.StatusRevoked)} {
			if _, err := p.PutGrant(ctx, list[i].Digest, g); err != nil {
				t.Fatal(err)
			}
		}
		failed, err := p.StoreGrants(ctx, list)
		if err != nil {
			t.Fatal(err)
		}
		outdated := (*feed.OutdatedError)(nil)
		if failed[0] != nil || failed[1] == nil || failed[2] == nil || !errors.As(failed[3], &outdated) || !errors.Is(failed[4], feed.ErrRevoked) || failed[5] != nil {
			t.Errorf("failed: %v", failed)
		}
		for _, i := range []int{0, 5} {
			if g := stored(t, client, list[i].Digest); g.Version != 2 {
				t.Errorf("grant %d: %+v", i, g)
			}
		}
	})
}

// After the script was loaded another server takes over that does not know it.
func TestStoreGrantsWithoutTheScript(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, server testenv.AnyRedis) {
		client, p := startOn(t, server)
		flush := &beforePipeline{do: func() {
			if err := client.ScriptFlush(context.Background()).Err(); err != nil {
				t.Error(err)
			}
		}}
		client.AddHook(flush)
		list := entries(t, 20)
		failed, err := p.StoreGrants(t.Context(), list)
		if err := errors.Join(append(failed, err)...); err != nil {
			t.Fatal(err)
		}
		if flush.calls != 1 {
			t.Errorf("%d pipelines", flush.calls)
		}
		for _, e := range list {
			stored(t, client, e.Digest)
		}
	})
}

type beforePipeline struct {
	do    func()
	calls int
}

func (b *beforePipeline) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (b *beforePipeline) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (b *beforePipeline) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "evalsha" { // and no hand-shake of a connection
			b.calls++
			b.do()
		}
		return next(ctx, cmds)
	}
}

// A server that takes no writes for the moment refuses no grant: a rebuild that skipped
// them all would call the feed complete.
func TestStoreGrantsOnAReplica(t *testing.T) {
	t.Parallel()
	master, replica := testenv.Redis(t), testenv.Redis(t)
	if err := replica.Client().ReplicaOf(t.Context(), "127.0.0.1", strconv.Itoa(master.Port)).Err(); err != nil {
		t.Fatal(err)
	}
	_, p := startOn(t, replica)
	if failed, err := p.StoreGrants(t.Context(), entries(t, 2)); err == nil {
		t.Errorf("a replica refuses each grant: %v", failed)
	}
}
