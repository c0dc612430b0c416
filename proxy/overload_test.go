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

// plant is a processor, as the law sees it: requests come, are queued in at most so many
// connections, and the others wait in the clients.
type plant struct {
	serve, refuse float64 // seconds that a request takes
	rate          float64 // requests per second
	connections   float64
	clients       float64 // requests that wait for a connection
	queued        float64
}

// look lets it work for overloadLook, and returns how long the last in the queue waits.
func (p *plant) look(refused float64) time.Duration {
	cost := p.serve*(1-refused) + p.refuse*refused
	p.clients += p.rate * overloadLook.Seconds()
	left := overloadLook.Seconds() / cost
	for range 100 { // in parts: connections become free meanwhile
		in := min(p.clients, p.connections-p.queued)
		p.clients, p.queued = p.clients-in, p.queued+in
		p.queued -= min(p.queued, left/100)
	}
	return time.Duration(p.queued * cost * float64(time.Second))
}

// However much too much it is, as long as refusing all of it is not: within some seconds nothing
// waits for much longer than it may, and not much more is refused than must be; and when the load
// goes, so does the refusing.
func TestOverloadLaw(t *testing.T) {
	t.Parallel()
	looks := func(d time.Duration) int { return int(d / overloadLook) }
	for _, limit := range []time.Duration{minSchedulingDelay, 50 * time.Millisecond, 250 * time.Millisecond} {
		for _, refusing := range []float64{1. / 10, 1. / 3, 1. / 2} { // its cost, of that of serving
			for _, times := range []float64{1.05, 1.2, 1.5, 2} {
				for _, connections := range []float64{2000, 20_000} {
					o := &overload{limit: limit}
					p := &plant{serve: 50e-6, refuse: 50e-6 * refusing, rate: times / 50e-6, connections: connections}
					must := (times - 1) / times / (1 - refusing) // of the requests
					if must > 0.9 || connections*p.serve < limit.Seconds() {
						continue // it cannot be, or need not
					}
					for range looks(8 * time.Second) {
						o.step(p.look(o.refused()))
					}
					var longest time.Duration
					var sum float64
					n := looks(4 * time.Second)
					for range n {
						wait := p.look(o.refused())
						o.step(wait)
						longest, sum = max(longest, wait), sum+o.refused()
					}
					if longest > 2*limit || p.clients > 1 || sum/float64(n) > must*1.1+0.02 {
						t.Errorf("limit %v, %.2f times the load, a refusal %.2f, %.0f connections: waits up to %v, %.0f wait in clients, refused %.3f of them where %.3f must be",
							limit, times, refusing, connections, longest, p.clients, sum/float64(n), must)
					}
					p.rate = 0.5 / p.serve
					for range looks(8 * time.Second) {
						o.step(p.look(o.refused()))
					}
					if o.refused() != 0 {
						t.Errorf("limit %v, %.2f times the load, a refusal %.2f: %.3f are refused 8 s after it is gone", limit, times, refusing, o.refused())
					}
				}
			}
		}
	}
}

// crowd is clients that ask again at once, whatever they are told: each is in the queue of a
// processor or held, for as long as hold has it.
type crowd struct {
	serve, refuse float64 // seconds that a request takes
	queued        float64
	held          []float64 // how many come back with each of the next looks
}

// look lets the processor work for overloadLook, and returns how long the last in the queue waits
// and how many were served.
func (c *crowd) look(refused float64) (wait time.Duration, served float64) {
	const told = 2 * time.Second
	cost := c.serve*(1-refused) + c.refuse*refused
	c.queued, c.held = c.queued+c.held[0], append(c.held[1:], 0)
	// Who is served asks again within the look.
	done := overloadLook.Seconds() / cost
	if refused > 0 {
		done = min(done, c.queued/refused)
	}
	after := min(max(int(refused*told.Seconds()/overloadLook.Seconds()), 0), len(c.held)-1)
	c.queued -= done * refused
	c.held[after] += done * refused
	return time.Duration(c.queued * cost * float64(time.Second)), done * (1 - refused)
}

// Any number of clients that ask again at once are brought to where nothing waits for much longer than
// it may, and most of what the processors can do is still done for those who are let in.
func TestOverloadLawHoldsACrowd(t *testing.T) {
	t.Parallel()
	for _, n := range []float64{2000, 5000, 10_000, 20_000} {
		o := &overload{limit: 50 * time.Millisecond}
		c := &crowd{serve: 50e-6, refuse: 25e-6, queued: n, held: make([]float64, 3*int(time.Second/overloadLook))}
		var waits []time.Duration
		var served float64
		for i := range int(20 * time.Second / overloadLook) {
			wait, done := c.look(o.refused())
			o.step(wait)
			if i >= int(10*time.Second/overloadLook) {
				waits, served = append(waits, wait), served+done
			}
		}
		slices.Sort(waits)
		if most := waits[len(waits)*99/100]; most > 5*o.limit/2 || served/10 < 0.5/c.serve {
			t.Errorf("%.0f clients: waits p50 %v p99 %v, %.0f of %.0f requests/s are served, %.2f refused", n, waits[len(waits)/2], most, served/10, 1/c.serve, o.refused())
		}
	}
}

// After a stall nobody is refused for a wait that the limit allows, and that refusing does not
// shorten: something else has the processors.
func TestOverloadAllowsWhatTheLimitDoes(t *testing.T) {
	t.Parallel()
	for _, floor := range []time.Duration{0, 15 * time.Millisecond, 30 * time.Millisecond, 40 * time.Millisecond} {
		o := &overload{limit: 50 * time.Millisecond}
		for i := range 2 * overloadLooks {
			o.step(time.Duration(i) * overloadLook)
		}
		if o.refused() == 0 {
			t.Fatal("nobody is refused in a stall")
		}
		for range int(30 * time.Second / overloadLook) {
			o.step(floor)
		}
		if s := o.refused(); s != 0 {
			t.Errorf("%.3f are refused 30 s later, while %v are waited", s, floor)
		}
	}
}

// What is too much only for a moment, or not too much, makes nobody be refused; and never is
// everybody, so that it is seen when the load is gone.
func TestOverloadShare(t *testing.T) {
	t.Parallel()
	o := &overload{limit: 20 * time.Millisecond}
	steps := func(n int, wait time.Duration) float64 {
		for range n {
			o.step(wait)
		}
		return o.refused()
	}
	for _, wait := range []time.Duration{0, 15 * time.Millisecond, 20 * time.Millisecond} {
		if s := steps(100, wait); s != 0 {
			t.Errorf("%v: %v", wait, s)
		}
	}
	for range 100 { // again and again, but never for long
		steps(overloadLooks-1, time.Second)
		if s := steps(1, 15*time.Millisecond); s != 0 {
			t.Fatalf("%v are refused", s)
		}
	}
	if s := steps(overloadLooks, 21*time.Millisecond); s == 0 || s > 0.1 {
		t.Errorf("%v are refused at first", s)
	}
	if s := steps(1000, time.Hour); s != overloadMost {
		t.Errorf("%v are refused at most, want %v", s, overloadMost)
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
	if s := steps(int(5*time.Second/overloadLook), time.Millisecond); s != 0 || o.refuses() {
		t.Errorf("%v are refused when it is over", s)
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
	o := &overload{limit: 20 * time.Millisecond}
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
