package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// Redis loses everything under load. Service goes on, or answers 503 with Retry-After for
// no longer than the grace; within 10 s all limits are in Redis again, and once the load is
// over Redis, Postgres and the upstream agree to the token.
func TestRedisEmptiedUnderLoad(t *testing.T) {
	for name, empty := range map[string]func(*testenv.RedisServer){
		"FLUSHALL":        (*testenv.RedisServer).FlushAll,
		"restarted empty": func(r *testenv.RedisServer) { r.Stop(); r.StartEmpty() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			emptiedUnderLoad(t, empty)
		})
	}
}

func emptiedUnderLoad(t *testing.T, empty func(*testenv.RedisServer)) {
	const grace, within = 10 * time.Second, 10 * time.Second
	r := testenv.Redis(t)
	s := stack.New(t, stack.Options{
		Redis: r, Replicas: 3, Sim: kimisim.Config{MaxLedger: 100_000},
		Proxy: func(c map[string]any) { c["log_level"] = "warn" },
	})
	p := newPlatform(t, s, usual) // the usual tiers: grants are made anew from them
	var tokens []stack.Token
	for i := range 30 {
		tokens = append(tokens, p.customer(fmt.Sprint("customer ", i), 1_000_000+int64(i)))
	}
	load := newTraffic(s, tokens, full(60, 150))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		load.run(ctx)
	}()
	time.Sleep(full(4*time.Second, 15*time.Second))
	lost := time.Now()
	empty(r)
	rdb, differ := r.Client(), ""
	s.Eventually("every limit is in Redis again", within, func() bool {
		differ = recordsDiffer(t, s, rdb, "limit_tokens", "limit", "")
		return differ == ""
	})
	t.Logf("all limits are in Redis again after %v", time.Since(lost).Round(time.Millisecond))
	// Until nothing was refused for a while.
	s.Eventually("all are served", 2*grace, func() bool {
		now := time.Now()
		for _, a := range load.between(now.Add(-2*time.Second), now) {
			if a.status != http.StatusOK {
				return false
			}
		}
		return now.Sub(lost) > full(5*time.Second, 20*time.Second)
	})
	stop()
	<-done

	const flying = time.Second // what is sent so shortly before may be let in after the loss
	before, after := load.between(time.Time{}, lost.Add(-flying)), load.between(lost.Add(-flying), time.Now())
	var last time.Duration
	for _, a := range after {
		if a.status == http.StatusServiceUnavailable {
			last = max(last, a.at.Sub(lost))
			if a.retryAfter == "" || a.code != "quota_unavailable" {
				t.Errorf("503 %s with Retry-After %q", a.code, a.retryAfter)
			}
		} else if a.status != http.StatusOK || !a.whole {
			t.Errorf("sent %v after the loss: status %d %s, whole: %v", a.at.Sub(lost), a.status, a.code, a.whole)
		}
	}
	t.Logf("before: %v; after: %v, the last 503 for what was sent %v after the loss", statuses(before), statuses(after), last.Round(time.Millisecond))
	if statuses(before)["200"] != len(before) {
		t.Error("not everything was served before the loss")
	}
	if last > grace {
		t.Errorf("503 until %v after the loss", last)
	}
	over := time.Now()
	for {
		differ = recordsDiffer(t, s, rdb, "settled_tokens", "settled", "leased")
		if differ == "" {
			break
		}
		if time.Since(over) > max(within, 30*time.Second) {
			t.Fatalf("%v after the load: %s", time.Since(over), differ)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("Redis and Postgres agree %v after the load", time.Since(over).Round(time.Millisecond))
	chats, rows := settledDown(t, s)
	compareOnce(t, s, chats, rows)
	compareTotals(t, s, tokens, rows, true)
	var produced, charged int64
	for _, e := range chats {
		produced += int64(e.PromptTokens + e.CompletionTokens)
	}
	for _, row := range rows {
		charged += row.Settled
	}
	t.Logf("%d requests: the upstream counted %d tokens, %d are charged", len(chats), produced, charged)
	if produced != charged {
		t.Errorf("the upstream counted %d tokens, %d are charged", produced, charged)
	}
}

// recordsDiffer compares a column of Postgres with a field of Redis, for every period; zero,
// if not empty, names a field that must be 0. It returns a difference, "" if there is none.
func recordsDiffer(t *testing.T, s *stack.Stack, rdb redis.UniversalClient, column, field, zero string) string {
	t.Helper()
	for _, line := range strings.Fields(s.Postgres.Query("SELECT customer_id, period_id, " + column + " FROM usage_periods")) {
		parts := strings.Split(line, "|")
		if len(parts) != 3 {
			t.Fatalf("psql answered %q", line)
		}
		have, err := rdb.HGetAll(t.Context(), contract.QuotaKey(parts[0], parts[1])).Result()
		if err != nil {
			return err.Error() // Redis is being started
		}
		if epoch, _ := strconv.Atoi(have["epoch"]); epoch <= 0 || have[field] != parts[2] || zero != "" && have[zero] != "0" {
			return fmt.Sprintf("%s is %s in Postgres, Redis has %v", column, parts[2], have)
		}
	}
	return ""
}
