package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// A client that sends its request in drops has the time of ReadRequest for all of it,
// on a new connection and on a kept one, be it the head or the body that is slow.
func TestSlowRequests(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) { c.Timeouts.ReadRequest = proxy.Duration(limit) })
	tok, _ := w.token(nil)
	good := strings.ReplaceAll(line(chatLine), "<token>", tok)
	head, _, _ := strings.Cut(good, "{")
	for _, c := range []struct{ name, before, first, drops string }{
		{"head", "", "POST /v1/chat/completions HTTP/1.1\r\n", strings.Repeat("X-A: b\r\n", 10_000)},
		{"one byte", "", "P", ""},
		{"body", "", head + "{", strings.Repeat(" ", 10_000)},
		{"chunks", "", strings.Replace(head, lengthLine(goodBody), chunkedLine, 1), strings.Repeat("1\r\n \r\n", 10_000)},
		{"head on a kept connection", good, "POST", strings.Repeat("T", 10_000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", r.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			br := bufio.NewReader(conn)
			if c.before != "" {
				if _, err := io.WriteString(conn, c.before); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(br, nil)
				if err != nil || resp.StatusCode != 200 {
					t.Fatalf("first request: %v %v", resp, err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Fatal(err)
				}
			}
			start := time.Now()
			if _, err := io.WriteString(conn, c.first); err != nil {
				t.Fatal(err)
			}
			go func() { // until the connection is closed
				for i := range len(c.drops) {
					if _, err := io.WriteString(conn, c.drops[i:i+1]); err != nil {
						return
					}
					time.Sleep(60 * time.Millisecond) // longer than limit for the shortest body
				}
			}()
			got, err := io.ReadAll(br)
			if took := time.Since(start); took > limit+5*time.Second {
				t.Errorf("closed after %v", took)
			}
			// The reset that drops after the answer cause may swallow it.
			if len(got) > 0 || err == nil {
				answers, err := responses(got, false)
				// fasthttp hides that a timeout ended a chunk's first line.
				if err != nil || len(answers) != 1 || answers[0].status != 408 && (c.name != "chunks" || answers[0].status != 400) {
					t.Errorf("not one 408: %v: %q", err, got)
				}
			}
		})
	}
	t.Cleanup(func() { w.noneForwarded(1) })
}

// dialSmall opens a connection whose client takes little that it does not read.
func dialSmall(t *testing.T, r *replica) net.Conn {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		if e := rc.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) }); e != nil {
			return e
		}
		return err
	}}
	conn, err := d.DialContext(context.Background(), "tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// A client that asks for a long stream and does not read it is cut when a write has
// waited for Write, and pays for what was produced.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(func(c *proxy.Config) { c.Timeouts.Write = proxy.Duration(500 * time.Millisecond) })
			tok, _ := w.token(nil)
			conn := dialSmall(t, r)
			// More than the kernel buffers between the simulator and a peer that does not read:
			// several megabytes on each of the two connections.
			const tokens = 250_000
			body := fmt.Sprintf(`{"model":%q,"max_tokens":%d,"stream":true,"messages":[{"role":"user","content":%q}]}`,
				model, tokens, sim(kimisim.Behavior{OutputTokens: tokens}))
			if _, err := io.WriteString(conn, strings.ReplaceAll(sent(f, body), "<token>", tok)); err != nil {
				t.Fatal(err)
			}
			e := w.events(1)[0]
			if e.Outcome != contract.OutcomeClientGone || e.Basis != contract.BasisEstimated {
				t.Errorf("outcome %s, basis %s", e.Outcome, e.Basis)
			}
			entry, err := w.sim.WaitClosed(w.chats()[0].ID, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if entry.ProducedTokens >= tokens {
				t.Fatal("the whole stream fitted into buffers: the test shows nothing")
			}
			if e.Prompt < int64(entry.PromptTokens) || e.Completion == 0 || e.Completion > tokens || e.Settled > e.Reserved {
				t.Errorf("metered %d+%d (settled %d of %d), the upstream had %d and produced %d", e.Prompt, e.Completion, e.Settled, e.Reserved, entry.PromptTokens, entry.ProducedTokens)
			}
		})
	}
}

