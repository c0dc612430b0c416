package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// Without Redis nothing can be reserved: refused, never served on trust. It is served
// again as soon as Redis is back.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	const grace = 3 * time.Second
	reserve := refusal{status: 503, typ: "quota_unavailable", retry: "2"}
	stale := refusal{status: 503, typ: "quota_unavailable", retry: "2", says: "tokens cannot be checked"}
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(func(c *proxy.Config) {
				c.Timeouts.Grace = proxy.Duration(grace)
			})
			tok, g := w.token(one)
			unread, _ := w.token(one) // never used so far
			r.served(f, tok)
			w.events(1)
			r.nothingHeld(g)

			w.redis.Stop()
			stopped := time.Now()
			a := r.post(f, tok, chat(false, "hello"))
			if time.Since(stopped) < grace-300*time.Millisecond {
				reserve.check(t, f, a)
				reserve.check(t, f, r.post(f, unread, chat(false, "hello")))
				if err := r.Ready(); err != nil {
					t.Errorf("a blip of Redis takes the replica away: %v", err)
				}
			}
			var e answer
			eventually(t, "the grace is over", func() bool {
				e = r.post(f, tok, chat(false, "hello"))
				return strings.Contains(e.body, stale.says)
			})
			if took := time.Since(stopped); took < grace-2*time.Second {
				t.Errorf("the grace was over after %v, want %v", took, grace)
			}
			stale.check(t, f, e)
			for _, path := range []string{"/v1/models", "/v1/usage"} {
				get := f.attempt(tok)
				get.method, get.path, get.body = "GET", path, ""
				stale.check(t, faces[0], r.send(get))
			}
			if n := len(w.chats()); n != 1 {
				t.Errorf("%d requests were forwarded", n-1)
			}
			if n := r.inFlight(); n != "0" {
				t.Errorf("%s requests are in flight", n)
			}

			w.redis.Start()
			eventually(t, "it serves again", func() bool { return r.post(f, tok, chat(false, "hello")).status == 200 })
			eventually(t, "it reads tokens again", func() bool { return r.post(f, unread, chat(false, "hello")).status == 200 })
			w.events(3)
			r.nothingHeld(g)
		})
	}
}

// A Redis that accepts connections and says nothing must not hold clients up.
func TestRedisFrozen(t *testing.T) {
	t.Parallel()
	const patience = 250 * time.Millisecond
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) { c.Timeouts.Redis = proxy.Duration(patience) })
	tok, g := w.token(one)
	ok := func() bool { return r.post(faces[0], tok, chat(false, "hello")).status == http.StatusOK }
	eventually(t, "it serves", ok)
	w.redis.Pause()
	for _, f := range faces {
		start := time.Now()
		a := r.post(f, tok, chat(false, "hello"))
		refusal{status: 503, typ: "quota_unavailable", retry: "2"}.check(t, f, a)
		if took := time.Since(start); took > patience+2*time.Second {
			t.Errorf("the refusal took %v", took)
		}
	}
	w.redis.Resume()
	eventually(t, "it serves again", ok)
	// What was granted while nobody listened is given back.
	r.nothingHeld(g)
	w.events(2)
}

// Redis leaves while a stream runs: the stream ends well, and its tokens and event are
// written when Redis is back.
func TestRedisAwayDuringAStream(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(patientUpstream)
			tok, g := w.token(one)
			resp, err := r.request(context.Background(), f, tok, chat(true, sim(kimisim.Behavior{OutputTokens: 20, StallAfterEvents: 5, StallFor: 500 * time.Millisecond})))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			w.redis.Stop()
			b, err := io.ReadAll(resp.Body)
			if end := map[bool]string{false: "[DONE]", true: "message_stop"}[f.anthropic]; err != nil || !strings.Contains(string(b), end) {
				t.Errorf("%v, no %s in %s", err, end, b)
			}
			w.redis.Start()
			e := w.events(1)[0]
			if e.Outcome != contract.OutcomeOK || e.Completion != 20 {
				t.Errorf("event %+v", e)
			}
			// This Redis was restarted: its records are made anew.
			eventually(t, "what the event says is settled", func() bool {
				u := r.usage(g)
				return u.Settled == e.Settled && u.Held == 0
			})
		})
	}
}

// When the journal could not take the event of one more request, new work is refused.
func TestRefusedWhenTheJournalIsFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(patientUpstream, func(c *proxy.Config) { c.Limits.JournalSlots = 1 })
	tok, _ := w.token(nil)
	resp, err := r.request(context.Background(), faces[0], tok, chat(true, sim(kimisim.Behavior{StallAfterEvents: 3})))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, f := range faces {
		refusal{status: 503, typ: "quota_unavailable", retry: "2", says: "recorded"}.check(t, f, r.post(f, tok, chat(false, "hello")))
	}
	if got := r.metric("token_proxy_journal_refused_total"); got != "2" {
		t.Errorf("%s refused requests are counted, want 2", got)
	}
	_ = resp.Body.Close()
	eventually(t, "it serves again", func() bool { return r.post(faces[0], tok, chat(false, "hello")).status == 200 })
	w.events(2)
}

