package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// kept is a client's connection that carries several requests.
type kept struct {
	*testing.T
	net.Conn
	br    *bufio.Reader
	token string
}

func (r *replica) kept(t *testing.T, token string) *kept {
	t.Helper()
	c := dial(t, r)
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &kept{t, c, bufio.NewReader(c), token}
}

// text is a request as it goes over the wire, with more header lines.
func (k *kept) text(f face, body string, lines ...string) string {
	s := strings.Replace(sent(f, body), "\r\n", "\r\n"+strings.Join(append(lines, ""), "\r\n"), 1)
	return strings.ReplaceAll(s, "<token>", k.token)
}

func (k *kept) say(text string) {
	k.Helper()
	if _, err := io.WriteString(k.Conn, text); err != nil {
		k.Fatal(err)
	}
}

// head reads the head of an answer.
func (k *kept) head() *http.Response {
	k.Helper()
	resp, err := http.ReadResponse(k.br, nil)
	if err != nil {
		k.Fatal(err)
	}
	return resp
}

// whole reads a whole answer, which must be a good one.
func (k *kept) whole(stream bool) (*http.Response, string) {
	k.Helper()
	resp := k.head()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		k.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	if chunked := len(resp.TransferEncoding) > 0; chunked != stream || stream && !complete(string(b)) {
		k.Fatalf("chunked %v, body %q", chunked, b)
	}
	return resp, string(b)
}

// complete reports whether text has an end mark.
func complete(text string) bool {
	return strings.Contains(text, "data: [DONE]") || strings.Contains(text, "message_stop")
}

// A connection serves streams and other answers in any order, each over upstream connections
// that are used again, and is counted once.
func TestKeptConnections(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica()
			tok, _ := w.token(nil)
			k := r.kept(t, tok)
			ids := map[string]bool{}
			for i := range 20 {
				stream := i%3 != 2
				k.say(k.text(f, chat(stream, sim(kimisim.Behavior{OutputTokens: 5 + i}))))
				resp, body := k.whole(stream)
				if resp.Close {
					t.Fatal("the connection is to be closed")
				}
				if n := received(body); stream && n != 5+i {
					t.Errorf("%d tokens, want %d", n, 5+i)
				}
				ids[resp.Header.Get("X-Request-Id")] = true
			}
			if len(ids) != 20 {
				t.Errorf("%d request ids", len(ids))
			}
			if n := r.metric("token_proxy_connections"); n != "1" {
				t.Errorf("%s connections", n)
			}
			busy, idle := fmt.Sprintf(`token_proxy_upstream_connections{state="busy",upstream=%q}`, f.upstream()), fmt.Sprintf(`token_proxy_upstream_connections{state="idle",upstream=%q}`, f.upstream())
			if b, i := r.metric(busy), r.metric(idle); b != "0" || i != "1" {
				t.Errorf("%s busy and %s idle connections to the upstream", b, i)
			}
			for _, ev := range w.events(20) {
				if ev.Outcome != contract.OutcomeOK || ev.Basis != contract.BasisUpstream {
					t.Errorf("outcome %s, basis %s", ev.Outcome, ev.Basis)
				}
			}
			k.Close()
			eventually(t, "it is not counted any more", func() bool {
				return r.metric("token_proxy_connections") == "0" && r.metric("token_proxy_streams") == "0" && r.inFlight() == "0"
			})
		})
	}
}

// upstream is the name of the upstream that serves the face.
func (f face) upstream() string {
	if f.anthropic {
		return "kimi-anthropic"
	}
	return "kimi"
}

// Requests that are sent before the answer to an earlier one is over are answered in their order,
// whether they come in one piece with it or while its stream runs.
func TestPipelinedRequests(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/early=%v", f.name, early), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				r := w.replica()
				tok, _ := w.token(nil)
				k := r.kept(t, tok)
				const n = 6
				one := func(i int) string {
					return k.text(f, chat(i%3 != 1, sim(kimisim.Behavior{OutputTokens: 10 + i, TokensPerSecond: 200})))
				}
				var rest strings.Builder
				for i := 1; i < n; i++ {
					rest.WriteString(one(i))
				}
				if early {
					k.say(one(0))
					k.br.Peek(1) //nolint:errcheck // the answer runs; whole finds what is wrong
					half := rest.Len() / 2
					k.say(rest.String()[:half])
					time.Sleep(10 * time.Millisecond)
					k.say(rest.String()[half:])
				} else {
					k.say(one(0) + rest.String())
				}
				for i := range n {
					_, body := k.whole(i%3 != 1)
					if got := received(body); i%3 != 1 && got != 10+i {
						t.Errorf("answer %d has %d tokens, want %d", i, got, 10+i)
					}
				}
				w.events(n)
			})
		}
	}
}

