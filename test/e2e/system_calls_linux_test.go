package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// An event of a stream that comes by itself costs token-proxy one read and one write. Of its own affairs,
// such as its talk with Redis, which are in the counters as well, there is little for the time of so many.
func TestSystemCallsPerEvent(t *testing.T) {
	beside(t)
	const (
		streams = 50
		events  = 200 // of each
		most    = 2.1 // calls for each
		own     = 100 // calls of token-proxy's own affairs per second
	)
	u := newLockstepUpstream(t)
	s := stack.New(t, stack.Options{Proxy: func(c map[string]any) {
		c["stream_driver"] = "eventloop"
		for _, one := range c["upstreams"].([]any) {
			one := one.(map[string]any)
			one["base_url"], one["idle_timeout"] = u.server.URL+"/v1", "1m"
		}
	}})
	token := newPlatform(t, s, unbound).customer("streams", 1e9).Raw
	var all []*lockstep
	for range streams {
		all = append(all, u.open(s.Proxies[0], token))
	}
	relay := func(events int) {
		var wg sync.WaitGroup
		for _, l := range all {
			wg.Go(func() {
				for range events {
					if err := l.relay(event); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	relay(5)
	reads, writes := readsAndWrites(t, s.Proxies[0].Pid())
	begun := time.Now()
	relay(events)
	took := time.Since(begun)
	nowRead, nowWritten := readsAndWrites(t, s.Proxies[0].Pid())
	perEvent := func(n int64) float64 { return float64(n) / (streams * events) }
	read, written := perEvent(nowRead-reads), perEvent(nowWritten-writes)
	t.Logf("%d events in %v: %.3f reads and %.3f writes each", streams*events, took.Round(time.Millisecond), read, written)
	if allowed := most + own*took.Seconds()/(streams*events); read+written > allowed {
		t.Errorf("an event costs %.3f reads and %.3f writes, more than %.3f in all", read, written, allowed)
	}
	// Fewer cannot be. A call is counted as it returns, perhaps after what it wrote was read.
	if read < 0.95 || written < 0.95 {
		t.Errorf("%.3f reads and %.3f writes per event: the system does not count them", read, written)
	}
	for _, l := range all {
		l.end()
	}
}

// event is one of a stream.
const event = `data: {"choices":[{"index":0,"delta":{"content":"word"}}]}` + "\n\n"

// lockstepUpstream is an upstream that leaves its answers to the test.
type lockstepUpstream struct {
	t      *testing.T
	server *httptest.Server
	asked  chan net.Conn // on which, and the head and an event were sent
	client *http.Client
}

func newLockstepUpstream(t *testing.T) *lockstepUpstream {
	u := &lockstepUpstream{t: t, asked: make(chan net.Conn, 1), client: newClient()}
	u.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // Hijack leaves what is not read to us
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"+chunkOf(event))
		u.asked <- conn
	}))
	t.Cleanup(u.server.Close)
	return u
}

func chunkOf(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

// lockstep is a stream of which the test has both ends, and sends an event when the one before has
// arrived: each comes to token-proxy by itself, however slow the machine is.
type lockstep struct {
	t        *testing.T
	upstream net.Conn
	client   io.Reader
	got      []byte
}

// open begins a stream through p. Its first event has arrived.
func (u *lockstepUpstream) open(p *stack.Proxy, token string) *lockstep {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	u.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+"/v1/chat/completions", strings.NewReader(chatBody(0, 5000, true, kimisim.Behavior{})))
	if err != nil {
		u.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := u.client.Do(req)
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		u.t.Fatalf("status %d: %s", resp.StatusCode, b)
	}
	l := &lockstep{t: u.t, upstream: <-u.asked, client: resp.Body}
	u.t.Cleanup(func() { l.upstream.Close() })
	if err := l.arrived(event); err != nil {
		u.t.Fatal(err)
	}
	return l
}

// relay sends an event and takes it.
func (l *lockstep) relay(event string) error {
	if _, err := io.WriteString(l.upstream, chunkOf(event)); err != nil {
		return fmt.Errorf("send an event to token-proxy: %w", err)
	}
	return l.arrived(event)
}

func (l *lockstep) arrived(event string) error {
	l.got = append(l.got[:0], event...)
	if _, err := io.ReadFull(l.client, l.got); err != nil {
		return fmt.Errorf("take an event from token-proxy: %w", err)
	}
	if string(l.got) != event {
		return fmt.Errorf("%q came of %q", l.got, event)
	}
	return nil
}

// end ends the stream as it should.
func (l *lockstep) end() {
	l.t.Helper()
	const last = "data: [DONE]\n\n"
	if _, err := io.WriteString(l.upstream, chunkOf(last)+"0\r\n\r\n"); err != nil {
		l.t.Error(err)
	}
	if rest, err := io.ReadAll(l.client); err != nil || string(rest) != last {
		l.t.Errorf("the stream ended with %q, %v", rest, err)
	}
}

// readsAndWrites returns how often a process has read and written, be it of sockets or files, whether
// there was something or not. Waiting is not among it.
func readsAndWrites(t *testing.T, pid int) (reads, writes int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		_, _ = fmt.Sscanf(line, "syscr: %d", &reads)
		_, _ = fmt.Sscanf(line, "syscw: %d", &writes)
	}
	if reads == 0 || writes == 0 {
		t.Fatalf("no counters in %q", b)
	}
	return reads, writes
}
