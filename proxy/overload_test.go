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

// plant is a processor, as the law sees it, and its clients.
type plant struct {
	serve, refuse float64 // seconds that a request takes
	rate          float64 // requests per second of all clients together, while none of them waits as told
	clients       float64 // how many that are, if they wait as they are told after a refusal; 0: they do not
	closed        bool    // each client asks again at once when it is answered, and rate is how many they are
	connections   float64 // requests that can be queued at once; others wait in the clients

	queued, outside, told float64
	back                  []float64 // how many clients come back with each of the next looks
	bucket                float64   // requests that may be let in now
	left                  float64   // seconds of the processor
}

// look lets it work for overloadLook under the law, and returns what the law took in: the wait, and
// how many requests per second were let in and refused.
func (p *plant) look(o *overload) (wait time.Duration, passed, turned float64) {
	const parts = 50
	dt := overloadLook.Seconds() / parts
	if p.back == nil {
		p.back = make([]float64, int(4*time.Second/overloadLook))
	}
	comes := p.back[0]
	p.told -= comes
	p.back = append(p.back[1:], 0)
	if p.closed {
		p.outside += comes
		comes = 0
	}
	for range parts {
		if p.closed {
			p.outside += p.rate - p.queued - p.outside - p.told - turned // who is refused is held
		} else if p.clients > 0 {
			p.outside += p.rate * dt * (p.clients - p.told) / p.clients
		} else {
			p.outside += p.rate * dt
		}
		in := min(p.outside, p.connections-p.queued)
		p.outside, p.queued = p.outside-in, p.queued+in
		p.left += dt
		p.bucket = min(p.bucket+o.rate*dt, max(1, o.rate*overloadSlack.Seconds()))
		served := min(p.queued, p.left/p.serve)
		if o.rate > 0 {
			served = min(served, p.bucket)
			p.bucket -= served
		}
		p.queued, p.left, passed = p.queued-served, p.left-served*p.serve, passed+served
		var refused float64
		if o.rate > 0 {
			refused = min(p.queued, p.left/p.refuse)
		}
		p.queued, p.left, turned = p.queued-refused, p.left-refused*p.refuse, turned+refused
		if p.queued > 0 {
			continue
		}
		p.left = 0
	}
	if p.closed || p.clients > 0 {
		for _, told := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second} {
			if p.closed { // they are held
				told = time.Duration(o.refused() * float64(told))
			}
			p.back[int(told/overloadLook)] += turned / 3
		}
		p.told += turned
	}
	if all := passed + turned; all > 0 {
		wait = time.Duration(p.queued * (p.serve*passed + p.refuse*turned) / all * float64(time.Second))
	}
	o.step(wait, overloadLook, passed, turned)
	return wait, passed / overloadLook.Seconds(), turned / overloadLook.Seconds()
}

// during returns the longest of the waits but for one in a hundred, and how many requests per second were
// let in, in all of d.
func (p *plant) during(d time.Duration, o *overload) (most time.Duration, passed float64) {
	n := int(d / overloadLook)
	var waits []time.Duration
	for range n {
		wait, in, _ := p.look(o)
		waits, passed = append(waits, wait), passed+in/float64(n)
	}
	slices.Sort(waits)
	return waits[n*99/100], passed
}

// However much too much it is, as long as refusing all of it is not: within some seconds nothing
// waits for much longer than it may (60 ms, where that is less than a few looks), and most of what can be answered is; and when the load
// goes, so does the refusing. So it is with clients that do not wait when they are refused, with such that do, who come
// back together, and with such that ask again at once and are held.
func TestOverloadLaw(t *testing.T) {
	t.Parallel()
	const serve = 50e-6
	for _, limit := range []time.Duration{minSchedulingDelay, 50 * time.Millisecond, 250 * time.Millisecond} {
		for _, refusing := range []float64{1. / 10, 1. / 3, 1. / 2} { // its cost, of that of serving
			for _, times := range []float64{1.05, 1.2, 1.5, 2} {
				for _, p := range []plant{
					{connections: 2000}, {connections: 20_000}, {connections: 4000, clients: 4000}, {connections: 20_000, clients: 20_000},
					{connections: 20_000, rate: 2000, closed: true}, {connections: 20_000, rate: 5000, closed: true}, {connections: 20_000, rate: 20_000, closed: true},
				} {
					o := &overload{limit: limit}
					p.serve, p.refuse = serve, serve*refusing
					can := 1 / serve // requests per second that can be let in at most
					switch {
					case p.closed:
						if times != 2 {
							continue
						}
						// Most of them are held; what they take is a part of it.
						can *= 0.55
					case p.clients > 0:
						p.rate = times / serve
						can *= 0.68 // those who wait send nothing, and some come back too early
					default:
						p.rate = times / serve
						if can = (1/serve - p.rate*refusing) / (1 - refusing); can < 0.1/serve {
							continue // it cannot be
						}
						can *= 0.9
					}
					if p.connections*serve < limit.Seconds() {
						continue // nothing can wait for so long
					}
					p.during(8*time.Second, o)
					most, passed := p.during(8*time.Second, o)
					if most > max(5*limit/2, 60*time.Millisecond) || passed < can || !p.closed && p.outside*serve > 0.02 {
						t.Errorf("limit %v, %.2f times the load, a refusal %.2f, %.0f connections, %.0f patient clients, closed %v: waits up to %v, let in %.0f/s of %.0f, %.0f wait in clients, refused %.2f",
							limit, times, refusing, p.connections, p.clients, p.closed, most, passed, can, p.outside, o.refused())
					}
					p.rate = 0.5 / serve
					if p.closed {
						p.rate = 0
					}
					p.outside = 0
					p.during(12*time.Second, o)
					if o.limiting() || o.refused() != 0 {
						t.Errorf("limit %v, %.2f times the load, a refusal %.2f, %.0f connections, %.0f patient clients, closed %v: %.3f are refused 12 s after it is gone",
							limit, times, refusing, p.connections, p.clients, p.closed, o.refused())
					}
				}
			}
		}
	}
}

