package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// Redis says nothing for 5 s. Customers who were active before are served from what is
// leased, and none of their requests waits for it, although a command may take 2 s here (stack.RedisTimeout).
func TestRedisPausedUnderLoad(t *testing.T) {
	t.Parallel()
	const pause = 5 * time.Second
	warm := full(5*time.Second, 20*time.Second)
	r := testenv.Redis(t)
	s := stack.New(t, stack.Options{Redis: r, Replicas: 2, Proxy: func(c map[string]any) { c["log_level"] = "warn" }})
	p := newPlatform(t, s, unbound)
	var tokens []stack.Token
	for i := range 10 {
		tokens = append(tokens, p.customer(fmt.Sprint("customer ", i), 1e9))
	}
	load := newTraffic(s, tokens, full(100, 300))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		load.run(ctx)
	}()
	time.Sleep(warm)
	began := time.Now()
	time.Sleep(pause)
	paused := time.Now()
	r.Pause()
	time.Sleep(pause)
	resumed := time.Now()
	r.Resume()
	time.Sleep(pause)
	stop()
	<-done

	firsts := func(from, to time.Time) (all latencies) {
		some := load.between(from, to)
		for _, a := range some {
			all = append(all, a.first)
			if a.status != http.StatusOK || !a.whole {
				t.Errorf("sent %v after Redis was paused: status %d %s, whole: %v", a.at.Sub(paused).Round(time.Millisecond), a.status, a.code, a.whole)
			}
		}
		return all
	}
	before, during, after := firsts(began, paused), firsts(paused, resumed), firsts(resumed, time.Now())
	t.Logf("time to the first byte before the pause: %v", before)
	t.Logf("                       during the pause: %v", during)
	t.Logf("                        after the pause: %v", after)
	if len(during) < len(before)/2 {
		t.Errorf("only %d requests were sent during the pause", len(during))
	}
	// One that waits for Redis waits for a command's whole time. Quantiles beside those from before
	// the pause would compare what else the machine does.
	most, waited := stack.RedisTimeout*3/4, 0
	for _, d := range during {
		if d >= most {
			waited++
		}
	}
	if waited > 3 { // of 10 customers; a busy machine stops one now and then
		t.Errorf("%d of %d requests waited for %v or longer", waited, len(during), most)
	}
}