// Many clients do on kept connections whatever comes to their mind: streams and other answers, in
// a row and pipelined, cut ones, slowly read ones, and leaving in the middle. Each request has its
// event, and nothing is left of them.
func TestKeptConnectionsAtRandom(t *testing.T) {
	t.Parallel()
	t.Log("drawn at random, so no run is like another")
	const clients, acts = 16, 25
	w := newWorld(t)
	r := w.replica(patientUpstream)
	tok, g := w.token(nil)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			k := r.kept(t, tok)
			leave := func() { k.Close(); k = r.kept(t, tok) }
			defer func() { k.Close() }()
			for range acts {
				f := faces[rand.IntN(2)]
				some := kimisim.Behavior{OutputTokens: 1 + rand.IntN(40)}
				switch rand.IntN(7) {
				case 0, 1:
					k.say(k.text(f, chat(true, sim(some))))
					k.whole(true)
				case 2:
					k.say(k.text(f, chat(false, sim(some))) + k.text(f, chat(true, sim(some))))
					k.whole(false)
					k.whole(true)
				case 3: // the next one is sent in the middle
					some.TokensPerSecond = 500
					k.say(k.text(f, chat(true, sim(some))))
					k.br.Peek(200) //nolint:errcheck // whole finds what is wrong
					k.say(k.text(f, chat(true, "hello")))
					k.whole(true)
					k.whole(true)
				case 4: // cut, and served on
					some.CutAfterEvents = 1 + rand.IntN(5)
					k.say(k.text(f, chat(true, sim(some))))
					resp := k.head()
					if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), "error") && !complete(string(b)) {
						t.Errorf("cut: %q, %v", b, err)
					}
				case 5:
					k.say(k.text(f, chat(true, sim(kimisim.Behavior{StallAfterEvents: 1 + rand.IntN(4)}))))
					k.head()
					leave()
				case 6: // with the next one sent already
					k.say(k.text(f, chat(true, sim(kimisim.Behavior{StallAfterEvents: 3}))))
					k.head()
					k.say(k.text(f, chat(true, "hello"))[:rand.IntN(100)])
					leave()
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all is over", func() bool {
		return r.inFlight() == "0" && r.metric("token_proxy_streams") == "0" && r.metric("token_proxy_connections") == "0" && w.sim.InFlight() == 0
	})
	forwarded := len(w.chats())
	var settled int64
	for _, ev := range w.events(forwarded) {
		settled += ev.Settled
	}
	if n := r.nothingHeld(g); n != settled {
		t.Errorf("%d tokens are settled, the events say %d", n, settled)
	}
	for _, f := range faces {
		if n := r.metric(fmt.Sprintf(`token_proxy_upstream_connections{state="busy",upstream=%q}`, f.upstream())); n != "0" {
			t.Errorf("%s: %s connections to the upstream are busy", f.name, n)
		}
	}
}

// A client that asks for its connection to be closed after a stream is told so, and it is.
func TestStreamThenClose(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		w := newWorld(t)
		r := w.replica()
		tok, _ := w.token(nil)
		k := r.kept(t, tok)
		k.say(k.text(f, chat(true, "hello"), "Connection: close"))
		if resp, _ := k.whole(true); !resp.Close {
			t.Errorf("%s: the answer does not say that the connection is closed", f.name)
		}
		if b, err := io.ReadAll(k.br); err != nil || len(b) > 0 {
			t.Errorf("%s: after the answer: %q, %v", f.name, b, err)
		}
		if ev := w.events(1)[0]; ev.Outcome != contract.OutcomeOK {
			t.Errorf("%s: outcome %s", f.name, ev.Outcome)
		}
		eventually(t, "it is not counted any more", func() bool { return r.metric("token_proxy_connections") == "0" })
	}
}