// A kept connection without a request is closed after Idle, without a word.
func TestIdleConnectionCloses(t *testing.T) {
	t.Parallel()
	const idle = 2 * time.Second
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) { c.Timeouts.Idle = proxy.Duration(idle) })
	tok, _ := w.token(nil)
	conn, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(conn)
	var start time.Time
	for range 2 {
		start = time.Now()
		if _, err := io.WriteString(conn, strings.ReplaceAll(line(chatLine), "<token>", tok)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 || resp.Close {
			t.Fatalf("status %d, close %v, %v", resp.StatusCode, resp.Close, err)
		}
	}
	rest, err := io.ReadAll(br)
	took := time.Since(start)
	if err != nil || len(rest) > 0 {
		t.Errorf("closed with %q, %v", rest, err)
	}
	if took < idle || took > idle+10*time.Second {
		t.Errorf("closed after %v, want %v", took, idle)
	}
}

// One address may have PerAddress connections; one more is closed at once, and a place
// that is given up can be had again.
func TestConnectionsPerAddress(t *testing.T) {
	t.Parallel()
	const limit = 5
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) { c.Limits.PerAddress = limit })
	tok, _ := w.token(nil)
	ask := strings.ReplaceAll(request("GET /v1/usage HTTP/1.1", "", hostLine, authLine), "<token>", tok)
	served := func(conn net.Conn) bool {
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, ask); err != nil {
			return false
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	}
	// one opens one more connection. The reset may come while it is being opened.
	one := func() (net.Conn, bool) {
		conn, err := net.Dial("tcp", r.Addr().String())
		if err != nil {
			return nil, false
		}
		t.Cleanup(func() { conn.Close() })
		return conn, served(conn)
	}
	var open []net.Conn
	for i := range limit {
		conn, ok := one()
		if !ok {
			t.Fatalf("connection %d is not served", i+1)
		}
		open = append(open, conn)
	}
	for range 3 {
		if _, ok := one(); ok {
			t.Errorf("connection %d is served", limit+1)
		}
	}
	if !served(open[0]) {
		t.Error("a connection within the limit is not served any more")
	}
	open[0].Close()
	eventually(t, "the free place can be had", func() bool { _, ok := one(); return ok })
}

// One connection more than Connections is told so, in its client's shape, and closed; one
// that says nothing does not stay. A place that is given up can be had again.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	const limit = 4
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) { c.Limits.Connections = limit })
	tok, _ := w.token(nil)
	var open []net.Conn
	for range limit {
		c := dial(t, r)
		if resp, err := post(c, faces[0], tok); err != nil || resp.StatusCode != http.StatusOK || resp.Close {
			t.Fatalf("within the limit: %+v, %v", resp, err)
		}
		open = append(open, c)
	}
	silent := dial(t, r)
	blocked := `token_proxy_blocked_total{reason="overloaded"}`
	for i := range 6 {
		f := faces[i%2]
		a := r.post(f, tok, chat(i%4 < 2, "hello"))
		refusal{status: 503, typ: "overloaded_error", retry: "2", says: "connections"}.check(t, f, a)
		if got := r.metric(blocked); got != strconv.Itoa(i+1) {
			t.Errorf("%s = %s after %d", blocked, got, i+1)
		}
	}
	if resp, err := post(dial(t, r), faces[0], tok); err != nil || resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
		t.Errorf("one connection too many: %+v, %v", resp, err)
	}
	if n := len(w.chats()); n != limit {
		t.Errorf("%d requests forwarded", n)
	}
	// Those within the limit go on.
	if resp, err := post(open[1], faces[1], tok); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("an old connection: %+v, %v", resp, err)
	}
	_ = silent.SetReadDeadline(time.Now().Add(20 * time.Second))
	if b, err := io.ReadAll(silent); err != nil { // it is closed, with or without a word
		t.Errorf("a silent connection too many: %v, %q", err, b)
	}
	_ = open[0].Close()
	eventually(t, "the free place can be had", func() bool {
		return r.post(faces[0], tok, chat(false, "hello")).status == http.StatusOK
	})
}

// Whoever allows more connections than the system does learns of it at the start.
func TestTooFewFilesAreTold(t *testing.T) {
	t.Parallel()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		connections int
		told        bool
	}{{1, limit.Cur < 1282}, {1 << 40, limit.Cur < 1<<40}} {
		w := newWorld(t)
		w.replica(func(cfg *proxy.Config) { cfg.Limits.Connections = c.connections })
		if told := strings.Contains(w.logs.String(), "RLIMIT_NOFILE"); told != c.told {
			t.Errorf("%d connections, %d files: told %v", c.connections, limit.Cur, told)
		}
	}
}
