package grants_test

import (
	"context"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
)

// Redis is told how far the feed was applied, once it was, and not told anything while
// nothing changes.
func TestPositionIsTold(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client := server.Client()
	publisher := feed.NewPublisher(client)
	first, err := publisher.Reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, server, grants.Options{Replica: "r1", PollInterval: 20 * time.Millisecond})
	start(t, server, grants.Options{PollInterval: 20 * time.Millisecond}) // one without a name says nothing
	applied := func() int64 {
		m, err := publisher.Applied(context.Background(), []string{"r1", "r2"})
		if err != nil || len(m) > 1 {
			t.Errorf("%v, %v", m, err)
		}
		return m["r1"]
	}
	eventually(t, "the first number", func() bool { return applied() == first })
	var last int64
	for range 50 {
		if last, err = publisher.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the last number", func() bool {
		now := applied()
		if now > r.Stats().FeedSeq {
			t.Errorf("%d is told, and %d applied", now, r.Stats().FeedSeq)
		}
		return now == last
	})
	// What is lost comes back with the next change, and only then.
	if err := client.Del(t.Context(), contract.FeedAppliedKey).Err(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if n := applied(); n != 0 {
		t.Errorf("%d is told though nothing changed", n)
	}
	if last, err = publisher.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the next number", func() bool { return applied() == last })
}
