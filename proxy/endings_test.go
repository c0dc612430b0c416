package proxy_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// ending is one way in which a stream ends.
type ending struct {
	name    string
	sim     kimisim.Behavior
	leave   int // the client hangs up after this many lines with data; -1 before the head
	outcome contract.Outcome
	basis   contract.Basis
	silent  bool // the upstream says nothing more when the client leaves
	sees    string
}

// fullLength runs the tests that have a short form at full length.
var fullLength = flag.Bool("long", false, "run at full length")

var endings = []ending{
	{name: "finished", outcome: contract.OutcomeOK, basis: contract.BasisUpstream},
	{name: "finished without usage", sim: kimisim.Behavior{UsagePlace: kimisim.UsageNone}, outcome: contract.OutcomeOK, basis: contract.BasisEstimated},
	{name: "client gone while streaming", sim: kimisim.Behavior{OutputTokens: 60, TokensPerSecond: 15}, leave: 3, outcome: contract.OutcomeClientGone, basis: contract.BasisEstimated},
	{name: "client gone while silent", sim: kimisim.Behavior{StallAfterEvents: 4}, leave: 2, silent: true, outcome: contract.OutcomeClientGone, basis: contract.BasisEstimated},
	{name: "client gone before the head", sim: kimisim.Behavior{StallBeforeHead: true}, leave: -1, silent: true, outcome: contract.OutcomeClientGone, basis: contract.BasisEstimated},
	{name: "cut in mid-event", sim: kimisim.Behavior{CutMidEvent: 5}, outcome: contract.OutcomeUpstreamCut, basis: contract.BasisEstimated, sees: "error"},
	{name: "cut on an event boundary", sim: kimisim.Behavior{CutAfterEvents: 5}, outcome: contract.OutcomeUpstreamCut, basis: contract.BasisEstimated, sees: "error"},
	{name: "cut on a chunk boundary", sim: kimisim.Behavior{CutOnChunkBoundary: 5}, outcome: contract.OutcomeUpstreamCut, basis: contract.BasisEstimated, sees: "error"},
	{name: "reset", sim: kimisim.Behavior{CutAfterEvents: 5, Reset: true}, outcome: contract.OutcomeUpstreamCut, basis: contract.BasisEstimated, sees: "error"},
	{name: "ended without end mark", sim: kimisim.Behavior{NoEndMark: true, NoFinish: true, UsagePlace: kimisim.UsageNone}, outcome: contract.OutcomeUpstreamCut, basis: contract.BasisEstimated, sees: "error"},
	{name: "stall", sim: kimisim.Behavior{StallAfterEvents: 5}, outcome: contract.OutcomeUpstreamTimeout, basis: contract.BasisEstimated, sees: "upstream_timeout"},
	{name: "error event", sim: kimisim.Behavior{ErrorAfterEvents: 5}, outcome: contract.OutcomeUpstreamError, basis: contract.BasisEstimated, sees: "error"},
}

// patience of these replicas with a silent upstream. A machine that is busy must not look like one.
const patience = 3 * time.Second

func impatient(c *proxy.Config) {
	for i := range c.Upstreams {
		c.Upstreams[i].IdleTimeout = proxy.Duration(patience)
		c.Upstreams[i].FirstByteTimeout = proxy.Duration(10 * time.Second)
		c.Upstreams[i].PoolIdle = proxy.Duration(time.Second)
	}
}

// stream runs one request to its ending and returns what the client read.
func (r *replica) stream(f face, token, body string, leave int) (text string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if leave < 0 {
		body = r.w.onArrival(body, cancel)
	}
	resp, err := r.request(ctx, f, token, body)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", resp.StatusCode)
	}
	var b strings.Builder
	sc := bufio.NewScanner(resp.Body)
	for lines := 0; sc.Scan(); {
		b.WriteString(sc.Text() + "\n")
		if strings.HasPrefix(sc.Text(), "data:") {
			if lines++; leave > 0 && lines == leave {
				cancel()
				return b.String(), nil
			}
		}
	}
	return b.String(), sc.Err()
}

// onArrival has do called once the simulator has read the request with this body, which
// it returns marked.
func (w *world) onArrival(body string, do func()) string {
	mark := fmt.Sprintf("arrival-%d", w.marks.Add(1))
	w.arrivals.Store(mark, do)
	w.sim.Script(func(i *kimisim.RequestInfo) *kimisim.Behavior {
		if words := strings.Fields(i.LastUser); len(words) > 1 {
			if do, ok := w.arrivals.LoadAndDelete(words[1]); ok {
				do.(func())()
			}
		}
		return nil
	})
	return strings.Replace(body, "hello ", "hello "+mark+" ", 1) // see sim
}

