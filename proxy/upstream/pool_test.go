package upstream

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// clock is a clock that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Unix(1_700_000_000, 0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func poolConfig(name string, weights ...int) Config {
	c := testConfig("http://127.0.0.1:1/v1")
	c.Name, c.Keys = name, nil
	for i, w := range weights {
		c.Keys = append(c.Keys, Key{Name: fmt.Sprintf("%s%d", name, i), Secret: "sk-fake", Weight: w})
	}
	c.BreakerFailures, c.BreakerOpen = 3, Duration(10*time.Second)
	return c
}

func TestModels(t *testing.T) {
	t.Parallel()
	a, b := poolConfig("a", 1), poolConfig("b", 1)
	a.Models = map[string]string{"z": "z", "k": "k-1"}
	b.Face, b.Models = FaceAnthropic, map[string]string{"k": "k-2", "only-b": "x"}
	p := newTestPool(t, Options{}, a, b)
	if got := p.Models(); !slices.Equal(got, []string{"k", "only-b", "z"}) {
		t.Errorf("%q", got)
	}
	if !p.Serves(kimi.OpenAI, "z") || p.Serves(kimi.Anthropic, "z") || !p.Serves(kimi.Anthropic, "only-b") || p.Serves(kimi.OpenAI, "Z") || p.Serves(0, "z") {
		t.Error("Serves")
	}
	for face, want := range map[kimi.Face]string{kimi.OpenAI: "k-1", kimi.Anthropic: "k-2"} {
		tg, err := p.Pick(face, []byte("k"), time.Now())
		if err != nil || tg.Served() != want {
			t.Errorf("%v %v", tg, err)
		}
		tg.Release(Result{})
	}
	if _, err := p.Pick(kimi.OpenAI, []byte("nope"), time.Now()); err != ErrNoModel {
		t.Error(err)
	}
}

func TestPickFollowsLoadAndWeight(t *testing.T) {
	t.Parallel()
	clk := newClock()
	p := newTestPool(t, Options{Now: clk.now}, poolConfig("a", 3), poolConfig("b", 1, 2))
	count := map[string]int{}
	var held []*Target
	for range 60 {
		tg, err := p.Pick(kimi.OpenAI, []byte("kimi-k2"), clk.now())
		if err != nil {
			t.Fatal(err)
		}
		count[tg.KeyName()]++
		held = append(held, tg)
	}
	if count["a0"] != 30 || count["b0"] != 10 || count["b1"] != 20 {
		t.Errorf("%v", count)
	}
	for _, tg := range held {
		tg.Release(Result{})
	}
	// Idle keys take turns.
	clear(count)
	for range 30 {
		tg, _ := p.Pick(kimi.OpenAI, []byte("kimi-k2"), clk.now())
		count[tg.KeyName()]++
		tg.Release(Result{})
	}
	if count["a0"] != 10 || count["b0"] != 10 || count["b1"] != 10 {
		t.Errorf("idle: %v", count)
	}
	for _, s := range p.Stats() {
		if s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
	}
}