// After a stream a connection waits for its next request like any other: for Idle, however
// short ReadRequest is; then it is closed without a word.
func TestIdleAfterAStream(t *testing.T) {
	t.Parallel()
	const idle = 4 * time.Second
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) {
		c.Timeouts.Idle, c.Timeouts.ReadRequest = proxy.Duration(idle), proxy.Duration(time.Second)
	})
	tok, _ := w.token(nil)
	k := r.kept(t, tok)
	f := faces[0]
	for range 2 {
		k.say(k.text(f, chat(true, "hello")))
		k.whole(true)
		time.Sleep(1500 * time.Millisecond) // longer than a request may take to arrive
	}
	start := time.Now()
	k.say(k.text(f, chat(true, "hello")))
	k.whole(true)
	b, err := io.ReadAll(k.br)
	if took := time.Since(start); err != nil || len(b) > 0 || took < idle || took > idle+10*time.Second {
		t.Errorf("closed after %v with %q, %v", took, b, err)
	}
}

// A connection on which nothing was ever asked, as programs open them ahead, is closed without a word, too: what
// is said on it meanwhile could be taken for the answer of a request that is just being sent.
func TestNothingIsSaidUnasked(t *testing.T) {
	t.Parallel()
	const limit = time.Second
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) { c.Timeouts.ReadRequest = proxy.Duration(limit) })
	conn, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit + 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	b, err := io.ReadAll(conn)
	if took := time.Since(start); err != nil || len(b) > 0 || took < limit*9/10 {
		t.Errorf("closed after %v with %q, %v", took, b, err)
	}
}

// A request that is slow to arrive after a stream has the time of ReadRequest, from its first byte.
func TestSlowRequestAfterAStream(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) { c.Timeouts.ReadRequest = proxy.Duration(limit) })
	tok, _ := w.token(nil)
	f := faces[0]
	for _, ahead := range []string{"", "POST /v1/chat/comp"} { // the beginning comes later, or with the first request
		k := r.kept(t, tok)
		k.say(k.text(f, chat(true, "hello")) + ahead)
		k.whole(true)
		if ahead == "" {
			k.say("POST /v1")
		}
		start := time.Now()
		resp := k.head()
		if took := time.Since(start); resp.StatusCode != http.StatusRequestTimeout || took > limit+5*time.Second {
			t.Errorf("%q: status %d after %v", ahead, resp.StatusCode, took)
		}
	}
}

// A client that closes its sending side while its stream runs has left; once it has the end mark
// that is nobody's concern.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		w := newWorld(t)
		r := w.replica()
		tok, _ := w.token(nil)
		k := r.kept(t, tok)
		k.say(k.text(f, chat(true, sim(kimisim.Behavior{StallAfterEvents: 4}))))
		k.head()
		if err := k.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if ev := w.events(1)[0]; ev.Outcome != contract.OutcomeClientGone {
			t.Errorf("%s: outcome %s", f.name, ev.Outcome)
		}
		w.upstreamClosed(time.Now())

		k = r.kept(t, tok)
		k.say(k.text(f, chat(true, "hello")))
		k.whole(true)
		if err := k.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(k.br); err != nil || len(b) > 0 {
			t.Errorf("%s: %q, %v", f.name, b, err)
		}
		if ev := w.events(2)[1]; ev.Outcome != contract.OutcomeOK {
			t.Errorf("%s: outcome %s", f.name, ev.Outcome)
		}
	}
}

// A client that reads slowly gets everything, the upstream waits for it meanwhile, and its
// connection serves on.
func TestSlowReaderGetsEverything(t *testing.T) {
	t.Parallel()
	const tokens = 200_000
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(patientUpstream)
			tok, _ := w.token(nil)
			c := dialSmall(t, r)
			_ = c.SetDeadline(time.Now().Add(60 * time.Second))
			k := &kept{t, c, bufio.NewReaderSize(c, 4096), tok}
			k.say(k.text(f, capped(chat(true, sim(kimisim.Behavior{OutputTokens: tokens, TokensPerChunk: 20})), tokens)))
			time.Sleep(300 * time.Millisecond)
			if n := len(w.readEvents()); n != 0 {
				t.Fatal("the stream is over although nobody reads it: the test shows nothing")
			}
			if _, body := k.whole(true); received(body) != tokens {
				t.Errorf("%d tokens were received", received(body))
			}
			if ev := w.events(1)[0]; ev.Outcome != contract.OutcomeOK || ev.Completion != tokens {
				t.Errorf("outcome %s, %d tokens", ev.Outcome, ev.Completion)
			}
			k.say(k.text(f, chat(true, "hello")))
			k.whole(true)
		})
	}
}

