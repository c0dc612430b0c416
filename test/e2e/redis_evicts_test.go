package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// Somebody lets a running Redis evict keys. Nobody gets in who must not; readiness and metrics
// say what is wrong; and once it is set right, everybody is served again without an operator,
// whether a proxy knew their token or not, and what was used counts.
func TestRedisEvictsWhileRunning(t *testing.T) {
	for name, policy := range map[string]string{
		"whatever it has": "allkeys-random",
		// Only what has an end, which the test gives to some grants: nothing else shows that
		// they are missing.
		"some grants": "volatile-random",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			evictsWhileRunning(t, policy)
		})
	}
}

func evictsWhileRunning(t *testing.T, policy string) {
	r := testenv.Redis(t)
	s := stack.New(t, stack.Options{Redis: r, Proxy: func(c map[string]any) { c["limits"] = map[string]any{"auth_failures": 1_000_000} }})
	p := newPlatform(t, s, usual)
	proxy := s.Proxies[0]

	want := make(map[string]int) // by token
	var served, ids []string     // tokens
	for i := range 20 {
		tok := p.customerOf("starter", fmt.Sprint("customer ", i), 1_000_000)
		served = append(served, tok.Raw)
		want[tok.Raw] = http.StatusOK
		ids = append(ids, tok.ID)
		if i%2 == 0 {
			s.Eventually("a customer is served", 5*time.Second, func() bool { return ask(proxy, tok.Raw) == http.StatusOK })
		}
	}
	shutOut := func(name string, status int, do func(stack.Token)) string {
		t.Helper()
		tok := p.customerOf("starter", name, 1_000_000)
		if got := ask(proxy, tok.Raw); got != http.StatusOK {
			t.Fatalf("%s: %d at first", name, got)
		}
		do(tok)
		s.Eventually(name+" is shut out", 5*time.Second, func() bool { return ask(proxy, tok.Raw) == status })
		want[tok.Raw] = status
		return tok.Raw
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	closed := []string{
		shutOut("revoked", http.StatusUnauthorized, func(tok stack.Token) { _, err := p.RevokeToken(t.Context(), "test", tok.ID); must(err) }),
		shutOut("suspended", http.StatusForbidden, func(tok stack.Token) {
			_, err := p.SuspendCustomer(t.Context(), "test", tok.Customer, "test")
			must(err)
		}),
		shutOut("spent", http.StatusTooManyRequests, func(tok stack.Token) { p.limit(tok.Customer, 1) }),
	}
	settledDown(t, s)

	rdb := r.Client()
	var evicted []string // keys
	if policy == "volatile-random" {
		for _, id := range ids {
			tok, err := p.Store.Token(t.Context(), id)
			must(err)
			evicted = append(evicted, contract.GrantKey(tok.Digest))
			must(rdb.Expire(t.Context(), contract.GrantKey(tok.Digest), 24*time.Hour).Err())
		}
	}
	config := func(name, value string) { t.Helper(); must(rdb.ConfigSet(t.Context(), name, value).Err()) }
	config("maxmemory-policy", policy)
	config("maxmemory", "1mb") // less than it needs without any key
	evicting := time.Now()
	if policy == "volatile-random" {
		s.Eventually("the grants are evicted", 10*time.Second, func() bool {
			return rdb.Exists(t.Context(), evicted...).Val() == 0
		})
		config("maxmemory", "0") // so that writing goes on
	}
	seen := make(map[int]int)
	round := func() {
		t.Helper()
		time.Sleep(200 * time.Millisecond) // of ten requests in a second
		for _, token := range closed {
			if got := ask(proxy, token); got == http.StatusOK {
				t.Errorf("%v after Redis began to evict, a request passes that was answered %d", time.Since(evicting), want[token])
			}
		}
		for _, token := range served {
			seen[ask(proxy, token)]++
		}
	}
	get := func(url string) string {
		t.Helper()
		res, err := http.Get(url)
		must(err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		must(err)
		return string(b)
	}
	s.Eventually("readiness and metrics say so", 20*time.Second, func() bool {
		round()
		return strings.Contains(get(s.BillingAdmin+"/readyz"), `set "maxmemory-policy noeviction"`) &&
			strings.Contains(get(s.BillingAdmin+"/metrics"), "control_redis_unsafe 1") &&
			strings.Contains(get(proxy.Admin+"/metrics"), "token_proxy_redis_unsafe 1")
	})
	for time.Since(evicting) < full(6*time.Second, 40*time.Second) {
		round()
	}
	t.Logf("while Redis evicted, those who may use it were answered %v; %d keys are left", seen, rdb.DBSize(t.Context()).Val())

	config("maxmemory-policy", "noeviction")
	config("maxmemory", "0")
	right := time.Now()
	if policy == "volatile-random" { // what a proxy knows by the feed, the next one has to look up
		must(proxy.Stop(20 * time.Second))
		s.Restart(0)
	}
	s.Eventually("all is as before", 30*time.Second, func() bool {
		for token, status := range want {
			got := ask(proxy, token)
			if got == http.StatusOK && status != http.StatusOK {
				t.Fatalf("a request passes that was answered %d", status)
			}
			if got != status {
				return false
			}
		}
		return true
	})
	t.Logf("all is as before %v after Redis was set right", time.Since(right).Round(time.Millisecond))
	s.Eventually("nothing is noted any more", 20*time.Second, func() bool {
		return !strings.Contains(get(s.BillingAdmin+"/readyz"), "noeviction") && strings.Contains(get(s.BillingAdmin+"/metrics"), "control_redis_unsafe 0") &&
			strings.Contains(get(proxy.Admin+"/metrics"), "token_proxy_redis_unsafe 0")
	})
	s.Eventually("Redis and Postgres agree", 20*time.Second, func() bool { return recordsDiffer(t, s, rdb, "settled_tokens", "settled", "") == "" })
	chats, rows := settledDown(t, s)
	compareOnce(t, s, chats, rows)
}
