package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// cutOff is a system of two replicas, the first of which can be cut off from Redis.
type cutOff struct {
	t      *testing.T
	s      *stack.Stack
	p      *platform
	link   *link
	client *http.Client
	grace  time.Duration
}

func newCutOff(t *testing.T) *cutOff {
	t.Helper()
	r := testenv.Redis(t)
	c := &cutOff{t: t, link: newLink(t, r.Addr), client: newClient(), grace: full(3*time.Second, 10*time.Second)}
	first := true
	c.s = stack.New(t, stack.Options{Redis: r, Replicas: 2, Proxy: func(cfg map[string]any) {
		if first {
			cfg["redis_url"] = c.link.url()
		}
		first = false
		cfg["timeouts"].(map[string]any)["grace"] = c.grace.String()
		cfg["log_level"] = "warn"
	}})
	c.p = newPlatform(t, c.s, unbound)
	return c
}

func (c *cutOff) ask(p *stack.Proxy, tok stack.Token) reply {
	return send(context.Background(), c.client, p, chat{token: tok.Raw, body: chatBody(0, 10, false, kimisim.Behavior{OutputTokens: 5})}, nil)
}

// warm has the first replica serve a customer for a while, so that it leases some for it.
func (c *cutOff) warm(toks ...stack.Token) {
	c.t.Helper()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, tok := range toks {
			if a := c.ask(c.s.Proxies[0], tok); a.status != http.StatusOK {
				c.t.Fatalf("status %d %s", a.status, a.code)
			}
		}
	}
}

// back waits until the first replica serves one token and refuses the other.
func (c *cutOff) back(served, refused stack.Token) {
	c.t.Helper()
	c.s.Eventually("the replica serves again, and knows what was revoked", 20*time.Second, func() bool {
		return c.ask(c.s.Proxies[0], served).status == http.StatusOK && c.ask(c.s.Proxies[0], refused).status == http.StatusUnauthorized
	})
}

// A replica that is cut off from Redis serves from what it leases for the grace, and not a
// moment longer; what was revoked meanwhile it never serves again.
func TestCutOffReplicaRefusesAfterTheGrace(t *testing.T) {
	t.Parallel()
	c := newCutOff(t)
	tok, revoked := c.p.customer("Kay", 1e9), c.p.customer("Rey", 1e9)
	c.warm(tok, revoked)
	c.link.sever()
	cut := time.Now()
	if _, err := c.p.RevokeToken(t.Context(), "test", revoked.ID); err != nil {
		t.Fatal(err)
	}
	c.s.Eventually("the other replica knows", 5*time.Second, func() bool { return c.ask(c.s.Proxies[1], revoked).status == http.StatusUnauthorized })
	var last, first time.Duration
	served := 0
	for {
		after := time.Since(cut)
		if after > c.grace+2*time.Second {
			break
		}
		for _, tok := range []stack.Token{tok, revoked} {
			after := time.Since(cut)
			switch a := c.ask(c.s.Proxies[0], tok); {
			case a.status == http.StatusOK:
				last = max(last, after)
				served++
				if after >= c.grace {
					t.Errorf("served %v after the cut; the grace is %v", after, c.grace)
				}
			case a.status == http.StatusServiceUnavailable && a.retryAfter != "":
				if first == 0 {
					first = after
				}
				if after < c.grace/2 {
					t.Errorf("refused %v after the cut, although more is leased: %s", after, a.code)
				}
			default:
				t.Errorf("%v after the cut: status %d %s", after, a.status, a.code)
			}
		}
		time.Sleep(50 * time.Millisecond) // more rarely than before: what is leased is enough
	}
	t.Logf("grace %v: %d served after the cut, the last one sent after %v; the first refused after %v", c.grace, served, last.Round(time.Millisecond), first.Round(time.Millisecond))
	if first == 0 {
		t.Error("nothing was refused")
	}
	c.link.heal()
	c.back(tok, revoked)
}

// A replica that was stopped for longer than the grace serves nothing before it has heard
// from Redis, beginning with the requests that wait in its sockets when it goes on.
func TestStoppedReplicaRefusesAtFirst(t *testing.T) {
	t.Parallel()
	c := newCutOff(t)
	tok, revoked := c.p.customer("Kay", 1e9), c.p.customer("Rey", 1e9)
	stopped := full(c.grace+time.Second, 30*time.Second)
	for _, cut := range []bool{true, false} {
		if !cut {
			revoked = c.p.token(revoked.Customer)
		}
		c.warm(tok, revoked)
		good, bad := c.queue(tok), c.queue(revoked) // before the grace begins
		if cut {
			c.link.sever()
		}
		if err := c.s.Proxies[0].Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := c.p.RevokeToken(t.Context(), "test", revoked.ID); err != nil {
			t.Fatal(err)
		}
		for _, q := range []*queued{good, bad} {
			if err := q.send(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Until(began.Add(stopped)))
		if err := c.s.Proxies[0].Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		for _, q := range []*queued{good, bad} {
			status, retryAfter, err := q.answer()
			t.Logf("stopped for %v, cut off: %v: the first request of a token that is good: %v, revoked: %v: status %d, Retry-After %q", stopped, cut, q == good, q == bad, status, retryAfter)
			switch {
			case err != nil:
				t.Error(err)
			case status == http.StatusServiceUnavailable && retryAfter != "":
			case !cut && q == bad && status == http.StatusUnauthorized:
			case !cut && q == good && status == http.StatusOK: // it has heard from Redis by now
			default:
				t.Errorf("status %d", status)
			}
		}
		if cut {
			for range 20 {
				if a := c.ask(c.s.Proxies[0], tok); a.status != http.StatusServiceUnavailable {
					t.Errorf("cut off, and stopped for longer than the grace: status %d %s", a.status, a.code)
				}
			}
		}
		c.link.heal()
		c.back(tok, revoked)
	}
}

// queued is a request on an open connection to the first replica.
type queued struct {
	conn    net.Conn
	request string
}

func (c *cutOff) queue(tok stack.Token) *queued {
	c.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.s.Proxies[0].URL, "http://"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	body := chatBody(0, 10, false, kimisim.Behavior{OutputTokens: 5})
	q := &queued{conn, fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", tok.Raw, len(body), body)}
	if err := q.send(); err != nil {
		c.t.Fatal(err)
	}
	if status, _, err := q.answer(); status != http.StatusOK || err != nil {
		c.t.Fatalf("status %d, %v", status, err)
	}
	return q
}

func (q *queued) send() error {
	_, err := q.conn.Write([]byte(q.request))
	return err
}

func (q *queued) answer() (status int, retryAfter string, err error) {
	_ = q.conn.SetReadDeadline(time.Now().Add(20 * time.Second)) // a failure shows in the read
	resp, err := http.ReadResponse(bufio.NewReader(q.conn), nil)
	if err != nil {
		return 0, "", fmt.Errorf("read answer: %w", err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Retry-After"), nil
}
