package feed_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) {
	redis.SetLogger(discard{}) // it has much to say about servers that tests stop
	testenv.Main(m)
}

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}
