package announce_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy/announce"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// What passes through a replica is announced again and again, also after Redis was away,
// and by its end nothing is left of it.
func TestRun(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client := server.Client()
	var inFlight atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		announce.Run(ctx, client, announce.Options{Replica: "r1", Every: 5 * time.Millisecond, Read: func() contract.Traffic {
			return contract.Traffic{Started: 7, InFlight: inFlight.Load(), Refused: map[contract.RefusalClass]int64{contract.RefusedQuota: 2}}
		}})
	}()
	key := contract.TrafficKey("r1")
	said := func() (v contract.Traffic) {
		if text, err := client.Get(t.Context(), key).Bytes(); err == nil && json.Unmarshal(text, &v) != nil {
			t.Errorf("%s is no announcement", text)
		}
		return v
	}
	for n := int64(1); n <= 2; n++ {
		inFlight.Store(n)
		eventually(t, "it is announced", func() bool { return said().InFlight == n })
	}
	if v := said(); v.Started != 7 || v.Refused[contract.RefusedQuota] != 2 {
		t.Errorf("%+v", v)
	}
	if left, err := client.PTTL(t.Context(), key).Result(); err != nil || left <= 0 || left > contract.TrafficKept {
		t.Errorf("it is kept for %v, %v", left, err)
	}
	server.Stop()
	inFlight.Store(3)
	server.Start()
	eventually(t, "it is announced after Redis was away", func() bool { return said().InFlight == 3 })
	stop()
	<-ended
	if err := client.Get(t.Context(), key).Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("at the end there is %v", err)
	}
}
