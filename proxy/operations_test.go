package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// A panic costs the request in which it happens, in the handler and in a stream, and
// nothing else: fasthttp would let it end the process.
func TestPanicsAreCaught(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		w := newWorld(t)
		r := w.replica(patientUpstream, func(c *proxy.Config) {
			c.Timeouts.Flush = proxy.Duration(time.Second) // the stream that panics is not settled, which a drain waits for
		})
		tok, _ := w.token(nil)
		end := r.occupy(f, tok, 64)
		panicOn := func(text string) {
			w.logs.mu.Lock()
			w.logs.panic = text
			w.logs.mu.Unlock()
		}
		panicOn(`"blocked":"bad_json"`) // while the handler writes its log line
		refusal{status: 500, typ: "api_error"}.check(t, f, r.post(f, tok, "{"))
		panicOn("more than was reserved") // while a stream is settled
		a := r.post(f, tok, capped(chat(true, sim(kimisim.Behavior{OutputTokens: 3000, ExceedCap: true, TokensPerChunk: 100})), 10))
		if a.status != http.StatusOK || a.err == nil {
			t.Errorf("%s: the stream ended with %d, %v", f.name, a.status, a.err)
		}
		if got := r.metric("token_proxy_panics_total"); got != "2" {
			t.Errorf("%s: %s panics are counted", f.name, got)
		}
		if n := strings.Count(w.logs.String(), "a panic that a test wants"); n < 2 {
			t.Errorf("%s: the log does not tell", f.name)
		}
		eventually(t, "only the other stream is in flight", func() bool { return r.inFlight() == "1" && r.metric("token_proxy_streams") == "1" })
		r.served(f, tok)
		end()
	}
}

// Each request has one line in the log, at its end, whatever becomes of it: with what an
// operator looks for, and with no body and no token.
func TestOneLogLinePerRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	tok, g := w.token(nil)
	const secret = "words of a customer"
	type want struct {
		status  int
		blocked string
		outcome string
		known   bool
	}
	wants := map[string]want{} // by request id
	add := func(a answer, v want) { wants[a.header.Get("X-Request-Id")] = v }
	for _, f := range faces {
		add(r.post(f, tok, chat(true, secret)), want{200, "", "ok", true})
		add(r.post(f, tok, chat(false, secret)), want{200, "", "ok", true})
		add(r.post(f, tok, `{"model":"`+secret), want{400, "bad_json", "", true})
		add(r.post(f, "nonsense", chat(false, secret)), want{401, "bad_token", "", false})
		w.sim.ScriptNext(kimisim.Behavior{Error: "400 token limit"})
		add(r.post(f, tok, chat(false, secret)), want{400, "upstream_refused", "upstream_error", true})
		add(r.post(f, tok, chat(true, secret+sim(kimisim.Behavior{CutAfterEvents: 3}))), want{200, "", "upstream_cut", true})
	}
	add(r.get(tok, "/v1/usage"), want{200, "", "", true})
	add(r.get(tok, "/v1/"+"nothing"), want{404, "path", "", false})
	lines := map[string][]map[string]any{}
	eventually(t, "every request is in the log", func() bool {
		clear(lines)
		for l := range strings.Lines(w.logs.String()) {
			var v map[string]any
			if err := json.Unmarshal([]byte(l), &v); err != nil {
				t.Fatalf("%v in %s", err, l)
			}
			if v["msg"] == "request" {
				id, _ := v["request_id"].(string)
				lines[id] = append(lines[id], v)
			}
		}
		return len(lines) >= len(wants)
	})
	if len(lines) != len(wants) {
		t.Errorf("%d requests in the log, want %d", len(lines), len(wants))
	}
	for id, v := range wants {
		if len(lines[id]) != 1 {
			t.Errorf("%s has %d lines: %+v", id, len(lines[id]), v)
			continue
		}
		l := lines[id][0]
		text := func(name string) string { s, _ := l[name].(string); return s }
		if at, err := time.Parse(time.RFC3339Nano, text("time")); err != nil || time.Since(at).Abs() > time.Minute || text("level") != "INFO" || text("service") != "token-proxy" || text("replica") != r.name {
			t.Errorf("not a line of this replica's log, or %v: %v", err, l)
		}
		if l["status"] != float64(v.status) || text("blocked") != v.blocked || text("outcome") != v.outcome || text("remote") != "127.0.0.1" || l["took_ms"] == nil {
			t.Errorf("want %+v, got %v", v, l)
		}
		if v.known != (text("customer") == g.CustomerID && text("token") == g.TokenID) {
			t.Errorf("customer %q, token %q", text("customer"), text("token"))
		}
		if v.outcome != "" && (text("upstream") == "" || text("model") != model || text("upstream_id") == "" || l["prompt"] == nil || l["charged"] == nil) {
			t.Errorf("a forwarded request: %v", l)
		}
	}
	for _, s := range []string{secret, tok, upstreamKey, "nonsense"} {
		if strings.Contains(w.logs.String(), s) {
			t.Errorf("%q is in the log", s)
		}
	}
}

