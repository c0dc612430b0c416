package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// Open streams have places among a listener's connections like all others, whoever drives them: while
// they have all there are nobody else is let in, and somebody is when one is given up, by a client that
// leaves or with a connection that ends after its stream. One that is kept after its stream keeps its
// place, and has only one.
func TestStreamsTakePlaces(t *testing.T) {
	t.Parallel()
	const places = 4
	f := faces[0]
	for _, c := range []struct {
		name    string
		limit   func(*proxy.Limits)
		refused func(t *testing.T, r *replica, token string)
	}{
		{"connections", func(l *proxy.Limits) { l.Connections = places }, func(t *testing.T, r *replica, token string) {
			refusal{status: 503, typ: "overloaded_error", retry: "2", says: "connections"}.check(t, f, r.post(f, token, chat(true, "x")))
		}},
		{"of an address", func(l *proxy.Limits) { l.PerAddress = places }, func(t *testing.T, r *replica, token string) {
			if resp, err := r.request(t.Context(), f, token, chat(true, "x")); err == nil {
				resp.Body.Close()
				t.Errorf("answered %d instead of closed", resp.StatusCode)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := newOrigin(t)
			r := w.replica(o.upstreams, patientUpstream, func(cfg *proxy.Config) { c.limit(&cfg.Limits) })
			tok, _ := w.token(nil)
			ask := strings.ReplaceAll(request("GET /v1/models HTTP/1.1", "", hostLine, authLine), "<token>", tok)
			letIn := func() bool {
				conn, err := net.Dial("tcp", r.Addr().String())
				if err != nil {
					return false // the reset may come while it is being opened
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				if _, err := io.WriteString(conn, ask); err != nil {
					return false
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				return err == nil && resp.StatusCode == http.StatusOK
			}
			full := func(when string) {
				t.Helper()
				if letIn() {
					t.Errorf("%s: one connection too many is let in", when)
				}
				c.refused(t, r, tok)
			}
			free := func(when string) {
				t.Helper()
				eventually(t, when+": somebody is let in", letIn)
				eventually(t, when+": one place is free", func() bool { return r.metric("token_proxy_connections") == strconv.Itoa(places-1) })
			}
			// open returns when the stream has begun, and so is with its driver.
			open := func(lines ...string) (k *kept, end func()) {
				t.Helper()
				const first, last = `data: {"choices":[]}` + "\n\n", "data: [DONE]\n\n"
				held := make(chan struct{})
				end = sync.OnceFunc(func() { close(held) })
				t.Cleanup(end)
				o.next(func(nc net.Conn) {
					_, _ = fmt.Fprintf(nc, "%s%x\r\n%s\r\n", answerHead("text/event-stream", "Transfer-Encoding: chunked"), len(first), first)
					<-held
					_, _ = fmt.Fprintf(nc, "%x\r\n%s\r\n0\r\n\r\n", len(last), last)
				})
				k = r.kept(t, tok)
				k.say(k.text(f, chat(true, "x"), lines...))
				if _, err := k.br.Peek(1); err != nil {
					t.Fatal(err)
				}
				return k, end
			}
			leaves, _ := open()
			stays, endOfStaying := open()
			closes, endOfClosing := open("Connection: close")
			open()
			full("with as many streams as places")
			leaves.Close()
			free("a client has left its stream")
			open()
			full("with a stream in its place")
			endOfClosing()
			closes.whole(true)
			free("a connection has ended after its stream")
			open()
			endOfStaying()
			stays.whole(true)
			full("with a connection that is kept after its stream")
			stays.say(ask)
			stays.whole(false)
			full("with one that carried another request since")
			stays.Close()
			free("a kept connection is closed")
		})
	}
}
