package upstream

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

func TestBreaker(t *testing.T) {
	t.Parallel()
	clk := newClock()
	var changes []bool
	p := newTestPool(t, Options{Now: clk.now, Observe: Observe{Breaker: func(_ string, open bool) { changes = append(changes, open) }}}, poolConfig("a", 1, 1))
	take := func() *Target {
		t.Helper()
		tg, err := p.Pick(kimi.OpenAI, []byte("kimi-k2"), clk.now())
		if err != nil {
			t.Fatal(err)
		}
		return tg
	}
	unavailable := func(want time.Duration) {
		t.Helper()
		var u *UnavailableError
		tg, err := p.Pick(kimi.OpenAI, []byte("kimi-k2"), clk.now())
		if tg != nil || !errors.As(err, &u) || u.Reason != ReasonBreaker || u.RetryAfter != want {
			t.Fatalf("%v %v, want %v", tg, err, want)
		}
	}
	answered := func(tg *Target) *Target { tg.gotHead = true; return tg }
	shown := func(want bool) {
		t.Helper()
		if got := p.Stats()[0].BreakerOpen; got != want {
			t.Fatalf("it is shown as open: %v, want %v", got, want)
		}
	}
	shown(false)

	// Failures that are not consecutive do not open it; a request of which nothing
	// is known is neither.
	for range 2 {
		take().Release(Result{Failed: true})
		take().Release(Result{})
		take().Release(Result{Failed: true})
		answered(take()).Release(Result{})
	}
	old := take()
	for range 3 {
		take().Release(Result{Failed: true})
	}
	unavailable(10 * time.Second)
	shown(true)
	answered(old).Release(Result{}) // an old success does not close it
	clk.add(9100 * time.Millisecond)
	unavailable(time.Second)

	// One probe; what says nothing leaves the question open.
	clk.add(900 * time.Millisecond)
	shown(false) // nobody is kept away, as long as nobody asks
	probe := take()
	unavailable(time.Second)
	shown(true)
	probe.Release(Result{})
	probe = take()
	unavailable(time.Second)
	probe.Release(Result{Failed: true})
	unavailable(10 * time.Second)

	clk.add(10 * time.Second)
	answered(take()).Release(Result{})
	for range 5 {
		answered(take()).Release(Result{})
	}
	take().Release(Result{Failed: true})
	take().Release(Result{Failed: true})
	answered(take()).Release(Result{})
	if !slices.Equal(changes, []bool{true, true, false}) {
		t.Errorf("transitions %v", changes)
	}
}

func TestOnlyOneProbe(t *testing.T) {
	t.Parallel()
	clk := newClock()
	cfg := poolConfig("a", 1, 1, 1)
	cfg.BreakerFailures = 1
	p := newTestPool(t, Options{Now: clk.now}, cfg)
	for range 200 {
		tg, err := p.Pick(kimi.OpenAI, []byte("kimi-k2"), clk.now())
		if err != nil {
			t.Fatal(err)
		}
		tg.Release(Result{Failed: true})
		clk.add(10 * time.Second)
		got := make(chan *Target, 8)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if tg, err := p.Pick(kimi.OpenAI, []byte("kimi-k2"), clk.now()); err == nil {
					got <- tg
				}
			})
		}
		wg.Wait()
		if len(got) != 1 {
			t.Fatalf("%d probes", len(got))
		}
		tg = <-got
		tg.gotHead = true
		tg.Release(Result{})
	}
}
