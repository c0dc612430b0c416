package meter_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy/meter"
)

// Redis loses its data, and a new epoch begins: what was not acknowledged comes again at
// once, and with each epoch once.
func TestANewEpochSendsAgain(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	rdb := srv.Client()
	m := newMeter(t, rdb, meter.Options{AckEvery: 5 * time.Millisecond, Resend: time.Hour})
	m.limit.mu.Lock()
	m.limit.epoch = 1
	m.limit.mu.Unlock()
	for i := range 10 {
		m.Record(i + 1)
	}
	flush(t, m)
	acknowledge(t, rdb, m, 4)
	eventually(t, "four are forgotten", func() bool { return m.journal.Forgotten() == 4 })
	for epoch := int64(2); epoch < 4; epoch++ {
		srv.FlushAll()
		m.limit.mu.Lock()
		m.limit.epoch = epoch
		m.limit.mu.Unlock()
		eventually(t, "the other six are there again", func() bool {
			seen := 0
			for _, b := range batches(t, rdb) {
				for _, e := range b {
					if e.Seq <= 4 {
						t.Errorf("event %d is sent again", e.Seq)
					}
					seen++
				}
			}
			return seen == 6
		})
	}
}

// Redis forgets the stream: what was not acknowledged comes again.
func TestUnacknowledgedEventsAreSentAgain(t *testing.T) {
	t.Parallel()
	srv := testenv.Redis(t)
	rdb := srv.Client()
	m := newMeter(t, rdb, meter.Options{AckEvery: 5 * time.Millisecond, Resend: 50 * time.Millisecond})
	for i := range 10 {
		m.Record(i + 1)
	}
	flush(t, m)
	acknowledge(t, rdb, m, 4)
	eventually(t, "four are forgotten", func() bool { return m.journal.Forgotten() == 4 })
	srv.FlushAll()
	eventually(t, "the other six are there again", func() bool {
		seen := map[int64]bool{}
		for _, b := range batches(t, rdb) {
			for _, e := range b {
				seen[e.Seq] = true
			}
		}
		return len(seen) == 6 && !seen[4]
	})
	acknowledge(t, rdb, m, 10)
	eventually(t, "all is forgotten", func() bool { return m.Unacknowledged() == 0 })
}

// lookedAt returns how often events were looked for on the stream.
func lookedAt(t *testing.T, rdb *redis.Client) (n int) {
	t.Helper()
	info, err := rdb.Info(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	if _, after, found := strings.Cut(info, "cmdstat_xrange:calls="); found {
		if _, err := fmt.Sscan(strings.FieldsFunc(after, func(r rune) bool { return r == ',' })[0], &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// Postgres is away for long: what waits on the stream is not sent there again and again.
func TestWaitingEventsAreNotSentAgain(t *testing.T) {
	t.Parallel()
	rdb := testenv.Redis(t).Client()
	m := newMeter(t, rdb, meter.Options{AckEvery: 5 * time.Millisecond, Resend: 200 * time.Millisecond})
	for i := range 20 {
		m.Record(i + 1)
	}
	flush(t, m)
	from := time.Now()
	eventually(t, "they are looked for", func() bool { return lookedAt(t, rdb) >= 5 })
	sent := 0
	for _, b := range batches(t, rdb) {
		sent += len(b)
	}
	// One copy is due after 20 times as long.
	if took := time.Since(from); sent > 20 && took < 4*time.Second || sent > 40 {
		t.Errorf("%d events on the stream after %v, 20 were recorded", sent, took)
	}
}

// Events that stay on the stream, where no worker comes to see them, are sent once more.
func TestStuckEventsAreSentAgain(t *testing.T) {
	t.Parallel()
	rdb := testenv.Redis(t).Client()
	m := newMeter(t, rdb, meter.Options{AckEvery: time.Millisecond, Resend: 5 * time.Millisecond})
	m.Record(1)
	flush(t, m)
	eventually(t, "it is there twice", func() bool { return len(batches(t, rdb)) > 1 })
}

// Under load, something new is always on the stream: that must not hide that an entry before
// it is gone.
func TestGapUnderLoadIsSentAgain(t *testing.T) {
	t.Parallel()
	rdb := testenv.Redis(t).Client()
	m := newMeter(t, rdb, meter.Options{Linger: time.Millisecond, AckEvery: 5 * time.Millisecond, Resend: 100 * time.Millisecond})
	m.Record(1)
	flush(t, m)
	if err := rdb.XTrimMaxLen(context.Background(), contract.UsageStreamKey, 0).Err(); err != nil {
		t.Fatal(err)
	}
	n := 1
	eventually(t, "the first one is there again", func() bool {
		n++
		m.Record(n)
		for _, b := range batches(t, rdb) {
			if b[0].Seq == 1 {
				return true
			}
		}
		return false
	})
}
