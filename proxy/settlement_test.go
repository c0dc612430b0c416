package proxy_test

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// An upstream that says that an answer cost nothing is not believed.
func TestZeroUsageIsNotBelieved(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		for _, stream := range []bool{true, false} {
			w := newWorld(t)
			r := w.replica()
			tok, _ := w.token(nil)
			zero := json.RawMessage(`{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`)
			if f.anthropic {
				zero = json.RawMessage(`{"input_tokens":0,"output_tokens":0}`)
			}
			a := r.post(f, tok, chat(stream, sim(kimisim.Behavior{RawUsage: zero, OutputTokens: 20})))
			if a.status != 200 {
				t.Fatalf("status %d: %s", a.status, a.body)
			}
			if e := w.events(1)[0]; e.Basis != contract.BasisEstimated || e.Settled == 0 || e.Completion < 20 {
				t.Errorf("%s, stream %v: %+v", f.name, stream, e)
			}
		}
	}
}

// What an upstream reports on the way is not its last word.
func TestEarlyUsageOfACutStreamIsNotFinal(t *testing.T) {
	t.Parallel()
	o := streamOf(t, strings.Join([]string{
		`data: {"choices":[{"index":0,"delta":{"content":"one two three four"},"finish_reason":null}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}`,
		`data: {"choices":[{"index":0,"delta":{"content":"five six"},"finish_reason":null}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}`,
		"",
	}, "\n\n"))
	w := newWorld(t)
	r := w.replica(o.upstreams)
	tok, _ := w.token(nil)
	r.post(faces[0], tok, chat(true, "hello"))
	e := w.events(1)[0]
	if e.Outcome != contract.OutcomeUpstreamCut || e.Basis != contract.BasisEstimated || e.Completion < 6 || e.Prompt != 9 {
		t.Errorf("%+v", e)
	}
}

// A compressed answer cannot be read, so what it cost is not known: nothing is charged, and
// nobody pretends that the upstream said so.
func TestCompressedAnswerIsNotCounted(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t)
			o.next(func(c net.Conn) {
				_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"))
			})
			w := newWorld(t)
			r := w.replica(o.upstreams)
			tok, g := w.token(nil)
			refusal{status: 502, typ: "upstream_error", retry: "1", says: "compressed"}.check(t, f, r.post(f, tok, chat(false, "hello")))
			e := w.events(1)[0]
			if e.Basis != contract.BasisEstimated || e.Outcome != contract.OutcomeUpstreamCut || e.Settled != 0 || e.Status != 502 {
				t.Errorf("%+v", e)
			}
			if n := r.nothingHeld(g); n != 0 {
				t.Errorf("%d tokens are settled", n)
			}
		})
	}
}

// What is larger than we take, or compressed, ends the answer, but it is no outage: others
// are not kept from the upstream.
func TestOversizedAnswersLeaveTheBreakerClosed(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("x", 64<<10)
	for name, c := range map[string]struct {
		stream bool
		answer string
		broken bool
	}{
		"event":      {true, answerHead("text/event-stream", "X: y") + "data: " + huge, false},
		"answer":     {false, answerHead("application/json", "Content-Length: 100000") + huge, false},
		"compressed": {false, answerHead("application/json", "Content-Length: 100000\r\nContent-Encoding: gzip") + huge, false},
		"cut event":  {true, answerHead("text/event-stream", "X: y") + "data: x", true},
		"cut answer": {false, answerHead("application/json", "Content-Length: 100000") + "{", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t)
			o.next(func(conn net.Conn) {
				_, _ = conn.Write([]byte(c.answer))
				if !c.broken {
					_, _ = conn.Read(make([]byte, 1)) // until the proxy has enough
				}
			})
			w := newWorld(t)
			r := w.replica(o.upstreams, func(c *proxy.Config) {
				c.Limits.EventBytes, c.Limits.AnswerBytes = 10_000, 10_000
				c.Upstreams[0].BreakerFailures = 1
			})
			tok, _ := w.token(nil)
			r.post(faces[0], tok, chat(c.stream, "hello"))
			if e := w.events(1)[0]; e.Outcome != contract.OutcomeUpstreamCut {
				t.Errorf("%+v", e)
			}
			want := map[bool]string{false: "0", true: "1"}[c.broken]
			eventually(t, "the call is over", func() bool { return r.inFlight() == "0" })
			if n := r.metric(`token_proxy_upstream_breaker_open{upstream="kimi"}`); n != want {
				t.Errorf("the breaker's gauge is %s, want %s", n, want)
			}
		})
	}
}

