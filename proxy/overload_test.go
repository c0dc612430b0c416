package proxy

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
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
	for wait := 200 * time.Millisecond; wait > 20*time.Millisecond; wait -= 10 * time.Millisecond {
		steps(1, wait)
	}
	if s := steps(0, 0); s != 3*first {
		t.Errorf("%d while the queue becomes shorter", s)
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
	if s := steps(20, time.Millisecond); s > overloadWhole/8 {
		t.Errorf("%d are refused 2 s after it is over", s)
	}
	if s := steps(overloadWhole/64, time.Millisecond); s != 0 {
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
	if d, ok := w.look(); !ok || d < 5*time.Millisecond || d > time.Minute {
		t.Errorf("100 times as many goroutines as processors, 200 µs each: nine of ten have waited at most %v, %v", d, ok)
	}
	if d, ok := w.look(); ok {
		t.Errorf("nothing to do: %v", d)
	}
	// One after the other none waits for long.
	for range 4000 {
		busy.Go(func() {})
		busy.Wait()
	}
	if d, ok := w.look(); !ok || d > 5*time.Millisecond {
		t.Errorf("one at a time: %v, %v", d, ok)
	}
}

// Negative means for ever.
func TestOverloadCanBeOff(t *testing.T) {
	t.Parallel()
	for _, limit := range []time.Duration{-1, 0} {
		o := &overload{limit: limit}
		o.run(context.Background(), slog.New(slog.DiscardHandler)) // returns
		if o.refuses() {
			t.Error("refused")
		}
	}
}

// While there is too much to do a share is refused, and none when it is over; both are said.
// Not parallel: it needs all processors.
func TestOverloadComesAndGoes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said := make(messages, 100)
	o := &overload{limit: 2 * time.Millisecond}
	go o.run(ctx, slog.New(said))
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	var stop atomic.Bool
	var busy sync.WaitGroup
	for range 100 * runtime.GOMAXPROCS(0) {
		busy.Go(func() {
			for !stop.Load() {
				runtime.Gosched()
				for end := time.Now().Add(100 * time.Microsecond); time.Now().Before(end); {
					continue
				}
			}
		})
	}
	await("nothing is refused under load", func() bool { return o.share.Load() > 0 })
	stop.Store(true)
	busy.Wait()
	await("it goes on being refused", func() bool { return o.share.Load() == 0 })
	var all []string
	await("that is not said", func() bool {
		for len(said) > 0 {
			all = append(all, <-said)
		}
		return slices.ContainsFunc(all, func(m string) bool { return m == "no requests are refused for want of processors any more" })
	})
	if all[0] != "more to do than the processors can: a share of the requests is refused" {
		t.Errorf("said: %q", all)
	}
}

// messages takes those of a log.
type messages chan string

func (m messages) Enabled(context.Context, slog.Level) bool { return true }
func (m messages) WithAttrs([]slog.Attr) slog.Handler       { return m }
func (m messages) WithGroup(string) slog.Handler            { return m }
func (m messages) Handle(_ context.Context, r slog.Record) error {
	m <- r.Message
	return nil
}
