package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// When Drain returns, all that was used is settled, every lease is returned, and nobody
// has to reckon with the replica any more.
func TestDrainReturnsLeases(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.quota = quota.Options{ReturnAfter: time.Hour}
			r := w.replica(func(c *proxy.Config) { c.Timeouts.Drain = proxy.Duration(100 * time.Millisecond) })
			tok, g := w.token(nil)
			idle, gi := w.token(nil)
			r.served(f, idle)
			begun, done := r.begin(f, tok, chat(true, sim(kimisim.Behavior{OutputTokens: 64, TokensPerSecond: 4})))
			<-begun
			eventually(t, "the stream has a token and tokens are leased", func() bool {
				return r.metric("token_proxy_streams") == "1" && r.usage(g).Held > 0 && r.usage(gi).Held > 0
			})
			if err := r.drain(); err != nil {
				t.Fatal(err)
			}
			events := w.readEvents()
			settled := map[string]int64{}
			for _, e := range events {
				settled[e.CustomerID] += e.Settled
			}
			if len(events) != 2 {
				t.Errorf("%d events are in Redis", len(events))
			}
			for _, g := range []contract.Grant{g, gi} {
				if u := r.usage(g); u.Held != 0 || u.Settled != settled[g.CustomerID] || u.Settled == 0 {
					t.Errorf("%+v, the events say %d", u, settled[g.CustomerID])
				}
			}
			w.plane.Await("the replica is off the register", func(e quota.Epoch) bool {
				_, ok := e.Members[r.name]
				return !ok
			})
			if text := (<-done).body; !strings.Contains(text, "shutting down") {
				t.Errorf("the client was not told: %q", text)
			}
		})
	}
}

// A replica that ends without Redis keeps its journal and its place on the register: what
// it leases stays reserved until its next life has settled what it used, exactly once.
func TestDrainWithoutRedis(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.quota = quota.Options{ReturnAfter: time.Hour}
			dir := t.TempDir()
			opts := func(c *proxy.Config) {
				c.JournalDir = dir
				c.Timeouts.Redis, c.Timeouts.Drain, c.Timeouts.Flush = proxy.Duration(200*time.Millisecond), proxy.Duration(5*time.Second), proxy.Duration(300*time.Millisecond)
			}
			r := w.replica(opts)
			tok, g := w.token(func(g *contract.Grant) { g.MonthlyLimit = 5000 })
			eventually(t, "a request is served", func() bool { return r.post(f, tok, chat(false, "hello")).status == 200 })
			first := r.nextSettled(g)
			done := make(chan string, 1)
			go func() {
				text, _ := r.stream(f, tok, chat(true, sim(kimisim.Behavior{OutputTokens: 20, StallAfterEvents: 3, StallFor: 500 * time.Millisecond})), 0)
				done <- text
			}()
			eventually(t, "the stream runs", func() bool { return w.sim.InFlight() == 1 })
			w.redis.Pause()
			if err := r.drain(); err == nil {
				t.Error("drained without Redis")
			}
			<-done
			w.redis.Resume()
			if _, ok := w.plane.Await("the epoch is read", func(e quota.Epoch) bool { return e.IsOpen() }).Members[r.name]; !ok {
				t.Error("the replica is off the register")
			}
			u := r.usage(g)
			if u.Settled < first || u.Held == 0 {
				t.Errorf("%+v, %d were settled before, and something is leased", u, first)
			}

			r = w.replica(opts)
			events := w.events(2)
			if u.Settled+u.Held < events[0].Settled+events[1].Settled {
				t.Errorf("%+v while it was away, the events say %d + %d", u, events[0].Settled, events[1].Settled)
			}
			eventually(t, "all is settled, and the old lease is gone", func() bool {
				u := r.usage(g)
				return u.Held == 0 && u.Settled == events[0].Settled+events[1].Settled
			})
			if a := r.post(f, tok, capped(chat(false, "hello"), 3000)); a.status != 200 {
				t.Errorf("what is left is not served: %d %s", a.status, a.body)
			}
		})
	}
}

