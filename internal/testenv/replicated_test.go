package testenv_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestRedisClusterSharesKeys(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := testenv.RedisCluster(t)
	c := r.Client()
	for i := range 100 {
		if err := c.Set(ctx, "k"+strconv.Itoa(i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range r.Masters {
		if n := s.Client().DBSize(ctx).Val(); n < 10 || n > 90 {
			t.Errorf("a master has %d keys of 100", n)
		}
	}
	r.Stop()
	r.Start()
	if got, err := c.Get(ctx, "k7").Result(); err != nil || got != "7" {
		t.Errorf("after a restart: %q, %v", got, err)
	}
	r.Of("k7").FlushAll()
	if err := c.Get(ctx, "k7").Err(); err != redis.Nil {
		t.Errorf("after a loss: %v", err)
	}
	if n := c.DBSize(ctx).Val(); n < 10 || n > 90 {
		t.Errorf("%d keys of 100 are left after one master's loss", n)
	}
	r.FlushAll()
	if n := c.DBSize(ctx).Val(); n != 0 {
		t.Errorf("%d keys after FlushAll", n)
	}
}

func TestRedisClusterMovesSlots(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := testenv.RedisCluster(t)
	c := r.Client()
	if err := c.Set(ctx, "{a}k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	before := r.Of("{a}k")
	moved := func() {
		t.Helper()
		if err := before.Client().Get(ctx, "{a}k").Err(); err == nil {
			t.Error("the old master answers")
		}
		if got, err := c.Get(ctx, "{a}k").Result(); err != nil || got != "v" {
			t.Errorf("%q, %v", got, err)
		}
	}
	r.Move("{a}k", func() {
		if err := before.Client().Get(ctx, "{a}k").Err(); !redis.HasErrorPrefix(err, "ASK") {
			t.Errorf("halfway: %v", err)
		}
		moved()
	})
	if after := r.Of("{a}k"); after == before {
		t.Error("the slot has not moved")
	}
	moved()
}

func TestRedisClusterChanges(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := testenv.RedisCluster(t)
	c := r.Client()
	for i := range 100 {
		if err := c.Set(ctx, "k"+strconv.Itoa(i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	there := func() {
		t.Helper()
		if got, err := c.Get(ctx, "k7").Result(); err != nil || got != "7" {
			t.Errorf("%q, %v", got, err)
		}
	}
	added := r.AddMaster()
	r.MoveTo("k7", added, there)
	there()
	if r.Of("k7") != added {
		t.Error("the slot has not moved")
	}

	replica := r.AddReplica(added)
	added.Stop()
	r.TakeOver(replica, r.Masters[:3]...)
	if r.Of("k7") != replica {
		t.Error("the replica has not taken over")
	}
	c = r.Client()
	there()
	added.Start()
	r.AwaitReplica(added)
	r.TakeOver(added, r.Masters[:3]...)
	r.AwaitReplica(replica)
	if r.Of("k7") != added {
		t.Error("the old master is not back")
	}
}

func TestRedisSentinelFailsOver(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := testenv.RedisSentinel(t)
	c := r.Client()
	if err := c.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Wait(ctx, 1, 0).Result(); n != 1 || err != nil {
		t.Fatalf("the replica has not got it: %v", err)
	}
	old := r.Master()
	r.FailOver()
	if r.Master() == old || r.Replica() != old {
		t.Error("the master is still the same")
	}
	if got, err := c.Get(ctx, "k").Result(); err != nil || got != "v" {
		t.Errorf("after the fail-over: %q, %v", got, err)
	}
	if err := c.Set(ctx, "k", "w", 0).Err(); err != nil {
		t.Error(err)
	}
}
