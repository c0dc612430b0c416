package proxy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// setLimit publishes the next version of g, with another limit.
func (w *world) setLimit(token string, g *contract.Grant, limit int64) {
	w.t.Helper()
	g.Version++
	g.LimitVersion++
	g.MonthlyLimit = limit
	w.put(token, *g)
}

// A limit that is lowered to what is used already leaves nothing for what is in flight.
func TestLimitLoweredBelowUse(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		for _, stream := range []bool{true, false} {
			t.Run(f.name+map[bool]string{true: "/stream", false: "/whole"}[stream], func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				r, other := w.replica(patientUpstream), w.replica()
				tok, g := w.token(nil)
				other.served(f, tok) // the replica with the stream knows of this from Redis only
				used := other.nothingHeld(g)
				begun, done := r.begin(f, tok, chat(stream, sim(kimisim.Behavior{OutputTokens: 60, StallAfterEvents: 5, StallBeforeHead: !stream})))
				if stream {
					<-begun // before that it is refused, as a whole answer is
				}
				eventually(t, "it is in flight", func() bool { return w.sim.InFlight() == 1 })
				w.setLimit(tok, &g, used)
				a := <-done
				if stream && a.status != http.StatusOK || !stream && a.status != http.StatusTooManyRequests {
					t.Errorf("status %d", a.status)
				}
				if !strings.Contains(a.body, "monthly_limit_exceeded") || !strings.Contains(a.body, "lowered") {
					t.Errorf("the client was told %q", a.body)
				}
				w.upstreamClosed(time.Now())
				e := w.events(2)[1]
				if e.Outcome != contract.OutcomeLimitCut || e.Basis != contract.BasisEstimated {
					t.Errorf("%+v", e)
				}
				checkCounts(t, e, received(a.body))
				if !stream && e.Settled != 0 {
					t.Errorf("%d tokens are billed, and nothing came", e.Settled)
				}
				if n := r.nothingHeld(g); n != used+e.Settled {
					t.Errorf("%d tokens are settled, want %d", n, used+e.Settled)
				}
				if a := r.post(f, tok, chat(false, "hello")); a.status != http.StatusTooManyRequests {
					t.Errorf("status %d", a.status)
				}
			})
		}
	}
}

// As above, where another replica used that up a moment ago and has not settled it yet.
func TestLimitLoweredBelowWhatOthersSettleLater(t *testing.T) {
	t.Parallel()
	f := faces[0]
	w := newWorld(t)
	w.quota = quota.Options{SettleEvery: 40 * time.Millisecond} // long before the limit is looked at for the last time
	r, other := w.replica(patientUpstream), w.replica()
	tok, g := w.token(nil)
	done := make(chan answer, 1)
	go func() {
		done <- r.post(f, tok, chat(true, sim(kimisim.Behavior{OutputTokens: 60, StallAfterEvents: 5})))
	}()
	eventually(t, "it is in flight", func() bool { return w.sim.InFlight() == 1 })
	other.served(f, tok)
	used := w.events(1)[0].Settled
	w.setLimit(tok, &g, used)
	select {
	case a := <-done:
		if !strings.Contains(a.body, "monthly_limit_exceeded") {
			t.Errorf("the client was told %q", a.body)
		}
	case <-time.After(15 * time.Second):
		t.Fatal("the stream goes on although nothing is left")
	}
	if e := w.events(2)[1]; e.Outcome != contract.OutcomeLimitCut {
		t.Errorf("%+v", e)
	}
}

// As above, for a call that was admitted under a limit of which only Redis' record had told:
// the grant that the replica knew had a lower one all the time.
func TestLimitLoweredAfterAnUntoldRaise(t *testing.T) {
	t.Parallel()
	f := faces[0]
	w := newWorld(t)
	r := w.replica(patientUpstream)
	tok, g := w.token(nil)
	r.served(f, tok)
	used := r.nothingHeld(g)
	w.setLimit(tok, &g, used)
	eventually(t, "the lower limit is known", func() bool {
		return r.post(f, tok, chat(false, "hello")).status == http.StatusTooManyRequests
	})
	raised := g
	raised.MonthlyLimit, raised.LimitVersion = 1_000_000_000, g.LimitVersion+1
	w.plane.Put(account(raised))
	done := make(chan answer, 1)
	go func() {
		done <- r.post(f, tok, chat(true, sim(kimisim.Behavior{OutputTokens: 60, StallAfterEvents: 5})))
	}()
	eventually(t, "it is in flight", func() bool { return w.sim.InFlight() == 1 })
	g.LimitVersion++
	w.setLimit(tok, &g, used)
	if a := <-done; !strings.Contains(a.body, "monthly_limit_exceeded") {
		t.Errorf("the client was told %q", a.body)
	}
}