// An upstream that had counted more than was reserved when its answer broke off: the customer
// pays what was reserved at most, the rest is ours, and said.
func TestOverrunOfACutStream(t *testing.T) {
	t.Parallel()
	o := streamOf(t, `data: {"choices":[{"index":0,"delta":{"content":"one two"},"finish_reason":null}],"usage":{"prompt_tokens":9,"completion_tokens":9000000,"total_tokens":9000009}}`+"\n\n")
	w := newWorld(t)
	r := w.replica(o.upstreams)
	tok, _ := w.token(nil)
	r.post(faces[0], tok, chat(true, "hello"))
	e := w.events(1)[0]
	if e.Basis != contract.BasisEstimated || e.Settled > e.Reserved || e.Prompt+e.Completion != e.Settled || e.Settled+e.Unbilled != 9_000_009 {
		t.Errorf("%+v", e)
	}
	if !strings.Contains(w.logs.String(), "ALERT: the upstream counted more than was reserved") {
		t.Error("no alert")
	}
}

// A blank answer to say 429 is an error like any other.
func TestBlank429(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	tok, _ := w.token(nil)
	for i, f := range faces {
		w.sim.ScriptNext(kimisim.Behavior{ErrorResponse: &kimisim.ErrorResponse{Status: 429, BodyText: " \n "}})
		time.Sleep(time.Duration(i) * 1100 * time.Millisecond) // the key cools down for a second
		a := r.post(f, tok, chat(false, "hello"))
		if a.status != 429 || !strings.Contains(a.body, `"message"`) {
			t.Errorf("%s: status %d: %q", f.name, a.status, a.body)
		}
	}
	if strings.Contains(w.logs.String(), "panic") {
		t.Error("the handler panicked")
	}
}

// A suspension says so to a stream in flight, and is no revocation.
func TestSuspendedWhileStreaming(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	tok, g := w.token(nil)
	begun, done := r.begin(faces[0], tok, chat(true, sim(kimisim.Behavior{OutputTokens: 60, TokensPerSecond: 4})))
	<-begun
	g.Version, g.Status = 2, contract.StatusSuspended
	w.put(tok, g)
	if text := (<-done).body; !strings.Contains(text, "permission_error") {
		t.Errorf("the client was told %q", text)
	}
	if a := r.post(faces[0], tok, chat(false, "hi")); a.status != 403 {
		t.Errorf("status %d", a.status)
	}
}

// Comments are no output: an error after nothing else costs nothing.
func TestCommentsAreNoOutput(t *testing.T) {
	t.Parallel()
	o := streamOf(t, ": keep-alive\n\ndata: {\"error\":{\"message\":\"The engine is overloaded\",\"type\":\"engine_overloaded_error\"}}\n\n")
	w := newWorld(t)
	r := w.replica(o.upstreams)
	tok, _ := w.token(nil)
	r.post(faces[0], tok, chat(true, "hello"))
	if e := w.events(1)[0]; e.Settled != 0 || e.Outcome != contract.OutcomeUpstreamError {
		t.Errorf("%+v", e)
	}
}

// An error behind the status of a success reaches the client as an error.
func TestErrorBehindSuccess(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		w := newWorld(t)
		r := w.replica()
		tok, _ := w.token(nil)
		a := r.post(f, tok, chat(false, sim(kimisim.Behavior{ErrorAfterEvents: -1})))
		if a.status != 502 || !strings.Contains(a.body, `"error"`) {
			t.Errorf("%s: status %d: %s", f.name, a.status, a.body)
		}
		if e := w.events(1)[0]; e.Outcome != contract.OutcomeUpstreamError || e.Status != 502 {
			t.Errorf("%s: %+v", f.name, e)
		}
	}
}

// A request that waits for tokens when the drain begins is not forwarded after it.
func TestDrainEndsWaiters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) { c.Timeouts.Drain = proxy.Duration(300 * time.Millisecond) })
	tok, g := w.token(func(g *contract.Grant) { g.MonthlyLimit = 2000 })
	body := `{"model":"` + model + `","max_tokens":1500,"stream":true,"messages":[{"role":"user","content":` + quote(sim(kimisim.Behavior{OutputTokens: 1000, TokensPerSecond: 20})) + `}]}`
	go func() { _, _ = r.stream(faces[0], tok, body, 0) }()
	eventually(t, "the first holds the tokens", func() bool { return w.usage(g.CustomerID).Held > 0 && w.sim.InFlight() == 1 })
	waiting := make(chan string, 1)
	go func() {
		_, err := r.stream(faces[0], tok, body, 0)
		waiting <- err.Error()
	}()
	eventually(t, "it waits for what the first holds", func() bool { return r.inFlight() == "2" })
	if err := r.drain(); err != nil {
		t.Errorf("drain: %v", err)
	}
	if got := <-waiting; !strings.Contains(got, "503") && !strings.Contains(got, "429") && !strings.Contains(got, "EOF") {
		t.Errorf("the waiter got %q", got)
	}
	if n := len(w.chats()); n != 1 {
		t.Errorf("%d requests were forwarded, want 1", n)
	}
	if evs := w.readEvents(); len(evs) != 1 {
		t.Errorf("%d events", len(evs))
	}
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// streamOf is an upstream that answers with one stream.
func streamOf(t *testing.T, body string) *origin {
	o := newOrigin(t)
	o.next(func(c net.Conn) { chunks(c, "text/event-stream", [][]byte{[]byte(body)}) })
	return o
}
