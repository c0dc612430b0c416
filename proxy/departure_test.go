package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
)

// goingOn gives the upstreams the policy drain.
func goingOn(patience time.Duration, calls int) option {
	return func(c *proxy.Config) {
		patientUpstream(c)
		for i := range c.Upstreams {
			u := &c.Upstreams[i]
			u.OnClientGone, u.DrainTime, u.MaxDrains = upstream.ClientGoneDrain, upstream.Duration(patience), calls
		}
	}
}

// leaver is a client that leaves when told to.
type leaver struct {
	leave func()
	done  chan struct{} // closed when it has left
}

// leaver sends a request. At once, or when so many lines with data of a stream have come,
// arrived is closed.
func (r *replica) leaver(f face, token, body string, lines int) (l leaver, arrived chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	l, arrived = leaver{cancel, make(chan struct{})}, make(chan struct{})
	if lines == 0 {
		close(arrived)
	}
	go func() {
		defer close(l.done)
		resp, err := r.request(ctx, f, token, body)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		sc := bufio.NewScanner(resp.Body)
		for sc.Scan() {
			if !strings.HasPrefix(sc.Text(), "data:") {
				continue
			}
			if lines--; lines == 0 {
				close(arrived)
			}
		}
	}()
	return l, arrived
}

// With the policy drain the upstream's answer is read to its end although the client has
// left, whenever it does, and the event has the upstream's own count.
func TestClientGoneDrained(t *testing.T) {
	t.Parallel()
	slow := kimisim.Behavior{OutputTokens: 40, TokensPerSecond: 8}
	late := kimisim.Behavior{OutputTokens: 40, TTFT: 5 * time.Second}
	for _, c := range []struct {
		name   string
		sim    kimisim.Behavior
		stream bool
		lines  int
	}{
		{"in a stream", slow, true, 3},
		{"before a stream's head", late, true, 0},
		{"before an answer", late, false, 0},
		{"in an answer", kimisim.Behavior{OutputTokens: 40, EarlyHead: true, TTFT: 5 * time.Second}, false, 0},
		{"usage in an extra chunk", kimisim.Behavior{OutputTokens: 40, TokensPerSecond: 8, UsagePlace: kimisim.UsageTop}, true, 3},
	} {
		for _, f := range faces {
			if f.anthropic && c.sim.UsagePlace != "" {
				continue
			}
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				r := w.replica(goingOn(time.Minute, 10))
				tok, g := w.token(one)
				l, arrived := r.leaver(f, tok, chat(c.stream, sim(c.sim)), c.lines)
				<-arrived
				eventually(t, "the upstream has the request", func() bool { return len(w.chats()) == 1 })
				l.leave()
				<-l.done
				// Until it is over the call keeps its place and its hold.
				if held := r.usage(g).Held; held == 0 {
					t.Error("nothing is held while the call goes on")
				}
				refusal{status: 429, typ: "rate_limit_exceeded", retry: "1", says: "in flight"}.check(t, f, r.post(f, tok, chat(false, "x")))

				ev := w.events(1)[0]
				entry := w.chats()[0]
				if ev.Outcome != contract.OutcomeClientGone || ev.Basis != contract.BasisUpstream || ev.Status != 0 {
					t.Errorf("outcome %s, basis %s, status %d", ev.Outcome, ev.Basis, ev.Status)
				}
				if entry.ProducedTokens != 40 || ev.Completion != 40 || ev.Prompt != int64(entry.PromptTokens) {
					t.Errorf("metered %d+%d, the upstream had %d and produced %d", ev.Prompt, ev.Completion, entry.PromptTokens, entry.ProducedTokens)
				}
				if n := r.nothingHeld(g); n != ev.Settled || n != ev.Prompt+ev.Completion {
					t.Errorf("%d tokens are settled, the event says %d", n, ev.Settled)
				}
				eventually(t, "the place is free", func() bool { return r.inFlight() == "0" })
				r.served(f, tok)
			})
		}
	}
}

