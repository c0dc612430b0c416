package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// pace runs workers that each post a request every so often, until stop is called, which
// returns how many were answered with each status.
func (r *replica) pace(workers int, every time.Duration, f face, token, body string) (stop func() map[int]int, answered *atomic.Int64) {
	answered = &atomic.Int64{}
	done := make(chan struct{})
	var mu sync.Mutex
	statuses := map[int]int{}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			t := time.NewTicker(every)
			defer t.Stop()
			for {
				select {
				case <-done:
					return
				case <-t.C:
				}
				a := r.post(f, token, body)
				mu.Lock()
				statuses[a.status]++
				mu.Unlock()
				answered.Add(1)
			}
		})
	}
	return func() map[int]int {
		close(done)
		wg.Wait()
		return statuses
	}, answered
}

// A Redis that says nothing for five seconds costs those who are known nothing: they are
// served from their leases as before. Whoever waited for it once would be refused after a
// short timeout, and would hang for the whole pause with a long one.
func TestPausedRedisHurtsNoWarmCustomer(t *testing.T) {
	t.Parallel()
	for name, timeout := range map[string]time.Duration{"short timeout": quota.DefaultTimeout, "long timeout": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.quota = quota.Options{}
			r := w.replica(func(c *proxy.Config) {
				c.Timeouts.Redis = proxy.Duration(timeout)
				c.Timeouts.Grace = proxy.Duration(time.Minute) // of a machine that may stand still
			})
			body := chat(true, sim(kimisim.Behavior{OutputTokens: 20, TokensPerChunk: 5}))
			type load struct {
				grant    contract.Grant
				stop     func() map[int]int
				answered *atomic.Int64
			}
			var loads []load
			for _, f := range faces {
				tok, g := w.token(nil)
				eventually(t, "the first request is served", func() bool { return r.post(f, tok, body).status == http.StatusOK })
				stop, answered := r.pace(2, 100*time.Millisecond, f, tok, body)
				loads = append(loads, load{g, stop, answered})
			}
			answered := func() (n int64) {
				for _, l := range loads {
					n += l.answered.Load()
				}
				return n
			}
			// It becomes known how much they use. What they use in the pause at most, if the machine was
			// slow before and is not any more, are 20 requests a second.
			for _, l := range loads {
				eventually(t, "enough is leased", func() bool {
					events := w.readEvents()
					return len(events) > 0 && r.usage(l.grant).Held > 150*events[0].Settled
				})
			}
			failed := r.gauge("token_proxy_quota_errors_total")
			w.redis.Pause()
			before := answered()
			time.Sleep(5 * time.Second)
			during := answered() - before
			if n := r.gauge("token_proxy_quota_errors_total"); n != failed {
				t.Errorf("%v reservations failed", n-failed)
			}
			w.redis.Resume()
			total := 0
			for _, l := range loads {
				for status, n := range l.stop() {
					total += n
					if status != http.StatusOK {
						t.Errorf("%d requests were answered %d", n, status)
					}
				}
			}
			if during < 50 {
				t.Errorf("only %d requests were answered during the pause, %d in all", during, total)
			}
			events := w.events(total + len(faces))
			settled := map[string]int64{}
			for _, e := range events {
				settled[e.CustomerID] += e.Settled
			}
			for _, l := range loads {
				if n := r.nothingHeld(l.grant); n != settled[l.grant.CustomerID] {
					t.Errorf("%d tokens are settled, the events say %d", n, settled[l.grant.CustomerID])
				}
			}
		})
	}
}

// All of Redis' data is lost under load: requests are served or refused with Retry-After,
// never charged twice or not at all, and soon all are served again.
func TestRedisLosesItsDataUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.replica(), w.replica()
	f := faces[0]
	tok, g := w.token(nil)
	body := chat(true, sim(kimisim.Behavior{OutputTokens: 20, TokensPerChunk: 5}))
	a.served(f, tok)
	b.served(f, tok)
	stopA, _ := a.pace(3, 20*time.Millisecond, f, tok, body)
	stopB, _ := b.pace(3, 20*time.Millisecond, f, tok, body)
	for range 2 {
		time.Sleep(500 * time.Millisecond)
		w.redis.FlushAll()
		w.put(tok, g) // as the control plane does when it finds Redis empty
		for _, r := range []*replica{a, b} {
			eventually(t, "it serves again", func() bool { return r.post(f, tok, body).status == http.StatusOK })
		}
	}
	for _, stop := range []func() map[int]int{stopA, stopB} {
		for status, n := range stop() {
			if status != http.StatusOK && status != http.StatusServiceUnavailable {
				t.Errorf("%d requests were answered %d", n, status)
			}
		}
	}
	var want int64
	for _, r := range []*replica{a, b} {
		all, err := r.journal.Next(0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			want += e.Settled
		}
	}
	eventually(t, "all is settled", func() bool {
		u := a.usage(g)
		return u.Held == 0 && u.Settled == want
	})
	if n := len(w.chats()); n == 0 || want == 0 {
		t.Errorf("%d requests, %d tokens", n, want)
	}
}

// Leasing and settling cost calls per customer and tick, however many requests there are.
func TestRedisWorkGrowsWithTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.quota = quota.Options{SettleEvery: 200 * time.Millisecond}
	r := w.replica()
	tok, _ := w.token(nil)
	body := chat(false, sim(kimisim.Behavior{OutputTokens: 5}))
	r.served(faces[0], tok)
	stop, answered := r.pace(8, 10*time.Millisecond, faces[0], tok, body)
	eventually(t, "it is known how much is used", func() bool { return answered.Load() > 100 })
	before, calls, start := answered.Load(), w.scriptCalls(), time.Now()
	eventually(t, "many more requests are served", func() bool { return answered.Load() > before+200 })
	calls, took := w.scriptCalls()-calls, time.Since(start)
	if most := int(took/w.quota.SettleEvery) + 5; calls > most {
		t.Errorf("%d calls in %v, want at most %d", calls, took, most)
	}
	for status, n := range stop() {
		if status != http.StatusOK {
			t.Errorf("%d requests were answered %d", n, status)
		}
	}
}

// scriptCalls returns how many scripts Redis was told to run.
func (w *world) scriptCalls() (n int) {
	w.t.Helper()
	info, err := w.rdb.Info(w.t.Context(), "commandstats").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(info, "cmdstat_evalsha:calls=")
	if _, err := fmt.Sscanf(rest, "%d,", &n); err != nil {
		w.t.Fatal(err)
	}
	return n
}