// upstreamClosed waits until every call of the upstream is over, and wants each to be no
// later than seconds after the end that the client saw.
func (w *world) upstreamClosed(end time.Time) {
	w.t.Helper()
	eventually(w.t, "the upstream's calls are over", func() bool {
		return !slices.ContainsFunc(w.chats(), func(e kimisim.Entry) bool { return e.EndedAt.IsZero() })
	})
	for _, e := range w.chats() {
		if late := e.EndedAt.Sub(end); late > 5*time.Second {
			w.t.Errorf("the upstream's call ended %v after the client's", late)
		}
	}
}

// Every way a stream can end, on both faces: one usage event with the right outcome and
// basis, at least what was relayed and at most what was reserved; the upstream's call
// is closed soon; the client sees a cut.
func TestEndings(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		for _, e := range endings {
			t.Run(f.name+"/"+e.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				r := w.replica(impatient)
				checkEnding(t, w, r, f, e)
			})
		}
	}
}

// checkEnding runs one stream, the first of w, to its ending.
func checkEnding(t *testing.T, w *world, r *replica, f face, e ending) {
	t.Helper()
	tok, _ := w.token(nil)
	text, err := r.stream(f, tok, chat(true, sim(e.sim)), e.leave)
	left := time.Now()
	if err != nil && e.leave >= 0 {
		t.Fatalf("client: %v", err)
	}
	if e.sees != "" && !strings.Contains(text, e.sees) {
		t.Errorf("the client was not told: %q", text)
	}
	ev := w.events(1)[0]
	if ev.Outcome != e.outcome || ev.Basis != e.basis {
		t.Errorf("outcome %s, basis %s; want %s, %s", ev.Outcome, ev.Basis, e.outcome, e.basis)
	}
	w.upstreamClosed(left)
	checkCounts(t, ev, received(text))
	eventually(t, "nothing is held", func() bool {
		u := w.usage(ev.CustomerID)
		return u.Held == 0 && u.Settled == ev.Settled
	})
}

// checkCounts compares an event with the completion tokens that the client received.
func checkCounts(t testing.TB, ev contract.Event, got int) {
	t.Helper()
	if ev.Completion < int64(got) {
		t.Errorf("%s: %d completion tokens metered, %d relayed", ev.Outcome, ev.Completion, got)
	}
	if ev.Settled > ev.Reserved || ev.Prompt+ev.Completion > ev.Reserved {
		t.Errorf("%s: settled %d, counted %d+%d, reserved only %d", ev.Outcome, ev.Settled, ev.Prompt, ev.Completion, ev.Reserved)
	}
	if got > 0 && ev.Settled == 0 {
		t.Errorf("%s: %d tokens were relayed and nothing is billed", ev.Outcome, got)
	}
}

// A stream that is cut by a shutdown is told so, metered as drained, and in Redis
// before Drain returns.
func TestEndingDrained(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(func(c *proxy.Config) { c.Timeouts.Drain = proxy.Duration(100 * time.Millisecond) })
			tok, _ := w.token(nil)
			const streams = 50
			var wg sync.WaitGroup
			texts := make([]string, streams)
			for i := range streams {
				wg.Go(func() {
					texts[i], _ = r.stream(f, tok, chat(true, sim(kimisim.Behavior{OutputTokens: 64, TokensPerSecond: 4})), 0)
				})
			}
			eventually(t, "all streams run", func() bool {
				return len(w.chats()) == streams && r.metric("token_proxy_streams") == strconv.Itoa(streams)
			})
			time.Sleep(200 * time.Millisecond) // some tokens for each
			if err := r.drain(); err != nil {
				t.Fatalf("drain: %v", err)
			}
			evs := w.readEvents()
			wg.Wait()
			w.upstreamClosed(time.Now())
			if len(evs) != streams {
				t.Fatalf("%d events are in Redis when Drain returns, want %d", len(evs), streams)
			}
			for _, e := range evs {
				if e.Outcome != contract.OutcomeDrained {
					t.Errorf("outcome %s", e.Outcome)
				}
			}
			for _, text := range texts {
				if !strings.Contains(text, "shutting down") {
					t.Fatalf("the client was not told: %q", text)
				}
			}
		})
	}
}

// A stream of a revoked token is cut, told so and billed for what it got.
func TestEndingRevoked(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica()
			tok, g := w.token(nil)
			begun, done := r.begin(f, tok, chat(true, sim(kimisim.Behavior{OutputTokens: 60, TokensPerSecond: 4})))
			<-begun
			g.Version, g.Status = 2, contract.StatusRevoked
			start := time.Now()
			w.put(tok, g)
			text := (<-done).body
			if took := time.Since(start); took > 8*time.Second { // of 15
				t.Errorf("cut %v after the revocation", took)
			}
			w.upstreamClosed(start)
			if !strings.Contains(text, "revoked") {
				t.Errorf("the client was not told: %q", text)
			}
			ev := w.events(1)[0]
			if ev.Outcome != contract.OutcomeRevoked {
				t.Errorf("outcome %s", ev.Outcome)
			}
			checkCounts(t, ev, received(text))
			if a := r.post(f, tok, chat(false, "hi")); a.status != 401 {
				t.Errorf("a revoked token got status %d", a.status)
			}
		})
	}
}