// After a stall nobody is refused for a wait that the limit allows, and that refusing does not
// shorten: something else has the processors.
func TestOverloadAllowsWhatTheLimitDoes(t *testing.T) {
	t.Parallel()
	for _, floor := range []time.Duration{0, 15 * time.Millisecond, 30 * time.Millisecond, 40 * time.Millisecond} {
		o := &overload{limit: 50 * time.Millisecond}
		// ask has 5,000 requests per second come.
		ask := func(wait time.Duration) {
			comes := 5000 * overloadLook.Seconds()
			passed := comes
			if o.rate > 0 {
				passed = min(comes, o.rate*overloadLook.Seconds())
			}
			o.step(wait, overloadLook, passed, comes-passed)
		}
		for i := range 2 * overloadLooks {
			ask(time.Duration(i) * overloadLook)
		}
		if !o.limiting() || o.refused() == 0 {
			t.Fatal("nobody is refused in a stall")
		}
		for range int(30 * time.Second / overloadLook) {
			ask(floor)
		}
		if o.limiting() {
			t.Errorf("%.3f are refused 30 s later, while %v are waited", o.refused(), floor)
		}
	}
}

// What is too much only for a moment, or not too much, makes nobody be refused; and never is
// everybody, however long what is let in waits.
func TestOverloadPace(t *testing.T) {
	t.Parallel()
	o := &overload{limit: 20 * time.Millisecond, began: time.Now().Add(-time.Hour)}
	steps := func(n int, wait time.Duration) float64 {
		for range n {
			o.step(wait, overloadLook, 100, 100)
		}
		return o.rate
	}
	for _, wait := range []time.Duration{0, 15 * time.Millisecond, 20 * time.Millisecond} {
		if r := steps(100, wait); r != 0 {
			t.Errorf("%v: %.0f/s", wait, r)
		}
	}
	for range 100 { // again and again, but never for long
		steps(overloadLooks-1, time.Second)
		if r := steps(1, 15*time.Millisecond); r != 0 {
			t.Fatalf("%.0f/s", r)
		}
	}
	if r := steps(overloadLooks, 21*time.Millisecond); r < 4500 || r >= 5000 {
		t.Errorf("of 5000/s %.0f are let in at first", r)
	}
	o.next.Store(0) // nothing came for long
	burst := 0
	for range 1000 {
		if !o.refuses() {
			burst++
		}
	}
	if most := o.rate * overloadSlack.Seconds(); burst < int(most) || burst > 10*int(most) { // it may be stopped meanwhile
		t.Errorf("%d are let in at once, %.0f may be", burst, most)
	}
	o.passed.Store(0)
	o.turned.Store(0)
	if r := steps(1000, time.Hour); r != overloadLeast {
		t.Errorf("%v/s are let in at least, want %v", r, overloadLeast)
	}
	let, began := 0, time.Now()
	for let < 50 && time.Since(began) < 5*time.Second {
		if !o.refuses() {
			let++
		}
		time.Sleep(100 * time.Microsecond)
	}
	if most := 20 + 1.2*overloadLeast*time.Since(began).Seconds(); let < 50 || float64(let) > most {
		t.Errorf("%d are let in within %v, at %v/s", let, time.Since(began), overloadLeast)
	}
	if in, out := o.passed.Load(), o.turned.Load(); int(in) != let || out == 0 {
		t.Errorf("counted %d that were let in, and %d refused", in, out)
	}
	if r := steps(int(4*time.Second/overloadLook), time.Millisecond); r < 50_000 {
		t.Errorf("%.0f/s are let in while nothing waits", r)
	}
	if !o.limiting() {
		t.Error("nothing is limited while somebody is refused")
	}
	for range overloadOver + 1 {
		o.step(time.Millisecond, overloadLook, 100, 0)
	}
	if o.rate != 0 || o.limiting() || o.refused() != 0 || o.refuses() {
		t.Error("it goes on being refused")
	}
}

