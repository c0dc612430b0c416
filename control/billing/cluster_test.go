package billing_test

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// losing loses, once, a reply that hands out entries. It is below what repeats commands.
type losing struct{ lost atomic.Int64 }

func (l *losing) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l *losing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (l *losing) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if err == nil && strings.Contains(cmd.String(), `"replica":`) && l.lost.Add(1) == 1 {
			return io.EOF
		}
		return err
	}
}

// The client of a Cluster sends again what failed, whatever it is told: not what hands
// out entries, or those of the lost reply would wait until they may be claimed.
func TestLostReplyIsReadAtOnce(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"read", "claim"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			e := newEnvOn(t, testenv.RedisCluster(t), storetest.Postgres(t))
			id := e.add(e.batch(5))
			if kind == "claim" {
				// Somebody who died two hours ago had it.
				ctx := t.Context()
				for _, cmd := range [][]any{
					{"xgroup", "create", contract.UsageStreamKey, contract.UsageGroup, "0"},
					{"xreadgroup", "group", contract.UsageGroup, "dead", "streams", contract.UsageStreamKey, ">"},
					{"xclaim", contract.UsageStreamKey, contract.UsageGroup, "dead", 0, id, "idle", (2 * time.Hour).Milliseconds()},
				} {
					if err := e.client.Do(ctx, cmd...).Err(); err != nil {
						t.Fatalf("%v: %v", cmd, err)
					}
				}
			}
			lose := &losing{}
			client := e.reader().(*redis.ClusterClient)
			client.OnNewNode(func(node *redis.Client) { node.AddHook(lose) })
			o := e.options()
			o.ClaimIdle = time.Hour
			e.startOn(client, o)
			e.settledDown()
			if n := lose.lost.Load(); n != 2 {
				t.Errorf("%d replies with entries, want the one that was lost and another", n)
			}
		})
	}
}

// The stream moves to another master while workers read it.
func TestStreamMoves(t *testing.T) {
	t.Parallel()
	r := testenv.RedisCluster(t)
	e := newEnvOn(t, r, storetest.Postgres(t))
	o := e.options()
	e.start(o)
	e.start(o)
	some := func(what string) {
		t.Helper()
		for range 20 {
			e.add(e.batch(2))
		}
		e.await(what, func() bool { return e.totals().Requests == e.sent && e.acked("r1") == e.sent })
	}
	some("the events before")
	r.Move(contract.UsageStreamKey, func() { some("the events while the stream moves") })
	some("the events after")
	e.settledDown()
}
