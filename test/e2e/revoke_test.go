package e2e_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// A revoked token is refused on all of three replicas within a second of openclawctl's
// return, and other tokens are not touched.
func TestRevokeOnThreeReplicas(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Replicas: 3})
	for range full(2, 5) {
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
					if time.Since(revoked) > aSecond() {
						t.Errorf("%s still serves a revoked token after %v", p.URL, aSecond())
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
				if time.Since(set) > aSecond() {
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

// A suspended customer is refused on every replica, its streams in flight end with the
// reason and are billed for what they got; resumed, it is served again.
func TestSuspendAndResume(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Replicas: 2, Sim: kimisim.Config{Defaults: kimisim.Behavior{OutputTokens: 10_000, TokensPerSecond: 20}}})
	tok := s.Customer("Sus", "starter")
	texts := make(chan string, 2)
	for _, p := range s.Proxies {
		go func() {
			body := `{"model":"kimi-k2.5","stream":true,"max_tokens":10000,"messages":[{"role":"user","content":"hi"}]}`
			req, err := http.NewRequest("POST", p.URL+"/v1/chat/completions", strings.NewReader(body))
			if err != nil {
				texts <- err.Error()
				return
			}
			req.Header.Set("Authorization", "Bearer "+tok.Raw)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				texts <- err.Error()
				return
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			texts <- string(text)
		}()
	}
	s.Eventually("both streams run", 30*time.Second, func() bool { return s.Sim.InFlight() == 2 })
	s.Ctl(nil, "customer", "suspend", tok.Customer)
	suspended := time.Now()
	for range s.Proxies {
		if text := <-texts; !strings.Contains(text, "permission_error") {
			t.Errorf("a stream ended with %q", text)
		}
	}
	t.Logf("cut %v after openclawctl returned", time.Since(suspended).Round(time.Microsecond))
	for _, p := range s.Proxies {
		if got := ask(p, tok.Raw); got != http.StatusForbidden {
			t.Errorf("suspended: status %d", got)
		}
	}
	s.Eventually("both streams are billed", 30*time.Second, func() bool {
		var u struct{ Events []contract.Event }
		s.Ctl(&u, "usage", "--customer", tok.Customer, "--events", "10")
		for _, e := range u.Events {
			if e.Outcome != contract.OutcomeRevoked || e.Settled == 0 {
				t.Fatalf("event %+v", e)
			}
		}
		return len(u.Events) == 2
	})
	s.Ctl(nil, "customer", "resume", tok.Customer)
	for _, p := range s.Proxies {
		s.Eventually("served again", 10*time.Second, func() bool { return ask(p, tok.Raw) == http.StatusOK })
	}
}