// Bodies are held in memory while the upstream is awaited; beyond the budget new ones
// are refused before they are read.
func TestRefusedWhenOverloaded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	large := chat(true, sim(kimisim.Behavior{StallBeforeHead: true})+strings.Repeat("x", 1000))
	r := w.replica(patientUpstream, func(c *proxy.Config) {
		c.Limits.BodyBytes = len(large) + 10
		c.Limits.InFlightBytes = int64(c.Limits.BodyBytes)
	})
	tok, _ := w.token(nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := r.request(ctx, faces[0], tok, large)
		done <- err
	}()
	if _, err := w.sim.WaitLedger(5*time.Second, func(e []kimisim.Entry) bool { return len(e) == 1 }); err != nil {
		t.Fatal(err)
	}
	for _, f := range faces {
		refusal{status: 503, typ: "overloaded_error", retry: "2"}.check(t, f, r.post(f, tok, chat(false, "hello")))
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the first request ended with %v", err)
	}
	eventually(t, "it serves again", func() bool { return r.post(faces[0], tok, chat(false, "hello")).status == 200 })
}

// A proxy that has too much to do refuses requests before anything is asked; streams go on.
func TestOverloadIsRefusedEarly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	tok, _ := w.token(nil)
	f := faces[0]
	stream, err := r.request(context.Background(), f, tok, chat(true, sim(kimisim.Behavior{OutputTokens: 40, TokensPerSecond: 40})))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	r.RefuseAll(true, 1)
	before := len(w.sim.Ledger())
	for _, f := range faces {
		for _, stream := range []bool{false, true} {
			a := r.post(f, tok, chat(stream, "hello"))
			refusal{status: 503, typ: "overloaded_error", retry: a.header.Get("Retry-After")}.check(t, f, a)
			if wait, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || wait < 1 || wait > 3 {
				t.Errorf("told to wait for %q seconds", a.header.Get("Retry-After"))
			}
		}
	}
	if n := len(w.sim.Ledger()); n != before {
		t.Errorf("%d requests went upstream", n-before)
	}
	r.RefuseAll(false, 0)
	if a := r.post(f, tok, chat(false, "hello")); a.status != 200 {
		t.Errorf("when it is over: %d %s", a.status, a.body)
	}
	if b, err := io.ReadAll(stream.Body); err != nil || !strings.Contains(string(b), "[DONE]") {
		t.Errorf("the stream ended with %v, %.200q", err, b)
	}
}

// What ends nobody knows where is refused as such, and the connection closed, under overload too:
// the next request might be its body.
func TestOverloadKeepsNoDoubtfulConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	r.RefuseAll(true, 1)
	c := dial(t, r)
	if _, err := io.WriteString(c, framed(goodBody, "Transfer-Encoding: identity")+request(chatLine, goodBody, hostLine, authLine, jsonLine, lengthLine(goodBody))); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil || strings.Count(string(text), "HTTP/1.1 ") != 1 || !strings.HasPrefix(string(text), "HTTP/1.1 400") {
		t.Errorf("%v: %q", err, text)
	}
}

// dial opens a connection that is kept alive.
func dial(t testing.TB, r *replica) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// post sends a good request on c and reads the whole answer.
func post(c net.Conn, f face, token string) (*http.Response, error) {
	body := chat(false, "hello")
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n%s", f.path, token, len(body), body); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

// While it drains a replica answers what arrives, asks for no more, and then refuses.
func TestRefusedWhileDraining(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(patientUpstream, func(c *proxy.Config) {
				c.Timeouts.PreStop, c.Timeouts.Drain = proxy.Duration(time.Second), proxy.Duration(3*time.Second)
			})
			tok, g := w.token(nil)
			stream, err := r.request(context.Background(), f, tok, chat(true, sim(kimisim.Behavior{StallAfterEvents: 3})))
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Body.Close()
			idle, lame := dial(t, r), dial(t, r)
			drained := make(chan error, 1)
			go func() { drained <- r.drain() }()
			eventually(t, "it is not ready", func() bool { return r.Ready() != nil })

			// Before the listener closes: served, and then the connection ends.
			if resp, err := post(lame, f, tok); err != nil || resp.StatusCode != http.StatusOK || !resp.Close {
				t.Errorf("%+v, %v", resp, err)
			}
			// Then new connections are refused.
			eventually(t, "the listener is closed", func() bool {
				c, err := net.Dial("tcp", r.Addr().String())
				if err == nil {
					_ = c.Close()
				}
				return err != nil
			})
			// The stream that did not finish is cut, visibly.
			b, err := io.ReadAll(stream.Body)
			if !strings.Contains(string(b), "overloaded_error") || err != nil {
				t.Errorf("the stream ends with %v: %.200q", err, b[max(0, len(b)-200):])
			}
			// On a connection from before nothing is served any more.
			if resp, err := post(idle, f, tok); err == nil && resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("status %d on an old connection", resp.StatusCode)
			}
			if err := <-drained; err != nil {
				t.Error(err)
			}
			outcomes := map[contract.Outcome]int{}
			settled := int64(0)
			for _, e := range w.events(2) {
				outcomes[e.Outcome]++
				settled += e.Settled
			}
			if outcomes[contract.OutcomeDrained] != 1 || outcomes[contract.OutcomeOK] != 1 {
				t.Errorf("outcomes %v", outcomes)
			}
			u, err := w.rdb.HMGet(context.Background(), contract.QuotaKey(g.CustomerID, g.Period.ID), "settled", "leased").Result()
			if err != nil || fmt.Sprint(u) != fmt.Sprintf("[%d 0]", settled) {
				t.Errorf("the ledger says %v (%v), the events %d", u, err, settled)
			}
		})
	}
}