func TestCooling(t *testing.T) {
	t.Parallel()
	clk := newClock()
	var cooled []string
	obs := Observe{Cooling: func(up, key string, d time.Duration, refused bool) {
		cooled = append(cooled, fmt.Sprint(up, key, d, refused))
	}}
	p := newTestPool(t, Options{Now: clk.now, Observe: obs}, poolConfig("a", 1, 1))
	take := func() (*Target, error) { return p.Pick(kimi.OpenAI, []byte("kimi-k2"), clk.now()) }
	first, _ := take()
	name := first.KeyName()
	first.Release(Result{Cooldown: 1500 * time.Millisecond})
	for range 4 {
		tg, err := take()
		if err != nil || tg.KeyName() == name {
			t.Fatalf("cooling key picked: %v", err)
		}
		tg.Release(Result{})
	}
	second, _ := take()
	second.Release(Result{KeyRefused: true})
	var u *UnavailableError
	if _, err := take(); !errors.As(err, &u) || u.RetryAfter != 2*time.Second || u.Reason != ReasonCooling {
		t.Errorf("%v", u)
	}
	clk.add(1499 * time.Millisecond)
	if _, err := take(); !errors.As(err, &u) || u.RetryAfter != time.Second {
		t.Errorf("%v", u)
	}
	clk.add(time.Millisecond)
	tg, err := take()
	if err != nil || tg.KeyName() != name {
		t.Fatal(err)
	}
	tg.Release(Result{KeyRefused: true, Cooldown: 5 * time.Minute})
	if _, err := take(); !errors.As(err, &u) || u.Reason != ReasonRefused || u.RetryAfter != 59*time.Second {
		t.Errorf("%v", u)
	}
	if want := []string{"aa1", "aa0"}; len(cooled) != 3 || !strings.HasPrefix(cooled[0], "aa") {
		t.Errorf("%q, want like %q", cooled, want)
	}
	if s := p.Stats()[0]; s.KeysCooling != 2 {
		t.Errorf("%+v", s)
	}
}

// However long an upstream asks to be left alone, a throttled key is tried again soon;
// one that it does not accept may rest longer.
func TestCooldownIsClamped(t *testing.T) {
	t.Parallel()
	clk := newClock()
	var told time.Duration
	obs := Observe{Cooling: func(_, _ string, d time.Duration, _ bool) { told = d }}
	p := newTestPool(t, Options{Now: clk.now, Observe: obs}, poolConfig("a", 1))
	for _, c := range []struct {
		result Result
		want   time.Duration
	}{
		{Result{Cooldown: time.Minute}, time.Minute},
		{Result{Cooldown: 24 * time.Hour}, 2 * time.Minute},
		{Result{Cooldown: 24 * time.Hour, KeyRefused: true}, 24 * time.Hour},
	} {
		tg, err := p.Pick(kimi.OpenAI, []byte("kimi-k2"), clk.now())
		if err != nil {
			t.Fatal(err)
		}
		tg.Release(c.result)
		var u *UnavailableError
		_, err = p.Pick(kimi.OpenAI, []byte("kimi-k2"), clk.now())
		if !errors.As(err, &u) || u.RetryAfter != c.want || told != c.want {
			t.Errorf("%+v: %v, told %v, want %v", c.result, err, told, c.want)
		}
		clk.add(c.want)
	}
}

func TestPickExcept(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Options{}, poolConfig("a", 1), poolConfig("b", 1))
	for range 4 {
		tg, err := p.PickExcept(kimi.OpenAI, []byte("kimi-k2"), time.Now(), "a")
		if err != nil || tg.Config().Name != "b" {
			t.Fatal(err)
		}
		tg.Release(Result{})
	}
	one := newTestPool(t, Options{}, poolConfig("a", 1))
	var u *UnavailableError
	if _, err := one.PickExcept(kimi.OpenAI, []byte("kimi-k2"), time.Now(), "a"); !errors.As(err, &u) || u.RetryAfter != time.Second {
		t.Error(err)
	}
}