// Redis holds digests: no key, value, stream entry or channel has a token or a key in it.
func TestRedisHoldsNoTokens(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	w := newWorld(t)
	r := w.replica()
	tok, _ := w.token(nil)
	monitor := w.rdb.PSubscribe(ctx, "*")
	defer monitor.Close()
	for _, f := range faces {
		r.served(f, tok)
		r.post(f, "ocp_"+strings.Repeat("a", 36), chat(false, "x"))
	}
	w.events(2)
	keys, err := w.rdb.Keys(ctx, "*").Result()
	if err != nil || len(keys) < 3 {
		t.Fatalf("%q, %v", keys, err)
	}
	for _, k := range keys {
		dump, err := w.rdb.Dump(ctx, k).Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{tok, tok[4:34], upstreamKey} {
			if strings.Contains(k, s) || strings.Contains(dump, s) {
				t.Errorf("a secret is in %s", k)
			}
		}
	}
}

// The timeouts of a request and of a write are not those of a stream: one may last, and
// be silent, for much longer.
func TestStreamsOutliveTimeouts(t *testing.T) {
	t.Parallel()
	const short = time.Second
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(patientUpstream, func(c *proxy.Config) {
				c.Timeouts.Write, c.Timeouts.ReadRequest, c.Timeouts.Idle = proxy.Duration(short), proxy.Duration(short), proxy.Duration(short)
			})
			tok, _ := w.token(nil)
			for _, b := range []kimisim.Behavior{
				{OutputTokens: 60, TokensPerSecond: 12}, // five times as long
				{OutputTokens: 3, TokensPerSecond: 0.5}, // and silent for twice as long
			} {
				text, err := r.stream(f, tok, chat(true, sim(b)), 0)
				if err != nil || received(text) != b.OutputTokens {
					t.Errorf("%d of %d tokens, %v", received(text), b.OutputTokens, err)
				}
			}
		})
	}
}

// Connections that once carried large bodies do not keep their memory.
func TestLargeBodiesLeaveNoMemory(t *testing.T) {
	w := newWorld(t)
	r := w.replica()
	tok, _ := w.token(nil)
	const conns, size = 12, 4 << 20
	body := chat(false, "hello", `"user":"`+strings.Repeat("x", size)+`"`)
	raw := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n%s", tok, len(body), body)
	once := func(c net.Conn) {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.WriteString(c, raw); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64<<10)
		n, err := c.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200") {
			t.Fatalf("%v: %.200q", err, buf[:n])
		}
	}
	once(dial(t, r))
	before := heap()
	for range conns {
		once(dial(t, r)) // and stays open
	}
	eventually(t, "the bodies' memory is free again", func() bool { return heap() < before+conns*size/4 })
	if got := r.metric("token_proxy_request_bytes"); got != "0" {
		t.Errorf("%s bytes are counted", got)
	}
}