// Events of any size up to the limit pass; one that is larger by more than a read ends the stream as a cut.
func TestLargeEvents(t *testing.T) {
	t.Parallel()
	const limit = 200_000
	w := newWorld(t)
	o := newOrigin(t)
	r := w.replica(o.upstreams, func(c *proxy.Config) { c.Limits.EventBytes = limit })
	tok, _ := w.token(nil)
	f := faces[0]
	event := func(size int) string {
		return `data: {"choices":[{"index":0,"delta":{"content":"` + strings.Repeat("x", size) + `"}}]}` + "\n\n"
	}
	for i, c := range []struct {
		size  int
		whole bool
	}{{1000, true}, {20_000, true}, {150_000, true}, {limit + 40_000, false}} {
		want := event(10) + event(c.size) + event(10) + "data: [DONE]\n\n"
		o.next(func(nc net.Conn) { chunks(nc, "text/event-stream", [][]byte{[]byte(want)}) })
		a := r.post(f, tok, chat(true, "x"))
		if c.whole && (a.body != want || a.err != nil) {
			t.Errorf("%d bytes: %d of %d bytes came, %v", c.size, len(a.body), len(want), a.err)
		}
		if !c.whole && (!strings.HasPrefix(a.body, event(10)+`data: {"error"`) && !strings.Contains(a.body, "error") || complete(a.body)) {
			t.Errorf("%d bytes: %.200q", c.size, a.body)
		}
		outcome := contract.OutcomeOK
		if !c.whole {
			outcome = contract.OutcomeUpstreamCut
		}
		if ev := w.events(i + 1)[i]; ev.Outcome != outcome {
			t.Errorf("%d bytes: outcome %s", c.size, ev.Outcome)
		}
	}
}

// An upstream that does not end its body after the end mark does not hold up the client, whose
// connection serves on.
func TestBodyThatStaysOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := newOrigin(t)
	r := w.replica(o.upstreams, patientUpstream)
	tok, _ := w.token(nil)
	const body = "data: [DONE]\n\n"
	hold := make(chan struct{})
	defer close(hold)
	o.next(func(nc net.Conn) {
		_, _ = fmt.Fprintf(nc, "%s%x\r\n%s\r\n", answerHead("text/event-stream", "Transfer-Encoding: chunked"), len(body), body)
		<-hold
	})
	k := r.kept(t, tok)
	for i := range 2 {
		k.say(k.text(faces[0], chat(true, "x")))
		if _, got := k.whole(true); got != body {
			t.Errorf("%q", got)
		}
		if ev := w.events(i + 1)[i]; ev.Outcome != contract.OutcomeOK {
			t.Errorf("outcome %s", ev.Outcome)
		}
	}
}

// A drain lets streams end that go to kept connections, and closes those that are idle after one.
func TestDrainWithKeptConnections(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(patientUpstream)
			tok, _ := w.token(nil)
			idle, running := r.kept(t, tok), r.kept(t, tok)
			idle.say(idle.text(f, chat(true, "hello")))
			idle.whole(true)
			running.say(running.text(f, chat(true, sim(kimisim.Behavior{OutputTokens: 40, TokensPerSecond: 40}))))
			running.head()
			eventually(t, "the stream runs", func() bool { return r.metric("token_proxy_streams") == "1" })
			if err := r.drain(); err != nil {
				t.Fatal(err)
			}
			for i, ev := range w.events(2) {
				if ev.Outcome != contract.OutcomeOK {
					t.Errorf("stream %d: outcome %s", i, ev.Outcome)
				}
			}
			start := time.Now()
			for _, k := range []*kept{idle, running} {
				if _, err := io.Copy(io.Discard, k.br); err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("closed %v after the drain", took)
			}
		})
	}
}
