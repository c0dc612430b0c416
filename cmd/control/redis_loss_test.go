package main_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Redis loses all its data while two workers run: within seconds it has every grant
// and what was settled again, and what is settled from then on is counted on top.
func TestRedisLosesItsData(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	digest := contract.Digest{4, 5, 6}
	err := world.store.InTx(t.Context(), func(tx *store.Tx) error {
		box := control.Box{ID: "b1", CustomerID: world.customer, Namespace: "customer-b1", State: control.BoxActive, CreatedAt: time.Now()}
		if err := tx.InsertBox(t.Context(), box); err != nil {
			return err
		}
		return tx.InsertToken(t.Context(), control.ProxyToken{
			ID: "t1", CustomerID: world.customer, BoxID: "b1", Digest: digest, Hint: "hint", Version: 1, Status: contract.StatusActive, CreatedAt: time.Now(),
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	w, second := startWorker(t, world.env), startWorker(t, world.env)
	said := func() string { return w.said() + second.said() }
	client := world.redis.Client()
	granted := func() bool { return client.Exists(context.Background(), contract.GrantKey(digest)).Val() == 1 }
	settled := func() string {
		return client.HGet(context.Background(), contract.QuotaKey(world.customer, world.period), "settled").Val()
	}
	await(t, "the grant on a new Redis", granted, said)
	use := func(first, n int64) {
		t.Helper()
		args := &redis.XAddArgs{Stream: contract.UsageStreamKey, Values: []any{contract.UsageField, world.batch(t, first, n)}}
		if err := client.XAdd(t.Context(), args).Err(); err != nil {
			t.Fatal(err)
		}
		await(t, "the events", func() bool { return world.totals(t).Requests == first+n-1 }, said)
	}
	use(1, 5)

	world.redis.FlushAll()
	lost := time.Now()
	await(t, "the grant", granted, said)
	await(t, "what is settled", func() bool { return settled() == "5" }, said)
	t.Logf("all is back after %v", time.Since(lost).Round(time.Millisecond))
	if took := time.Since(lost); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	// What had not come to Postgres before the loss, of a replica that never comes back.
	use(6, 3)
	await(t, "what came late", func() bool { return settled() == "8" }, said)
}