// When a stall is over, requests that come in bursts are let in again within seconds, and short stalls that
// come again and again have hardly anybody refused; and what takes most of a second each is refused at a low pace, too.
func TestOverloadIsNoLoad(t *testing.T) {
	t.Parallel()
	stalled := func(rate float64) *overload {
		o := &overload{limit: 50 * time.Millisecond}
		for i := range 2 * overloadLooks {
			o.step(time.Duration(i)*overloadLook, overloadLook, rate*overloadLook.Seconds(), 0)
		}
		if !o.limiting() {
			t.Fatal("nothing is limited in a stall")
		}
		return o
	}
	for _, burst := range []float64{10, 20, 50, 200} { // once a second
		o := stalled(burst)
		refused := 0.0
		second := int(time.Second / overloadLook)
		for i := range 20 * second {
			passed, turned := 0.0, 0.0
			if i%second == 0 {
				if passed = burst; o.rate > 0 {
					passed = min(burst, max(1, o.rate*overloadSlack.Seconds()))
				}
				if turned = burst - passed; i > 8*second {
					refused += turned
				}
			}
			o.step(time.Millisecond, overloadLook, passed, turned)
		}
		if refused > 0 {
			t.Errorf("bursts of %.0f: %.0f are refused more than 8 s after a stall", burst, refused)
		}
	}
	for _, stall := range []struct{ looks, every int }{{3, 100}, {3, 25}, {8, 100}, {10, 200}} {
		o := stalled(5000)
		refused, n := 0.0, int(60*time.Second/overloadLook)
		for i := range n {
			comes, wait := 5000*overloadLook.Seconds(), 2*time.Millisecond
			if i%stall.every < stall.looks {
				wait = 120 * time.Millisecond
			}
			passed := comes
			if o.rate > 0 {
				passed = min(comes, o.rate*overloadLook.Seconds())
			}
			o.step(wait, overloadLook, passed, comes-passed)
			if i > n/2 {
				refused += (comes - passed) / (5000 * 30)
			}
		}
		if refused > 0.015 || stall.looks <= overloadShort && o.limiting() {
			t.Errorf("%d looks of %d find a stall: %.4f are refused after half a minute, at %.0f/s", stall.looks, stall.every, refused, o.rate)
		}
	}
	slow := plant{serve: 10e-3, refuse: 1e-3, rate: 200, connections: 2000} // a hundred per second is what can be done
	o := &overload{limit: 50 * time.Millisecond}
	slow.during(8*time.Second, o)
	if most, passed := slow.during(8*time.Second, o); most > 4*o.limit || passed < 60 {
		t.Errorf("of requests of 10 ms each %.0f/s are let in, and wait for up to %v", passed, most)
	}
}

// Those who are refused together are not all told to come back together, and whole seconds.
func TestOverloadTellsDifferentTimes(t *testing.T) {
	t.Parallel()
	var o overload
	seen := map[time.Duration]int{}
	for range 1000 {
		seen[o.told()]++
	}
	if len(seen) != 3 || seen[time.Second] < 200 || seen[2*time.Second] < 200 || seen[3*time.Second] < 200 {
		t.Errorf("told %v", seen)
	}
}

// How long what is to be read waits for a processor is seen, also while it does, and that it
// waits no more. Not parallel: it needs all processors.
func TestQueueIsSeen(t *testing.T) {
	q, err := newQueue()
	if err != nil {
		t.Fatal(err)
	}
	defer q.close()
	q.look()
	calm := func() {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if d := q.look(); d < 5*time.Millisecond {
				return
			} else if time.Now().After(end) {
				t.Fatalf("nothing to do: waited %v", d)
			}
		}
	}
	calm()
	var busy sync.WaitGroup
	until := time.Now().Add(time.Second)
	for range 100 * runtime.GOMAXPROCS(0) {
		busy.Go(func() {
			for time.Now().Before(until) {
				for end := time.Now().Add(200 * time.Microsecond); time.Now().Before(end); {
					continue
				}
				runtime.Gosched()
			}
		})
	}
	var longest time.Duration
	for time.Now().Before(until) {
		longest = max(longest, q.look())
		time.Sleep(overloadLook)
	}
	busy.Wait()
	if longest < 5*time.Millisecond || longest > time.Minute {
		t.Errorf("100 times as many goroutines as processors, 200 µs each: waited %v", longest)
	}
	calm()
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
	o := &overload{limit: 20 * time.Millisecond, began: time.Now()}
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
				for end := time.Now().Add(time.Millisecond); time.Now().Before(end); {
					continue
				}
			}
		})
	}
	await("nothing is refused under load", o.limiting)
	stop.Store(true)
	busy.Wait()
	await("it goes on being refused", func() bool { return !o.limiting() })
	var all []string
	await("that is not said", func() bool {
		for len(said) > 0 {
			all = append(all, <-said)
		}
		return slices.ContainsFunc(all, func(m string) bool { return m == "no requests are refused for want of processors any more" })
	})
	if all[0] != "more to do than the processors can: some requests are refused" {
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