// Who holds tokens may use them when the limit is lowered above what is used; nobody else
// gets any.
func TestLimitLoweredKeepsHolds(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(patientUpstream, func(c *proxy.Config) { c.Timeouts.WaitForHold = proxy.Duration(50 * time.Millisecond) })
			tok, g := w.token(nil)
			r.served(f, tok)
			used := r.nothingHeld(g)
			done := make(chan answer, 1)
			go func() {
				done <- r.post(f, tok, chat(true, sim(kimisim.Behavior{OutputTokens: 60, StallAfterEvents: 5, StallFor: time.Second})))
			}()
			eventually(t, "the stream runs", func() bool { return w.sim.InFlight() == 1 })
			w.setLimit(tok, &g, used+1)
			eventually(t, "the lower limit is known", func() bool {
				known, err := r.cache.Lookup(t.Context(), w.hasher.Digest([]byte(tok)))
				return err == nil && known.Version == g.Version
			})
			if a := r.post(f, tok, chat(false, "hello")); a.status != http.StatusTooManyRequests {
				t.Errorf("status %d", a.status)
			}
			if a := <-done; a.status != http.StatusOK || strings.Contains(a.body, `"error"`) {
				t.Errorf("status %d: %s", a.status, a.body)
			}
			e := w.events(2)[1]
			if e.Outcome != contract.OutcomeOK || e.Completion != 60 {
				t.Errorf("%+v", e)
			}
			if n := r.nothingHeld(g); n != used+e.Settled || e.Settled > e.Reserved {
				t.Errorf("%d tokens are settled, want %d", n, used+e.Settled)
			}
		})
	}
}

// A limit that is raised, or a new period, reaches requests that wait for tokens.
func TestWaitersSeeChanges(t *testing.T) {
	t.Parallel()
	f := faces[0]
	for name, change := range map[string]func(w *world, token string, g *contract.Grant){
		"raised": func(w *world, token string, g *contract.Grant) {
			// Told by the feed alone, which the record may be ahead of.
			g.Version, g.LimitVersion, g.MonthlyLimit = g.Version+1, g.LimitVersion+1, 100_000_000
			if _, err := w.feed.PutGrant(w.t.Context(), w.hasher.Digest([]byte(token)), *g); err != nil {
				w.t.Fatal(err)
			}
		},
		"new period": func(w *world, token string, g *contract.Grant) {
			g.Period = contract.Period{ID: "p2", Start: g.Period.End, End: g.Period.End.Add(time.Hour)}
			w.setLimit(token, g, 100_000_000)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(patientUpstream, func(c *proxy.Config) { c.Timeouts.WaitForHold = proxy.Duration(20 * time.Second) })
			tok, g := w.token(func(g *contract.Grant) { g.MonthlyLimit = 10_000 })
			old := g
			end := r.occupy(f, tok, 6000)
			answers := make(chan answer, 1)
			go func() { answers <- r.post(f, tok, capped(chat(false, "hello"), 1_000_000)) }()
			eventually(t, "the size of the waiter's prompt was asked for", func() bool { return len(w.sim.Ledger()) == 2 })
			select {
			case a := <-answers:
				t.Fatalf("answered %d while the tokens are held: %s", a.status, a.body)
			case <-time.After(100 * time.Millisecond):
			}
			change(w, tok, &g)
			if a := <-answers; a.status != http.StatusOK {
				t.Errorf("status %d: %s", a.status, a.body)
			}
			if c := w.chats()[1]; c.OutputCap != 1_000_000 {
				t.Errorf("the cap stayed at %d", c.OutputCap)
			}
			waited := w.events(1)[0]
			end()
			first := w.events(2)[1]
			if waited.PeriodID != g.Period.ID || first.PeriodID != old.Period.ID {
				t.Errorf("%+v, and before it %+v", waited, first)
			}
			want := map[string]int64{}
			want[waited.PeriodID] += waited.Settled
			want[first.PeriodID] += first.Settled
			for _, g := range []contract.Grant{old, g} {
				if n := r.nothingHeld(g); n != want[g.Period.ID] {
					t.Errorf("%d tokens are settled in %s, want %d", n, g.Period.ID, want[g.Period.ID])
				}
			}
		})
	}
}
