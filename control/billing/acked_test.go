package billing_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control/billing"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// acked returns what Redis says that a replica may forget; -1 if nothing.
func (e *env) acked(replica string) int64 {
	n, err := e.client.HGet(context.Background(), contract.UsageAckedKey, replica).Int64()
	if err != nil {
		return -1
	}
	return n
}

// encode makes one entry of events.
func (e *env) encode(events ...contract.Event) []byte {
	e.t.Helper()
	b, err := contract.EncodeBatch(contract.Batch{Replica: "r1", Events: events})
	if err != nil {
		e.t.Fatal(err)
	}
	return b
}

func TestReplicasLearnWhatTheyMayForget(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, r testenv.AnyRedis) {
		e := newEnvOn(t, r, storetest.Postgres(t))
		o := e.options()
		o.AckedEvery = time.Hour // so that only what is written counts
		w := e.start(o)
		first, second, third := e.batch(5), e.batch(5), e.batch(5)
		e.add(first)
		e.await("the first batch", func() bool { return e.acked("r1") == 5 })
		e.add(third)
		e.await("the third batch", func() bool { return e.totals().Requests == 10 && e.streamLen() == 0 })
		if n := e.acked("r1"); n != 5 {
			t.Errorf("acked %d over a gap", n)
		}
		e.add(second)
		e.await("the second batch", func() bool { return e.acked("r1") == 15 })

		// A journal that starts again sends what it has again: no row, but an answer.
		e.client.Del(t.Context(), contract.UsageAckedKey)
		e.add(third)
		e.await("the answer", func() bool { return e.acked("r1") == 15 })
		e.settledDown()
		if got := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM dead_letters")); got != "0" {
			t.Errorf("%s dead letters for duplicates", got)
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// What cannot be recorded but has a number lets those behind it through; what has none
// does not, until it is replayed.
func TestParkedEventsAreAccountedFor(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	e.start(e.options())
	valid := e.event() // 1
	e.seq++
	bad := `{"replica":"r1","seq":` + strconv.FormatInt(e.seq, 10) + `,"prompt":"many"}` // 2
	foreign := e.event()                                                                 // 3
	foreign.CustomerID = "nobody"
	last := e.event() // 4
	e.sent, e.settled = 2, valid.Settled+last.Settled
	entry := strings.TrimSuffix(string(e.encode(valid, foreign, last)), "]}") + "," + bad + "]}"
	e.add(entry)
	e.await("all four", func() bool { return e.acked("r1") == 4 })

	// A number that belongs to another replica than the batch's is not believed.
	e.add(`{"format":1,"replica":"r1","events":[{"replica":"r2","seq":1,"prompt":"x"}]}`)
	e.await("an empty stream", func() bool { return e.streamLen() == 0 })
	if n := e.acked("r2"); n != -1 {
		t.Errorf("r2 acked %d", n)
	}
	// Sent again, poison is not parked again.
	before := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM dead_letters"))
	e.add(entry)
	e.await("an empty stream", func() bool { return e.streamLen() == 0 })
	if after := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM dead_letters")); after != before || before != "3" {
		t.Errorf("%s dead letters, then %s; want 3", before, after)
	}
	// An entry of a format that this build does not know, and what comes behind it.
	future := e.event() // 5
	e.add(strings.Replace(string(e.encode(future)), `"format":1`, `"format":9`, 1))
	behind := e.event() // 6
	e.sent, e.settled = e.sent+1, e.settled+behind.Settled
	e.add(e.encode(behind))
	e.settledDown()
	if n := e.acked("r1"); n != 4 {
		t.Errorf("acked %d over an unreadable entry, want 4", n)
	}
}

// A worker dies after the commit and before Redis knows: the next one says it.
func TestKilledBeforeTheAcknowledgement(t *testing.T) {
	t.Parallel()
	e := newEnv(t, storetest.Postgres(t))
	e.add(e.batch(5))
	w := e.start(killAt(e.options(), "committed", 1))
	if err := <-w.done; !errors.Is(err, errKilled) {
		t.Fatalf("Run returned %v", err)
	}
	w.done <- nil // for the cleanup
	if n := e.acked("r1"); n != -1 || e.totals().Requests != 5 {
		t.Fatalf("acked %d of %d: the test shows nothing", n, e.totals().Requests)
	}
	o := e.options()
	o.ClaimIdle = time.Hour // it says so at its start, not when it has claimed the entry
	e.start(o)
	e.await("the acknowledgement", func() bool { return e.acked("r1") == 5 })
}

func TestAcknowledgementsComeBackAfterRedisLostThem(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, r testenv.AnyRedis) {
		e := newEnvOn(t, r, storetest.Postgres(t))
		o := e.options()
		o.AckedEvery = 100 * time.Millisecond
		e.start(o)
		e.start(o)
		e.add(e.batch(5))
		e.await("the acknowledgement", func() bool { return e.acked("r1") == 5 })
		e.redis.FlushAll()
		e.await("the acknowledgement after FLUSHALL", func() bool { return e.acked("r1") == 5 })
		e.client.HSet(t.Context(), contract.UsageAckedKey, "r1", 2) // from an older copy of Redis
		e.await("the acknowledgement after a step back", func() bool { return e.acked("r1") == 5 })
		e.client.HSet(t.Context(), contract.UsageAckedKey, "r1", "nonsense")
		e.await("the acknowledgement after damage", func() bool { return e.acked("r1") == 5 })
		e.redis.Stop()
		e.redis.Start()
		e.add(e.batch(5))
		e.await("the acknowledgement after a restart", func() bool { return e.acked("r1") == 10 })
	})
}

func TestPublishAckedNeverLowers(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client()
	ctx := context.Background()
	many := map[string]int64{}
	for i := range 1200 { // more than one call takes
		many["r"+strconv.Itoa(i)] = int64(i)
	}
	for _, acked := range []map[string]int64{nil, {"a": 9, "b": 10}, {"a": 10, "b": 9}, {"a": 2}, many} {
		if err := billing.PublishAcked(ctx, client, acked); err != nil {
			t.Fatal(err)
		}
	}
	got, err := client.HGetAll(ctx, contract.UsageAckedKey).Result()
	if err != nil || got["a"] != "10" || got["b"] != "10" || len(got) != 1202 || got["r1199"] != "1199" {
		t.Errorf("a=%s, b=%s, %d replicas, %v", got["a"], got["b"], len(got), err)
	}
	away := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1})
	defer away.Close()
	if err := billing.PublishAcked(ctx, away, many); err == nil {
		t.Error("no error without Redis")
	}
}