// An answer that is not a stream is settled before it is written. A client that takes it
// slowly gets all of it all the same: the process ends when Drain returns.
func TestDrainWaitsForAnswers(t *testing.T) {
	t.Parallel()
	for i, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := newOrigin(t)
			r := w.replica(o.upstreams, func(c *proxy.Config) { c.Timeouts.Drain = proxy.Duration(time.Minute) })
			tok, _ := w.token(nil)
			// More than the kernel buffers.
			text := strings.Repeat("x", 16<<20)
			answer := []string{
				`{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"` + text + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30}}`,
				`{"id":"x","type":"message","role":"assistant","content":[{"type":"text","text":"` + text + `"}],"stop_reason":"end_turn","usage":{"input_tokens":10,"output_tokens":20}}`,
			}[i]
			o.next(func(c net.Conn) {
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
			})
			conn := dialSmall(t, r)
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			if _, err := io.WriteString(conn, strings.ReplaceAll(sent(f, chat(false, "hello")), "<token>", tok)); err != nil {
				t.Fatal(err)
			}
			if e := w.events(1)[0]; e.Outcome != contract.OutcomeOK {
				t.Fatalf("outcome %s", e.Outcome)
			}
			drained := make(chan error, 1)
			go func() { drained <- r.drain() }()
			select {
			case err := <-drained:
				t.Fatalf("drained while an answer was being written: %v", err)
			case <-time.After(4 * time.Second):
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || string(body) != answer {
				t.Errorf("%d of %d bytes, %v", len(body), len(answer), err)
			}
			if err := <-drained; err != nil {
				t.Error(err)
			}
		})
	}
}

// A client that reads nothing holds up neither the end nor the return of the leases, however
// long it may take otherwise.
func TestDrainWaitsForNobodyWhoDoesNotRead(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(func(c *proxy.Config) {
				c.Timeouts.Write, c.Timeouts.Drain = proxy.Duration(time.Hour), proxy.Duration(100*time.Millisecond)
			})
			tok, g := w.token(nil)
			conn := dialSmall(t, r)
			const tokens = 250_000 // more than is buffered anywhere
			body := capped(chat(true, sim(kimisim.Behavior{OutputTokens: tokens})), tokens)
			if _, err := io.WriteString(conn, strings.ReplaceAll(sent(f, body), "<token>", tok)); err != nil {
				t.Fatal(err)
			}
			produced := 0
			eventually(t, "nothing goes on any more", func() bool {
				before := produced
				time.Sleep(200 * time.Millisecond)
				if all := w.chats(); len(all) > 0 {
					produced = all[0].ProducedTokens
				}
				return produced > 0 && produced == before && w.sim.InFlight() == 1
			})
			if err := r.drain(); err != nil {
				t.Error(err)
			}
			if e := w.readEvents(); len(e) != 1 || r.usage(g).Held != 0 {
				t.Errorf("%d events, %+v", len(e), r.usage(g))
			}
		})
	}
}

// Who does not take the rest of a stream that has ended holds up the end of a drain as little,
// nor does who takes it in drops.
func TestDrainWaitsForNoRest(t *testing.T) {
	t.Parallel()
	for _, drops := range []bool{false, true} {
		t.Run(fmt.Sprintf("drops=%v", drops), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := newOrigin(t)
			const size = 16 << 20 // more than is buffered anywhere
			r := w.replica(o.upstreams, patientUpstream, func(c *proxy.Config) {
				c.Limits.EventBytes = 2 * size
				c.Timeouts.Write, c.Timeouts.Drain = proxy.Duration(time.Hour), proxy.Duration(100*time.Millisecond)
			})
			tok, g := w.token(nil)
			o.next(func(nc net.Conn) {
				_, _ = io.WriteString(nc, answerHead("text/event-stream", "Content-Length: 1000000000")+
					`data: {"choices":[{"index":0,"delta":{"content":"`+strings.Repeat("x", size))
				time.Sleep(2 * time.Second) // so that the end is read in one piece
				_, _ = io.WriteString(nc, `"}}]}`+"\n\n"+`data: {"error":{"message":"broken","type":"server_error"}}`+"\n\n")
				_, _ = nc.Read(make([]byte, 1)) // until the proxy has closed it
			})
			conn := dialSmall(t, r)
			if _, err := io.WriteString(conn, strings.ReplaceAll(sent(faces[0], chat(true, "hello")), "<token>", tok)); err != nil {
				t.Fatal(err)
			}
			if ev := w.events(1)[0]; ev.Outcome != contract.OutcomeUpstreamError {
				t.Errorf("outcome %s", ev.Outcome)
			}
			if n := r.metric("token_proxy_streams"); n != "1" {
				t.Fatalf("%s streams run: the whole stream fitted into buffers", n)
			}
			if drops {
				go func() { // until the connection is closed
					for b := make([]byte, 4096); ; time.Sleep(10 * time.Millisecond) {
						if _, err := conn.Read(b); err != nil {
							return
						}
					}
				}()
			}
			if err := r.drain(); err != nil {
				t.Error(err)
			}
			if u := r.usage(g); u.Held != 0 {
				t.Errorf("%+v", u)
			}
		})
	}
}

// A stream that a shutdown cuts is told so also when its upstream was silent for longer than a
// write may take.
func TestDrainTellsAfterASilence(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			const write = 300 * time.Millisecond
			r := w.replica(patientUpstream, func(c *proxy.Config) {
				c.Timeouts.Write, c.Timeouts.Drain = proxy.Duration(write), proxy.Duration(100*time.Millisecond)
			})
			tok, _ := w.token(nil)
			k := r.kept(t, tok)
			k.say(k.text(f, chat(true, sim(kimisim.Behavior{StallAfterEvents: 4}))))
			resp := k.head()
			time.Sleep(write + 700*time.Millisecond)
			if err := r.drain(); err != nil {
				t.Error(err)
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil || !strings.Contains(string(b), "shutting down") {
				t.Errorf("the client was not told: %q, %v", b, err)
			}
			if ev := w.events(1)[0]; ev.Outcome != contract.OutcomeDrained {
				t.Errorf("outcome %s", ev.Outcome)
			}
		})
	}
}

// nextSettled waits until something is settled for the customer, and returns how much.
func (r *replica) nextSettled(g contract.Grant) (n int64) {
	r.w.t.Helper()
	eventually(r.w.t, "something is settled", func() bool { n = r.usage(g).Settled; return n > 0 })
	return n
}