func TestPickEstimator(t *testing.T) {
	t.Parallel()
	clk := newClock()
	plain, first, second := poolConfig("plain", 1), poolConfig("first", 1), poolConfig("second", 1)
	first.EstimatePath = "/estimate"
	second.EstimatePath, second.Face, second.Models = "/estimate", FaceAnthropic, map[string]string{"kimi-k2": "k-2", "only-second": "x"}
	p := newTestPool(t, Options{Now: clk.now}, plain, first, second)
	model := []byte("kimi-k2")
	seen := map[string]string{}
	for range 6 {
		tg, err := p.PickEstimator(kimi.OpenAI, model, clk.now())
		if err != nil {
			t.Fatal(err)
		}
		seen[tg.Config().Name] = tg.Served()
		tg.Release(Result{})
	}
	if len(seen) != 2 || seen["first"] != "kimi-k2-0905" || seen["second"] != "k-2" {
		t.Errorf("picked %v", seen)
	}
	if _, err := p.PickEstimator(kimi.Anthropic, model, clk.now()); err != ErrNoModel {
		t.Errorf("anthropic: %v", err)
	}
	if _, err := p.PickEstimator(kimi.OpenAI, []byte("nope"), clk.now()); err != ErrNoModel {
		t.Errorf("unknown model: %v", err)
	}
	if p.Serves(kimi.OpenAI, "only-second") {
		t.Error("an estimate makes the model served")
	}

	// Load, cool-downs and breakers are those of the same keys.
	for range 2 {
		tg, err := p.PickEstimator(kimi.OpenAI, model, clk.now())
		if err != nil {
			t.Fatal(err)
		}
		tg.Release(Result{Cooldown: 10 * time.Second})
	}
	var u *UnavailableError
	if _, err := p.PickEstimator(kimi.OpenAI, model, clk.now()); !errors.As(err, &u) || u.Reason != ReasonCooling || u.RetryAfter != 10*time.Second {
		t.Errorf("all cooling: %v", err)
	}
	if tg, err := p.Pick(kimi.OpenAI, model, clk.now()); err != nil || tg.Config().Name != "plain" {
		t.Errorf("beside the cooling ones: %v", err)
	}
	none := newTestPool(t, Options{}, plain)
	if _, err := none.PickEstimator(kimi.OpenAI, model, time.Now()); err != ErrNoModel {
		t.Errorf("no estimate path: %v", err)
	}
}

// A failed dial leaves the request free for another upstream.
func TestDialFailureThenAnotherUpstream(t *testing.T) {
	t.Parallel()
	p := newPeer(t, answerAll)
	good := testConfig(p.url())
	good.Name = "good"
	pool := newTestPool(t, Options{}, poolConfig("dead", 1), good)
	for range 4 {
		tg := pick(t, pool)
		r, err := tg.Do(body, nil)
		if err != nil {
			if e := asError(t, err); e.Sent || e.Phase != PhaseDial || e.Upstream != "dead" {
				t.Fatalf("%+v", e)
			}
			name := tg.Config().Name
			tg.Release(Result{Failed: true})
			if tg, err = pool.PickExcept(kimi.OpenAI, []byte("kimi-k2"), time.Now(), name); err != nil {
				t.Fatal(err)
			}
			if r, err = tg.Do(body, nil); err != nil {
				t.Fatal(err)
			}
		}
		r.Close(true)
		tg.Release(Result{})
	}
	if p.requests.Load() != 4 {
		t.Errorf("%d requests", p.requests.Load())
	}
}

func TestReleaseTwicePanics(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Options{}, poolConfig("a", 1))
	tg := pick(t, p)
	tg.Release(Result{})
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	tg.Release(Result{})
}

func TestPickDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Log("sync.Pool drops at random under the race detector; the rest still runs")
	}
	p := newTestPool(t, Options{}, poolConfig("a", 1, 1), poolConfig("b", 1))
	model, now := []byte("kimi-k2"), time.Now()
	n := testing.AllocsPerRun(1000, func() {
		tg, err := p.Pick(kimi.OpenAI, model, now)
		if err != nil {
			t.Fatal(err)
		}
		tg.Release(Result{})
	})
	if n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

func TestClosedPool(t *testing.T) {
	t.Parallel()
	p := newPeer(t, answerAll)
	pool := newTestPool(t, Options{}, testConfig(p.url()))
	mustCall(t, pool)
	tg := pick(t, pool)
	r, err := tg.Do(body, nil)
	if err != nil {
		t.Fatal(err)
	}
	pool.Close()
	r.Close(true)
	tg.Release(Result{})
	if s := pool.Stats()[0]; s.Open != 0 {
		t.Errorf("%+v", s)
	}
	if _, _, err := call(t, pool, body); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
