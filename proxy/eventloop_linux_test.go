package proxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// Every stream is driven by the event loop, over TLS as well, and none where that is not wanted.
func TestStreamsAreLooped(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
		var conf *tls.Config
		trusting := option(func(*proxy.Config) {})
		if version != 0 {
			conf, trusting = secured(t)
			conf.MaxVersion = version
		}
		w := newWorldWith(t, kimisim.Config{TLS: conf})
		for driver, want := range map[string]uint32{"eventloop": 4, "": 4, "goroutine": 0} {
			r := w.replica(trusting, func(c *proxy.Config) { c.StreamDriver = driver })
			tok, _ := w.token(nil)
			for _, f := range faces {
				r.post(f, tok, chat(true, "hello"))
				r.post(f, tok, chat(false, "hello"))
				r.post(f, tok, chat(true, sim(kimisim.Behavior{CutAfterEvents: 3})))
			}
			if n := r.LoopStreams(); n != want {
				t.Errorf("TLS %#x, driver %q: %d streams of 4 are looped", version, driver, n)
			}
		}
	}
}

// The total time of an exchange passes also while its client does not read, which is told that it
// did when it reads again. A goroutine that drives a stream is in the write to its client meanwhile, for as
// long as that may take, and finds the time over only afterwards: so this is of the event loop only.
func TestTotalTimeBesideASlowClient(t *testing.T) {
	t.Parallel()
	const tokens = 250_000 // more than is buffered anywhere
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(func(c *proxy.Config) {
				c.Timeouts.Write = proxy.Duration(time.Hour)
				for i := range c.Upstreams {
					c.Upstreams[i].TotalTimeout, c.Upstreams[i].IdleTimeout = proxy.Duration(1500*time.Millisecond), proxy.Duration(time.Hour)
				}
			})
			tok, _ := w.token(nil)
			conn := dialSmall(t, r)
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			k := &kept{t, conn, bufio.NewReader(conn), tok}
			k.say(k.text(f, capped(chat(true, sim(kimisim.Behavior{OutputTokens: tokens})), tokens)))
			ev := w.events(1)[0]
			if ev.Outcome != contract.OutcomeUpstreamTimeout || ev.Basis != contract.BasisEstimated {
				t.Errorf("outcome %s, basis %s", ev.Outcome, ev.Basis)
			}
			w.upstreamClosed(time.Now())
			resp := k.head()
			b, err := io.ReadAll(resp.Body)
			if err != nil || !strings.Contains(string(b), "upstream_timeout") || complete(string(b)) {
				t.Errorf("%d bytes, %v: …%s", len(b), err, b[max(0, len(b)-300):])
			}
			checkCounts(t, ev, received(string(b)))
			k.say(k.text(f, chat(false, "hello")))
			k.whole(false)
		})
	}
}

// What is held for a client that does not read is at most two reads of the upstream and one event, however
// much more the upstream has.
func TestHeldForASlowClient(t *testing.T) {
	t.Parallel()
	const read, rest = 16 << 10, 1 << 10 // rest: the head, the line of a chunk
	for _, size := range []int{100, 100_000} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := newOrigin(t)
			r := w.replica(o.upstreams, patientUpstream)
			tok, _ := w.token(nil)
			event := `data: {"choices":[{"index":0,"delta":{"content":"` + strings.Repeat("x", size) + `"}}]}` + "\n\n"
			chunk := fmt.Sprintf("%x\r\n%s\r\n", len(event), event)
			o.next(func(nc net.Conn) {
				_, err := io.WriteString(nc, answerHead("text/event-stream", "Transfer-Encoding: chunked"))
				for many := strings.Repeat(chunk, 1+read/len(chunk)); err == nil; { // until it is closed
					_, err = io.WriteString(nc, many)
				}
			})
			conn := dialSmall(t, r)
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			k := &kept{t, conn, bufio.NewReader(conn), tok}
			k.say(k.text(faces[0], chat(true, "x")))
			held := func() int {
				n := 0
				for _, one := range r.Pending() {
					n += one
				}
				return n
			}
			eventually(t, "something is held", func() bool { return held() > 0 })
			most := 0
			for range 300 {
				if most = max(most, held()); most > 2*read+len(event)+rest {
					t.Fatalf("%d bytes are held for a client, with events of %d", most, len(event))
				}
				if _, err := io.CopyN(io.Discard, conn, 20<<10); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("at most %d bytes were held, with events of %d", most, len(event))
			k.Close()
			if ev := w.events(1)[0]; ev.Outcome != contract.OutcomeClientGone {
				t.Errorf("outcome %s", ev.Outcome)
			}
		})
	}
}
