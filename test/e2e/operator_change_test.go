package e2e_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// What an operator changes by the running api is in force on every proxy within a second of
// the api's answer, whether it lets a customer in or shuts it out, and stays so.
func TestOperatorsChangeIsInForceWithinASecond(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Replicas: 2})
	p := newPlatform(t, s, usual) // the usual tiers, as the api has them
	api := newControlAPI(t, s)
	api.addOperator()
	tok := p.customer("Ada", 1_000_000)
	for _, proxy := range s.Proxies { // which know the token from now on
		s.Eventually("the grant is live", 5*time.Second, func() bool { return ask(proxy, tok.Raw) == http.StatusOK })
	}
	customer := "/v1/customers/" + tok.Customer
	quota := func(tokens int64) map[string]any {
		return map[string]any{"action": "set", "tokens": tokens, "reason": "test"}
	}
	why := map[string]any{"reason": "test"}
	var after latencies
	change := func(path string, body any, want int) {
		t.Helper()
		status, answer, err := api.post(api.operators, path, "", body)
		answered := time.Now()
		if err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", path, status, answer, err)
		}
		took := make(latencies, len(s.Proxies))
		var all sync.WaitGroup
		for i, proxy := range s.Proxies {
			all.Go(func() {
				// A request that is let in may take one of ten in a second: the answer that a
				// change leads to never waits for that.
				for got := ask(proxy, tok.Raw); got != want; got = ask(proxy, tok.Raw) {
					if time.Since(answered) > aSecond() {
						t.Errorf("%s: proxy %d answers %d a second after the api, want %d", path, i, got, want)
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
				took[i] = time.Since(answered)
				time.Sleep(250 * time.Millisecond) // the next reading of the feed
				if got := ask(proxy, tok.Raw); got != want {
					t.Errorf("%s: proxy %d answers %d in the end, want %d", path, i, got, want)
				}
			})
		}
		all.Wait()
		after = append(after, took...)
	}
	for range full(2, 50) {
		change(customer+"/suspend", why, http.StatusForbidden)
		change(customer+"/resume", why, http.StatusOK)
		change(customer+"/quota", quota(0), http.StatusTooManyRequests)
		change(customer+"/quota", quota(1_000_000), http.StatusOK)
	}
	t.Logf("in force on a proxy after the api's answer: %v", after)
}