// What else ends a call still ends one that goes on without its client.
func TestDrainedCallsEnd(t *testing.T) {
	t.Parallel()
	stall := kimisim.Behavior{StallAfterEvents: 6}
	const lines = 3
	for _, c := range []struct {
		name    string
		sim     kimisim.Behavior
		opt     option
		then    func(w *world, r *replica, tok string, g contract.Grant)
		outcome contract.Outcome
	}{
		{name: "its time", sim: stall, opt: goingOn(200*time.Millisecond, 10), outcome: contract.OutcomeClientGone},
		{name: "the upstream's silence", sim: stall, opt: func(c *proxy.Config) { goingOn(time.Minute, 10)(c); impatient(c) }, outcome: contract.OutcomeClientGone},
		{name: "a cut", sim: kimisim.Behavior{CutAfterEvents: 12, TokensPerSecond: 3}, opt: goingOn(time.Minute, 10), outcome: contract.OutcomeClientGone},
		{name: "a revocation", sim: stall, opt: goingOn(time.Minute, 10), outcome: contract.OutcomeRevoked,
			then: func(w *world, r *replica, tok string, g contract.Grant) {
				g.Version, g.Status = 2, contract.StatusRevoked
				w.put(tok, g)
			}},
		{name: "a suspension", sim: stall, opt: goingOn(time.Minute, 10), outcome: contract.OutcomeRevoked,
			then: func(w *world, r *replica, tok string, g contract.Grant) {
				g.Version, g.Status = 2, contract.StatusSuspended
				w.put(tok, g)
			}},
		{name: "a shutdown", sim: stall, outcome: contract.OutcomeDrained,
			opt: func(c *proxy.Config) {
				goingOn(time.Minute, 10)(c)
				c.Timeouts.Drain = proxy.Duration(50 * time.Millisecond)
			},
			then: func(w *world, r *replica, tok string, g contract.Grant) {
				if err := r.drain(); err != nil {
					w.t.Error(err)
				}
			}},
	} {
		for _, f := range faces {
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				r := w.replica(c.opt)
				tok, g := w.token(nil)
				l, arrived := r.leaver(f, tok, chat(true, sim(c.sim)), lines)
				<-arrived
				l.leave()
				<-l.done
				if c.then != nil {
					time.Sleep(50 * time.Millisecond) // the hang-up is noticed; if not, the outcome is the same
					c.then(w, r, tok, g)
				}
				ev := w.events(1)[0]
				if ev.Outcome != c.outcome || ev.Basis != contract.BasisEstimated {
					t.Errorf("outcome %s, basis %s", ev.Outcome, ev.Basis)
				}
				checkCounts(t, ev, lines-2) // a line or two have no text
				entry, err := w.sim.WaitClosed(w.chats()[0].ID, 10*time.Second)
				if err != nil || int64(entry.ProducedTokens) > ev.Completion {
					t.Errorf("%d completion tokens metered, %d produced (%v)", ev.Completion, entry.ProducedTokens, err)
				}
				if ev.Outcome != contract.OutcomeDrained {
					r.nothingHeld(g)
				}
			})
		}
	}
}

// At most so many calls go on at a time, and none before anything was sent for it.
func TestDrainsAreBounded(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(goingOn(time.Minute, 2))
			tok, g := w.token(nil)
			const clients = 5
			for range clients {
				l, arrived := r.leaver(f, tok, chat(true, sim(kimisim.Behavior{StallAfterEvents: 4})), 2)
				<-arrived
				l.leave()
				<-l.done
			}
			for _, ev := range w.events(clients - 2) {
				if ev.Outcome != contract.OutcomeClientGone || ev.Basis != contract.BasisEstimated {
					t.Errorf("outcome %s, basis %s", ev.Outcome, ev.Basis)
				}
			}
			eventually(t, "two go on", func() bool { return w.sim.InFlight() == 2 && r.inFlight() == "2" })
			g.Version, g.Status = 2, contract.StatusRevoked
			w.put(tok, g)
			w.events(clients)
			eventually(t, "none goes on", func() bool { return w.sim.InFlight() == 0 && r.inFlight() == "0" })

			// Their places are free again.
			tok, _ = w.token(nil)
			l, arrived := r.leaver(f, tok, chat(true, sim(kimisim.Behavior{OutputTokens: 30, TokensPerSecond: 100})), 2)
			<-arrived
			l.leave()
			if evs := w.events(clients + 1); evs[clients].Basis != contract.BasisUpstream {
				t.Errorf("the last one: %+v", evs[clients])
			}
		})
	}
}

