package callers_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/callers"
)

// Only what a proxy of ours says of addresses is believed.
func TestAddress(t *testing.T) {
	t.Parallel()
	ours := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct{ peer, forwarded, want string }{
		{"192.0.2.1:5", "", "192.0.2.1"}, {"192.0.2.1:5", "198.51.100.1", "192.0.2.1"}, {"10.0.0.1:5", "198.51.100.1", "198.51.100.1"},
		{"10.0.0.1:5", "203.0.113.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"}, {"10.0.0.1:5", "x", "10.0.0.1"}, {"[::ffff:10.0.0.1]:5", "2001:db8::1", "2001:db8::1"},
		{"[fe80::1%eth0]:5", "", "fe80::1"}, {"10.0.0.1:5", "::ffff:192.0.2.1", "192.0.2.1"}, {"nowhere", "", "invalid IP"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.peer
		r.Header.Set(callers.Forwarded, c.forwarded)
		if got := callers.Address(r, ours).String(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
		if got := callers.Address(r, nil); got != callers.Peer(r) {
			t.Errorf("%+v, and no proxies are trusted: %s", c, got)
		}
	}
	// A proxy may add a header of its own.
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.0.0.1:5"
	r.Header.Add(callers.Forwarded, "203.0.113.9")
	r.Header.Add(callers.Forwarded, "198.51.100.1")
	if got := callers.Address(r, ours).String(); got != "198.51.100.1" {
		t.Errorf("of two headers: %s", got)
	}
}

func TestSubnet(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3::4": "2001:db8:1:2::", "2001:db8:1:2::": "2001:db8:1:2::", "2001:db8:1:3::": "2001:db8:1:3::",
	} {
		if got := callers.Subnet(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	if got := callers.Subnet(netip.Addr{}); got != "invalid IP" {
		t.Errorf("of none: %s", got)
	}
}

func TestLimiterIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := callers.NewLimiter(callers.Rate{PerSecond: 1, Burst: 2}, 100)
	for i := range 10_000 {
		l.Take(fmt.Sprint(i), now)
		if i%7 == 0 { // who comes all the time is not forgotten
			l.Take("busy", now)
		}
	}
	if n := l.Len(); n > 101 {
		t.Errorf("%d keys", n)
	}
	if wait, ok := l.Take("busy", now); ok || wait <= 0 || wait > time.Second {
		t.Errorf("busy: %v, %v", wait, ok)
	}
	if _, ok := l.Take("busy", now.Add(1100*time.Millisecond)); !ok {
		t.Error("busy may not come again")
	}
	l.Forget("busy")
	if _, ok := l.Take("busy", now); !ok {
		t.Error("busy was not forgotten")
	}
	none := callers.NewLimiter(callers.Rate{PerSecond: 1}, 100)
	if wait, ok := none.Take("x", now); ok || wait <= 0 {
		t.Errorf("without a burst: %v, %v", wait, ok)
	}
}