// After hundreds of each ending, and at full length a thousand, nothing stays behind: no
// goroutine, connection, file descriptor, hold or memory.
func TestEndingsLeaveNothing(t *testing.T) {
	const warm, atOnce = 20, 100
	each, flat := 200, uint64(8<<20) // not above what 3 KiB of each stream would be
	if *fullLength {
		each, flat = 1000, 24<<20
	}
	w := newWorldWith(t, kimisim.Config{MaxLedger: 100})
	r := w.replica(impatient)
	// Whose streams end only because they are cut, the last ones by its own end.
	cutting := w.replica(patientUpstream, func(c *proxy.Config) { c.Timeouts.Drain = proxy.Duration(100 * time.Millisecond) })
	var customers []string
	customer := func() (string, contract.Grant) {
		tok, g := w.token(nil)
		customers = append(customers, g.CustomerID)
		return tok, g
	}
	tok, _ := customer()
	run := func(e ending, n int) {
		var wg sync.WaitGroup
		gate := make(chan struct{}, atOnce)
		for i := range n {
			gate <- struct{}{}
			wg.Go(func() {
				defer func() { <-gate }()
				b := e.sim
				if b.TokensPerSecond > 0 {
					b.TokensPerSecond = 1000
				}
				if _, err := r.stream(faces[i%2], tok, chat(true, sim(b)), e.leave); err != nil && e.leave >= 0 {
					t.Errorf("%s: %v", e.name, err)
				}
			})
		}
		wg.Wait()
	}
	// running opens silent streams; what each was told at its end is told by the function.
	running := func(token string, n int) (told func(what string)) {
		var wg sync.WaitGroup
		texts := make([]string, n)
		for i := range n {
			wg.Go(func() {
				texts[i], _ = cutting.stream(faces[i%2], token, chat(true, sim(kimisim.Behavior{StallAfterEvents: 3})), 0)
			})
		}
		eventually(t, "all streams run", func() bool { return cutting.metric("token_proxy_streams") == strconv.Itoa(n) })
		return func(what string) {
			wg.Wait()
			for _, text := range texts {
				if !strings.Contains(text, what) {
					t.Fatalf("a client was not told %q: %q", what, text)
				}
			}
		}
	}
	revoked := func(n int) {
		tok, g := customer()
		told := running(tok, n)
		g.Version, g.Status = 2, contract.StatusRevoked
		w.put(tok, g)
		told("revoked")
	}
	for _, e := range endings { // fill caches and pools
		run(e, warm)
	}
	revoked(atOnce)
	settled := func() {
		eventually(t, "all is settled", func() bool {
			return r.meter.Queued() == 0 && cutting.meter.Queued() == 0 &&
				!slices.ContainsFunc(customers, func(c string) bool { return w.usage(c).Held != 0 })
		})
	}
	settled()
	before := heap()
	goroutines := runtime.NumGoroutine()
	fds := openFiles()
	for _, e := range endings {
		run(e, each)
	}
	for range each / atOnce {
		revoked(atOnce)
	}
	last, _ := customer()
	told := running(last, each)
	if err := cutting.drain(); err != nil {
		t.Error(err)
	}
	told("shutting down")
	settled()
	want := len(endings)*(each+warm) + atOnce + each + each
	eventually(t, "the upstream's calls are over", func() bool {
		return w.sim.InFlight() == 0 && w.sim.Totals()[upstreamKey].Requests >= want
	})
	if got, forwarded := len(w.readEvents()), w.sim.Totals()[upstreamKey].Requests; got != want || forwarded != want {
		t.Errorf("%d usage events for %d forwarded requests of %d", got, forwarded, want)
	}
	client.CloseIdleConnections()
	time.Sleep(11 * time.Second) // fasthttp keeps idle workers for 10 s
	eventually(t, fmt.Sprintf("goroutines are back to %d", goroutines), func() bool { return runtime.NumGoroutine() <= goroutines+20 })
	eventually(t, fmt.Sprintf("file descriptors are back to %d", fds), func() bool { return openFiles() <= fds+20 })
	eventually(t, "the heap is flat", func() bool { return heap() < before+flat })
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// openFiles counts file descriptors, where the system shows them.
func openFiles() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(list)
}
