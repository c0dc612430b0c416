package redisclient_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// kinds runs a test on a Redis of each kind.
func kinds(t *testing.T, test func(t *testing.T, r testenv.AnyRedis)) {
	testenv.SingleAndCluster(t, test)
	t.Run("sentinel", func(t *testing.T) {
		t.Parallel()
		test(t, testenv.RedisSentinel(t))
	})
}

func TestOpen(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, r testenv.AnyRedis) {
		ctx := t.Context()
		c := open(t, r.RedisURL(), redisclient.Options{MaxRetries: -1, DialerRetries: 1, Timeout: 5 * time.Second})
		for _, key := range []string{"a", "b", "c", "d"} {
			if err := c.Set(ctx, key, key, 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for _, key := range []string{"a", "b", "c", "d"} {
			if got, err := c.Get(ctx, key).Result(); got != key || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		}
		// The deadline of a context counts, not only the timeouts.
		r.Pause()
		defer r.Resume()
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := c.Get(short, "a").Err(); err == nil || time.Since(began) > 3*time.Second {
			t.Errorf("a paused Redis: %v after %v", err, time.Since(began))
		}
	})
}

// A hook sees each connection to a Redis server, and may refuse it. It sees none to a
// Sentinel.
func TestOnConnect(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, r testenv.AnyRedis) {
		var refuse atomic.Bool
		var seen atomic.Int64
		wrong := errors.New("it is not trusted")
		c := open(t, r.RedisURL(), redisclient.Options{MaxRetries: -1, DialerRetries: 1, OnConnect: func(ctx context.Context, conn *redis.Conn) error {
			info, err := conn.Info(ctx, "server").Result()
			if err != nil || !strings.Contains(info, "redis_mode:standalone") && !strings.Contains(info, "redis_mode:cluster") {
				t.Errorf("connected to: %s, %v", info, err)
			}
			seen.Add(1)
			if refuse.Load() {
				return wrong
			}
			return nil
		}})
		if err := c.Set(t.Context(), "k", "v", 0).Err(); err != nil || seen.Load() == 0 {
			t.Fatalf("%v; %d connections were seen", err, seen.Load())
		}
		refuse.Store(true)
		r.Stop()
		r.Start()
		deadline := time.Now().Add(time.Minute)
		for {
			err := c.Get(t.Context(), "k").Err()
			if errors.Is(err, wrong) {
				break
			}
			if err == nil || time.Now().After(deadline) {
				t.Fatalf("a connection that is refused: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		refuse.Store(false)
		for c.Get(t.Context(), "k").Err() != nil {
			if time.Now().After(deadline) {
				t.Fatal("a connection that is not refused any more cannot be made")
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// Between a fail-over and its end, Sentinels may name a server that is a replica.
func TestReplicaIsNotUsed(t *testing.T) {
	t.Parallel()
	r := testenv.RedisSentinel(t)
	c := open(t, r.URL, redisclient.Options{MaxRetries: -1, DialerRetries: 1})
	host, port, err := net.SplitHostPort(r.Replica().Addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Master().Client().ReplicaOf(t.Context(), host, port).Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), "k").Err(); err == nil || !strings.Contains(err.Error(), "not the master") {
		t.Errorf("a replica is read: %v", err)
	}
}

func TestFailOver(t *testing.T) {
	t.Parallel()
	r := testenv.RedisSentinel(t)
	c := open(t, r.URL, redisclient.Options{MaxRetries: -1, DialerRetries: 1})
	sub := c.Subscribe(t.Context(), "news")
	defer sub.Close()
	messages := sub.Channel()
	if err := c.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Client().Wait(t.Context(), 1, 0).Result(); n != 1 || err != nil {
		t.Fatalf("%d replicas have it, %v", n, err)
	}
	r.FailOver()
	deadline := time.Now().Add(time.Minute)
	for {
		got, err := c.Get(t.Context(), "k").Result()
		if err == nil && got == "v" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after the fail-over: %q, %v", got, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	for {
		if err := c.Publish(t.Context(), "news", "x").Err(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-messages:
			return
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("the subscription does not come to the new master")
		}
	}
}
