package e2e_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// A revoked token is refused on all of three replicas within a second of openclawctl's
// return, and other tokens are not touched.
func TestRevokeOnThreeReplicas(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Replicas: 3})
	for range 5 {
		tok, other := s.Customer("Rey", "starter"), s.Customer("Olga", "starter")
		for _, p := range s.Proxies {
			if got := ask(p, tok.Raw); got != http.StatusOK {
				t.Fatalf("before the revocation: status %d", got)
			}
		}
		s.Ctl(nil, "token", "revoke", tok.ID)
		revoked := time.Now()
		var wg sync.WaitGroup
		for _, p := range s.Proxies {
			wg.Go(func() {
				for ask(p, tok.Raw) != http.StatusUnauthorized {
					if time.Since(revoked) > time.Second {
						t.Errorf("%s still serves a revoked token after a second", p.URL)
						return
					}
					time.Sleep(time.Millisecond)
				}
				t.Logf("refused %v after openclawctl returned", time.Since(revoked).Round(time.Microsecond))
			})
		}
		wg.Wait()
		if got := ask(s.Proxies[0], other.Raw); got != http.StatusOK {
			t.Errorf("another customer's token: status %d", got)
		}
	}
}

// A limit takes effect on every replica, down and up, without a restart.
func TestLimitChangesLive(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Replicas: 3})
	tok := s.Customer("Lim", "starter")
	check := func(limit string, want int) {
		t.Helper()
		s.Ctl(nil, "quota", "set", "--customer", tok.Customer, "--limit", limit)
		set := time.Now()
		for _, p := range s.Proxies {
			for {
				got := ask(p, tok.Raw)
				if got == want {
					break
				}
				if time.Since(set) > time.Second {
					t.Errorf("limit %s: status %d, want %d", limit, got, want)
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	check("100000", http.StatusOK)
	check("10", http.StatusTooManyRequests)
	check("1000000", http.StatusOK)
}
