package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// Redis loses all its data: within seconds every token works again on every replica,
// the revoked one does not, and what was used still counts.
func TestRedisLosesItsData(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Replicas: 2})
	tok, revoked := s.Customer("Flo", "starter"), s.Customer("Rey", "starter")
	s.Ctl(nil, "token", "revoke", revoked.ID)
	type state struct {
		Totals struct {
			Settled int64 `json:"settled_tokens"`
		}
		Redis struct {
			Settled int64 `json:"settled_tokens"`
		}
	}
	usage := func() (u state) {
		s.Ctl(&u, "quota", "show", "--customer", tok.Customer)
		return u
	}
	use := func() {
		t.Helper()
		for range 3 {
			for _, p := range s.Proxies {
				if got := ask(p, tok.Raw); got != http.StatusOK {
					t.Fatalf("status %d", got)
				}
			}
		}
	}
	use()
	var before state
	s.Eventually("the ledger has it", 10*time.Second, func() bool {
		before = usage()
		return before.Totals.Settled > 0 && before.Totals.Settled == before.Redis.Settled
	})

	s.Redis.FlushAll()
	lost := time.Now()
	for _, p := range s.Proxies {
		// Until a replica has noticed, it serves from what it knows.
		s.Eventually("the loss and its repair were noticed", 10*time.Second, func() bool {
			return time.Since(lost) > 3*time.Second && ask(p, tok.Raw) == http.StatusOK
		})
		if got := ask(p, revoked.Raw); got != http.StatusUnauthorized {
			t.Errorf("the revoked token: status %d", got)
		}
	}
	use()
	s.Eventually("what was used counts, in both", 15*time.Second, func() bool {
		after := usage()
		return after.Redis.Settled == after.Totals.Settled && after.Redis.Settled >= 2*before.Redis.Settled
	})
}
