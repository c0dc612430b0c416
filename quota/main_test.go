package quota_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) {
	redis.SetLogger(discard{}) // it has much to say about servers that tests stop
	testenv.Main(m)
}

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}

func newClient(t testing.TB, server *testenv.RedisServer) *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true, DialTimeout: time.Second, PoolSize: 32})
	t.Cleanup(func() { client.Close() })
	return client
}

// workers runs n workers until the returned function is called, which waits for them.
func workers(n int, work func(w int, done <-chan struct{})) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() { work(w, done) })
	}
	return func() {
		close(done)
		wg.Wait()
	}
}
