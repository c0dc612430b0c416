package proxy_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// Behind proxies whose networks are configured, failed authentications are counted per
// client and not per proxy; what a client itself writes into X-Forwarded-For is not
// believed, and from elsewhere nothing is.
func TestAddressesBehindProxies(t *testing.T) {
	t.Parallel()
	const limit = 3
	w := newWorld(t)
	few := func(c *proxy.Config) { c.Limits.AuthFailures = limit }
	behind := w.replica(few, func(c *proxy.Config) {
		c.TrustedProxies = []string{"127.0.0.0/8", "10.42.0.0/16"}
		c.Limits.PerAddress = 2 // proxies speak for many clients
	})
	tok, _ := w.token(nil)
	awayFromTheMinute()
	guess := func(r *replica, forwarded ...string) int {
		a := faces[0].attempt("nonsense")
		a.header["X-Forwarded-For"] = forwarded
		return r.send(a).status
	}
	for i := range limit {
		for _, f := range [][]string{
			{"203.0.113.7"}, {"198.51.100.1, 203.0.113.8"}, {"203.0.113.9:4711, 10.42.1.2"}, {"198.51.100.2", "203.0.113.10"}, {"[2001:db8:1:2::5]:80"},
		} {
			if got := guess(behind, f...); got != http.StatusUnauthorized {
				t.Fatalf("%q, failure %d: %d", f, i+1, got)
			}
		}
	}
	for _, c := range []struct {
		forwarded []string
		want      int
	}{
		{[]string{"203.0.113.7"}, 429},
		{[]string{"203.0.113.7, 10.42.9.9, 127.0.0.5"}, 429},
		{[]string{"192.0.2.1, 203.0.113.7"}, 429},   // what stands on the left is the client's own
		{[]string{"192.0.2.1", "203.0.113.7"}, 429}, // also in a line of its own
		{[]string{"203.0.113.8"}, 429},
		{[]string{"203.0.113.9"}, 429},
		{[]string{"203.0.113.10"}, 429},
		{[]string{"::ffff:203.0.113.7"}, 429},      // the same address
		{[]string{"2001:db8:1:2:ffff::1"}, 429},    // one customer's network
		{[]string{"2001:db8:1:3::5"}, 401},         // another one
		{[]string{"203.0.113.11"}, 401},            // another address
		{[]string{"203.0.113.7, 192.0.2.77"}, 401}, // the nearest that is not a proxy counts
	} {
		if got := guess(behind, c.forwarded...); got != c.want {
			t.Errorf("%q: %d, want %d", c.forwarded, got, c.want)
		}
	}
	// The address in the log is the client's.
	a := faces[0].attempt(tok)
	a.header.Set("X-Forwarded-For", "203.0.113.200")
	if got := behind.send(a); got.status != http.StatusOK || !strings.Contains(w.logs.String(), `"remote":"203.0.113.200"`) {
		t.Errorf("status %d, or the log does not name the client", got.status)
	}
	// One proxy may have more connections than one client.
	for range 4 {
		if resp, err := post(dial(t, behind), faces[0], tok); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", resp, err)
		}
	}

	open := w.replica(few)
	for i := range limit {
		if got := guess(open, "203.0.113."+string(rune('1'+i))); got != http.StatusUnauthorized {
			t.Fatalf("failure %d: %d", i+1, got)
		}
	}
	if got := guess(open, "203.0.113.99"); got != http.StatusTooManyRequests {
		t.Errorf("a header that nobody vouches for is believed: %d", got)
	}
}

// Only the configured hosts are served, with any port.
func TestHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) { c.Hosts = []string{"Proxy.Test", "10.0.0.7", "fd00::7"} })
	tok, _ := w.token(nil)
	for host, want := range map[string]int{
		"proxy.test": 200, "PROXY.test:8080": 200, "10.0.0.7": 200, "10.0.0.7:80": 200, "[fd00::7]": 200, "[fd00::7]:80": 200,
		"other.test": 400, "proxy.test.other.test": 400, "xproxy.test": 400, "127.0.0.1": 400, "proxy.test.": 400, "[::1]:80": 400,
	} {
		req, err := http.NewRequestWithContext(context.Background(), "GET", r.url+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("X-Api-Key", tok)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("Host %s: %d, want %d", host, resp.StatusCode, want)
		}
	}
}

// All connections to the upstream are in use: the client is told to come back, and pays
// nothing.
func TestUpstreamConnectionsUsedUp(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		w := newWorld(t)
		r := w.replica(patientUpstream, func(c *proxy.Config) {
			for i := range c.Upstreams {
				c.Upstreams[i].MaxConns = 1
			}
		})
		tok, g := w.token(nil)
		end := r.occupy(f, tok, 64)
		held := r.usage(g).Held
		refusal{status: 503, typ: "upstream_unavailable", retry: "1"}.check(t, f, r.post(f, tok, chat(false, "hello")))
		eventually(t, "what was held for it is free", func() bool { return r.usage(g).Held == held })
		if n := len(w.chats()); n != 1 {
			t.Errorf("%d requests forwarded", n)
		}
		end()
		eventually(t, "the connection is free", func() bool { return r.post(f, tok, chat(false, sim(kimisim.Behavior{}))).status == http.StatusOK })
	}
}
