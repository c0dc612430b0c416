package proxy

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"
)

// A share of the requests is refused only after it was too much for a while, grows as long as
// it is, is never all of them, and shrinks to nothing when it is over.
func TestOverloadShare(t *testing.T) {
	t.Parallel()
	o := &overload{limit: 20 * time.Millisecond}
	steps := func(n int, wait time.Duration) uint32 {
		for range n {
			o.step(wait)
		}
		return o.share.Load()
	}
	for _, wait := range []time.Duration{0, 15 * time.Millisecond, 20 * time.Millisecond} {
		if s := steps(100, wait); s != 0 {
			t.Errorf("%v: %d", wait, s)
		}
	}
	for range 100 { // again and again, but never for long
		steps(overloadLooks-1, time.Second)
		if s := steps(1, 15*time.Millisecond); s != 0 {
			t.Fatalf("%d are refused", s)
		}
	}
	first := steps(overloadLooks, 21*time.Millisecond)
	if first == 0 || first > overloadWhole/10 {
		t.Errorf("%d are refused at first", first)
	}
	if more := steps(2, 21*time.Millisecond); more != 3*first {
		t.Errorf("%d, then %d", first, more)
	}
	if s := steps(1, 15*time.Millisecond); s != 3*first {
		t.Errorf("%d while it is neither too much nor little", s)
	}
	if s := steps(1000, time.Hour); s != overloadMost {
		t.Errorf("%d are refused at most, want %d", s, overloadMost)
	}
	refused := 0
	for range 10_000 {
		if o.refuses() {
			refused++
		}
	}
	if refused < 9_000 || refused > 9_700 {
		t.Errorf("%d of 10,000 are refused", refused)
	}
	if s := steps(overloadWhole, time.Millisecond); s != 0 {
		t.Errorf("%d are refused when it is over", s)
	}
	if o.refuses() {
		t.Error("refused when it is over")
	}
}

// The runtime's figures show that goroutines wait, and that they do no more. Not parallel: it
// needs all processors.
func TestWaitsAreSeen(t *testing.T) {
	w := newWaits()
	burn := func(until time.Time) {
		for time.Now().Before(until) {
			runtime.Gosched()
			for range 20_000 {
				_ = time.Duration(0)
			}
			for end := time.Now().Add(200 * time.Microsecond); time.Now().Before(end); {
				continue
			}
		}
	}
	var busy sync.WaitGroup
	until := time.Now().Add(500 * time.Millisecond)
	for range 100 * runtime.GOMAXPROCS(0) {
		busy.Go(func() { burn(until) })
	}
	busy.Wait()
	if d := w.look(); d < 5*time.Millisecond || d > time.Minute {
		t.Errorf("100 times as many goroutines as processors, 200 µs each: nine of ten have waited at most %v", d)
	}
	time.Sleep(50 * time.Millisecond)
	if d := w.look(); d > 5*time.Millisecond {
		t.Errorf("nothing to do: %v", d)
	}
}

// Negative means for ever.
func TestOverloadCanBeOff(t *testing.T) {
	t.Parallel()
	o := &overload{limit: -1}
	o.run(context.Background()) // returns
	if o.refuses() {
		t.Error("refused")
	}
}