// A client that leaves while its request waits for tokens has not been forwarded: there
// is nothing to read on for.
func TestNothingToDrain(t *testing.T) {
	t.Parallel()
	f := faces[0]
	w := newWorld(t)
	r := w.replica(goingOn(time.Minute, 10), func(c *proxy.Config) { c.Timeouts.WaitForHold = proxy.Duration(time.Minute) })
	tok, _ := w.token(func(g *contract.Grant) { g.MonthlyLimit = 10_000 })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first, err := r.request(ctx, f, tok, capped(chat(true, sim(kimisim.Behavior{StallAfterEvents: 3})), 6000))
	if err != nil || first.StatusCode != http.StatusOK {
		t.Fatal(first, err)
	}
	defer first.Body.Close()
	l, _ := r.leaver(f, tok, capped(chat(true, "hello"), 5000), 0)
	eventually(t, "it waits", func() bool { return r.inFlight() == "2" })
	l.leave()
	eventually(t, "it does not wait any more", func() bool { return r.inFlight() == "1" })
	if n := len(w.chats()); n != 1 {
		t.Errorf("%d requests forwarded", n)
	}
}

// A client that stays but does not read is given up when a write has waited for Write;
// its call is read to the end as well.
func TestSlowReaderDrained(t *testing.T) {
	t.Parallel()
	const tokens = 250_000
	f := faces[0]
	w := newWorld(t)
	r := w.replica(goingOn(5*time.Minute, 10), func(c *proxy.Config) { c.Timeouts.Write = proxy.Duration(300 * time.Millisecond) })
	tok, _ := w.token(nil)
	conn := dialSmall(t, r)
	body := capped(chat(true, sim(kimisim.Behavior{OutputTokens: tokens})), tokens)
	if _, err := io.WriteString(conn, strings.ReplaceAll(sent(f, body), "<token>", tok)); err != nil {
		t.Fatal(err)
	}
	var evs []contract.Event
	deadline := time.Now().Add(3 * time.Minute)
	for ; len(evs) == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		evs = w.readEvents()
	}
	if len(evs) != 1 || evs[0].Outcome != contract.OutcomeClientGone || evs[0].Basis != contract.BasisUpstream || evs[0].Completion != tokens {
		t.Errorf("%+v", evs)
	}
}

// A client that has had a stream on its connection and hangs up behind its next request, or when
// that has arrived, has left, as if it had been the first.
func TestLeavesBehindItsNextRequest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		sim    kimisim.Behavior
		stream bool
	}{
		{"before a stream's head", kimisim.Behavior{StallBeforeHead: true}, true},
		{"in a stream", kimisim.Behavior{StallAfterEvents: 3}, true},
		{"before an answer", kimisim.Behavior{StallBeforeHead: true}, false},
	} {
		for i, arrived := range []bool{false, true} {
			f := faces[i]
			t.Run(fmt.Sprintf("%s/arrived=%v", c.name, arrived), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				r := w.replica(patientUpstream)
				tok, g := w.token(nil)
				k := r.kept(t, tok)
				k.say(k.text(f, chat(true, "hello")))
				k.whole(true)
				var left atomic.Int64
				hangUp := func() {
					left.Store(time.Now().UnixNano())
					if err := k.Conn.(*net.TCPConn).CloseWrite(); err != nil {
						t.Error(err)
					}
				}
				body := chat(c.stream, sim(c.sim))
				if arrived {
					body = w.onArrival(body, hangUp)
				}
				k.say(k.text(f, body))
				if !arrived {
					hangUp()
				}
				// The log tells also of a call that ended before it was sent.
				eventually(t, "both calls are over", func() bool {
					return strings.Count(w.logs.String(), `"msg":"request"`) == 2 && r.inFlight() == "0"
				})
				w.upstreamClosed(time.Unix(0, left.Load()))
				// What was sent may not have been read by the upstream: the log has an outcome of all that was.
				n := strings.Count(w.logs.String(), `"outcome":"`)
				if arrived && len(w.chats()) != 2 {
					t.Fatalf("%d requests reached the upstream", len(w.chats()))
				}
				var settled int64
				for i, ev := range w.events(n) {
					settled += ev.Settled
					if i == 1 && ev.Outcome != contract.OutcomeClientGone {
						t.Errorf("outcome %s", ev.Outcome)
					}
				}
				if n := r.nothingHeld(g); n != settled {
					t.Errorf("%d tokens are settled, the events say %d", n, settled)
				}
			})
		}
	}
}
