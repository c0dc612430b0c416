package quota

import (
	"testing"
	"time"
)

func TestWhatHurriesIsCalledAtTheNextTick(t *testing.T) {
	t.Parallel()
	const tick = 100 * time.Millisecond
	l := &Leases{opts: Options{SettleEvery: tick}}
	// At second 10 a call leased 1,000 tokens, of which 100 are best kept idle.
	made := func() *account {
		a := &account{lease: 1000, spare: 100, calledAt: 10 * time.Second}
		if !a.take(200, 10*time.Second) {
			t.Fatal("nothing was leased")
		}
		a.spend(1, 200, 50)
		return a
	}
	for name, c := range map[string]struct {
		change    func(a *account)
		atOnce    bool
		inASecond bool
	}{
		"what was used":       {func(*account) {}, false, true},
		"a surrender":         {func(a *account) { a.mark(true) }, true, true},
		"and then a request":  {func(a *account) { a.mark(true); a.spend(2, 0, 0) }, true, true},
		"little is left":      {func(a *account) { a.take(901, 10*time.Second) }, true, true},
		"a full batch":        {func(a *account) { a.pending = make([]spend, maxBatch) }, true, true},
		"after a failed call": {func(a *account) { a.mark(true); a.retryAt = 12 * time.Second }, false, false},
		"a call is under way": {func(a *account) { a.mark(true); a.flight = &flight{} }, false, false},
		"nothing to tell":     {func(a *account) { a.mark(false) }, false, false},
	} {
		a := made()
		c.change(a)
		if got := l.due(a, 10*time.Second+tick); got != c.atOnce {
			t.Errorf("%s: due at the next tick: %v", name, got)
		}
		if got := l.due(a, 11*time.Second); got != c.inASecond {
			t.Errorf("%s: due after a second: %v", name, got)
		}
	}
}
