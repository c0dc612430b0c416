package quota

import (
	"testing"
	"time"
)

// use has an account settle tokens in requests of one size, and plan after each.
func use(a *account, from, to, every time.Duration, tokens int64) {
	for now := from; now < to; now += every {
		a.consumed += tokens
		a.plan(now, 10*time.Second)
	}
}

// What is kept lasts for the horizon, once it is known how much is used.
func TestSpareLastsForTheHorizon(t *testing.T) {
	const perSecond = 10_000
	for _, seconds := range []time.Duration{2, 5, 60} {
		var a account
		use(&a, time.Hour, time.Hour+seconds*time.Second, 100*time.Millisecond, perSecond/10)
		if a.spare < 9*perSecond || a.spare > 12*perSecond {
			t.Errorf("after %d s of %d tokens/s %d are spare", seconds, perSecond, a.spare)
		}
	}
}

func TestSpareForgets(t *testing.T) {
	var a account
	use(&a, time.Hour, time.Hour+time.Minute, 100*time.Millisecond, 1000)
	before := a.spare
	use(&a, time.Hour+time.Minute, time.Hour+time.Minute+30*time.Second, 100*time.Millisecond, 0)
	if a.spare > before/10 {
		t.Errorf("%d of %d are spare 30 s later", a.spare, before)
	}
	// A silence longer than the horizon says nothing of what comes after it.
	use(&a, 2*time.Hour, 2*time.Hour+2*time.Second, 100*time.Millisecond, 1000)
	if a.spare < 9*10_000 {
		t.Errorf("%d are spare", a.spare)
	}
}

// One request is no stream of them, and what is in flight may double.
func TestSpareOfAFirstRequest(t *testing.T) {
	var a account
	a.lease = 5000
	if !a.take(4000, time.Hour) {
		t.Fatal("not reserved")
	}
	a.plan(time.Hour, 10*time.Second)
	if a.spare != 4000 || a.planned != 4000 {
		t.Errorf("%d are spare while one request holds 4000, for requests %d", a.spare, a.planned)
	}
	a.spend(1, 4000, 100)
	a.plan(time.Hour+time.Second, 10*time.Second)
	if a.spare < 4000 || a.spare > 4000+10*100 {
		t.Errorf("%d are spare after it used 100", a.spare)
	}
	a.plan(time.Hour+2*time.Second, 10*time.Second)
	if a.spare > 1000 {
		t.Errorf("%d are spare when nothing was in flight", a.spare)
	}
}
