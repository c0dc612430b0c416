package quota

import (
	"testing"
	"time"
)

func TestWhatHurriesIsCalledAtTheNextTick(t *testing.T) {
	t.Parallel()
	const now = 10 * time.Second
	for name, c := range map[string]struct {
		change    func(a *account)
		at, until int // the turn at which it is called; 0: never
	}{
		"what was used":       {func(*account) {}, routine - spread + 1, routine},
		"a surrender":         {func(a *account) { a.mark(true) }, 1, 1},
		"and then a request":  {func(a *account) { a.mark(true); a.spend(2, 0, 0) }, 1, 1},
		"little is left":      {func(a *account) { a.take(901, now) }, 1, 1},
		"what is planned for": {func(a *account) { a.spare, a.planned = 1000, 900; a.take(900, now) }, routine - spread + 1, routine},
		"and a token more":    {func(a *account) { a.spare, a.planned = 1000, 900; a.take(901, now) }, 1, 1},
		"a full batch":        {func(a *account) { a.pending = make([]spend, maxBatch); a.owe(2, 0) }, 1, 1},
		"after a failed call": {func(a *account) { a.mark(true); a.retryAt = now + time.Second }, 0, 0},
		"a call is under way": {func(a *account) { a.mark(true); a.flight = &flight{} }, 0, 0},
		"nothing to tell":     {func(a *account) { a.mark(false) }, 0, 0},
		"forgotten":           {func(a *account) { a.mark(true); a.gone = true }, 0, 0},
	} {
		for range 20 { // when is chance
			l := &Leases{}
			// A call has leased 1,000 tokens, of which 100 are best kept idle.
			a := &account{lease: 1000, spare: 100, list: &l.dirty}
			if !a.take(200, now) {
				t.Fatal("nothing was leased")
			}
			a.spend(1, 200, 50)
			c.change(a)
			at := 0
			for turn := 1; turn <= 2*routine && at == 0; turn++ {
				if len(l.dues(now, false)) > 0 && turn > 1 {
					t.Fatalf("%s: called without a turn", name)
				}
				if len(l.dues(now, true)) > 0 {
					at = turn
				}
			}
			if at < c.at || at > c.until {
				t.Fatalf("%s: called at turn %d, want %d to %d", name, at, c.at, c.until)
			}
			if at == 0 && a.dirty && !a.gone { // it is not forgotten for that
				a.flight = nil
				if len(l.dues(now+time.Second, false)) != 1 {
					t.Fatalf("%s: not called when it can be", name)
				}
			}
		}
	}
}

// What is called each second goes on being called each second, also if it was marked twice and
// is used again before the next tick.
func TestRoutineGoesOn(t *testing.T) {
	t.Parallel()
	l := &Leases{}
	a := &account{lease: 1000, list: &l.dirty}
	calls := 0
	a.mark(true)
	for turn := range 10 * routine {
		for _, due := range l.dues(0, true) {
			due.dirty, due.urgent = false, false // as launch does
			calls++
		}
		if turn == 0 { // it is in both lists
			a.owe(0, 0)
			a.mark(true)
		}
		a.owe(int64(turn+1), 1)
		a.pending, a.unsettled = nil, 0
	}
	if calls < 10 || calls > 10*routine/(routine-spread)+2 {
		t.Errorf("%d calls in %d ticks", calls, 10*routine)
	}
}

// Who asks for tokens back from a replica that has none idle learns soon what it used of them.
func TestARecallHurriesWhatWasUsed(t *testing.T) {
	t.Parallel()
	l := &Leases{start: time.Now()}
	for i := range l.shards {
		l.shards[i].by = map[accountKey]*account{}
	}
	l.epoch.Store(1)
	l.caught.Store(true)
	k := accountKey{"c1", "p1"}
	a := l.lock(k)
	a.lease = 100
	if !a.take(100, l.now()) {
		t.Fatal("nothing was leased")
	}
	a.spend(1, 100, 100)
	a.mu.Unlock()
	if due := l.dues(l.now(), false); len(due) > 0 {
		t.Fatal("what was used hurries by itself")
	}
	l.surrender(k)
	if due := l.dues(l.now(), false); len(due) != 1 || due[0] != a {
		t.Errorf("%d accounts are called", len(due))
	}
}
